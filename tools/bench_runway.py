"""The simulated Runway of `bench_speech.py`, in a process of its own: its media must not wait.

Reads commands as lines of JSON on its standard input (`do`: a fault of `SimulatedSession`, with the
`session` that it strikes), tells events the same way, and ends when the input is closed.
"""

from __future__ import annotations

import asyncio
import os
from typing import Literal

from bench_lines import commands, tell

from livekit_plugins_runway.testing import RunwaySimulator, SimulatorOptions, Speech

RENDER_LATENCY = 0.15
"""Seconds from speech arriving at the simulated avatar to its voice coming out."""
UPSCALE_AFTER = 6.0
"""Seconds until the picture has its full size. Calls that are lost are over sooner, which leaves
room for two of them at once."""


def options(speech: str) -> SimulatorOptions:
    """An account without limits, but for `BENCH_PLACES`, whose sessions begin and end at once."""
    return SimulatorOptions(
        speech=Speech(speech),
        render_latency=RENDER_LATENCY,
        upscale_after=UPSCALE_AFTER,
        concurrency=int(os.environ.get("BENCH_PLACES", "20")),
        daily_quota=100_000,
        credits=10_000_000,
        queue_delay=0.0,
        provisioning_delay=0.0,
        worker_join_delay=0.0,
        first_frame_delay=0.1,
        end_call_settle=0.0,
        crash_settle=0.0,
    )


async def main() -> None:
    async with RunwaySimulator(
        livekit_url=os.environ["LIVEKIT_URL"],
        livekit_api_key=os.environ["LIVEKIT_API_KEY"],
        livekit_api_secret=os.environ["LIVEKIT_API_SECRET"],
        options=options(os.environ["BENCH_DELIVERY"]),
    ) as simulator:
        tell("ready", url=simulator.url, api_secret=simulator.api_secret)
        async for command in commands():
            session = simulator.sessions[command["session"]]
            fault: Literal["crash", "freeze"] = command["do"]
            tell("struck", session=session.id)
            match fault:
                case "crash":
                    session.crash()
                case "freeze":
                    session.freeze()


if __name__ == "__main__":
    asyncio.run(main())
