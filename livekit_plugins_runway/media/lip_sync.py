"""How long a relayed picture must wait for its voice.

A relay receives and sends both. The jitter buffer keeps the voice longer than the picture (30-50 ms
against 13-22 ms, measured on loopback), and so does encoding again. If pictures were relayed at
once, they would be 20 to 50 ms ahead of the voice, compared with the Runway room.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from .._common.tasks import cancel_and_wait
from ..log import logger

ONWARD = 0.013
"""Seconds by which the path from here to the user delays the voice more than the picture. 8 ms for
encoding it again: 11.5 for sound (a packet has two times 10 ms, and Opus looks 6.5 ms ahead), 3 to
5 for a picture. 5 ms for the user's receiver, whose jitter buffer is longer for a voice that was
relayed; the voice was late by so much without them (mean of 60 calls in docs/bench.md's runs).
"""
MAX_HOLD = 0.08
"""Seconds. A larger difference does not come from the relay, and a receiver corrects more than 30
ms itself.
"""
_USUAL_LEAD = 0.02
_EVERY = 1.0
_STEP = 0.01
_LAST_ANSWER = 0.2


class _Track(Protocol):
    async def get_stats(self) -> list[Any]: ...


class LipSync:
    """Reads from both tracks' statistics how much earlier pictures leave their jitter buffer than
    the voice, and says when to relay each picture. Times in seconds.
    """

    def __init__(self, audio: _Track, video: _Track) -> None:
        self._tracks = (audio, video)
        self._emitted = [(0.0, 0), (0.0, 0)]
        self._last = float("-inf")
        self.lead = _USUAL_LEAD
        """How much earlier a picture comes than its voice."""

    @property
    def hold(self) -> float:
        """How long a picture waits before it is sent."""
        return self.lead + ONWARD

    def due(self, now: float) -> float:
        """When to send the picture that arrives now; never before the previous one."""
        self._last = max(self._last, now + self.hold)
        return self._last

    async def follow(self) -> None:
        """Measure once a second, until cancelled or until the tracks give no more statistics."""
        while True:
            await asyncio.sleep(_EVERY)
            reading = asyncio.create_task(self._read(), name="runway_read_stats")
            try:
                await asyncio.shield(reading)
            except asyncio.CancelledError:
                # The room is left after this, which must not happen during a request for
                # statistics. Bounded, because a lost connection may not answer.
                await asyncio.wait([reading], timeout=_LAST_ANSWER)
                await cancel_and_wait(reading)
                raise
            except Exception as error:  # noqa: BLE001  the SDK raises nothing narrower
                logger.debug("no statistics of the avatar's tracks", extra={"error": str(error)})
                return

    async def _read(self) -> None:
        voice, picture = [await self._buffered(n) for n in range(2)]
        if voice is not None and picture is not None:
            # In small steps: a jump in the picture is worse than lips that are 10 ms off.
            step = min(max(voice - picture - self.lead, -_STEP), _STEP)
            self.lead = min(max(self.lead + step, 0.0), MAX_HOLD - ONWARD)

    async def _buffered(self, number: int) -> float | None:
        """Mean seconds in the jitter buffer, of what left it since the last call."""
        for stats in await self._tracks[number].get_stats():
            if not stats.HasField("inbound_rtp"):
                continue
            inbound = stats.inbound_rtp.inbound
            total: float = inbound.jitter_buffer_delay
            count: int = inbound.jitter_buffer_emitted_count
            former_total, former_count = self._emitted[number]
            self._emitted[number] = (total, count)
            if count > former_count:
                return (total - former_total) / (count - former_count)
        return None
