"""Send one transcription packet whose track id is not of the form TR_..., and see a process end.

Against `livekit-server --dev`; LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say otherwise.
"""

import asyncio
import os
import signal
import sys

from livekit import api, rtc

URL = os.environ.get("LIVEKIT_URL", "ws://127.0.0.1:7880")
KEYS = os.environ.get("LIVEKIT_API_KEY", "devkey"), os.environ.get("LIVEKIT_API_SECRET", "secret")


def token(identity: str, kind: str) -> str:
    grants = api.VideoGrants(room_join=True, room="transcription-abort")
    made = api.AccessToken(*KEYS).with_identity(identity).with_kind(kind)
    return made.with_grants(grants).to_jwt()


async def victim() -> None:
    """Somebody who does nothing but be in the room, and ignores SIGTERM as an agent's job does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    room = rtc.Room()
    await room.connect(URL, token("victim", "agent"))
    print("joined", flush=True)
    await asyncio.sleep(5)


async def main() -> None:
    for kind in ("standard", "agent"):
        there = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "victim",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert there.stdout is not None
        await there.stdout.readline()
        sender = rtc.Room()
        await sender.connect(URL, token("sender", kind))
        packet = rtc.Transcription(participant_identity="victim", track_sid="x", segments=[])
        await sender.local_participant.publish_transcription(packet)
        _, said = await there.communicate()
        await sender.disconnect()
        panics = [line for line in said.decode().splitlines() if "panicked" in line]
        print(f"sender of kind {kind}: exit code {there.returncode}", *panics[:1])


asyncio.run(victim() if "victim" in sys.argv else main())
