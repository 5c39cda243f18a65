"""`python -m bench.crowd`: many agents with one Runway account, in virtual time.

Twenty agents with the real avatar, client and sink call the simulated Runway over HTTP; rooms and
workers are played without WebRTC, so that a quarter of an hour takes half a minute. Each agent says
a second of tones every half a minute, and what its user hears is checked. Runway's times are
those that others measured of the live service (`tests/support/crowd.py`).

Prints a table, and writes `bench-out/crowd.md` and `crowd.json` with each call (`BENCH_OUT` names
another folder). The exit code is 1 if a word was lost, something hung or a session was left.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import logging
import os
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.crowd import Caller, Crowd, crowd, in_a_crowd, now

BEGINNING = 15.0
"""Seconds that the figures of requests leave out."""
EVERY = 30.0
"""Seconds between two utterances of an agent."""


@dataclass(frozen=True)
class Scene:
    """What happens to an account. Times in seconds."""

    title: str
    calls: int = 20
    lasts: tuple[float, float] = (570.0, 630.0)
    """A call's length is chosen between these."""
    within: float = 0.0
    """All calls begin within this time."""
    account: dict[str, Any] = field(default_factory=dict)
    """`SimulatorOptions`, besides those of `crowd()`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of each avatar."""


SCENES = {
    "rush": Scene("20 calls at once on 5 places, 15 minutes", lasts=(870.0, 930.0)),
    "patience": Scene(
        "the same, queue_timeout=60", lasts=(870.0, 930.0), options={"queue_timeout": 60.0}
    ),
    "come and go": Scene(
        "20 calls within 2 minutes on 5 places, each of 1 to 6 minutes",
        within=120.0,
        lasts=(60.0, 360.0),
    ),
    "renewal": Scene("5 calls on 5 places", calls=5),
    "room": Scene("20 calls at once on 25 places", account={"concurrency": 25}),
    "limit": Scene(
        "20 calls at once on 25 places, 200 requests a minute, Retry-After",
        account={"concurrency": 25, "requests_per_minute": 200},
    ),
    "limit, untold": Scene(
        "the same without Retry-After",
        account={"concurrency": 25, "requests_per_minute": 200, "tells_retry_after": False},
    ),
    "storm": Scene(
        "20 calls at once on 25 places, 60 requests a minute, Retry-After",
        account={"concurrency": 25, "requests_per_minute": 60},
    ),
    "quota": Scene(
        "20 calls at once on 25 places, 30 creates left of the day",
        account={"concurrency": 25, "daily_quota": 30},
    ),
}


async def call(everybody: Crowd, scene: Scene, chance: random.Random) -> None:
    begins, lasts = chance.uniform(0.0, scene.within), chance.uniform(*scene.lasts)
    await asyncio.sleep(begins)
    caller = everybody.add(**scene.options)
    await caller.start()
    await caller.talk(caller.began + lasts, EVERY)
    await caller.close()


def figures(everybody: Crowd) -> dict[str, Any]:
    calls = everybody.callers
    faces = [c.face_after for c in calls if c.face_after is not None]
    first = [c.said[0].after for c in calls if c.said and c.said[0].after is not None]
    credits = [c.avatar.usage.credits for c in calls]
    creates = everybody.account.requests("POST")
    asked = sorted(request.at for request in everybody.simulator.requests)

    def later(times: Sequence[float]) -> list[float]:
        """Those after the beginning, which the callers have chosen."""
        return [at for at in times if at > min(c.began for c in calls) + BEGINNING]

    return {
        "calls": len(calls),
        "faces": len(faces),
        "face after": [round(x, 1) for x in _spread(faces)],
        "face seconds": [round(c.face_seconds) for c in calls],
        "start returned": round(max(c.started - c.began for c in calls if c.started), 1),
        "first words": [round(x, 1) for x in _spread(first)],
        "words lost": sum(said.missing for c in calls for said in c.said),
        "hung": sum(said.hung for c in calls for said in c.said)
        + sum(c.close_took > 8.0 for c in calls),
        "sessions left": len(everybody.simulator.leaked()),
        "sessions": len(everybody.simulator.sessions),
        "creates": len(creates),
        "refused 429": len(everybody.account.refused(429)),
        "credits": [round(statistics.mean(credits)), max(credits)],
        "creates in a second": _busiest(later(creates), 1.0),
        "requests in a second": _busiest(later(asked), 1.0),
        "requests in 20 ms": _busiest(later(asked), 0.02),
        "requests a minute": round(60 * len(asked) / (asked[-1] - asked[0])),
        "gave up": sorted({type(error).__name__ for c in calls for error in c.gave_up}),
        "of each call": [_row(c) for c in calls],
    }


def _row(caller: Caller) -> dict[str, Any]:
    return {
        "call": caller.name,
        "lasted": round((caller.ended or now()) - caller.began),
        "first words": caller.said[0].after if caller.said else None,
        "face after": caller.face_after,
        "face seconds": round(caller.face_seconds),
        "sessions": caller.sessions,
        "credits": caller.avatar.usage.credits,
        "gave up": [type(error).__name__ for error in caller.gave_up],
    }


def _spread(values: Sequence[float]) -> tuple[float, ...]:
    return (min(values), statistics.median(values), max(values)) if values else ()


def _busiest(times: Sequence[float], window: float) -> int:
    """The most within so many seconds."""
    ordered, most, first = sorted(times), 0, 0
    for last, at in enumerate(ordered):
        while ordered[first] <= at - window:
            first += 1
        most = max(most, last - first + 1)
    return most


def table(results: dict[str, dict[str, Any]]) -> str:
    columns: dict[str, Callable[[dict[str, Any]], object]] = {
        "with an avatar": lambda r: f"{r['faces']} of {r['calls']}",
        "after": lambda r: ", ".join(f"{x:g}" for x in r["face after"]) + " s",
        "first words": lambda r: ", ".join(f"{x:g}" for x in r["first words"]) + " s",
        "lost, hung, left": lambda r: f"{r['words lost']}, {r['hung']}, {r['sessions left']}",
        "creates (sessions)": lambda r: f"{r['creates']} ({r['sessions']})",
        "429": lambda r: r["refused 429"],
        "credits a call (mean, max)": lambda r: "{}, {}".format(*r["credits"]),
        "requests a minute": lambda r: r["requests a minute"],
        "at most in 1 s": lambda r: (
            f"{r['requests in a second']}, of them {r['creates in a second']} creates"
        ),
        "in 20 ms": lambda r: r["requests in 20 ms"],
    }
    lines = ["| account | " + " | ".join(columns) + " |", "|---|" + "--:|" * len(columns)]
    for name, result in results.items():
        cells = [str(cell(result)) for cell in columns.values()]
        lines.append(f"| {SCENES[name].title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


async def play(scene: Scene, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    random.seed(seed)  # of the waits of all agents
    async with crowd(**scene.account) as everybody:
        await asyncio.gather(*(call(everybody, scene, chance) for _ in range(scene.calls)))
    return figures(everybody)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger("livekit.plugins.runway_bridge").setLevel(logging.CRITICAL)
    folder = Path(os.environ.get("BENCH_OUT", "bench-out"))
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for name in given.only:
        results[name] = in_a_crowd(functools.partial(play, SCENES[name], given.seed))
        (folder / "crowd.json").write_text(json.dumps(results, indent=1))
        (folder / "crowd.md").write_text(table(results))
        print(f"{name}: done", file=sys.stderr, flush=True)
    print(table(results))
    broken = [r["words lost"] + r["hung"] + r["sessions left"] for r in results.values()]
    return int(any(broken))


if __name__ == "__main__":
    sys.exit(main())
