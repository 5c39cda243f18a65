"""The goals of the project, and what `make bench` has measured of them.

They are ratios and differences to what was measured beside it in the same run: milliseconds of one
machine say nothing of another.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from bench.candidates import BRIDGES, CANDIDATES
from bench.run import Run
from bench.scores import (
    FIGURES,
    Runs,
    Scales,
    Setting,
    by_turn,
    cores,
    saturated,
    settings,
    summarised,
    summary,
    values,
)

_JUDGED = (*BRIDGES, "bridge-early")
"""The last one if it was measured."""
_QUIET = (Setting("drawn"), Setting("camera"))
_OVER_FLOOR: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "first_frame": ("`start()` to first frame", dict.fromkeys(_JUDGED, 120)),
    "first_word": ("`start()` to first word", dict.fromkeys(_JUDGED, 150)),
    "speech": ("`say()` to heard", dict.fromkeys(_JUDGED, 50) | {"bridge-track": 80}),
}
"""Milliseconds that a bridge may take more than Runway's room itself."""
_AHEAD = 40.0
"""Milliseconds by which a voice may be ahead of its picture (EBU R 37)."""
_DRAWS = 2000
"""How often calls are drawn anew for a confidence interval."""
_FEWEST = 5

Interval = tuple[float, float] | None
Medians = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """A goal and what became of it.

    Attributes:
        met: `None` where it was not measured.
        setting: of the calls; `None`: all calls on a quiet machine together.
    """

    goal: str
    limit: str
    measured: str
    met: bool | None
    setting: Setting | None = None


@dataclass(frozen=True)
class _Added:
    """What a bridge may add in each call: p50 and p95, in milliseconds."""

    voice: tuple[float, float]
    picture: tuple[float, float | None]
    skew: float
    """p95 of its distance from 0."""


def _added(setting: Setting) -> _Added:
    if setting.load:
        return _Added(voice=(60, 90), picture=(60, 90), skew=30)
    picture = (60, None) if setting.picture == "camera" else (45, 55)
    return _Added(voice=(40, 55), picture=picture, skew=15)


def judge(runs: Runs, voice_first: Sequence[Run], scales: Scales) -> list[Verdict]:
    """The goals for all pictures and loads that were measured."""
    verdicts = []
    for setting in settings(runs) or _QUIET:
        of = {name: setting.of(own) for name, own in runs.items()}
        for bridge in _JUDGED:
            if bridge not in BRIDGES and not of.get(bridge):
                continue
            verdicts += [replace(v, setting=setting) for v in _bridge(setting, bridge, of)]
        if not setting.load and of.get("bridge-public"):
            verdicts.append(replace(_relay_cpu("bridge-public", of, 1.8), setting=setting))
    quiet = {name: [run for run in own if not run.load] for name, own in runs.items()}
    verdicts += [
        _ratio("`say()` to heard, ours direct / official", "speech", quiet),
        _ratio("`start()` to first word, ours direct / official", "first_word", quiet),
        _agent_cpu("direct", quiet, 1.1),
        *(_growth(name, scales) for name in BRIDGES),
        _voice_first(voice_first, quiet.get("control", ())),
    ]
    return verdicts


def _bridge(setting: Setting, name: str, runs: Runs) -> Iterator[Verdict]:
    mine = [run for run in runs.get(name, ()) if not run.short]
    title, limits = CANDIDATES[name].title, _added(setting)
    yield _every_call(f"voice added, {title}", "added_voice", mine, *limits.voice)
    yield _every_call(f"picture added, {title}", "added_video", mine, *limits.picture)
    yield _every_call(f"A/V skew added, {title}", "added_skew", mine, None, limits.skew)
    if setting.load:
        return
    yield _every_call(f"voice ahead of picture, {title}", "ahead", mine, _AHEAD, None)
    if setting.picture == "camera":
        goal = f"first frame: captured to seen, {title}"
        yield _every_call(goal, "first_frame_after_worker", mine, 250, None)
    for figure, (words, limit) in _OVER_FLOOR.items():
        goal = f"{words}, {title}, over Runway room itself"
        yield _over_floor(goal, figure, mine, runs.get("control", ()), limit[name])
    yield _agent_cpu(name, runs, 1.8)
    yield _relay_cpu(name, runs, 1.3)


def _unmeasured(goal: str, limit: str) -> Verdict:
    return Verdict(goal, limit, "not measured", None)


def _every_call(
    goal: str, figure: str, runs: Sequence[Run], p50: float | None, p95: float | None
) -> Verdict:
    """The worst of the calls' own percentiles; without a p50 the distance from 0 counts."""
    limits = {"p50": p50, "p95": p95}
    limit = ", ".join(f"{k} <= {v:g} ms" for k, v in limits.items() if v is not None)
    limit += " in every call"
    each = []
    for run in runs:
        if own := values(FIGURES[figure], [run]):
            each.append(summarised([abs(v) for v in own] if p50 is None else own))
    if not each:
        return _unmeasured(goal, limit)
    good = sum((p50 is None or s.p50 <= p50) and (p95 is None or s.p95 <= p95) for s in each)
    worst = [] if p50 is None else [f"p50 {max(s.p50 for s in each):.0f} ms"]
    worst += [] if p95 is None else [f"p95 {max(s.p95 for s in each):.0f} ms"]
    measured = f"{good} of {len(runs)}, worst {', '.join(worst)}"
    # A call without a figure is not one in which the goal was met.
    return Verdict(goal, limit, measured, good == len(runs))


def _over_floor(
    goal: str, figure: str, runs: Sequence[Run], floor: Sequence[Run], most: float
) -> Verdict:
    """The median of what calls took more than that of the same turn in Runway's room."""
    limit = f"p50 <= +{most:g} ms"
    more = over(figure, runs, floor)
    if not more:
        return _unmeasured(goal, limit)
    p50 = statistics.median(more)
    between = interval(lambda drawn: drawn, [[value] for value in more])
    return Verdict(goal, limit, f"{p50:+.0f} ms{_between(between, '+.0f')}", p50 <= most)


def over(figure: str, runs: Sequence[Run], floor: Sequence[Run]) -> list[float]:
    """By how much each call is above the one of the same turn, in the table's unit."""
    mine, theirs = by_turn(figure, runs), by_turn(figure, floor)
    return [value - theirs[turn] for turn, value in mine.items() if turn in theirs]


def _ratio(goal: str, figure: str, runs: Runs) -> Verdict:
    limit = "p50 <= 1.000"
    ours, theirs = (
        [own for run in runs.get(name, ()) if (own := values(FIGURES[figure], [run]))]
        for name in ("direct", "official")
    )
    if not ours or not theirs:
        return _unmeasured(goal, limit)
    p50 = statistics.median(chain(*ours)) / statistics.median(chain(*theirs))
    between = interval(lambda mine, yours: mine / yours, ours, theirs)
    return Verdict(goal, limit, f"{p50:.3f}{_between(between, '.3f')}", p50 <= 1.0)


def interval(statistic: Callable[..., Medians], *samples: Sequence[Sequence[float]]) -> Interval:
    """The 95 % confidence interval of a statistic of medians: percentiles of a bootstrap, in which
    whole calls are drawn anew, because the values of one call resemble each other.

    Args:
        statistic: of the medians of the samples.
        samples: the values of each call.

    Returns:
        `None` if a sample has fewer than five calls, of which no such interval can be told.
    """
    if min(map(len, samples)) < _FEWEST:
        return None
    random = np.random.default_rng(1)
    medians = []
    for calls in samples:
        table = np.full((len(calls), max(map(len, calls))), np.nan)
        for row, call in zip(table, calls, strict=True):
            row[: len(call)] = call
        picks = random.integers(0, len(calls), (_DRAWS, len(calls)))
        medians.append(np.nanmedian(table[picks].reshape(_DRAWS, -1), axis=1))
    low, high = np.quantile(statistic(*medians), (0.025, 0.975))
    return float(low), float(high)


def _between(found: Interval, digits: str) -> str:
    return "" if found is None else f" ({found[0]:{digits}} to {found[1]:{digits}})"


def _agent_cpu(name: str, runs: Runs, most: float) -> Verdict:
    goal, limit = f"agent's CPU, {CANDIDATES[name].title} / official", f"p50 <= {most:g}"
    mine, official = (by_turn("cpu", runs.get(who, ())) for who in (name, "official"))
    ratios = [cpu / official[turn] for turn, cpu in mine.items() if turn in official]
    return _median_ratio(goal, limit, ratios, most)


def _relay_cpu(name: str, runs: Runs, most: float) -> Verdict:
    """Of the agent, less that of one who speaks in Runway's room itself and relays nothing."""
    goal = f"CPU of the relay, {CANDIDATES[name].title} / official agent's"
    limit = f"p50 <= {most:g}"
    mine, floor, official = (
        by_turn("cpu", runs.get(who, ())) for who in (name, "control", "official")
    )
    turns = mine.keys() & floor.keys() & official.keys()
    ratios = [(mine[turn] - floor[turn]) / official[turn] for turn in turns]
    return _median_ratio(goal, limit, ratios, most)


def _median_ratio(goal: str, limit: str, ratios: Sequence[float], most: float) -> Verdict:
    if not ratios:
        return _unmeasured(goal, limit)
    p50 = statistics.median(ratios)
    between = interval(lambda drawn: drawn, [[ratio] for ratio in ratios])
    return Verdict(goal, limit, f"{p50:.2f}{_between(between, '.2f')}", p50 <= most)


def _growth(name: str, all_scales: Scales) -> Verdict:
    scales = all_scales.get(name, ())
    goal = f"CPU of 4 sessions in a process, {CANDIDATES[name].title}"
    limit = "<= 4.0 x that of 1"
    one, four = (cores(scales, sessions) for sessions in (1, 4))
    if one is None or four is None:
        return _unmeasured(goal, limit)
    measured = f"{four / one:.1f} x"
    if any(saturated(scale) for scale in scales):
        # Who gets no CPU drops pictures and seems cheap.
        return Verdict(goal, limit, f"{measured}, but the machine was saturated", None)
    return Verdict(goal, limit, measured, four <= 4 * one)


def _voice_first(runs: Sequence[Run], floor: Sequence[Run]) -> Verdict:
    """Against the time that an avatar takes which is there already."""
    goal = "voice first: `session.start()` to first word / `say()` to heard, Runway room itself"
    limit = "<= 1.00 in every call"
    usual = summary("speech", floor)
    if not runs or usual is None:
        return _unmeasured(goal, limit)
    ratios = [run.voice_start * 1e3 / usual.p50 for run in runs if run.voice_start is not None]
    worst = f", worst {max(ratios):.2f}" if ratios else ""
    good = sum(ratio <= 1.0 for ratio in ratios)
    return Verdict(goal, limit, f"{good} of {len(runs)}{worst}", good == len(runs))
