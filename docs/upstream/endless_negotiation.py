"""A track that goes away while somebody subscribes to it: how busy that leaves the subscriber.

Against `livekit-server --dev`; LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say otherwise.
"""

import asyncio
import os
import secrets
import time

from livekit import api, rtc

URL = os.environ.get("LIVEKIT_URL", "ws://127.0.0.1:7880")
KEYS = os.environ.get("LIVEKIT_API_KEY", "devkey"), os.environ.get("LIVEKIT_API_SECRET", "secret")
ROOMS = 10


async def joined(room: str, identity: str) -> rtc.Room:
    grants = api.VideoGrants(room_join=True, room=room)
    token = api.AccessToken(*KEYS).with_identity(identity).with_grants(grants).to_jwt()
    made = rtc.Room()
    await made.connect(URL, token)
    return made


async def cores(lasts: float) -> float:
    """Of this process, from 1 s after the track has gone on."""
    name = f"room-{secrets.token_hex(4)}"
    subscriber, publisher = await joined(name, "subscriber"), await joined(name, "publisher")
    source = rtc.AudioSource(48_000, 1)
    track = rtc.LocalAudioTrack.create_audio_track("voice", source)
    publication = await publisher.local_participant.publish_track(track)
    await asyncio.sleep(lasts)
    await publisher.local_participant.unpublish_track(publication.sid)
    await asyncio.sleep(1)
    before = time.process_time()
    await asyncio.sleep(1)
    busy = time.process_time() - before
    await subscriber.disconnect()
    await publisher.disconnect()
    await source.aclose()
    return busy


async def main() -> None:
    for lasts in (0.01, 0.05, 0.1, 0.5):
        found = sorted([await cores(lasts) for _ in range(ROOMS)])
        many = sum(busy > 0.5 for busy in found)
        print(
            f"there for {lasts:g} s: {many} of {ROOMS} busy; cores: "
            + " ".join(f"{busy:.2f}" for busy in found),
            flush=True,
        )


asyncio.run(main())
