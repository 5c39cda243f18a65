"""Listens to an avatar that publishes in the agent's room by itself, to know what it has said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from livekit import rtc

from ..playout.ports import AvatarListener
from .public import sound
from .video import MIN_FRAME_SIDE, is_blank
from .ways import ended

_HOPS = 5
"""50 ms at a time; it is not relayed, so latency does not matter."""


class AvatarMonitor:
    """An `AvatarMedia` that only listens: it cannot hold the avatar's media back. Pictures are
    decoded until the first one has come. Decoding them for the whole call, only to notice that they
    stall, would cost as much as a relay.

    Args:
        on_first_frame: called once, when the first picture has come.
        on_active: called with True by `activate()`, with False by `deactivate()`.
    """

    def __init__(
        self,
        *,
        audio: rtc.RemoteAudioTrack,
        video: rtc.RemoteVideoTrack,
        listener: AvatarListener,
        on_first_frame: Callable[[], None],
        on_active: Callable[[bool], None],
    ) -> None:
        self._audio = audio
        self._video = video
        self._listener = listener
        self._on_first_frame = on_first_frame
        self._on_active = on_active
        self._active = False

    def activate(self) -> None:
        """Count what it says from now on."""
        self._active = True
        self._on_active(True)

    def deactivate(self) -> None:
        """Count what it says no more. Only its leaving makes it invisible and silent."""
        self._active = False
        self._on_active(False)

    async def wait_until_shown(self) -> None:
        """Nobody here sees its pictures."""

    @property
    def last_frame(self) -> None:
        """Nobody here sees its pictures."""

    async def run(self) -> None:
        """Listen until cancelled, or until the voice ends."""
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look(), name="runway_look_for_face")
            listening = group.create_task(self._listen(), name="runway_listen")
            await asyncio.wait([listening])
            looking.cancel()

    async def _listen(self) -> None:
        async with aclosing(sound(self._audio, _HOPS)) as pieces:
            async for pcm in pieces:
                if self._active:
                    self._listener.relayed(pcm)

    async def _look(self) -> None:
        stream = rtc.VideoStream(self._video, capacity=1)
        try:
            async for event in stream:
                frame = event.frame
                if min(frame.width, frame.height) >= MIN_FRAME_SIDE and not is_blank(frame):
                    break
            else:
                return
        finally:
            await ended(stream.aclose())
        self._on_first_frame()
