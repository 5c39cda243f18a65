"""Times of the stages of one avatar's start."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ..events import CallEvents, Stage
from ..log import logger


@dataclass
class StageTimings:
    """Seconds from `AvatarSession.start()` to the end of each stage; None until it was reached."""

    created: float | None = None
    """Runway has made the session."""
    ready: float | None = None
    consumed: float | None = None
    connected: float | None = None
    """This process is in the Runway room."""
    worker_joined: float | None = None
    first_frame: float | None = None
    """The first picture was handed to the user's track."""
    live: float | None = None
    """The avatar can speak: it has video, and the delivery of speech is open."""
    first_speech: float | None = None
    """The avatar was heard for the first time."""

    def of(self, stage: Stage) -> float | None:
        seconds: float | None = vars(self)[stage]
        return seconds

    def note(self, stage: Stage, seconds: float) -> bool:
        """Record the time of a stage. False if it was reached before."""
        if self.of(stage) is not None:
            return False
        vars(self)[stage] = seconds
        return True


class StageClock:
    """Times the stages from the creation of this object, and emits each one once."""

    def __init__(self, timings: StageTimings, events: CallEvents) -> None:
        self._timings = timings
        self._events = events
        self._began = asyncio.get_running_loop().time()

    def reach(self, stage: Stage) -> None:
        elapsed = asyncio.get_running_loop().time() - self._began
        logger.debug("avatar stage reached", extra={"stage": stage, "seconds": round(elapsed, 3)})
        if self._timings.note(stage, elapsed):
            self._events.stage_reached(stage)
