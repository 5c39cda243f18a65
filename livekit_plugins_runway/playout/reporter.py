"""Reports each segment to the framework: its start, the stretches that were heard, its one end."""

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
    """One per sink; times are loop times in seconds.

    Args:
        report: called with reports for the sink's owner.
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
        """The first sound of it was heard. Reported once."""
        if segment.state is SegmentState.WAITING:
            segment.move_to(SegmentState.PLAYING)
            self._events.on_playback_started(created_at=at + self.wall_offset)

    def progressed(self, segment: Segment, runs: list[Run]) -> None:
        """Report the stretches that were heard."""
        if segment.state is not SegmentState.PLAYING:
            return
        for run in runs:
            self._events.on_playback_progressed(
                started_at=run.began + self.wall_offset, offset=run.offset, duration=run.duration
            )

    def finished(self, segment: Segment, *, interrupted: bool) -> None:
        """Finish a segment, once, and remove it from the queue."""
        started = segment.state is SegmentState.PLAYING
        self._queue.finish(segment, interrupted=interrupted)
        # If it never started, only silence has passed.
        unheard = interrupted and not started
        self._events.on_playback_finished(
            playback_position=0.0 if unheard else segment.heard / SAMPLE_RATE,
            interrupted=interrupted,
        )

    def forced(self, segment: Segment) -> None:
        """Its deadline has passed, or it cannot be played: report that it will be finished by
        force.
        """
        pushed, heard = segment.pushed / SAMPLE_RATE, segment.heard / SAMPLE_RATE
        logger.warning(
            "a segment was not heard to its end in time and was finished by force",
            extra={"pushed": pushed, "heard": heard},
        )
        self._queue.stats.forced += 1
        self.report(PlayoutForced(pushed, heard))
