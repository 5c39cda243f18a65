"""Where the plain voice speaks while the transport may change."""

from __future__ import annotations

import asyncio

import numpy as np

from ...playout.ports import Microphone

_QUIET = 300
"""Largest sample of 10 ms between words, -41 dBFS."""
_PAUSE = 4
"""Pieces of 10 ms that make a pause. Two receivers are late by up to 0.08 s more or less than one
another: words on either side of the change would run into each other."""


class MovingMicrophone:
    """Of one transport at a time. Written to by the sink, moved by the transport.

    The two tracks are both there, and listened to, while it moves: what was written to the former
    is heard to its end, and what follows by the other one.
    """

    def __init__(self, microphone: Microphone) -> None:
        self._microphone = microphone
        self._next: Microphone | None = None
        """It waits for a pause."""
        self._moved = asyncio.Event()
        """Set while nothing waits."""
        self._quiet_for = 0
        """Pieces in a row that were silent."""

    async def move_to(self, microphone: Microphone, patience: float) -> None:
        """With the next pause in what is said, or if nothing is; after `patience` seconds in any
        case. Cancelled, it has not moved: whoever cancels closes the other one."""
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
            self._microphone.keep_alive()  # what was written last may wait to fill its packet
            self._microphone, self._next = self._next, None
        self._moved.set()

    async def push_audio(self, pcm: bytes) -> None:
        quiet = int(np.abs(np.frombuffer(pcm, np.int16).astype(np.int32)).max()) < _QUIET
        self._quiet_for = self._quiet_for + 1 if quiet else 0
        if self._quiet_for >= _PAUSE:
            self._move()
        await self._microphone.push_audio(pcm)

    def keep_alive(self) -> None:
        """Nobody writes: see `Microphone`."""
        self._move()
        self._microphone.keep_alive()

    @property
    def subscribed(self) -> bool:
        return self._microphone.subscribed

    @property
    def reachable(self) -> bool:
        return self._microphone.reachable
