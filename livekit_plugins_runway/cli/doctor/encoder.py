"""`doctor`: whether media can be published here, and which encoder the SDK takes for pictures."""

from __future__ import annotations

import asyncio
import datetime
import secrets

from livekit import api, rtc
from livekit.rtc.participant import PublishTrackError

from ..._common.tasks import cancel_and_wait
from ...media.connect import connect, leave
from ...media.video import CAMERA_FRAMERATE, VideoOptions, publish_options

_WIDTH, _HEIGHT = 556, 360
"""Of Runway's first pictures, pixels."""
_LOOK_EVERY = 0.2
_SOFTWARE = ("OpenH264", "libvpx")
"""How WebRTC names the software encoders of H.264 and VP8."""


class NotPublished(Exception):
    """The server refused, or took nothing in time."""


async def encoder_in_use(url: str, key: str, secret: str, timeout: float) -> str:
    """Publish a grey picture for a moment, as the bridge's camera by default, in a room of its own.

    Returns:
        WebRTC's name of the encoder, such as "OpenH264".

    Raises:
        NotPublished: after `timeout` seconds at most; says at which step.
    """
    room, name = rtc.Room(), f"runway-avatar-doctor-{secrets.token_hex(4)}"
    grants = api.VideoGrants(room_join=True, room=name, can_subscribe=False)
    access = api.AccessToken(key, secret).with_identity("doctor").with_grants(grants)
    token = access.with_ttl(datetime.timedelta(minutes=1)).to_jwt()
    step = "joining a room"
    try:
        async with asyncio.timeout(timeout):
            await connect(room, url, token)
            step = "publishing a picture"
            source = rtc.VideoSource(_WIDTH, _HEIGHT)
            track = rtc.LocalVideoTrack.create_video_track("doctor", source)
            feeding = asyncio.create_task(_feed(source), name="runway_doctor_feed")
            try:
                await room.local_participant.publish_track(track, publish_options(VideoOptions()))
                step = "sending a picture"
                return await _encoder_of(track)
            finally:
                await cancel_and_wait(feeding)
    except (rtc.ConnectError, PublishTrackError, TimeoutError) as error:
        raise NotPublished(f"{step}: {type(error).__name__}") from error
    finally:
        await leave(room)


def is_software(encoder: str) -> bool:
    return encoder.startswith(_SOFTWARE)


async def _feed(source: rtc.VideoSource) -> None:
    grey = bytes([128]) * (_WIDTH * _HEIGHT * 3 // 2)
    frame = rtc.VideoFrame(_WIDTH, _HEIGHT, rtc.VideoBufferType.I420, grey)
    while True:
        source.capture_frame(frame)
        await asyncio.sleep(1 / CAMERA_FRAMERATE)


async def _encoder_of(track: rtc.LocalVideoTrack) -> str:
    """Once it has encoded something. Nobody tells."""
    while True:
        for one in await track.get_stats():
            if one.HasField("outbound_rtp") and one.outbound_rtp.outbound.frames_encoded:
                return one.outbound_rtp.outbound.encoder_implementation
        await asyncio.sleep(_LOOK_EVERY)
