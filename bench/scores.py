"""The figures of `make bench` from its calls.

Pure functions: the same JSON gives the same table on any machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report import percentile
from bench.run import Run, Scale
from livekit_plugins_runway.testing import SimulatorOptions
from livekit_plugins_runway.testing.options import Picture

FULL_RATE = SimulatorOptions().fps
"""Pictures a second that the worker sends."""

Runs = Mapping[str, Sequence[Run]]
Scales = Mapping[str, Sequence[Scale]]


@dataclass(frozen=True)
class Setting:
    """What calls have to have in common to be compared: the picture, and the share of the machine
    that other programs take."""

    picture: Picture
    load: float = 0.0

    def __str__(self) -> str:
        return f"{self.picture}, load {self.load:g}" if self.load else self.picture

    def of(self, runs: Sequence[Run]) -> list[Run]:
        return [run for run in runs if (run.picture, run.load) == (self.picture, self.load)]


def settings(runs: Runs) -> list[Setting]:
    """Those that were measured, quiet ones first."""
    found = dict.fromkeys(Setting(run.picture, run.load) for own in runs.values() for run in own)
    return sorted(found, key=lambda setting: setting.load)


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes:
        values: of one call.
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
    "first_frame": Figure("`start()` to first frame", "ms", 1e3, lambda r: [r.first_frame]),
    "first_frame_after_worker": Figure(
        "first frame: captured by the worker to seen",
        "ms",
        1e3,
        lambda r: [r.first_frame_after_worker],
    ),
    "first_word": Figure("`start()` to first word", "ms", 1e3, lambda r: [r.first_word]),
    "speech": Figure("speech: `say()` to heard", "ms", 1e3, lambda r: r.speech),
    "barge_in": Figure("barge-in: `interrupt()` to silence", "ms", 1e3, lambda r: r.barge_in),
    "voice": Figure("voice: captured by the worker to heard", "ms", 1e3, lambda r: r.voice),
    "video": Figure("picture: captured by the worker to seen", "ms", 1e3, lambda r: r.video),
    "skew": Figure("A/V skew (+: voice late)", "ms", 1e3, lambda r: r.skew),
    "ahead": Figure(
        "voice ahead of picture, p50 of each call",
        "ms",
        1e3,
        lambda r: [-statistics.median(r.skew)] if r.skew else [],
    ),
    "frame_rate": Figure("pictures a second", "", 1.0, lambda r: [r.frame_rate], False, 1),
    "lost": Figure("pictures lost, of 137", "", 1.0, lambda r: [r.lost], False, 1),
    "cpu": Figure("agent process, speaking", "core", 1.0, lambda r: [r.cpu], False, 2),
    "rss": Figure("agent process, resident", "MB", 1e-6, lambda r: [r.rss], False),
    "busy": Figure("whole machine busy", "%", 100.0, lambda r: [r.busy], False),
    "others": Figure(
        "of it, other programs", "%", 100.0, lambda r: [r.others] if r.load else [], False
    ),
    "added_voice": Figure("voice, added", "ms", 1e3, lambda r: r.added_voice),
    "added_video": Figure("picture, added", "ms", 1e3, lambda r: r.added_video),
    "added_skew": Figure("A/V skew, added", "ms", 1e3, lambda r: r.added_skew),
}
ADDED = ("added_voice", "added_video", "added_skew")
"""Figures of a candidate that a viewer in the Runway room saw at the same time."""


OVER_FLOOR = ("first_frame", "first_word", "speech")
"""Figures that are compared with calls in Runway's own room."""


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


def by_turn(name: str, runs: Sequence[Run]) -> dict[int, float]:
    """The median of the long calls of each turn, in the table's unit; turns without are left out.
    With several pictures a turn has a call of each."""
    found: dict[int, list[float]] = {}
    for run in runs:
        if not run.short and (own := values(FIGURES[name], [run])):
            found.setdefault(run.turn, []).append(statistics.median(own))
    return {turn: statistics.median(own) for turn, own in found.items()}


def saturated(scale: Scale) -> bool:
    """Whether the machine was too small for these sessions, so that their CPU says nothing."""
    slowest = min(scale.frame_rates, default=FULL_RATE)
    return scale.busy > 0.9 or slowest < 0.9 * FULL_RATE


def cores(scales: Sequence[Scale], sessions: int) -> float | None:
    """Median of the repetitions with so many sessions."""
    found = [scale.cpu for scale in scales if scale.sessions == sessions]
    return statistics.median(found) if found else None


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
