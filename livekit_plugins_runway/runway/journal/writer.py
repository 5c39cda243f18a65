"""Writes the journal of one client: the ids of its sessions that may bill."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ...log import logger
from .records import Account, Entry, Held, create, ended_line

VARIABLE = "RUNWAY_AVATAR_JOURNAL"
"""Environment variable with the folder; "off": no journal."""
_USUAL_CAP = 300.0
"""Seconds; Runway's default."""
_WHAT_TO_DO = f"name a folder that can be written with {VARIABLE}, or say off"
_FOLDER = Path("livekit-plugins-runway", "journal")


def journal_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of the journals; None if they are off.

    `RUNWAY_AVATAR_JOURNAL`, else the user's folder for states: `XDG_STATE_HOME` or
    `~/.local/state`, `~/Library/Application Support`, `LOCALAPPDATA`.
    """
    named = environment.get(VARIABLE, "").strip()
    if named.lower() == "off":
        return None
    try:
        if named:
            return Path(named).expanduser().absolute()
        return _state_folder(environment) / _FOLDER
    except (RuntimeError, OSError):
        logger.warning(
            "no folder for the journal of Runway sessions could be found: %s", _WHAT_TO_DO
        )
        return None


def _state_folder(environment: Mapping[str, str]) -> Path:
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    named = environment.get("XDG_STATE_HOME", "")
    return Path(named) if named.startswith("/") else Path.home() / ".local" / "state"


class Journal:
    """One per client, for one key. Never raises: after one warning a call goes on without a
    journal. Used by the event loop's thread only. Writing takes some microseconds, and is done when
    the method returns, so that a created session is never without an entry.

    Args:
        folder: made if it is missing; None: nothing is written.
        on_first: called with the file once it has its first entry.
    """

    def __init__(
        self,
        api_secret: str,
        base_url: str,
        folder: Path | None,
        on_first: Callable[[Path], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        """The folder; None also if no file could be made there."""
        self.path: Path | None = None
        """The file; None before the first entry, and after `close()`."""
        self._account = Account.of(api_secret, base_url)
        self._alive: dict[str, Entry] = {}
        """The sessions in the file that were not removed."""
        self._file: Held | None = None
        """The file, locked from the first entry to `close()`."""
        self._on_first = on_first
        self._told: Held | None = None
        """The file that `on_first` was called for."""
        self._closed = False
        """A session that comes after that takes a file, and gives it back with its end."""
        self._warned = False

    def _open(self) -> Held | None:
        """Make and lock the file; None if there is no journal."""
        if self._file is not None and self._file.fd < 0:
            self._forget()  # a forked child: the sessions are the parent's
        if self._file is None and self.folder is not None:
            try:
                self.path, self._file = create(self.folder)
            except OSError as error:
                self._warn(error)
                self.folder = None
        return self._file

    def made(self, session_id: str, cap: float | None) -> None:
        """Add a session that may bill from now on, for `cap` seconds at most; None: Runway's
        default.
        """
        file = self._open()
        if file is None:
            return
        entry = self._account.entry(session_id, time.time(), _USUAL_CAP if cap is None else cap)
        try:
            file.write(entry.line())
        except OSError as error:
            self._warn(error)  # the file stays locked, for its other entries
        else:
            self._alive[session_id] = entry
            if self._told is not file and self.path is not None:
                self._told = file
                self._on_first(self.path)

    def ended(self, session_id: str) -> None:
        """Remove a session that bills no more, or that others end. No effect if it is not in the
        journal.
        """
        if self._file is None or self._file.fd < 0 or self._alive.pop(session_id, None) is None:
            return
        try:
            if self._alive:
                self._file.write(ended_line(session_id, time.time(), "owner"))
            else:
                os.ftruncate(self._file.fd, 0)
        except OSError as error:
            self._warn(error)
        if self._closed and not self._alive:
            self.close()

    def close(self) -> bool:
        """Release the file. True: it was empty, and is removed; else the next sweep ends its
        sessions.
        """
        self._closed = True
        held, path, clean = self._file, self.path, not self._alive
        if held is not None and held.fd >= 0 and path is not None:
            if clean:
                held.remove(path)
            else:
                held.close()
        self._forget()
        return clean

    def _forget(self) -> None:
        self.path = self._file = None
        self._alive.clear()

    def _warn(self, error: OSError) -> None:
        if self._warned:
            return
        self._warned = True
        logger.warning(
            "there is no journal of Runway sessions, so the sessions of a killed process go "
            "on billing: %s",
            _WHAT_TO_DO,
            extra={"error": type(error).__name__, "reason": error.strerror},
        )
