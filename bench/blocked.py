"""What the user hears and sees of an agent whose event loop is blocked: `python -m bench.blocked`.

Code of the application that computes, or that waits without `await`, keeps the event loop for 50,
100 or 500 ms in each second. Meanwhile the agent speaks for ten seconds, by each transport and each
way to the SDK's media. Then eight calls in one process, each in a thread of its own as with the
framework's thread executor, with a small picture (160x104, 10 a second): of two of them is
measured what their users get, the first one's loop is blocked, or all are.

The LiveKit server, the simulated Runway and the agent run in processes of their own; data stream.
Prints a table, and writes `bench-out/blocked.json` (`BENCH_OUT` names another folder). The exit
code is 1 if a word was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.call import Line, Results, run_short, staged
from bench.hearing import heard
from bench.lines import Child, keep_for_good
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.tones import ToneScript, first_sound, gaps, missing
from livekit_plugins_runway.testing.user import SimulatedUser

BLOCKS = (0.0, 0.05, 0.1, 0.5)
"""Seconds of each second."""
SPEECH = ToneScript(40)
"""10 s."""
SETTLED = 4.0
"""Seconds after the first picture: it has its full size, buffers theirs."""
THREADS = 8
PLAIN = {"BENCH_PICTURE": "drawn", "BENCH_PLAIN": "1"}
SMALL = PLAIN | {"BENCH_SIZE": "160x104", "BENCH_FPS": "10"}
WORKERS = ("agent", "runway-avatar-agent")
_HOLE = 0.03
"""Seconds by which a pause of the script may be longer before it is a hole."""


@dataclass(frozen=True)
class Way:
    """How an agent has its avatar."""

    options: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)


WAYS = {
    "bridge, native": Way({}, {"RUNWAY_AVATAR_MEDIA": "native"}),
    "bridge, public": Way({}, {"RUNWAY_AVATAR_MEDIA": "public"}),
    "direct": Way({"transport": "direct", "allow_private_livekit_url": True}),
}
LARGE = PLAIN | {"BENCH_SIZE": "1088x704"}


@contextlib.asynccontextmanager
async def calling(
    server: LiveKitServer, agent: Child, runway: dict[str, Any], options: dict[str, Any],
    *, thread: bool = False, watched: bool = True,
) -> AsyncIterator[Line]:  # fmt: skip
    """A call whose avatar is there.

    Args:
        watched: the user takes what is published.
    """
    room = f"blocked-{secrets.token_hex(4)}"
    async with SimulatedUser(
        server.url,
        room,
        api_key=server.api_key,
        api_secret=server.api_secret,
        listen_to=WORKERS,
        auto_subscribe=watched,
        max_seconds=120,
    ) as user:
        line = Line(agent, room, user)
        line.do("call", runway=runway, options=dict(options), thread=thread)
        try:
            await line.told("live")
            if watched:
                await user.wait_for_video(10.0)
            yield line
        finally:
            line.do("hang_up")
            await line.told("hung_up")


async def speak(line: Line) -> dict[str, Any]:
    """Say something, and read what was heard and seen meanwhile."""
    since = await line.say(SPEECH)
    await line.over()
    pcm = line.user.heard(since)
    first = first_sound(pcm, SAMPLE_RATE) or 0.0
    return await asyncio.to_thread(read, line.user, pcm, since + first)


def read(user: SimulatedUser, pcm: Any, began: float) -> dict[str, Any]:
    tones = heard(pcm)
    silences = gaps(pcm, SAMPLE_RATE, min_s=SPEECH.gap_s + _HOLE)
    total = len(pcm) / SAMPLE_RATE
    holes = [
        g.duration_s - SPEECH.gap_s
        for g in silences
        if g.start_s > 0 and g.end_s < total and g.end_s < tones[-1].end_s
    ]
    until = began + SPEECH.duration_s
    pictures = [began, *(f.at for f in user.frames if began <= f.at < until), until]
    return {
        "missing": len(missing(SPEECH, tones)),
        "holes": len(holes),
        "hole, longest": max(holes, default=0.0),
        "holes, together": sum(holes),
        "pictures a second": user.fps(began, until),
        "picture, longest": max(b - a for a, b in itertools.pairwise(pictures)),
    }


async def one_call(name: str, blocks: Sequence[float], results: Results, log: Path) -> None:
    way = WAYS[name]
    async with (
        staged("datastream", log, **way.environment, **LARGE) as (server, agent, runway),
        calling(server, agent, runway, way.options) as line,
    ):
        await asyncio.sleep(SETTLED)
        for seconds in blocks:
            line.do("block_each_second", seconds=seconds)
            await asyncio.sleep(1.0)
            results.append({"way": name, "blocked": seconds} | await speak(line))


async def many_calls(count: int, blocks: Sequence[float], results: Results, log: Path) -> None:
    async with (
        staged("datastream", log, **SMALL) as (server, agent, runway),
        contextlib.AsyncExitStack() as stack,
    ):
        lines = [
            await stack.enter_async_context(
                calling(server, agent, runway, {}, thread=True, watched=number < 2)
            )
            for number in range(count)
        ]
        await asyncio.sleep(SETTLED)
        cases = [(whose, seconds) for seconds in blocks for whose in ("the first", "all")]
        for whose, seconds in [("nobody", 0.0), *cases]:
            for line in lines if whose == "all" else lines[:1]:
                line.do("block_each_second", seconds=seconds)
            await asyncio.sleep(1.0)
            for number, result in enumerate(await asyncio.gather(*map(speak, lines[:2])), 1):
                way = f"{count} calls, {whose} blocked: call {number}"
                results.append({"way": way, "blocked": seconds} | result)
            for line in lines:
                line.do("block_each_second", seconds=0.0)


async def measure(given: argparse.Namespace, results: Results, log: Path) -> int:
    """The number of ways that gave no figures."""
    failures = 0
    for name in given.only:
        try:
            if name == "threads":
                await many_calls(given.calls, given.blocks[-1:], results, log)
            else:
                await one_call(name, given.blocks, results, log)
        except (TimeoutError, RuntimeError) as error:
            failures += 1
            print(f"{name}: {error or 'timeout'}", file=sys.stderr)
    return failures


def report(results: Results) -> str:
    rows = [
        "| | loop blocked, of each second | words missing | holes | longest | together "
        "| pictures a second | longest without |"
    ]
    rows.append("|---|" + "--:|" * 7)
    rows += [
        f"| {r['way']} | {r['blocked'] * 1000:g} ms | {r['missing']} | {r['holes']} "
        f"| {r['hole, longest'] * 1000:.0f} ms | {r['holes, together'] * 1000:.0f} ms "
        f"| {r['pictures a second']:.1f} | {r['picture, longest'] * 1000:.0f} ms |"
        for r in results
    ]
    return "\n".join(rows)


def is_right(result: dict[str, Any]) -> bool:
    return bool(result["missing"] == 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    names = [*WAYS, "threads"]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--blocks", nargs="+", type=float, default=BLOCKS, help="seconds")
    parser.add_argument("--calls", type=int, default=THREADS, help=f"in threads ({THREADS})")
    given = parser.parse_args()
    return run_short("blocked", partial(measure, given), report, is_right)


if __name__ == "__main__":
    keep_for_good()
    sys.exit(main())
