"""The figures of `bench.py` from its runs, and the goals that they are held against.

Pure functions: the same JSON gives the same table on any machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.candidates import BRIDGES, CANDIDATES
from bench.report import percentile
from bench.run import Run, Scale
from livekit_plugins_runway.testing import SimulatorOptions

FULL_RATE = SimulatorOptions().fps
"""Pictures a second that the worker sends."""

Runs = Mapping[str, Sequence[Run]]
Scales = Mapping[str, Sequence[Scale]]


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes:
        factor: from the unit of `Run` to that of the table.
        spread: all values count, with their p50 and p95; else the median of the runs.
    """

    title: str
    unit: str
    factor: float
    values: Callable[[Run], Sequence[float | None]]
    spread: bool = True
    digits: int = 0


FIGURES: dict[str, Figure] = {
    "first_frame": Figure("`start()` to first frame", "ms", 1e3, lambda r: r.first_frame),
    "first_word": Figure("`start()` to first word", "ms", 1e3, lambda r: r.first_word),
    "speech": Figure("speech: `say()` to heard", "ms", 1e3, lambda r: r.speech),
    "barge_in": Figure("barge-in: `interrupt()` to silence", "ms", 1e3, lambda r: r.barge_in),
    "voice": Figure("voice: captured by the worker to heard", "ms", 1e3, lambda r: r.voice),
    "video": Figure("picture: captured by the worker to seen", "ms", 1e3, lambda r: r.video),
    "skew": Figure("A/V skew (+: voice late)", "ms", 1e3, lambda r: r.skew),
    "frame_rate": Figure("pictures a second", "", 1.0, lambda r: [r.frame_rate], False, 1),
    "lost": Figure("pictures lost, of 137", "", 1.0, lambda r: [r.lost], False, 1),
    "cpu": Figure("agent process, speaking", "core", 1.0, lambda r: [r.cpu], False, 2),
    "rss": Figure("agent process, resident", "MB", 1e-6, lambda r: [r.rss], False),
    "busy": Figure("whole machine busy", "%", 100.0, lambda r: [r.busy], False),
    "added_voice": Figure("voice, added", "ms", 1e3, lambda r: r.added_voice),
    "added_video": Figure("picture, added", "ms", 1e3, lambda r: r.added_video),
    "added_skew": Figure("A/V skew, added", "ms", 1e3, lambda r: r.added_skew),
}
ADDED = ("added_voice", "added_video", "added_skew")
"""Figures of a candidate that a viewer in the Runway room saw at the same time."""


@dataclass(frozen=True)
class Summary:
    n: int
    p50: float
    p95: float
    largest: float


def values(figure: Figure, runs: Sequence[Run]) -> list[float]:
    """All of them, in the table's unit."""
    return [v * figure.factor for run in runs for v in figure.values(run) if v is not None]


def summary(name: str, runs: Sequence[Run]) -> Summary | None:
    """`None`: not measured."""
    found = values(FIGURES[name], runs)
    return summarised(found) if found else None


def summarised(found: Sequence[float]) -> Summary:
    return Summary(len(found), statistics.median(found), percentile(found, 0.95), max(found))


@dataclass(frozen=True)
class Verdict:
    """A goal and what became of it; `met` is `None` where it was not measured."""

    goal: str
    limit: str
    measured: str
    met: bool | None


def judge(runs: Runs, voice_first: Sequence[Run], scales: Scales) -> list[Verdict]:
    """The goals of the project."""
    verdicts = [_ratio("speech latency, ours direct / official", "speech", runs)]
    for name in BRIDGES:
        title = CANDIDATES[name].title
        mine = runs.get(name, ())
        verdicts += [
            _added(f"speech latency added, {title}", "added_voice", mine, 60, 100),
            _every_run(f"video latency added, {title}", "added_video", mine, 70, 110),
            _every_run(f"A/V skew added, {title}", "added_skew", mine, None, 30),
            _relay_cpu(title, mine, runs.get("control", ())),
            _growth(title, scales.get(name, ())),
        ]
    verdicts.append(_ratio("time to first word, ours direct / official", "first_word", runs))
    verdicts.append(_voice_first(voice_first))
    return verdicts


def _unmeasured(goal: str, limit: str) -> Verdict:
    return Verdict(goal, limit, "not measured", None)


def _ratio(goal: str, name: str, runs: Runs) -> Verdict:
    limit = "p50 <= 1.00"
    ours, theirs = (summary(name, runs.get(who, ())) for who in ("direct", "official"))
    if ours is None or theirs is None:
        return _unmeasured(goal, limit)
    p50, p95 = ours.p50 / theirs.p50, ours.p95 / theirs.p95
    return Verdict(goal, limit, f"p50 {p50:.2f}, p95 {p95:.2f}", p50 <= 1.0)


def _added(goal: str, name: str, runs: Sequence[Run], p50: float, p95: float) -> Verdict:
    limit = f"p50 <= {p50:g} ms, p95 <= {p95:g} ms"
    if (found := summary(name, runs)) is None:
        return _unmeasured(goal, limit)
    met = found.p50 <= p50 and found.p95 <= p95
    return Verdict(goal, limit, f"p50 {found.p50:.0f} ms, p95 {found.p95:.0f} ms", met)


def _every_run(goal: str, name: str, runs: Sequence[Run], p50: float | None, p95: float) -> Verdict:
    """The worst of the runs' own percentiles; of the distance from 0 where only p95 counts."""
    parts = [] if p50 is None else [f"p50 <= {p50:g} ms"]
    limit = ", ".join([*parts, f"p95 <= {p95:g} ms"]) + " in every run"
    found = [[abs(v) if p50 is None else v for v in values(FIGURES[name], [run])] for run in runs]
    each = [summarised(v) for v in found if v]
    if not each:
        return _unmeasured(goal, limit)
    good = sum((p50 is None or s.p50 <= p50) and s.p95 <= p95 for s in each)
    worst = [] if p50 is None else [f"p50 {max(s.p50 for s in each):.0f} ms"]
    worst.append(f"p95 {max(s.p95 for s in each):.0f} ms")
    measured = f"{good} of {len(each)} runs; worst {', '.join(worst)}"
    # A run without a figure is not one in which the goal was met.
    return Verdict(goal, limit, measured, good == len(runs))


def _relay_cpu(title: str, runs: Sequence[Run], without: Sequence[Run]) -> Verdict:
    goal, limit = f"CPU of the relay, {title}", "p50 <= 0.25 core"
    mine, floor = summary("cpu", runs), summary("cpu", without)
    if mine is None or floor is None:
        return _unmeasured(goal, limit)
    cores = mine.p50 - floor.p50
    return Verdict(goal, limit, f"{cores:.2f} core", cores <= 0.25)


def _growth(title: str, scales: Sequence[Scale]) -> Verdict:
    goal, limit = f"CPU of 4 sessions in a process, {title}", "<= 4.0 x that of 1"
    one, four = (cores(scales, sessions) for sessions in (1, 4))
    if one is None or four is None:
        return _unmeasured(goal, limit)
    measured = f"{four / one:.1f} x"
    if any(saturated(scale) for scale in scales):
        # Who gets no CPU drops pictures and seems cheap.
        return Verdict(goal, limit, f"{measured}, but the machine was saturated", None)
    return Verdict(goal, limit, measured, four <= 4 * one)


def saturated(scale: Scale) -> bool:
    """Whether the machine was too small for these sessions, so that their CPU says nothing."""
    slowest = min(scale.frame_rates, default=FULL_RATE)
    return scale.busy > 0.9 or slowest < 0.9 * FULL_RATE


def cores(scales: Sequence[Scale], sessions: int) -> float | None:
    """Median of the repetitions with so many sessions."""
    found = [scale.cpu for scale in scales if scale.sessions == sessions]
    return statistics.median(found) if found else None


def _voice_first(runs: Sequence[Run]) -> Verdict:
    goal, limit = "voice first: `session.start()` to first word", "<= 500 ms"
    starts = [run.voice_start * 1e3 for run in runs if run.voice_start is not None]
    if not starts:
        return _unmeasured(goal, limit)
    measured = f"p50 {statistics.median(starts):.0f} ms, longest {max(starts):.0f} ms"
    return Verdict(goal, limit, measured, max(starts) <= 500 and len(starts) == len(runs))


def figures_json(runs: Sequence[Run]) -> dict[str, Any]:
    """By figure: unit, n, p50, p95, max."""
    found = {}
    for name, figure in FIGURES.items():
        if (row := summary(name, runs)) is not None:
            found[name] = {
                "unit": figure.unit,
                "n": row.n,
                "p50": round(row.p50, 3),
                "p95": round(row.p95, 3),
                "max": round(row.largest, 3),
            }
    return found
