"""Ends the sessions that killed processes have left in their journals. Those of a living process
are not touched: it holds the lock of its file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import RunwayException
from ...events import SessionEnd
from ...log import logger
from .records import (
    FORGOTTEN,
    SUFFIX,
    Contents,
    Entry,
    Held,
    NotAJournalError,
    ended_line,
    made_with,
    parse,
    take_over,
)

_MOST_FILES = 1000
"""Maximum number of files in one sweep."""
_AT_ONCE = 8
"""Files that are handled at the same time."""

Outcome = Literal["ended", "failed", "other key", "expired"]


@dataclass(frozen=True)
class Swept:
    """The outcome for one entry of a dead process.

    Attributes:
        outcome: "ended"; "failed": it stays for the next sweep; "other key": of another key or
            Runway address, and stays for a sweep with that; "expired": Runway has ended it long
            ago.
        error: why it failed.
        ended_at: Unix time in seconds, where it was ended.
    """

    entry: Entry
    outcome: Outcome
    error: RunwayException | None = None
    ended_at: float | None = None

    def session_end(self) -> SessionEnd:
        """The payload for `session_ended`. It is not known when its worker joined, so the time
        since its creation counts as billed, at most its cap: an upper bound.
        """
        ended_at = time.time() if self.ended_at is None else self.ended_at
        age = max(0.0, ended_at - self.entry.made_at)
        return SessionEnd(
            session_id=self.entry.session_id,
            status=None,
            how="swept",
            confirmed=True,
            created_at=self.entry.made_at,
            ready_at=None,
            started_at=None,
            ended_at=ended_at,
            billed_seconds=min(age, self.entry.cap),
            estimated=True,
        )


class Sweep:
    """A sweep with one key at one Runway address. Several may run at once, also in other processes:
    each file is taken by one of them, and each session ended once.

    Args:
        delete: ends a session, as `RunwayClient.delete`.
        on_swept: called for each session that was ended, here or by the guardian.
    """

    def __init__(
        self,
        api_secret: str,
        base_url: str,
        delete: Callable[[str], Awaitable[None]],
        on_swept: Callable[[Swept], None] = lambda _: None,
    ) -> None:
        self._api_secret = api_secret
        self._base_url = base_url
        self._delete = delete
        self._on_swept = on_swept

    async def run(self, folder: Path) -> list[Swept]:
        """The outcomes, in the order of files and entries. Does not raise for the content of a file
        or Runway's answers. If it is cancelled, the rest is left to the next sweep.
        """
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(path: Path) -> list[Swept]:
            async with places:
                return await self._file(path)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(path)) for path in left_in(folder)]
        return [swept for task in tasks for swept in task.result()]

    async def _file(self, path: Path) -> list[Swept]:
        try:
            held = take_over(path)
        except (OSError, NotAJournalError) as error:
            why = {"file": path.name, "reason": str(error)}
            logger.warning("a file among the journals is ignored", extra=why)
            return []
        if held is None:
            return []
        try:
            return await self._held_file(path, held)
        finally:
            held.close()

    async def _held_file(self, path: Path, held: Held) -> list[Swept]:
        contents = parse(held.read())
        if contents.damaged:
            logger.warning(
                "a journal of Runway sessions is damaged; sweeping the entries that can be read",
                extra={"file": path.name, "lines": contents.damaged},
            )
        told = [Swept(entry, "ended", ended_at=at) for entry, at in contents.untold]
        told = [swept for swept in told if self._is_ours(swept.entry)]
        for swept in told:
            self._tell(swept)
        async with asyncio.TaskGroup() as group:
            ends = [group.create_task(self._end(e, held)) for e in contents.alive.values()]
        found = [end.result() for end in ends]
        if self._is_done_with(found, contents, path):
            held.remove(path)
        return told + found

    def _is_done_with(self, found: list[Swept], contents: Contents, path: Path) -> bool:
        """True if no entry in the file is needed any more."""
        if any(swept.outcome in ("failed", "other key") for swept in found):
            return False
        if all(self._is_ours(entry) for entry, _ in contents.untold) and not contents.unknown:
            return True
        try:
            return time.time() - path.stat().st_mtime > FORGOTTEN
        except OSError:
            return False

    async def _end(self, entry: Entry, held: Held) -> Swept:
        if entry.is_over(time.time()):
            return Swept(entry, "expired")
        if not self._is_ours(entry):
            return Swept(entry, "other key")
        try:
            await self._delete(entry.session_id)
        except RunwayException as error:
            logger.warning(
                "a Runway session that a killed process has left could not be ended; the next "
                "start tries again",
                extra={"lk.pii.session_id": entry.session_id, "error": type(error).__name__},
            )
            return Swept(entry, "failed", error)
        swept = Swept(entry, "ended", ended_at=time.time())
        try:
            held.write(ended_line(entry.session_id, time.time(), "sweep"))
        except OSError as error:  # then the session may be ended once more, which does no harm
            logger.debug("a journal could not be written", extra={"error": type(error).__name__})
        self._tell(swept)
        return swept

    def _is_ours(self, entry: Entry) -> bool:
        return made_with(entry, self._api_secret, self._base_url)

    def _tell(self, swept: Swept) -> None:
        logger.warning(
            "a Runway session that a killed process had left was ended",
            extra={
                "lk.pii.session_id": swept.entry.session_id,
                "how": "swept",
                "age": round(time.time() - swept.entry.made_at, 1),
            },
        )
        self._on_swept(swept)


def left_in(folder: Path) -> list[Path]:
    """The journal files, including those of living processes; [] if there is no such folder."""
    try:
        return sorted(folder.glob(f"*{SUFFIX}"))[:_MOST_FILES]
    except OSError:
        return []


def look(folder: Path) -> list[Entry]:
    """The entries that a sweep would handle: those of dead processes, with any key. Changes
    nothing.
    """
    entries: list[Entry] = []
    now = time.time()
    for path in left_in(folder):
        try:
            held = take_over(path)
        except (OSError, NotAJournalError):
            continue
        if held is not None:
            alive = parse(held.read()).alive.values()
            entries += [entry for entry in alive if not entry.is_over(now)]
            held.close()
    return entries
