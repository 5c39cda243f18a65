"""What calls have found out about the workers of a Runway account, for later calls."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from ...errors import ConfigurationError
from ...events import TransportKind
from ...log import logger
from ...runway.journal.writer import journal_folder
from ..worker_protocol import DeliveryKind

_FILE = "transports.json"
_VALID_FOR = 7 * 86_400.0
"""Seconds. Then a call finds it out again, because Runway may have changed its workers."""


@dataclass(frozen=True)
class Learned:
    """With this transport and delivery an avatar was heard to say the agent's words."""

    transport: TransportKind
    delivery: DeliveryKind


class LearnedTransports:
    """Pass the same one to each `AvatarSession` of a process: `AvatarSession(learned=...)`.

    A call stores its finding as soon as an avatar was heard to say the agent's words, and deletes
    it when that transport fails. Findings expire after a week. They are separate for each key,
    Runway address and LiveKit server; these are stored as a fingerprint only.

    Args:
        path: also stored in this file, made with mode 0600, because LiveKit runs each job in a
            process of its own. None: in this object only. If the file cannot be read or written,
            that is logged, and the call goes on without it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, tuple[Learned, float]] = {}
        """By account: the finding, and its time in Unix seconds. Written by `note()` and
        `forget()`, and when they or `recall()` read the file.
        """

    @classmethod
    def on_this_machine(cls) -> LearnedTransports:
        """In a file beside the journal of sessions (`RUNWAY_AVATAR_JOURNAL`).

        Raises:
            ConfigurationError: there is no folder for it.
        """
        folder = journal_folder()
        if folder is None:
            raise ConfigurationError(
                "There is no folder for what calls learn: the journal is off. Set "
                "RUNWAY_AVATAR_JOURNAL to a folder, or pass learned=LearnedTransports()."
            )
        return cls(folder / _FILE)

    def recall(self, account: str) -> Learned | None:
        """None if nothing is known, or it has expired."""
        self._read()
        learned, noted_at = self._known.get(account, (None, 0.0))
        age = time.time() - noted_at
        return learned if 0.0 <= age < _VALID_FOR else None

    def note(self, account: str, learned: Learned) -> None:
        """Store that it works for this account."""
        self._read()
        self._known[account] = learned, time.time()
        self._write()

    def forget(self, account: str) -> None:
        """Store that it does not work, or not any more."""
        self._read()
        if self._known.pop(account, None) is not None:
            self._write()

    def _read(self) -> None:
        """Read what other processes have stored."""
        if self._path is None:
            return
        try:
            self._known = _parsed(self._path.read_text())
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._complain("read", error)

    def _write(self) -> None:
        """Replace the file as a whole, so that a concurrent reader gets the former one."""
        if self._path is None:
            return
        told = {
            account: {**asdict(learned), "noted_at": noted_at}
            for account, (learned, noted_at) in self._known.items()
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=_FILE)
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump(told, file)
                Path(name).replace(self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            self._complain("written", error)

    def _complain(self, what: str, error: Exception) -> None:
        logger.warning(
            "the findings of calls could not be %s: each call finds out for itself",
            what,
            extra={"path": str(self._path), "error": type(error).__name__},
        )


def _parsed(text: str) -> dict[str, tuple[Learned, float]]:
    found: dict[str, tuple[Learned, float]] = {}
    for account, told in json.loads(text).items():
        transport, delivery = told["transport"], told["delivery"]
        if transport in get_args(TransportKind) and delivery in get_args(DeliveryKind):
            found[account] = Learned(transport, delivery), float(told["noted_at"])
    return found


class AccountMemory:
    """`LearnedTransports` of one account: what one call reads and writes.

    Args:
        learned: None: nothing is kept.
        secrets: what identifies the account: key, Runway's address, LiveKit's address.
    """

    def __init__(self, learned: LearnedTransports | None, *secrets: str) -> None:
        self._learned = learned
        self._account = hashlib.sha256("\n".join(secrets).encode()).hexdigest()[:16]

    def recall(self) -> Learned | None:
        return None if self._learned is None else self._learned.recall(self._account)

    def note(self, learned: Learned) -> None:
        """Writes only what is new."""
        if self._learned is not None and self.recall() != learned:
            self._learned.note(self._account, learned)

    def forget(self) -> None:
        if self._learned is not None:
            self._learned.forget(self._account)
