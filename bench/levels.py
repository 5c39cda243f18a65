"""Whether the user hears the agent as loud as it speaks: `python -m bench.levels`.

Short calls, in processes of their own as in `make bench-speech`. In each something is said as soon
as the call begins, and again after silences of several lengths; what the user hears is compared
with it (`livekit_plugins_runway.testing.levels`): 100 ms within 3 dB, no sample clipped, no click.
Prints a table, writes `bench-out/levels.json` (`BENCH_OUT` names another folder). The exit code is
1 if anything was not heard as it was said, or was not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench.call import Line, Results, run_short, staged
from bench.ear.dsp import Pcm
from bench.ear.samples import SAMPLES, sample
from bench.lines import Child, keep_for_good
from livekit_plugins_runway.testing.levels import compare
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.user import SimulatedUser

CALLS = 16
PAUSES = (0.0, 1.0, 3.0, 10.0)
"""Seconds of silence before something is said; 0: the first words of the call."""
LOST = 0.1
"""The share that may be too soft or missing: a receiver that waits for packets leaves holes."""
TRANSPORTS = ("bridge", "direct")


def judge(said: Pcm, heard: Pcm) -> dict[str, Any]:
    found = compare(said, heard, SAMPLE_RATE)
    return asdict(found) | {"match": found.match(softer=LOST)}


async def listen(line: Line, name: str, pause: float) -> dict[str, Any]:
    """Say it after that silence, and judge what is heard."""
    await asyncio.sleep(pause)
    since = await line.say_sample(name)
    await line.over()
    heard = line.user.heard(since)
    found = await asyncio.to_thread(judge, sample(name), heard)
    return {"sample": name, "pause": pause} | found


async def call(
    server: LiveKitServer, agent: Child, runway: dict[str, Any], options: dict[str, Any],
    name: str, pauses: list[float], note: Callable[[dict[str, Any]], None],
) -> None:  # fmt: skip
    room = f"levels-{secrets.token_hex(4)}"
    workers = ["agent", "runway-avatar-agent"] if options.get("transport") == "direct" else None
    async with SimulatedUser(
        server.url, room, api_key=server.api_key, api_secret=server.api_secret, listen_to=workers
    ) as user:
        line = Line(agent, room, user)
        line.do("call", runway=runway, options=dict(options))
        await line.told("started")
        try:
            for pause in pauses:
                note(await listen(line, name, pause))
        finally:
            line.do("hang_up")
            await line.told("hung_up")


async def measure(given: argparse.Namespace, results: Results, log: Path) -> int:
    """The number of calls that were not heard to their end."""
    failures = 0
    options: dict[str, Any] = {"transport": given.transport}
    if given.transport == "direct":
        options["allow_private_livekit_url"] = True
    async with staged(given.delivery, log) as (server, agent, at):
        for n in range(given.calls):
            name = given.samples[n % len(given.samples)]
            try:
                await call(server, agent, at, options, name, given.pauses, results.append)
            except TimeoutError as error:
                failures += 1
                print(f"call {n}: {error or 'timeout'}", file=sys.stderr)
    return failures


def report(results: Results) -> str:
    """One row for each sound and pause."""
    rows = ["| sound | after | n | as said | loudest excess | clipped | clicks | soft, worst |"]
    rows.append("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, pause in sorted({(r["sample"], r["pause"]) for r in results}):
        own = [r for r in results if (r["sample"], r["pause"]) == (name, pause)]
        rows.append(
            f"| {name} | {pause:g} s | {len(own)} | {sum(r['match'] for r in own)} "
            f"| {max(r['loudest_db'] for r in own):+.1f} dB | {sum(r['clipped'] for r in own)} "
            f"| {sum(r['clicks'] for r in own)} | {max(r['softer'] for r in own):.0%} |"
        )
    return "\n".join(rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--calls", type=int, default=CALLS, help=f"in all ({CALLS})")
    parser.add_argument("--pauses", type=float, nargs="+", default=list(PAUSES))
    parser.add_argument("--samples", nargs="+", choices=list(SAMPLES), default=list(SAMPLES))
    parser.add_argument("--delivery", choices=("datastream", "track"), default="datastream")
    parser.add_argument("--transport", choices=TRANSPORTS, default="bridge")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    return run_short("levels", partial(measure, given), report, lambda result: result["match"])


if __name__ == "__main__":
    keep_for_good()
    sys.exit(main())
