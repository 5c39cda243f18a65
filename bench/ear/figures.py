"""What the outcomes of many cases come to, beside the goals."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.ear.runner import Outcome

# The goals. Their source is the promise of the README: an avatar that does as it is told is kept,
# one that does not is noticed, no word is lost, and what counts as heard was heard.
MOST_GIVEN_UP = 0.1
"""Percent of cases in which the avatar says its words, and is given up all the same."""
LEAST_NOTICED, LEAST_NOTICED_HELD_OUT = 98.0, 95.0
"""Percent of cases in which the avatar's own words are noticed within 1.5 s of their sound."""
MOST_UNSAID_S = 0.3
"""Seconds of words that nobody said, in a reply that counts as heard."""
MOST_WRONG_S = 0.3
"""Seconds of words that may be lost or said twice: what a change of speakers repeats at most."""
MOST_POSITION_ERROR_S = 0.12
"""95th percentile of barge-ins: a short word is longer."""
FALSE_END_S, LATE_END_S = 0.15, 1.0
"""Seconds by which a segment's end is told too early, or too late. There is no goal for these."""

JUDGED = ("own", "foreign", "stalled", "forced", "failed")


@dataclass(frozen=True)
class Figures:
    """Of a group of cases; seconds and percent. None: there was nothing to measure."""

    cases: int
    confusion: dict[str, Counter[str]]
    """By truth: how often it was judged what."""
    given_up: float | None
    noticed: float | None
    unsaid: tuple[float, float] | None
    """In cases of foreign words; median, worst."""
    unsaid_own: tuple[float, float] | None
    """In the others."""
    lost: tuple[int, float]
    """Cases over the goal, and the worst of all. Words of the avatar's own apart, as below."""
    twice: tuple[int, float]
    false_ends: tuple[int, float]
    late_ends: tuple[int, float]
    stale: tuple[int, float]
    position: tuple[float, float, float] | None
    """Of barge-ins, without the sign: p50, p95, worst."""
    latency: tuple[float, float, float] | None
    """The same of the latency that the sink has measured."""
    by_voice: int
    """Cases in which the voice said something though the avatar was not given up."""
    cpu_ms: float
    """Milliseconds of processor time for each 10 ms, this stage included."""
    errors: int


def figures(outcomes: Sequence[Outcome]) -> Figures:
    obeys = [one for one in outcomes if one.obeys]
    foreign = [one for one in outcomes if one.truth == "foreign"]
    frozen = [one for one in outcomes if one.truth == "freeze"]
    hops = sum(one.hops for one in outcomes)
    return Figures(
        cases=len(outcomes),
        confusion={
            truth: Counter(one.judged for one in outcomes if one.truth == truth)
            for truth in ("own", "foreign", "stale", "freeze", "inaudible")
        },
        given_up=_percent([one.judged != "own" for one in obeys]),
        noticed=_percent([one.noticed for one in foreign]),
        unsaid=_median_and_worst([one.unsaid for one in foreign]),
        unsaid_own=_median_and_worst([one.unsaid for one in obeys]),
        lost=_over(obeys + frozen, lambda one: one.lost, MOST_WRONG_S),
        twice=_over(obeys + foreign + frozen, lambda one: one.twice, MOST_WRONG_S),
        false_ends=_over(obeys, lambda one: one.false_end, FALSE_END_S),
        late_ends=_over(obeys, lambda one: one.late_end, LATE_END_S),
        stale=_over(outcomes, lambda one: one.stale, 0.0),
        position=_spread([one.position_error for one in obeys]),
        latency=_spread([one.latency_error for one in obeys]),
        by_voice=sum(one.by_voice > 0.0 and one.judged == "own" for one in outcomes),
        cpu_ms=1000 * sum(one.cpu for one in outcomes) / hops if hops else 0.0,
        errors=sum(one.error is not None for one in outcomes),
    )


def _percent(hits: Sequence[bool]) -> float | None:
    return 100 * sum(hits) / len(hits) if hits else None


def _median_and_worst(values: Sequence[float]) -> tuple[float, float] | None:
    return (statistics.median(values), max(values)) if values else None


def _over(
    outcomes: Sequence[Outcome], value: Callable[[Outcome], float], limit: float
) -> tuple[int, float]:
    values = [value(one) for one in outcomes]
    return sum(one > limit for one in values), max(values, default=0.0)


def _spread(values: Sequence[float | None]) -> tuple[float, float, float] | None:
    known = sorted(abs(value) for value in values if value is not None)
    if not known:
        return None
    return known[len(known) // 2], known[int(0.95 * (len(known) - 1) + 0.5)], known[-1]


# -- goals ----------------------------------------------------------------------------------------


def missed(found: Figures, *, held_out: bool = False) -> list[str]:
    """The goals that were not reached, each in a line."""
    least = LEAST_NOTICED_HELD_OUT if held_out else LEAST_NOTICED
    position = None if found.position is None else found.position[1]
    unsaid = [one[1] for one in (found.unsaid, found.unsaid_own) if one is not None]
    checks = [
        (_is_above(found.given_up, MOST_GIVEN_UP), f"own given up: {found.given_up} %"),
        (_is_above(least, found.noticed), f"foreign noticed: {found.noticed} %"),
        (_is_above(max(unsaid, default=0.0), MOST_UNSAID_S), f"nobody said: {unsaid} s"),
        (found.lost[0] > 0, f"words lost: {found.lost}"),
        (found.twice[0] > 0, f"words said twice: {found.twice}"),
        (found.stale[0] > 0, f"stale words: {found.stale}"),
        (_is_above(position, MOST_POSITION_ERROR_S), f"position error: p95 {position} s"),
        (found.errors > 0, f"cases without an end: {found.errors}"),
    ]
    return [line for is_missed, line in checks if is_missed]


def _is_above(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit


def badness(one: Outcome) -> float:
    """How bad an outcome is; 0 if all is well. Orders the list of the worst."""
    if one.truth == "inaudible":
        return 10.0 * (one.error is not None)
    # One that freezes before its last word is not always given up.
    right = ("own", "stalled") if one.truth == "freeze" else ("own",)
    misjudged = not one.noticed if one.truth == "foreign" else one.judged not in right
    position = abs(one.position_error or 0.0)
    unheard = 0.0 if one.truth == "foreign" else one.lost
    missing = max(one.unsaid, unheard)
    return (
        10.0 * (one.error is not None)
        + 3.0 * misjudged
        + (missing if missing > MOST_UNSAID_S else 0.0)
        + (one.twice if one.twice > MOST_WRONG_S else 0.0)
        + one.stale
        + (position if position > MOST_POSITION_ERROR_S else 0.0)
        + (one.false_end if one.false_end > FALSE_END_S else 0.0)
        + 0.1 * (one.late_end if one.late_end > LATE_END_S else 0.0)
    )


# -- as text --------------------------------------------------------------------------------------


def table(groups: dict[str, Figures]) -> str:
    """Markdown: a column for each group."""
    rows = [_row(name, tell, groups, goal) for name, goal, tell in _ROWS]
    head = [
        "| figure | goal | " + " | ".join(groups) + " |",
        "|---|---" + "|--:" * len(groups) + "|",
    ]
    return "\n".join([*head, *rows])


def _row(name: str, tell: Callable[[Figures], str], groups: dict[str, Figures], goal: str) -> str:
    return f"| {name} | {goal} | " + " | ".join(tell(one) for one in groups.values()) + " |"


def _confused(truth: str) -> Callable[[Figures], str]:
    return lambda found: " / ".join(str(found.confusion[truth][one]) for one in JUDGED)


def _number(value: float | None, unit: str, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f} {unit}"


def _seconds(values: tuple[float, ...] | None) -> str:
    return "-" if values is None else " / ".join(f"{one:.2f}" for one in values) + " s"


def _counted(value: tuple[int, float]) -> str:
    return f"{value[0]} ({value[1]:.2f} s)"


_ROWS: list[tuple[str, str, Callable[[Figures], str]]] = [
    ("cases", "", lambda it: str(it.cases)),
    (f"own words, judged {' / '.join(JUDGED)}", "", _confused("own")),
    ("foreign words, the same", "", _confused("foreign")),
    ("own words, stale ones after a barge-in, the same", "", _confused("stale")),
    ("an avatar that freezes, the same", "", _confused("freeze")),
    ("a sound of which nothing is left to be heard, the same", "", _confused("inaudible")),
    ("own given up", f"<= {MOST_GIVEN_UP} %", lambda it: _number(it.given_up, "%", 2)),
    (
        "foreign noticed within 1.5 s of its sound",
        f">= {LEAST_NOTICED:.0f} %, held out >= {LEAST_NOTICED_HELD_OUT:.0f} %",
        lambda it: _number(it.noticed, "%"),
    ),
    (
        "nobody said, counts as heard; foreign: p50 / worst",
        f"<= {MOST_UNSAID_S} s",
        lambda it: _seconds(it.unsaid),
    ),
    ("the same, own: p50 / worst", f"<= {MOST_UNSAID_S} s", lambda it: _seconds(it.unsaid_own)),
    (f"words lost over {MOST_WRONG_S} s (worst)", "0", lambda it: _counted(it.lost)),
    (f"words said twice over {MOST_WRONG_S} s (worst)", "0", lambda it: _counted(it.twice)),
    ("stale words after a barge-in (worst)", "0", lambda it: _counted(it.stale)),
    (
        "position error of barge-ins, p50 / p95 / worst",
        f"p95 <= {MOST_POSITION_ERROR_S} s",
        lambda it: _seconds(it.position),
    ),
    ("latency error, p50 / p95 / worst", "", lambda it: _seconds(it.latency)),
    (f"end told over {FALSE_END_S} s too early (worst)", "", lambda it: _counted(it.false_ends)),
    (f"end told over {LATE_END_S:.0f} s late (worst)", "", lambda it: _counted(it.late_ends)),
    ("the voice spoke though nothing was given up", "", lambda it: str(it.by_voice)),
    ("processor time for each 10 ms, stage included", "", lambda it: f"{it.cpu_ms:.2f} ms"),
    ("no end within 300 s", "0", lambda it: str(it.errors)),
]


def line(one: Outcome) -> str:
    """All that is told of one case."""
    told = [
        f"judged {one.judged}",
        f"lost {one.lost:.2f}",
        f"nobody said {one.unsaid:.2f}",
        f"twice {one.twice:.2f}",
        f"stale {one.stale:.2f}",
        f"false end {one.false_end:.2f}",
        f"late end {one.late_end:.2f}",
        f"foreign heard {one.foreign_heard:.2f}",
        f"by the voice {one.by_voice:.2f} s",
    ]
    if one.position_error is not None:
        told.append(f"position {one.position_error:+.2f} s")
    if one.latency_error is not None:
        told.append(f"latency {one.latency_error:+.2f} s")
    return f"{one.name}\n    {', '.join(told)}" + (f"; {one.error}" if one.error else "")


def worst(outcomes: Sequence[Outcome], count: int = 20) -> str:
    """The cases in which most went wrong, and how each is run alone."""
    bad = sorted((one for one in outcomes if badness(one) > 0.0), key=badness, reverse=True)
    lines = [f"{line(one)}\n    python -m bench.ear --case {one.id} -v" for one in bad[:count]]
    return "\n".join([f"{len(bad)} cases with something wrong, the worst of them:", *lines])
