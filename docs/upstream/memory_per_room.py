"""Join a room in which somebody is heard and seen, and leave; again and again: how much memory does
each visit keep? First the visitor leaves while the tracks are there, then after they have gone.

Whoever is heard and seen is a process of its own, which unpublishes, or not, as it is told.
Against `livekit-server --dev`; LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say otherwise.
"""

import asyncio
import gc
import os
import sys
from pathlib import Path

from livekit import api, rtc

URL = os.environ.get("LIVEKIT_URL", "ws://127.0.0.1:7880")
KEYS = os.environ.get("LIVEKIT_API_KEY", "devkey"), os.environ.get("LIVEKIT_API_SECRET", "secret")
VISITS, WARM_UP = 40, 10


async def joined(room: rtc.Room, identity: str) -> None:
    grants = api.VideoGrants(room_join=True, room="memory-per-room")
    token = api.AccessToken(*KEYS).with_identity(identity).with_grants(grants).to_jwt()
    await room.connect(URL, token)


async def publish() -> None:
    """Publish on each line "on" from standard input, unpublish on each "off"."""
    room = rtc.Room()
    await joined(room, "publisher")
    me, voice, camera = room.local_participant, rtc.AudioSource(48_000, 1), rtc.VideoSource(64, 64)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if line == "on\n":
            sound = rtc.LocalAudioTrack.create_audio_track("voice", voice)
            await me.publish_track(sound)
            picture = rtc.LocalVideoTrack.create_video_track("camera", camera)
            await me.publish_track(picture)
        else:
            for sid in list(me.track_publications):
                await me.unpublish_track(sid)
        print("done", flush=True)


async def visit(number: int, publisher: asyncio.subprocess.Process, *, to_the_end: bool) -> None:
    async def tell(line: bytes) -> None:
        assert publisher.stdin is not None
        assert publisher.stdout is not None
        publisher.stdin.write(line)
        await publisher.stdout.readline()

    room, come, gone = rtc.Room(), asyncio.Queue[object](), asyncio.Queue[object]()
    room.on("track_subscribed", lambda track, *_: come.put_nowait(track))
    room.on("track_unpublished", lambda publication, _: gone.put_nowait(publication))
    await joined(room, f"visitor-{number}")
    await tell(b"on\n")
    for _ in range(2):
        await come.get()
    await asyncio.sleep(0.2)  # a track that goes too early keeps its subscriber negotiating
    if to_the_end:
        await tell(b"off\n")
        for _ in range(2):
            await gone.get()
    await room.disconnect()
    if not to_the_end:
        await tell(b"off\n")


def resident() -> float:
    """KiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


async def measure(publisher: asyncio.subprocess.Process, *, to_the_end: bool) -> float:
    """KiB for each visit."""
    at = 0.0
    for number in range(VISITS):
        await visit(number, publisher, to_the_end=to_the_end)
        if number == WARM_UP - 1:
            at = resident()
    return (resident() - at) / (VISITS - WARM_UP)


async def main() -> None:
    pipe = asyncio.subprocess.PIPE
    publisher = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "publish", stdin=pipe, stdout=pipe
    )
    for name, to_the_end in (
        ("left while tracks are there", False),
        ("left after they have gone", True),
    ):
        kept = await measure(publisher, to_the_end=to_the_end)
        print(f"{name}: {kept:+.0f} KiB a visit", flush=True)
    publisher.kill()
    await publisher.wait()


asyncio.run(publish() if "publish" in sys.argv else main())
