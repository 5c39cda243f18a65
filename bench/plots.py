"""The figures of `make bench` as pictures (PNG), with matplotlib (extra `bench`).

Of calls there is one setting in them: a quiet machine, with the camera's picture if it was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.candidates import CANDIDATES
from bench.pages import TITLES, Results
from bench.scores import FIGURES, Runs, Summary, cores, settings, summary

# As wide as a phone's screen and twice as dense, so that the letters can be read there, too.
_SIZE = (4.6, 5.2)
_DPI = 200
_COLOURS = ("#8c8c8c", "#1b7837", "#2166ac", "#67a9cf", "#b35806", "#762a83")


def draw(results: Results, folder: Path) -> list[Path]:
    """Write what can be drawn; returns the files. None without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn = []
    for name, plot in (("latency", _latency), ("added", _added), ("sessions", _sessions)):
        figure, axes = plt.subplots(figsize=_SIZE, dpi=_DPI, layout="constrained")
        if plot(axes, results):
            axes.grid(axis="y", alpha=0.3)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            path = folder / f"bench-{name}.png"
            figure.savefig(path)
            drawn.append(path)
        plt.close(figure)
    return drawn


def _plain(axes: Any, results: Results) -> Runs:
    quiet = [setting for setting in settings(results.runs) if not setting.load]
    if not quiet:
        return {}
    setting = next((one for one in quiet if one.picture == "camera"), quiet[0])
    axes.set_title(TITLES[setting.picture], fontsize=10)
    return {name: setting.of(own) for name, own in results.runs.items()}


def _colour(results: Results, name: str) -> str:
    order = [*CANDIDATES, *(n for n in results.candidates if n not in CANDIDATES)]
    return _COLOURS[order.index(name) % len(_COLOURS)]


def _latency(axes: Any, results: Results) -> bool:
    """Bars to the median, a line to the 95th percentile."""
    rows = ("speech", "barge_in", "voice", "video")
    titles = ("speech:\nsay()\nto heard", "barge-in:\nto silence", "voice:\ncaptured\nto heard",
              "picture:\ncaptured\nto seen")  # fmt: skip
    shown = _plain(axes, results)
    width = 0.8 / max(1, len(shown))
    for n, (name, runs) in enumerate(shown.items()):
        found = [(place, s) for place, row in enumerate(rows) if (s := summary(row, runs))]
        _bars(axes, found, n * width - 0.4 + width / 2, width, results.candidates[name].title,
              _colour(results, name))  # fmt: skip
    axes.set_xticks(range(len(rows)), titles)
    axes.set_ylabel("ms (bar: p50, line: p95)")
    _legend(axes)
    return bool(shown)


def _legend(axes: Any) -> None:
    """Under the plot: beside it there is no room."""
    axes.figure.legend(loc="outside lower left", frameon=False, fontsize=9)


def _bars(
    axes: Any,
    found: Sequence[tuple[int, Summary]],
    offset: float,
    width: float,
    label: str,
    colour: str,
) -> None:
    axes.bar(
        [place + offset for place, _ in found],
        [s.p50 for _, s in found],
        width * 0.92,
        yerr=[[0.0] * len(found), [max(0.0, s.p95 - s.p50) for _, s in found]],
        error_kw={"linewidth": 1, "alpha": 0.7},
        label=label,
        color=colour,
    )


def _added(axes: Any, results: Results) -> bool:
    """A point for each run: what the relay adds to the picture and to the voice."""
    some = False
    for name, runs in _plain(axes, results).items():
        for figure, marker in (("added_video", "o"), ("added_voice", "x")):
            each = [(run.turn, s) for run in runs if (s := summary(figure, [run]))]
            if not each:
                continue
            some = True
            axes.errorbar(
                [n for n, _ in each],
                [s.p50 for _, s in each],
                yerr=[[0.0] * len(each), [max(0.0, s.p95 - s.p50) for _, s in each]],
                fmt=marker,
                linewidth=1,
                color=_colour(results, name),
                label=f"{FIGURES[figure].title}: {results.candidates[name].title}",
            )
    if not some:
        return False
    axes.axhline(0, color="#444444", linewidth=0.8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("turn")
    axes.set_ylabel("ms over the Runway room's own\n(point: p50, line: p95)")
    _legend(axes)
    return True


def _sessions(axes: Any, results: Results) -> bool:
    """CPU of the agent's process by the number of its sessions."""
    if not any(results.scales.values()):
        return False
    for name, scales in results.scales.items():
        counts = sorted({scale.sessions for scale in scales})
        axes.plot(
            counts,
            [cores(scales, count) for count in counts],
            marker="o",
            color=_colour(results, name),
            label=results.candidates[name].title,
        )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("sessions in one agent process, all speaking")
    axes.set_ylabel("cores")
    axes.set_ylim(bottom=0)
    _legend(axes)
    return True
