"""The report of `bench.py`: JSON, tables in Markdown, and their places in the docs."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.candidates import Candidate
from bench.run import Run, Scale
from bench.scores import ADDED, FIGURES, Verdict, figures_json, judge, saturated, summary

ROOT = Path(__file__).resolve().parent.parent
_BEGIN, _END = "<!-- make bench: begin -->", "<!-- make bench: end -->"

PICTURES = {
    "bench-latency": "Latencies of all candidates",
    "bench-added": "What the bridge adds, run by run",
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
            "goals": [asdict(verdict) for verdict in self.verdicts()],
            "candidates": {
                name: {
                    "title": self.candidates[name].title,
                    "figures": figures_json(runs),
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


def figures_table(results: Results, names: Sequence[str]) -> str:
    """A row for each figure, a column for each candidate: p50 / p95, or the median of the runs."""
    columns = list(results.runs)
    lines = [
        f"| | {' | '.join(results.candidates[name].title for name in columns)} |",
        f"|---|{'--:|' * len(columns)}",
    ]
    for name in names:
        cells = [_cell(name, results.runs[column]) for column in columns]
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


def added_table(results: Results) -> str:
    """What a relay adds, pooled, and its worst run."""
    lines = [
        "| over the Runway room of the same session | | n | p50 | p95 | worst run's p50 | p95 |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for column, runs in results.runs.items():
        for name in ADDED:
            if (row := summary(name, runs)) is None:
                continue
            each = [s for run in runs if (s := summary(name, [run])) is not None]
            cells = (row.p50, row.p95, max(s.p50 for s in each), max(s.p95 for s in each))
            shown = " | ".join(f"{cell:.0f} ms" for cell in cells)
            title = results.candidates[column].title
            lines.append(f"| {title} | {FIGURES[name].title} | {row.n} | {shown} |")
    return "\n".join(lines) + "\n"


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


def goals_table(results: Results) -> str:
    lines = ["| goal | limit | measured | met |", "|---|---|---|---|"]
    words = {True: "yes", False: "**no**", None: "-"}
    for verdict in results.verdicts():
        lines.append(
            f"| {verdict.goal} | {verdict.limit} | {verdict.measured} | {words[verdict.met]} |"
        )
    return "\n".join(lines) + "\n"


def report(results: Results) -> str:
    """All tables, as Markdown."""
    facts = ", ".join(f"{key} {value}" for key, value in results.about.items())
    parts = [f"{facts}.\n"]
    if results.runs:
        names = [name for name in FIGURES if name not in ADDED]
        parts.append("Median / 95th percentile:\n\n" + figures_table(results, names))
        parts.append(added_table(results))
    if results.scales:
        parts.append(scale_table(results))
    parts.append(goals_table(results))
    if results.failures:
        parts.append("Without figures: " + "; ".join(results.failures) + "\n")
    return "\n".join(parts)


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
    shown = "".join(f"\n![{PICTURES[path.stem]}]({path.name})\n" for path in pictures)
    (ROOT / "docs" / "bench.json").write_text(to_json(results))
    page = ROOT / "docs" / "bench.md"
    page.write_text(inserted(page.read_text(), report(results) + shown))
