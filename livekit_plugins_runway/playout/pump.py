"""Runs the player's steps, and keeps running them whatever one of them raises."""

from __future__ import annotations

import asyncio
import contextlib

from .._common.tasks import cancel_and_wait
from ..log import logger
from .audio import HOP_SECONDS
from .player import SegmentPlayer
from .ports import Microphone
from .routes.current import CurrentRoute
from .seat import AvatarSeat
from .segment import Segment
from .segment_queue import SegmentQueue

_MAX_CATCH_UP = 0.1
_KEEP_ALIVE = 0.5
"""Seconds between calls of `keep_alive()` for an idle microphone without an avatar."""


class Pump:
    """Runs from its creation until `aclose()`."""

    def __init__(
        self,
        player: SegmentPlayer,
        current: CurrentRoute,
        queue: SegmentQueue,
        seat: AvatarSeat,
        microphone: Microphone,
    ) -> None:
        self._player = player
        self._current = current
        self._queue = queue
        self._seat = seat
        self._microphone = microphone
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        """Set by `wake()`, cleared by the task."""
        self._failed: Segment | None = None
        """The last segment in which a step has failed."""
        self._task = asyncio.create_task(self._run(), name="runway_audio_output")

    def wake(self) -> None:
        """Wake the pump: there may be something to do."""
        self._wake.set()

    async def aclose(self) -> None:
        """Idempotent."""
        await cancel_and_wait(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self._go_on()
            except Exception:  # noqa: BLE001  whatever the error is, the agent must not fall silent
                logger.exception("the agent's speech has failed; the voice goes on")
                self._recover()

    def _recover(self) -> None:
        """Go on by voice with the segment; after a second failure give the segment up."""
        segment = self._queue.head
        self._current.recover()
        if segment is not None and segment is self._failed:
            self._current.finish_by_force(segment)
        self._failed = segment

    async def _go_on(self) -> None:
        due = self._loop.time()
        while True:
            if not self._is_busy:
                await self._rest()
                due = self._loop.time()
            voice = self._player.tick(self._loop.time())
            if voice is not None:
                await self._microphone.push_audio(voice)
            elif self._seat.avatar is None:
                self._microphone.keep_alive()
            hops = 4 if self._player.may_rest_a_while else 1
            due = max(due + hops * HOP_SECONDS, self._loop.time() - _MAX_CATCH_UP)
            await asyncio.sleep(due - self._loop.time())

    @property
    def _is_busy(self) -> bool:
        seat = self._seat
        return bool(self._queue) or seat.hand_over is not None or seat.settling is not None

    async def _rest(self) -> None:
        """Wait until there may be something to do."""
        self._wake.clear()
        alone = self._seat.avatar is None
        if alone:
            self._microphone.keep_alive()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KEEP_ALIVE if alone else None):
                await self._wake.wait()
