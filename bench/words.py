"""Whether every word of real speech is heard, once: `python -m bench.words`.

Calls over a real LiveKit server, in processes of their own as in `make bench-speech`. In each the
agent says sentences of a synthesizer whose TTS is as fast as it sounds and stops in their middle,
and, at every other time, with an event loop that is blocked meanwhile. What the user hears is
compared with what was said (`bench/unheard.py`). Prints a table, writes `bench-out/words.json`
(`BENCH_OUT` names another folder). The exit code is 1 if words were lost or said twice.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench.call import SETTLE, Line, Results, run_short, staged
from bench.ear.samples import sample
from bench.lines import Child, keep_for_good
from bench.unheard import compare
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.user import SimulatedUser

CALLS = 4
STOPS = (0.0, 0.5, 1.0, 3.0)
"""Seconds for which the TTS stops, after `STOP_AFTER` seconds of speech."""
STOP_AFTER, BLOCK_AFTER, BLOCK = 3.1, 2.0, 1.0
MOST = 0.3
"""Seconds of words that may be missing, or heard twice: what a change of speakers repeats."""
SPEECH = "sentences"


async def say(line: Line, stop: float, *, blocked: bool) -> dict[str, Any]:
    """Say it, and judge what is heard."""
    since = await line.say_sample(SPEECH, [(STOP_AFTER, stop)])
    if blocked:
        await line.speak_for(BLOCK_AFTER, since)
        line.do("block", seconds=BLOCK)
    await line.over()
    found = await asyncio.to_thread(compare, sample(SPEECH), line.user.heard(since))
    return {"stop": stop, "blocked": blocked} | asdict(found)


async def call(
    server: LiveKitServer, agent: Child, options: dict[str, Any], results: Results
) -> None:
    room = f"words-{secrets.token_hex(4)}"
    async with SimulatedUser(
        server.url, room, api_key=server.api_key, api_secret=server.api_secret, max_seconds=240
    ) as user:
        line = Line(agent, room, user)
        line.do("call", **options)
        try:
            await line.told("live")
            await user.wait_for_video(10.0)
            await asyncio.sleep(SETTLE)
            for stop in STOPS:
                for blocked in (False, True):
                    results.append(await say(line, stop, blocked=blocked))
        finally:
            line.do("hang_up")
            await line.told("hung_up")


async def measure(given: argparse.Namespace, results: Results, log: Path) -> int:
    """The number of calls that were not heard to their end."""
    failures = 0
    async with staged(given.delivery, log) as (server, agent, at):
        options = {"runway": at, "options": {"delivery": given.delivery}}
        for n in range(given.calls):
            try:
                await call(server, agent, options, results)
            except TimeoutError as error:
                failures += 1
                print(f"call {n}: {error or 'timeout'}", file=sys.stderr)
    return failures


def is_right(result: dict[str, Any]) -> bool:
    return bool(max(result["missing"], result["extra"]) <= MOST and result["found"] >= 0.5)


def report(results: Results) -> str:
    """One row for each stop, with a blocked loop and without."""
    rows = ["| TTS stops for | loop blocked | n | missing, worst | twice, worst | found, least |"]
    rows.append("|--:|--:|--:|--:|--:|--:|")
    for stop, blocked in sorted({(r["stop"], r["blocked"]) for r in results}):
        own = [r for r in results if (r["stop"], r["blocked"]) == (stop, blocked)]
        rows.append(
            f"| {stop:g} s | {BLOCK if blocked else 0:g} s | {len(own)} "
            f"| {max(r['missing'] for r in own):.2f} s | {max(r['extra'] for r in own):.2f} s "
            f"| {min(r['found'] for r in own):.0%} |"
        )
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--calls", type=int, default=CALLS, help=f"of 8 utterances each ({CALLS})")
    parser.add_argument("--delivery", choices=("datastream", "track"), default="datastream")
    given = parser.parse_args()
    return run_short("words", partial(measure, given), report, is_right)


if __name__ == "__main__":
    keep_for_good()
    sys.exit(main())
