"""From a barge-in until nothing of the old words can come back from the avatar any more."""

from __future__ import annotations

import asyncio

from .ports import SpeechDelivery

SILENCE_TIMEOUT = 2.5
"""Seconds after a barge-in for the avatar to fall silent; then the voice speaks instead."""
_QUIET = 0.06
_STALE_QUIET = 0.5
# What a worker had already sent when it confirmed is still in the jitter buffers for this long.
_IN_FLIGHT = 0.15
# A relay that brings nothing for so long is silent, too.
_NO_FRAMES = 0.1


class Interruption:
    """Times are those of the event loop, in seconds."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._told = False
        self._confirmed_at: float | None = None
        self._heard_at = since
        self._quiet_since: float | None = None

    async def notify(self, delivery: SpeechDelivery) -> None:
        """Tell the worker to drop what it has; what it answers shortens the wait."""
        if await delivery.clear():
            self._confirmed_at = asyncio.get_running_loop().time()
        self._told = True

    def hear(self, audible: bool, now: float) -> None:
        """Account for 10 ms that came back from the avatar."""
        self._heard_at = now
        if audible:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now

    def late(self, now: float) -> bool:
        """Whether the next words should not wait for the avatar any longer."""
        return now - self._since > SILENCE_TIMEOUT

    def over(self, now: float, latency: float) -> bool:
        """Whether all of the old words have come out or were dropped.

        Args:
            latency: seconds from sending speech to hearing it. Without a confirmation, what was
                sent last comes out that much later.
        """
        if not self._told:
            return False
        end = self._since + latency if self._confirmed_at is None else self._confirmed_at
        needed = _STALE_QUIET if self.late(now) else _QUIET
        quiet = now - self._heard_at > _NO_FRAMES or (
            self._quiet_since is not None and now - self._quiet_since >= needed
        )
        return now >= end + _IN_FLIGHT and quiet
