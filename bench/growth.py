"""What a call keeps of each Runway session that is over: `python -m bench.growth`.

One call, in an agent process of its own, in which one session takes over from the other as soon as
that is seen, as in a renewal; memory, asyncio tasks, Python's objects, file descriptors and threads
of that process after each ten. 360 of them are a call of two hours with sessions of 20 s. Prints a
table, writes `bench-out/growth.json` (`BENCH_OUT` names another folder). The exit code is 1 if
there is no figure. What the SDK keeps of a room by itself: `docs/upstream/memory_per_room.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.call import Line, Results, run_short, staged
from bench.lines import keep_for_good
from livekit_plugins_runway.testing.user import SimulatedUser

RENEWALS = 150
STEP = 10
RECOVERY = {"max_sessions": None, "max_billed_seconds": None}
REST = 0.5
"""Seconds after the change, in which the session before ends."""
WARM_UP = 30
"""Renewals after which caches and pools have their size."""
COUNTS = ("tasks", "objects", "descriptors", "threads")


async def sample(line: Line, renewals: int) -> dict[str, Any]:
    """MB: 10**6 bytes that are the process's alone, and what it has of the rest."""
    line.do("measure")
    told = await line.agent.told("measured", room=line.room)
    process = psutil.Process(line.agent.pid)
    return {
        "renewals": renewals,
        "uss_mb": process.memory_full_info().uss / 1e6,
        "tasks": told["tasks"],
        "objects": told["objects"],
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
    }


async def measure(given: argparse.Namespace, results: Results, log: Path) -> int:
    options: dict[str, Any] = {"transport": given.transport, "recovery": dict(RECOVERY)}
    workers = None
    if given.transport == "direct":
        options["allow_private_livekit_url"] = True
    else:
        options["delivery"] = "datastream"
        workers = "runway-avatar-agent"
    room = f"growth-{secrets.token_hex(4)}"
    async with (
        staged("datastream", log) as (server, agent, at),
        SimulatedUser(
            server.url, room, api_key=server.api_key, api_secret=server.api_secret,
            listen_to=workers, max_seconds=5,
        ) as user,
    ):  # fmt: skip
        line = Line(agent, room, user)
        line.do("call", runway=at, options=options)
        await line.told("live")
        try:
            for renewals in range(1, given.renewals + 1):
                line.do("swap")
                await line.told("replaced")
                await asyncio.sleep(REST)
                if renewals % STEP == 0:
                    results.append(await sample(line, renewals))
                    print(results[-1], file=sys.stderr, flush=True)
        except TimeoutError as error:
            print(f"{len(results) * STEP} renewals, then {error}", file=sys.stderr)
            return 1
        finally:
            line.do("hang_up")
            await line.told("hung_up")
    return 0


def per_session(results: Results, name: str) -> float:
    """By the line through all samples after the warm-up."""
    late = [r for r in results if r["renewals"] > WARM_UP]
    if len(late) < 2:
        return float("nan")
    slope = np.polyfit([r["renewals"] for r in late], [r[name] for r in late], 1)[0]
    return float(slope)


def report(results: Results) -> str:
    rows = [f"| renewals | memory | {' | '.join(COUNTS)} |", "|--:|--:|--:|--:|--:|--:|"]
    for r in results:
        counts = " | ".join(str(r[name]) for name in COUNTS)
        rows.append(f"| {r['renewals']} | {r['uss_mb']:.1f} MB | {counts} |")
    counts = " | ".join(f"{per_session(results, name):+.3f}" for name in COUNTS)
    memory = per_session(results, "uss_mb") * 1e3
    rows.append(f"| each, after {WARM_UP} | {memory:+.0f} kB | {counts} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--renewals", type=int, default=RENEWALS, help=f"({RENEWALS})")
    parser.add_argument("--transport", choices=("bridge", "direct"), default="bridge")
    return run_short("growth", partial(measure, parser.parse_args()), report, lambda _: True)


if __name__ == "__main__":
    keep_for_good()
    sys.exit(main())
