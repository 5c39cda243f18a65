"""The track of the agent's own voice while the transport may change."""

from __future__ import annotations

import asyncio

import numpy as np

from ...playout.ports import Microphone

_QUIET = 300
"""Largest sample of 10 ms between words, -41 dBFS."""
_PAUSE = 4
"""Pieces of 10 ms that make a pause. The latency of two receivers differs by up to 0.08 s, so words
just before and after the change would overlap.
"""


class MovingMicrophone:
    """Writes to the track of one transport at a time. The sink writes, the transport moves it. Both
    tracks are published and subscribed to during the change: what was written to the former is
    heard to its end, the rest on the other one.
    """

    def __init__(self, microphone: Microphone) -> None:
        self._microphone = microphone
        self._next: Microphone | None = None
        """Set while it waits for a pause."""
        self._moved = asyncio.Event()
        """Set while nothing waits."""
        self._quiet_for = 0
        """Pieces in a row that were silent."""

    async def move_to(self, microphone: Microphone, patience: float) -> None:
        """Move in the next pause of the speech, or at once if nothing is said; after `patience`
        seconds in any case. If it is cancelled, it has not moved, and the caller must close the
        other one.
        """
        former, self._next = self._microphone, microphone
        self._moved.clear()
        try:
            async with asyncio.timeout(patience):
                await self._moved.wait()
        except TimeoutError:
            self._move()
        except BaseException:
            self._microphone, self._next = former, None
            raise

    def _move(self) -> None:
        if self._next is not None:
            self._microphone.keep_alive()  # the last samples may wait until their packet is full
            self._microphone, self._next = self._next, None
        self._moved.set()

    async def push_audio(self, pcm: bytes) -> None:
        quiet = int(np.abs(np.frombuffer(pcm, np.int16).astype(np.int32)).max()) < _QUIET
        self._quiet_for = self._quiet_for + 1 if quiet else 0
        if self._quiet_for >= _PAUSE:
            self._move()
        await self._microphone.push_audio(pcm)

    def keep_alive(self) -> None:
        """Nothing is written now: see `Microphone`."""
        self._move()
        self._microphone.keep_alive()

    @property
    def subscribed(self) -> bool:
        return self._microphone.subscribed

    @property
    def reachable(self) -> bool:
        return self._microphone.reachable
