"""`make bench-ear`: how well the sink hears whether the avatar says what it was told.

In virtual time, without a server. See docs/bench-ear.md. The exit code is 1 if a goal is missed.
Ctrl-C ends it with the figures of the cases until then.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.ear.cases import (
    MATRIX,
    SAMPLE,
    Case,
    by_id,
    cases,
    frozen_cases,
    playable,
    sample,
)
from bench.ear.figures import Figures, figures, line, missed, table, worst
from bench.ear.runner import Outcome, be_quiet, run, story

PAGE = Path(__file__).resolve().parents[2] / "docs/bench-ear.md"
_BEGIN, _END = "<!-- make bench-ear: begin -->", "<!-- make bench-ear: end -->"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.ear", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--cases", type=int, help=f"the first so many of {MATRIX}")
    parser.add_argument("--all", action="store_true", help=f"all {MATRIX}")
    parser.add_argument(
        "--pitch", action="store_true", help="those whose pitch is shifted by 5 to 10 %%"
    )
    parser.add_argument(
        "--freeze", action="store_true", help="those in which the avatar freezes in mid-reply"
    )
    parser.add_argument("--only", metavar="PATTERN", help="whose names have this (regex)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every single outcome")
    parser.add_argument("--case", metavar="ID", help="one case alone: 17, or s17 of the sample")
    parser.add_argument("-v", action="store_true", dest="verbose", help="tell what happens in it")
    parser.add_argument("--publish", action="store_true", help="put the table into docs/, too")
    return parser.parse_args(given)


def chosen(given: argparse.Namespace) -> list[Case]:
    """Without a number: the sample of CI."""
    count = MATRIX if given.all else given.cases or SAMPLE
    if given.freeze:
        wanted = frozen_cases(count)
    else:
        chosen = given.all or given.cases or given.pitch
        wanted = cases(count, shifted=given.pitch) if chosen else sample()
    pattern = re.compile(given.only or "")
    return playable([one for one in wanted if pattern.search(one.name)])


def outcomes(wanted: Sequence[Case], jobs: int) -> Iterator[Outcome]:
    """As they come."""
    if jobs <= 1:
        be_quiet()
        yield from map(run, wanted)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=be_quiet) as pool:
        yield from pool.imap_unordered(run, wanted, chunksize=4)


def groups(found: Sequence[Outcome]) -> dict[str, Figures]:
    """Apart for voices on which numbers may be chosen, and others."""
    return {
        "tuning voices": figures([one for one in found if not one.held_out]),
        "held-out voices": figures([one for one in found if one.held_out]),
        "all": figures(found),
    }


def measure(given: argparse.Namespace) -> int:
    wanted, began = chosen(given), time.monotonic()
    found: list[Outcome] = []
    with contextlib.suppress(KeyboardInterrupt):  # what there is by then is told
        for one in outcomes(wanted, given.jobs):
            found.append(one)
            if len(found) % 100 == 0:
                print(f"{len(found)} of {len(wanted)}", file=sys.stderr, flush=True)
    found.sort(key=lambda one: int(one.id.lstrip("spf")))
    seconds = time.monotonic() - began
    told = groups(found)
    told_table = table(told)
    print(
        told_table,
        f"\n{len(found)} cases in {seconds:.0f} s, "
        f"{len(found) / max(seconds, 1e-9):.1f} a second\n",
        worst(found),
        sep="\n",
    )
    if given.json:
        given.json.write_text(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
    if given.publish:
        publish(told_table)
    return _judge(told)


def _judge(told: dict[str, Figures]) -> int:
    goals = [
        f"{name}: {one}"
        for name, figures_ in told.items()
        if name != "all"
        for one in missed(figures_, held_out=name.startswith("held"))
    ]
    print("", *(f"missed: {one}" for one in goals), sep="\n")
    return int(bool(goals))


def publish(text: str) -> None:
    """Into docs/bench-ear.md, between its marks."""
    page = PAGE.read_text("utf-8")
    before, rest = page.split(_BEGIN)
    _, after = rest.split(_END)
    PAGE.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}", "utf-8")


def main() -> int:
    given = arguments()
    if given.case is None:
        return measure(given)
    case = by_id(given.case)
    be_quiet()
    outcome = run(case)
    print(line(outcome), *(story(case) if given.verbose else ()), sep="\n")
    return int(bool(missed(figures([outcome]), held_out=outcome.held_out)))


if __name__ == "__main__":
    sys.exit(main())
