"""`VideoOptions` on a real LiveKit server: what the user's device gets."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import get_args

import pytest
from livekit import rtc

from livekit_plugins_runway import AvatarState, VideoOptions
from livekit_plugins_runway.media.participant import AvatarParticipant
from livekit_plugins_runway.media.relay import Relay
from livekit_plugins_runway.media.video import Codec
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.user import SimulatedUser
from livekit_plugins_runway.testing.worker.face import Face
from tests.support.call import REAL_PICTURE, calling, now


async def test_a_phone_gets_an_upright_picture_of_one_size_on_one_track(
    livekit_server: LiveKitServer,
) -> None:
    video = VideoOptions(width=360, height=640)
    # So late that the small picture is seen first, however busy the machine is.
    growing = REAL_PICTURE | {"upscale_after": 2.0}
    async with calling(livekit_server, simulated=growing, video=video) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        instance = call.avatar._instance
        assert instance is not None
        relay = instance._media
        assert isinstance(relay, Relay)
        await call.user.wait_for_video(10.0)
        await call.user.wait_until(lambda: relay.stats.resolution_changes > 0, 10.0)
        assert (relay.stats.width, relay.stats.height) == (1088, 704)
        since = now()
        await call.user.wait_until(lambda: call.user.frames[-1].at > since + 0.5, 5.0)
        assert {(f.width, f.height) for f in call.user.frames} == {(360, 640)}
        assert [t.source for t in call.user.tracks].count("camera") == 1


async def test_a_watch_gets_a_small_picture_eight_times_a_second(
    livekit_server: LiveKitServer,
) -> None:
    video = VideoOptions(width=256, height=256, max_fps=8)
    async with calling(livekit_server, simulated=REAL_PICTURE, video=video) as call:
        await call.start()
        since = await call.user.wait_for_video(10.0)
        await call.user.wait_until(lambda: call.user.frames[-1].at > since + 3.2, 8.0)
        assert {(f.width, f.height) for f in call.user.frames} == {(256, 256)}
        assert 6.0 <= call.user.fps(since + 0.2, since + 3.2) <= 9.0


@pytest.mark.parametrize("codec", get_args(Codec))
async def test_each_codec_that_is_offered_arrives_as_what_it_is(
    livekit_server: LiveKitServer, codec: Codec
) -> None:
    server, room = livekit_server, f"codec-{secrets.token_hex(4)}"
    participant = AvatarParticipant(VideoOptions(width=176, height=320, codec=codec))
    face = Face().frame((320, 208), 0.1, False)

    async def token() -> str:
        return server.token(room, "face")

    async def feed() -> None:
        while True:
            now = time.monotonic_ns() // 1000
            await participant.open_camera(face, now)
            participant.push_video(face, now)
            await asyncio.sleep(0.04)

    async with SimulatedUser(
        server.url,
        room,
        listen_to="face",
        api_key=server.api_key,
        api_secret=server.api_secret,
    ) as user:
        await participant.join(server.url, token)
        feeding = asyncio.create_task(feed())
        try:
            await user.wait_until(lambda: len(user.frames) >= 5, 8.0)
            assert {(f.width, f.height) for f in user.frames} == {(176, 320)}
            (camera,) = [
                p.track
                for p in user.room.remote_participants["face"].track_publications.values()
                if p.kind == rtc.TrackKind.KIND_VIDEO
            ]
            assert isinstance(camera, rtc.RemoteVideoTrack)
            stats = await camera.get_stats()
            codecs = {s.codec.codec.mime_type.lower() for s in stats if s.HasField("codec")}
            assert f"video/{codec}" in codecs
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            await participant.aclose()
