"""The stretches of a segment that were heard without a pause; recordings need them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..audio import SAMPLE_RATE

HOLE = 0.25
"""A stretch ends after so many seconds without progress, because the source has run dry or the
avatar waits. More than the uncertainty of the alignment, less than a listener of a recording would
notice.
"""


@dataclass(frozen=True)
class Run:
    """Loop time in seconds at which it began; offset and duration in seconds of the segment."""

    began: float
    offset: float
    duration: float


class Runs:
    """One per attempt. Positions are samples of the segment, times are loop times in seconds."""

    def __init__(self, start: int, now: float) -> None:
        self._start = start
        """Where the present run begins, and..."""
        self._began = now
        """...when."""
        self._position = start
        """How far it was heard, and..."""
        self._reached = now
        """...when that was."""
        self._ended: list[Run] = []

    def begin(self, at: float) -> None:
        """The first sound was heard: the run begins here."""
        self._began = self._reached = at

    def advance(self, position: int, now: float) -> None:
        """So much was heard by now. A later position may be smaller, as a correction."""
        gained = (position - self._position) / SAMPLE_RATE
        if gained == 0.0:
            return
        began = now - gained
        if gained > 0.0 and began - self._reached > HOLE:
            self._end(self._position)
            self._start, self._began = self._position, began
        self._position, self._reached = position, now

    def _end(self, position: int) -> None:
        duration = (position - self._start) / SAMPLE_RATE
        if duration > 0.0:
            self._ended.append(Run(self._began, self._start / SAMPLE_RATE, duration))

    def finish(self, position: int) -> list[Run]:
        """All of them; the last one ends at `position`."""
        self._end(position)
        self._start = position
        ended, self._ended = self._ended, []
        return ended
