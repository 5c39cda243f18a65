"""`python -m livekit_plugins_runway.testing`: the simulator as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace

from .options import SimulatorOptions, Speech
from .simulator.service import RunwaySimulator


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m livekit_plugins_runway.testing",
        description="A Runway on 127.0.0.1. Prints one line of JSON, {url, api_secret}, when it is "
        "ready; ends on SIGINT or SIGTERM. Without --livekit-url no avatar worker comes.",
    )
    parser.add_argument("--livekit-url", default=os.environ.get("LIVEKIT_URL"))
    parser.add_argument("--livekit-api-key", default=os.environ.get("LIVEKIT_API_KEY"))
    parser.add_argument("--livekit-api-secret", default=os.environ.get("LIVEKIT_API_SECRET"))
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--api-secret", help="the account's key; made up if not given")
    parser.add_argument(
        "--speech",
        choices=[kind.value for kind in Speech],
        default=Speech.DATASTREAM.value,
        help="how the avatar worker takes speech",
    )
    parser.add_argument(
        "--as-measured",
        action="store_true",
        help="the pace and limits of the live service instead of quick ones",
    )
    parser.add_argument("--time-scale", type=float, default=1.0, help="multiplies lifecycle timers")
    parser.add_argument("--render-latency", type=float, help="seconds from speech in to voice out")
    parser.add_argument("--playback-started", action="store_true", help="send lk.playback_started")
    return parser.parse_args(argv)


def _options(arguments: argparse.Namespace) -> SimulatorOptions:
    make = SimulatorOptions.as_measured if arguments.as_measured else SimulatorOptions
    options = make(time_scale=arguments.time_scale)
    changes = {"speech": arguments.speech, "playback_started": arguments.playback_started}
    if arguments.render_latency is not None:
        changes["render_latency"] = arguments.render_latency
    return replace(options, **changes)


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with RunwaySimulator(
        livekit_url=arguments.livekit_url,
        livekit_api_key=arguments.livekit_api_key,
        livekit_api_secret=arguments.livekit_api_secret,
        options=_options(arguments),
        api_secret=arguments.api_secret,
        port=arguments.port,
    ) as simulator:
        ready = {"url": simulator.url, "api_secret": simulator.api_secret}
        print(json.dumps(ready), flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_serve(_arguments(None)))
