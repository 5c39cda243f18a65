"""Join a room, receive sound and pictures, leave; again and again: how much memory does each keep?

Whoever is heard and seen is a process of its own.
Against `livekit-server --dev`; LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say otherwise.
"""

import asyncio
import gc
import os
import sys
from contextlib import aclosing
from pathlib import Path

from livekit import api, rtc

URL = os.environ.get("LIVEKIT_URL", "ws://127.0.0.1:7880")
KEYS = os.environ.get("LIVEKIT_API_KEY", "devkey"), os.environ.get("LIVEKIT_API_SECRET", "secret")
VISITS, STEP = 150, 25


async def joined(room: rtc.Room, identity: str) -> None:
    grants = api.VideoGrants(room_join=True, room="memory-per-room")
    token = api.AccessToken(*KEYS).with_identity(identity).with_grants(grants).to_jwt()
    await room.connect(URL, token)


async def publish() -> None:
    room = rtc.Room()
    await joined(room, "publisher")
    voice, camera = rtc.AudioSource(48_000, 1), rtc.VideoSource(556, 360)
    sound = rtc.LocalAudioTrack.create_audio_track("voice", voice)
    await room.local_participant.publish_track(sound)
    picture = rtc.LocalVideoTrack.create_video_track("camera", camera)
    await room.local_participant.publish_track(picture)
    print("there", flush=True)
    frame = rtc.VideoFrame(556, 360, rtc.VideoBufferType.I420, bytes(556 * 360 * 3 // 2))
    while True:
        camera.capture_frame(frame)
        await voice.capture_frame(rtc.AudioFrame.create(48_000, 1, 1920))


async def visit(number: int) -> None:
    room, tracks = rtc.Room(), asyncio.Queue[rtc.Track]()
    room.on("track_subscribed", lambda track, *_: tracks.put_nowait(track))
    await joined(room, f"visitor-{number}")
    for _ in range(2):
        track = await tracks.get()
        video = track.kind == rtc.TrackKind.KIND_VIDEO
        stream: rtc.VideoStream | rtc.AudioStream
        stream = rtc.VideoStream(track) if video else rtc.AudioStream(track)
        async with aclosing(stream):
            for _ in range(5):
                await anext(stream)
    await room.disconnect()


def resident() -> float:
    """KiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


async def main() -> None:
    publisher = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "publish", stdout=asyncio.subprocess.PIPE
    )
    assert publisher.stdout is not None
    await publisher.stdout.readline()
    at = []
    for number in range(VISITS):
        await visit(number)
        if number % STEP == STEP - 1:
            at.append(resident())
            print(f"{number + 1} visits: {at[-1] / 1024:.0f} MiB", flush=True)
    kept = (at[-1] - at[1]) / (VISITS - 2 * STEP)
    print(f"from {2 * STEP} to {VISITS} visits: {kept:+.0f} KiB for each")
    publisher.kill()
    await publisher.wait()


asyncio.run(publish() if "publish" in sys.argv else main())
