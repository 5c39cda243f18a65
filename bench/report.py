"""The figures of `make bench-speech`, next to the goals of the project, as JSON and as a table."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

Unit = Literal["ms", "tones"]

FAILOVER_GOAL = "p50 <= 300 ms, p95 <= 600 ms"
FIGURES: dict[str, tuple[Unit, str]] = {
    "latency: say to heard": ("ms", ""),
    "latency: say to heard, less the avatar's rendering": ("ms", ""),
    "latency: say to relayed": ("ms", ""),
    "latency: relayed to heard": ("ms", ""),
    "latency: tones missing": ("tones", "0"),
    "end: last tone heard to say() returned": ("ms", ""),
    "barge-in: to silence": ("ms", "p50 <= 90 ms, p95 <= 150 ms"),
    "barge-in: to say() returned": ("ms", ""),
    "crash: detection": ("ms", "<= 500 ms"),
    "crash: gap": ("ms", ""),
    "crash: gap after detection": ("ms", FAILOVER_GOAL),
    "crash: tones missing": ("tones", "0"),
    "crash: repeated": ("ms", "<= 300 ms"),
    "crash: repeated, with the tone that was cut": ("ms", ""),
    "freeze: detection": ("ms", "stall_timeout, 1500 ms"),
    "freeze: gap": ("ms", ""),
    "freeze: gap after detection": ("ms", FAILOVER_GOAL),
    "freeze: tones missing": ("tones", "0"),
    "freeze: repeated": ("ms", "<= 300 ms"),
    "freeze: repeated, with the tone that was cut": ("ms", ""),
    "renewal: pause beyond the usual": ("ms", "<= 200 ms"),
    "renewal: the same, while the next session starts": ("ms", ""),
    "renewal: face frozen": ("ms", ""),
    "renewal: tones missing": ("tones", "0"),
    "renewal: tones missing, one session at a time": ("tones", "0"),
    "renewal: pause beyond the usual, one session at a time": ("ms", "<= 200 ms"),
    "renewal: the same, while the next session starts, one session at a time": ("ms", ""),
    "renewal: without a face, one session at a time": ("ms", ""),
    "pause: to silence": ("ms", ""),
    "pause: resume to heard": ("ms", ""),
    "pause: longest hole after resuming": ("ms", ""),
    "pause: tones missing": ("tones", "0"),
    "pause: repeated": ("ms", "<= 300 ms"),
    "pause: repeated, with the tone that was cut": ("ms", ""),
}
"""Every figure with its unit and its goal, in the order of the table."""


class Figures:
    """Values by figure, in seconds or in tones."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.failures: list[str] = []
        """Repetitions that gave no figures, and why."""

    def note(self, name: str, value: float | None) -> None:
        """`None`: there is nothing to measure in this repetition."""
        if name not in FIGURES:
            raise KeyError(name)
        if value is not None:
            self.values.setdefault(name, []).append(value)

    def rows(self) -> dict[str, dict[str, Any]]:
        """By figure: n, p50, p95, max and all values; milliseconds or tones."""
        rows = {}
        for name, (unit, goal) in FIGURES.items():
            if name not in self.values:
                continue
            factor = 1000.0 if unit == "ms" else 1.0
            values = [round(value * factor, 1) for value in self.values[name]]
            rows[name] = {
                "unit": unit,
                "goal": goal,
                "n": len(values),
                "p50": statistics.median(values),
                "p95": percentile(values, 0.95),
                "max": max(values),
                "values": values,
            }
        return rows


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def machine() -> dict[str, Any]:
    """Where it was measured, in words that fit any machine."""
    root = Path(__file__).resolve().parent.parent
    git = ["git", "-C", str(root)]
    commit = subprocess.run(
        [*git, "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {
        "commit": commit or "unknown",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "network": "loopback",
        "python": platform.python_version(),
        "livekit": version("livekit"),
        "livekit-agents": version("livekit-agents"),
        "load_before": round(os.getloadavg()[0], 2),
    }


def table(results: dict[str, Figures]) -> str:
    """Markdown, a row for each figure and delivery."""
    rows = {delivery: figures.rows() for delivery, figures in results.items()}
    lines = ["| figure | delivery | n | p50 | p95 | max | goal |", "|---|---|--:|--:|--:|--:|---|"]
    for name, (unit, goal) in FIGURES.items():
        for delivery, row in ((d, r[name]) for d, r in rows.items() if name in r):
            cells = [f"{row[key]:.0f}{' ms' if unit == 'ms' else ''}" for key in _COLUMNS]
            lines.append(f"| {name} | {delivery} | {row['n']} | {' | '.join(cells)} | {goal} |")
    for delivery, figures in results.items():
        lines += [f"\n{delivery}, without figures: {failure}" for failure in figures.failures]
    return "\n".join(lines) + "\n"


_COLUMNS = ("p50", "p95", "max")


def write(folder: Path, about: dict[str, Any], results: dict[str, Figures]) -> str:
    """Write `speech.json` and `speech.md`; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "about": about,
        "deliveries": {
            delivery: {"figures": figures.rows(), "failures": figures.failures}
            for delivery, figures in results.items()
        },
    }
    (folder / "speech.json").write_text(json.dumps(data, indent=1) + "\n")
    facts = ", ".join(f"{key} {value}" for key, value in about.items())
    text = f"{table(results)}\n{facts}\n"
    (folder / "speech.md").write_text(text)
    return text
