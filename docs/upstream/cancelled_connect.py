"""Cancel `Room.connect()` at several moments, each in a process of its own, and see how it ends.

Against `livekit-server --dev`; LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say otherwise.
"""

import asyncio
import os
import subprocess
import sys

from livekit import api, rtc

URL = os.environ.get("LIVEKIT_URL", "ws://127.0.0.1:7880")
KEYS = os.environ.get("LIVEKIT_API_KEY", "devkey"), os.environ.get("LIVEKIT_API_SECRET", "secret")


async def connect_and_cancel(after: float) -> None:
    grants = api.VideoGrants(room_join=True, room="cancelled-connect")
    token = api.AccessToken(*KEYS).with_identity(f"user-{after}").with_grants(grants).to_jwt()
    attempt = asyncio.create_task(rtc.Room().connect(URL, token))
    await asyncio.sleep(after)
    attempt.cancel()
    await asyncio.gather(attempt, return_exceptions=True)
    await asyncio.sleep(20)


def main() -> None:
    moments = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1)
    attempts = [
        subprocess.Popen([sys.executable, __file__, str(after)], stderr=subprocess.PIPE, text=True)
        for after in moments
    ]
    for after, attempt in zip(moments, attempts, strict=True):
        _, said = attempt.communicate()
        panics = [line for line in said.splitlines() if "panic" in line.lower()]
        print(f"cancelled after {after:g} s: exit code {attempt.returncode}", *panics[:1])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(connect_and_cancel(float(sys.argv[1])))
    else:
        main()
