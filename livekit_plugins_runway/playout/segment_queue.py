"""The queue of unfinished segments: captured at one end, spoken at the other."""

from __future__ import annotations

import asyncio
from collections import deque

from .audio import SAMPLE_RATE
from .ports import PlayoutStats
from .segment import Segment, SegmentState

MAX_BUFFERED = 300.0
"""Seconds of speech that may wait to be heard before `capture_frame` makes the caller wait."""


class SegmentQueue:
    """Used by the event loop's thread only."""

    def __init__(self) -> None:
        self._waiting: deque[Segment] = deque()
        """The first one is being spoken, the others wait. `finish()` removes a segment."""
        self._open: Segment | None = None
        """The segment being captured: the last of `_waiting`, or not in it if it was finished
        meanwhile.
        """
        self.has_room = asyncio.Event()
        """Cleared while more than `MAX_BUFFERED` seconds are unheard, and it is not closed."""
        self.has_room.set()
        self.is_closed = False
        """Captured speech is dropped."""
        self.stats = PlayoutStats()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def head(self) -> Segment | None:
        """The segment that is being spoken, or is next."""
        return self._waiting[0] if self._waiting else None

    def capture(self) -> Segment:
        """The segment that is being captured; begun if there is none."""
        if self._open is None:
            self._open = Segment()
            self._waiting.append(self._open)
        return self._open

    def push(self, segment: Segment, pcm: bytes) -> bool:
        """Add speech to it; False if it was cleared or closed meanwhile."""
        if segment.cleared or self.is_closed:
            return False
        segment.push(pcm)
        self.watch_room()
        return True

    def flush(self, rest: bytes) -> None:
        """`rest` was the last of the segment that is being captured."""
        segment, self._open = self._open, None
        if segment is None:
            return
        if not segment.cleared:
            segment.push(rest)
        segment.flush()

    @property
    def is_capturing(self) -> bool:
        return self._open is not None

    def clear(self) -> None:
        """Drop the unspoken speech of all segments."""
        for segment in self._waiting:
            segment.cleared = True

    def close(self) -> None:
        self.is_closed = True
        self.has_room.set()

    def flushed(self) -> list[Segment]:
        return [segment for segment in self._waiting if segment.flushed]

    def finish(self, segment: Segment, *, interrupted: bool) -> None:
        """Finish a segment. If it is still being captured, the rest of it is dropped."""
        segment.move_to(SegmentState.FINISHED)
        self._waiting.remove(segment)
        stats = self.stats
        stats.segments += 1
        stats.interrupted += interrupted
        stats.pushed += segment.pushed
        stats.heard += segment.heard
        stats.dropped += segment.pushed - segment.heard
        segment.cleared = True
        self.watch_room()

    def watch_room(self) -> None:
        """Called when more was captured, or heard."""
        unheard = sum(segment.pushed - segment.heard for segment in self._waiting)
        if unheard > MAX_BUFFERED * SAMPLE_RATE and not self.is_closed:
            self.has_room.clear()
        else:
            self.has_room.set()
