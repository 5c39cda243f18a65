"""Compares the loudness of received speech with what was said: level, clipped samples, clicks.

A recording may be late, and stretched or cut by a receiver that waits for packets, so the speech is
searched around its expected place. Made for recordings of one utterance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .tones import Pcm

TOLERANCE_DB = 3.0
"""By how much 100 ms may be louder or softer than what was said."""

CODEC = 0.02
"""The share of an utterance that a codec may make too soft."""

_WINDOW = 10  # hops
_HOP_S = 0.010
_AROUND, _AROUND_LOUD = 8, 30
"""Hops by which what is heard may lie beside its place: a receiver stretches and cuts, and is late
after a hole. Nothing near is as loud as what is too loud, so that may lie further away."""
_BEGINNING, _BLOCK = 500, 100
"""Hops by whose levels the place of a recording is found, and then that of each part of it."""
_SEARCHED = 30
"""Hops by which it may have moved since the last part."""
_SILENT = 0.005
"""RMS, 1.0 = full scale. Softer windows have no level that could be compared: -46 dBFS."""
_FULL_SCALE = 32_767
_STEP_FACTOR = 2.5
"""A codec changes phases, and with them the largest step between two samples."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Levels:
    """The comparison of a recording with what was said."""

    loudest_db: float
    """The largest excess of 100 ms over what was said around that place; negative if there is
    none."""
    louder: int
    """How many windows of 100 ms, one each 10 ms, are more than `TOLERANCE_DB` too loud."""
    softer: float
    """The share of such windows that are more than `TOLERANCE_DB` too soft, 0 to 1: holes, too."""
    clipped: int
    """Samples at full scale, where what was said has none."""
    clicks: int
    """Steps between two samples that are far larger than any of what was said."""

    def match(self, *, softer: float = CODEC, clicks: int = 0) -> bool:
        """True if it was heard as it was said.

        Args:
            softer: the share of it that may be too soft or missing, 0 to 1.
            clicks: how many there may be; a hole has one at either end.
        """
        faultless = not (self.louder or self.clipped)
        return faultless and self.clicks <= clicks and self.softer <= softer


def levels_match(said: Pcm, heard: Pcm, sample_rate: int, *, softer: float = CODEC) -> bool:
    """Whether `compare()` finds no fault. See `Levels.match`."""
    return compare(said, heard, sample_rate).match(softer=softer)


def compare(said: Pcm, heard: Pcm, sample_rate: int) -> Levels:
    """The levels of `heard`, which holds `said` and silence around it, both int16 mono."""
    edge = np.zeros(round(sample_rate * _WINDOW * _HOP_S), np.int16)
    want = _levels(np.concatenate([edge, said, edge]), sample_rate)
    got = _levels(np.concatenate([edge, heard, edge]), sample_rate)
    high, low = _expected(want, got)
    factor = 10 ** (TOLERANCE_DB / 20)
    excess = np.maximum(got, _SILENT) / np.maximum(high, _SILENT)
    soft = int(np.count_nonzero((low > _SILENT) & (got * factor < low)))
    audible = int(np.count_nonzero(want > _SILENT))
    loudest = float(20 * np.log10(excess.max())) if len(excess) else 0.0
    return Levels(
        loudest_db=loudest,
        louder=int(np.count_nonzero(excess > factor)),
        softer=soft / max(1, audible),
        clipped=clipped(heard) if not clipped(said) else 0,
        clicks=_clicks(said, heard),
    )


def too_loud(loudest_said: float, heard: Pcm, sample_rate: int) -> str | None:
    """What is wrong with a recording of which only the loudest 100 ms that may be in it are known.

    Args:
        loudest_said: RMS of 100 ms, 1.0 = full scale.
    """
    level = loudest(heard, sample_rate)
    if level > loudest_said * 10 ** (TOLERANCE_DB / 20):
        return f"100 ms at {level:.3f} (RMS), said was {loudest_said:.3f} at most"
    if count := clipped(heard):
        return f"{count} clipped samples"
    return None


def loudest(pcm: Pcm, sample_rate: int) -> float:
    """RMS of the loudest 100 ms, 1.0 = full scale."""
    levels = _levels(pcm, sample_rate)
    return float(levels.max()) if len(levels) else 0.0


def clipped(pcm: Pcm) -> int:
    """Samples at full scale."""
    return int(np.count_nonzero((pcm >= _FULL_SCALE) | (pcm <= -_FULL_SCALE)))


def _levels(pcm: Pcm, sample_rate: int) -> _Floats:
    """RMS of each window of 100 ms, one each 10 ms; shorter sound has silence after it."""
    hop = round(sample_rate * _HOP_S)
    samples = np.asarray(pcm, dtype=np.float64) / 32768
    short = max(_WINDOW * hop - len(samples), -len(samples) % hop)
    power = (np.pad(samples, (0, short)).reshape(-1, hop) ** 2).mean(axis=1)
    sums = np.cumsum(np.concatenate([[0.0], power]))
    out: _Floats = np.sqrt(np.maximum(0.0, sums[_WINDOW:] - sums[:-_WINDOW]) / _WINDOW)
    return out


def _expected(want: _Floats, got: _Floats) -> tuple[_Floats, _Floats]:
    """The highest and the lowest level that was said around the place of each window of `got`."""
    places = _places(want, got)
    highs, lows = _around(want, _AROUND_LOUD).max(axis=1), _around(want, _AROUND).min(axis=1)
    # Sound that is late after a hole may be matched beyond the end; compare it with the end
    # instead.
    inner = np.clip(places, _AROUND_LOUD, max(_AROUND_LOUD, len(want) - 1 - _AROUND_LOUD))
    high, low = _at(highs, inner + _AROUND_LOUD), _at(lows, places + _AROUND)
    # Sound where nothing was said is late, or repeated; that is no fault of its level.
    return np.where(high > _SILENT, high, want.max(initial=0.0)), low


def _around(levels: _Floats, hops: int) -> _Floats:
    """For each window, and `hops` before the first and after the last, those up to `hops` away."""
    padded = np.pad(levels, 2 * hops)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * hops + 1)


def _at(values: _Floats, places: npt.NDArray[np.int64]) -> _Floats:
    """Zero beyond the ends."""
    inside = (places >= 0) & (places < len(values))
    return np.where(inside, values[np.clip(places, 0, len(values) - 1)], 0.0)


def _places(want: _Floats, got: _Floats) -> npt.NDArray[np.int64]:
    """The window of `want` that each window of `got` belongs to. It may lie beyond either end."""
    sounding = np.flatnonzero(got > _SILENT)
    places = np.arange(len(got))
    if not len(sounding):
        return places
    padded = np.concatenate([np.zeros(len(got)), want, np.zeros(len(got))])
    first = int(sounding[0])
    beginning = got[first : first + _BEGINNING]
    shift = _best(padded, beginning, first + len(got), range(-len(got), len(want)), -first)
    places[:first] += shift
    for start in range(first, len(got), _BLOCK):
        piece = got[start : start + _BLOCK]
        if piece.max() > _SILENT:
            near = range(shift - _SEARCHED, shift + _SEARCHED + 1)
            shift = _best(padded, piece, start + len(got), near, shift)
        places[start : start + _BLOCK] += shift
    return places


def _best(padded: _Floats, piece: _Floats, at: int, tried: range, last: int) -> int:
    """The shift at which `piece` is most like what was said; of equals the one next to the last."""

    def distance(shift: int) -> float:
        start = min(max(0, at + shift), len(padded) - len(piece))
        return float(np.abs(padded[start : start + len(piece)] - piece).mean())

    return min(tried, key=lambda shift: (round(distance(shift), 5), abs(shift - last)))


def _clicks(said: Pcm, heard: Pcm) -> int:
    if len(said) < 2 or len(heard) < 2:
        return 0
    largest = np.abs(np.diff(said.astype(np.int32))).max()
    steps = np.abs(np.diff(heard.astype(np.int32)))
    return int(np.count_nonzero(steps > _STEP_FACTOR * largest + 50))
