"""The simulated Runway of `make bench` and `make bench-speech`, in a process of its own: its media
must not wait.

Reads commands as lines of JSON on its standard input (`do`: a fault of `SimulatedSession`, or
`record`, with the `session` that it is about), tells events the same way, and ends when the input
is closed.
"""

from __future__ import annotations

import asyncio
import math
import os
import ssl
from dataclasses import replace
from typing import Any, Literal

from bench.lines import commands, keep_for_good, tell
from livekit_plugins_runway.testing import RunwaySimulator, SimulatorOptions, Speech
from livekit_plugins_runway.testing.options import Picture

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


def picture_options(speech: str, size: tuple[int, int], picture: Picture) -> SimulatorOptions:
    """The same, with the simulator's usual pace of a start, and numbered pictures."""
    usual = SimulatorOptions()
    return replace(
        options(speech),
        accept_deprecated_livekit=True,  # the official plugin's body, which some accounts take
        queue_delay=usual.queue_delay,
        provisioning_delay=usual.provisioning_delay,
        worker_join_delay=usual.worker_join_delay,
        first_frame_delay=usual.first_frame_delay,
        upscale_after=usual.upscale_after,
        full_size=size,
        picture=picture,
        fps=float(os.environ.get("BENCH_FPS", usual.fps)),
        start_size=min(size, usual.start_size),
        barcode="BENCH_PLAIN" not in os.environ,
    )


def chosen_options() -> SimulatorOptions:
    speech = os.environ["BENCH_DELIVERY"]
    if size := os.environ.get("BENCH_SIZE"):  # WIDTHxHEIGHT
        width, height = map(int, size.split("x"))
        picture: Any = os.environ["BENCH_PICTURE"]
        return picture_options(speech, (width, height), picture)
    return options(speech)


async def announce(simulator: RunwaySimulator) -> None:
    """Tell of each session that is made."""
    told: set[str] = set()
    while True:
        await simulator.wait_until(lambda: not simulator.sessions.keys() <= told, math.inf)
        for session in simulator.sessions.keys() - told:
            told.add(session)
            tell("session", session=session)


async def obey(simulator: RunwaySimulator) -> None:
    async for command in commands():
        session = simulator.sessions[command["session"]]
        do: Literal["crash", "freeze", "record"] = command["do"]
        match do:
            case "crash":
                tell("struck", session=session.id)
                session.crash()
            case "freeze":
                tell("struck", session=session.id)
                session.freeze()
            case "record":
                done = session.performance
                tell("record", session=session.id, captured=done.captured, onsets=done.onsets)


def tls() -> ssl.SSLContext | None:
    """Of the certificate that `bench.py` made, if it did."""
    if not (certificate := os.environ.get("BENCH_CERTIFICATE")):
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def main() -> None:
    async with RunwaySimulator(
        livekit_url=os.environ["LIVEKIT_URL"],
        livekit_api_key=os.environ["LIVEKIT_API_KEY"],
        livekit_api_secret=os.environ["LIVEKIT_API_SECRET"],
        options=chosen_options(),
        tls=tls(),
    ) as simulator:
        tell("ready", url=simulator.url, api_secret=simulator.api_secret)
        announcing = asyncio.create_task(announce(simulator), name="announce")
        try:
            await obey(simulator)
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)


if __name__ == "__main__":
    keep_for_good()
    asyncio.run(main())
