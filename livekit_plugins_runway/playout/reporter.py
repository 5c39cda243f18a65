"""Tells the framework of each segment: its start, its stretches, its one end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from ..events import PlayoutForced
from ..log import logger
from .audio import SAMPLE_RATE
from .ports import PlayoutReport
from .routes.runs import Run
from .segment import Segment, SegmentState
from .segment_queue import SegmentQueue


class PlaybackEvents(Protocol):
    """The framework's `AudioOutput` (livekit-agents 1.8.9); times are Unix times in seconds."""

    def on_playback_started(self, *, created_at: float) -> None: ...

    def on_playback_progressed(
        self, *, started_at: float, offset: float, duration: float
    ) -> None: ...

    def on_playback_finished(self, *, playback_position: float, interrupted: bool) -> None: ...


class PlaybackReporter:
    """Of one sink; times are loop times in seconds.

    Args:
        report: called with what the sink's owner should know.
    """

    def __init__(
        self,
        queue: SegmentQueue,
        events: PlaybackEvents,
        report: Callable[[PlayoutReport], None],
    ) -> None:
        self._queue = queue
        self._events = events
        self.report = report
        self.wall_offset = time.time() - asyncio.get_running_loop().time()
        """Unix time less loop time, seconds."""

    def started(self, segment: Segment, at: float) -> None:
        """Something of it was heard. Told once."""
        if segment.state is SegmentState.WAITING:
            segment.move_to(SegmentState.PLAYING)
            self._events.on_playback_started(created_at=at + self.wall_offset)

    def progressed(self, segment: Segment, runs: list[Run]) -> None:
        """These stretches of it were heard."""
        if segment.state is not SegmentState.PLAYING:
            return
        for run in runs:
            self._events.on_playback_progressed(
                started_at=run.began + self.wall_offset, offset=run.offset, duration=run.duration
            )

    def finished(self, segment: Segment, *, interrupted: bool) -> None:
        """The one end of a segment, which is taken off the queue."""
        started = segment.state is SegmentState.PLAYING
        self._queue.finish(segment, interrupted=interrupted)
        # Of a segment that never started, only silence has passed.
        unheard = interrupted and not started
        self._events.on_playback_finished(
            playback_position=0.0 if unheard else segment.heard / SAMPLE_RATE,
            interrupted=interrupted,
        )

    def forced(self, segment: Segment) -> None:
        """Its deadline has passed, or it cannot be played: it is about to be finished."""
        pushed, heard = segment.pushed / SAMPLE_RATE, segment.heard / SAMPLE_RATE
        logger.warning(
            "a segment was not heard to its end in time and was finished by force",
            extra={"pushed": pushed, "heard": heard},
        )
        self._queue.stats.forced += 1
        self.report(PlayoutForced(pushed, heard))
