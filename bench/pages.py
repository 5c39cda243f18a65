"""The report of `make bench`: JSON, tables in Markdown, and their places in the docs."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.candidates import Candidate
from bench.goals import Verdict, judge, over
from bench.run import Run, Scale
from bench.scores import (
    ADDED,
    FIGURES,
    OVER_FLOOR,
    Runs,
    Setting,
    figures_json,
    saturated,
    settings,
    summarised,
    summary,
)

ROOT = Path(__file__).resolve().parent.parent
_BEGIN, _END = "<!-- make bench: begin -->", "<!-- make bench: end -->"

IMAGES = {
    "bench-latency": "Latencies of all candidates",
    "bench-added": "What the bridge adds, turn by turn",
    "bench-sessions": "CPU by the number of sessions in a process",
}


@dataclass
class Results:
    """All that was measured."""

    about: dict[str, Any]
    candidates: Mapping[str, Candidate]
    runs: dict[str, list[Run]] = field(default_factory=dict)
    voice_first: list[Run] = field(default_factory=list)
    scales: dict[str, list[Scale]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Runs that gave no figures, and why."""

    def as_json(self) -> dict[str, Any]:
        return {
            "about": self.about,
            "units": "s, cores and bytes in runs; those that are named in figures",
            "goals": [
                asdict(verdict) | {"setting": str(verdict.setting or "all, quiet")}
                for verdict in self.verdicts()
            ],
            "candidates": {
                name: {
                    "title": self.candidates[name].title,
                    "figures": {
                        str(setting): figures
                        for setting in settings(self.runs)
                        if (figures := figures_json(setting.of(runs)))
                    },
                    "runs": [_rounded(asdict(run)) for run in runs],
                }
                for name, runs in self.runs.items()
            },
            "voice_first": [_rounded(asdict(run)) for run in self.voice_first],
            "sessions_per_process": {
                name: [_rounded(asdict(scale)) for scale in scales]
                for name, scales in self.scales.items()
            },
            "failures": self.failures,
        }

    def verdicts(self) -> list[Verdict]:
        return judge(self.runs, self.voice_first, self.scales)


def _rounded(value: Any) -> Any:
    """Tenths of milliseconds are finer than anything here, and make a small file."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return value


def to_json(results: Results) -> str:
    """With each list of numbers on one line."""
    text = json.dumps(results.as_json(), indent=1)
    lists = re.compile(r"\[\s+([-+.\de,\s]+?)\s+\]")
    return lists.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text) + "\n"


def figures_table(results: Results, runs: Runs, names: Sequence[str]) -> str:
    """A row for each figure, a column for each candidate: p50 / p95, or the median of the runs."""
    lines = [
        f"| | {' | '.join(results.candidates[name].title for name in runs)} |",
        f"|---|{'--:|' * len(runs)}",
    ]
    for name in names:
        cells = [_cell(name, own) for own in runs.values()]
        if any(cell != "-" for cell in cells):
            lines.append(f"| {FIGURES[name].title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(name: str, runs: Sequence[Run]) -> str:
    figure = FIGURES[name]
    if (row := summary(name, runs)) is None:
        return "-"
    numbers = [row.p50, row.p95] if figure.spread else [row.p50]
    text = " / ".join(f"{number:.{figure.digits}f}" for number in numbers)
    return f"{text} {figure.unit}".strip()


def added_table(results: Results, runs: Runs) -> str:
    """What bridges add. `start()` and `say()` are those of calls in Runway's own room in the same
    turns; the rest was measured there in the same calls."""
    lines = [
        "| over the Runway room | | n | p50 | p95 | worst call's p50 | p95 |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for column, own in runs.items():
        if len(results.candidates[column].places) < 2:
            continue
        title = results.candidates[column].title
        for name in OVER_FLOOR:
            if more := over(name, own, runs.get("control", ())):
                row = summarised(more)
                shown = f"{row.n} | {row.p50:.0f} ms | {row.p95:.0f} ms | {row.largest:.0f} ms | "
                lines.append(f"| {title} | {FIGURES[name].title} | {shown}|")
        for name in ADDED:
            if (found := summary(name, own)) is None:
                continue
            each = [s for run in own if (s := summary(name, [run])) is not None]
            cells = (found.p50, found.p95, max(s.p50 for s in each), max(s.p95 for s in each))
            shown = " | ".join(f"{cell:.0f} ms" for cell in cells)
            lines.append(f"| {title} | {FIGURES[name].title} | {found.n} | {shown} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def scale_table(results: Results) -> str:
    lines = [
        "| sessions in a process | | cores | x that of 1 | resident | pictures a second | busy |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, scales in results.scales.items():
        by_count: dict[int, list[Scale]] = {}
        for scale in scales:
            by_count.setdefault(scale.sessions, []).append(scale)
        base: float | None = None
        for count, group in sorted(by_count.items()):
            cpu = statistics.median(scale.cpu for scale in group)
            base = cpu if base is None else base
            rate = statistics.median(rate for scale in group for rate in scale.frame_rates)
            rss = statistics.median(scale.rss for scale in group) / 1e6
            busy = statistics.median(scale.busy for scale in group)
            note = " (saturated)" if any(saturated(scale) for scale in group) else ""
            lines.append(
                f"| {results.candidates[name].title} | {count} | {cpu:.2f} | {cpu / base:.1f} "
                f"| {rss:.0f} MB | {rate:.1f} | {busy:.0%}{note} |"
            )
    return "\n".join(lines) + "\n"


_WORDS = {True: "yes", False: "**no**", None: "-"}
TITLES = {"drawn": "Drawn face", "camera": "Camera's picture"}


def goals_table(verdicts: Sequence[Verdict]) -> str:
    """A row for each goal, a column for each picture."""
    columns = list(dict.fromkeys(v.setting.picture for v in verdicts if v.setting is not None))
    lines = [
        f"| goal | limit | {' | '.join(TITLES[column].lower() for column in columns)} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    rows: dict[str, dict[str, dict[str, str]]] = {}
    for v in verdicts:
        if v.setting is not None:
            cell = v.measured if v.met is None else f"{_WORDS[v.met]}: {v.measured}"
            cells = rows.setdefault(v.goal, {}).setdefault(v.limit, {})
            cells[v.setting.picture] = cell
    for goal, by_limit in rows.items():
        for limit, cells in by_limit.items():
            shown = " | ".join(cells.get(column, "") for column in columns)
            lines.append(f"| {goal} | {limit} | {shown} |")
    return "\n".join(lines) + "\n"


def _goals(results: Results) -> list[str]:
    """A table for a quiet machine and for each load, and one of what holds for all pictures."""
    verdicts = results.verdicts()
    parts = []
    for load in sorted({v.setting.load for v in verdicts if v.setting is not None}):
        own = [v for v in verdicts if v.setting is not None and v.setting.load == load]
        parts.append(f"Goals, {_where(results.runs, load)}:\n\n{goals_table(own)}")
    lines = ["| goal, quiet machine, all pictures | limit | measured | met |", "|---|---|---|---|"]
    lines += [
        f"| {v.goal} | {v.limit} | {v.measured} | {_WORDS[v.met]} |"
        for v in verdicts
        if v.setting is None
    ]
    return [*parts, "\n".join(lines) + "\n"]


def _where(runs: Runs, load: float) -> str:
    if not load:
        return "quiet machine"
    found = summary("others", [run for own in runs.values() for run in own if run.load == load])
    taken = "?" if found is None else f"{found.p50:.0f}"
    return f"{taken} % of the machine taken by other programs (asked: {load:.0%})"


def _section(results: Results, setting: Setting) -> list[str]:
    runs = {name: setting.of(own) for name, own in results.runs.items()}
    title = f"{TITLES[setting.picture]}, {_where(results.runs, setting.load)}"
    names = [name for name in FIGURES if name not in ADDED]
    table = figures_table(results, runs, names)
    return [f"**{title}**, median / 95th percentile:\n\n{table}", added_table(results, runs)]


def report(results: Results) -> str:
    """All tables, as Markdown."""
    facts = ", ".join(f"{key} {value}" for key, value in results.about.items())
    parts = [f"{facts}.\n"]
    for setting in settings(results.runs):
        parts += _section(results, setting)
    if results.scales:
        parts.append(scale_table(results))
    parts += _goals(results)
    if results.failures:
        parts.append("Without figures: " + "; ".join(results.failures) + "\n")
    return "\n".join(part for part in parts if part)


def inserted(page: str, content: str) -> str:
    """The page with this content between its markers.

    Raises:
        ValueError: it has none.
    """
    head, begun, rest = page.partition(_BEGIN)
    _, ended, tail = rest.partition(_END)
    if not begun or not ended:
        raise ValueError("the page has no place for the figures")
    return f"{head}{_BEGIN}\n{content.strip()}\n{_END}{tail}"


def publish(results: Results, pictures: Sequence[Path]) -> None:
    """Put the figures into `docs/`, where the pictures are."""
    shown = "".join(f"\n![{IMAGES[path.stem]}]({path.name})\n" for path in pictures)
    (ROOT / "docs" / "bench.json").write_text(to_json(results))
    page = ROOT / "docs" / "bench.md"
    page.write_text(inserted(page.read_text(), report(results) + shown))
