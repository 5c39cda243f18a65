"""Tracks as somebody in the same room of a real server receives them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import threading
from collections.abc import AsyncIterator

import numpy as np
from livekit import rtc

from livekit_plugins_runway.testing.livekit_server import LiveKitServer

SIDE = 128
"""Of the pictures of `seen_at_the_other_end`, in pixels."""


@contextlib.asynccontextmanager
async def received(
    server: LiveKitServer, track: rtc.LocalAudioTrack | rtc.LocalVideoTrack
) -> AsyncIterator[rtc.Track]:
    """The track as it arrives; it ends with the context."""
    room = f"media-{secrets.token_hex(4)}"
    speaker, listener = rtc.Room(), rtc.Room()
    arrived: asyncio.Future[rtc.Track] = asyncio.get_running_loop().create_future()
    listener.on("track_subscribed", lambda track, *_: arrived.set_result(track))
    try:
        await listener.connect(server.url, server.token(room, "listener"))
        await speaker.connect(server.url, server.token(room, "speaker"))
        options = rtc.TrackPublishOptions(dtx=False, simulcast=False)  # silence is sent, too
        await speaker.local_participant.publish_track(track, options)
        async with asyncio.timeout(10.0):
            remote = await arrived
        yield remote
    finally:
        await speaker.disconnect()
        await listener.disconnect()


@contextlib.asynccontextmanager
async def heard_at_the_other_end(
    server: LiveKitServer, source: rtc.AudioSource
) -> AsyncIterator[rtc.RemoteAudioTrack]:
    track = rtc.LocalAudioTrack.create_audio_track("voice", source)
    async with received(server, track) as remote:
        assert isinstance(remote, rtc.RemoteAudioTrack)
        yield remote


@contextlib.asynccontextmanager
async def seen_at_the_other_end(
    server: LiveKitServer, source: rtc.VideoSource, pace: float
) -> AsyncIterator[rtc.RemoteVideoTrack]:
    """A camera whose pictures are counted in their brightness, `pace` of them a second."""

    async def film() -> None:
        for number in itertools.count():
            luma = np.full((SIDE, SIDE), 40 + number % 20 * 10, np.uint8)
            luma[::2] = 20  # not of one colour
            colour = np.full(SIDE * SIDE // 2, 128, np.uint8)
            data = luma.tobytes() + colour.tobytes()
            source.capture_frame(rtc.VideoFrame(SIDE, SIDE, rtc.VideoBufferType.I420, data))
            await asyncio.sleep(1 / pace)

    track = rtc.LocalVideoTrack.create_video_track("camera", source)
    filming = asyncio.create_task(film())
    try:
        async with received(server, track) as remote:
            assert isinstance(remote, rtc.RemoteVideoTrack)
            yield remote
    finally:
        filming.cancel()
        await asyncio.gather(filming, return_exceptions=True)


class Given:
    """The sound that was given by any thread."""

    def __init__(self) -> None:
        self.pcm: list[bytes] = []
        self._more = threading.Condition()

    def __call__(self, pcm: bytes) -> None:
        with self._more:
            self.pcm.append(pcm)
            self._more.notify_all()

    async def more(self, count: int) -> None:
        """Wait until there are `count` more pieces of it than now."""
        enough = len(self.pcm) + count

        def wait() -> bool:
            with self._more:
                return self._more.wait_for(lambda: len(self.pcm) >= enough, 5.0)

        assert await asyncio.to_thread(wait)
