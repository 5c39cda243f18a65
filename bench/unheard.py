"""How much of real speech was never heard, or heard twice: pure functions of two recordings.

Pieces of what was said are found again in what was heard by their waveform, which a codec and a
receiver's stretching leave alike enough. Between two of them that were found, as much has to sound
as was said there; a pause may lie between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from bench.ear.dsp import RATE, Pcm
from bench.ear.stage import spoken

_Floats = npt.NDArray[np.float64]

_FOLD = 3
_RATE = RATE // _FOLD
"""Samples a second at which waveforms are compared."""
_PIECE = _RATE // 5
_EVERY = _RATE // 10
_FOUND = 0.7
"""Correlation from which on a piece was found; 1.0: the same waveform."""
_HOP = RATE // 100
_SLACK_S = 0.06
"""Seconds by which the sounds between two pieces may differ: a codec's ringing, faded ends."""


@dataclass(frozen=True)
class Unheard:
    """Of one utterance, in seconds of sound above -42 dBFS."""

    missing: float
    extra: float
    found: float
    """The share of its pieces that were found, 0 to 1. With less than a half of them nothing that
    is said here can be relied on."""


def compare(said: Pcm, heard: Pcm) -> Unheard:
    """What of `said` is missing in `heard`, and what is in it that was not said; 48 kHz mono."""
    places, found = _anchors(_folded(said), _folded(heard))
    there, here = spoken(said)[::_HOP], spoken(heard)[::_HOP]
    pairs = [(0, 0), *places, (len(said), len(heard))]
    missing = extra = 0.0
    for (first, begin), (last, end) in pairwise(pairs):
        wanted = int(there[first // _HOP : last // _HOP].sum())
        surplus = (int(here[begin // _HOP : end // _HOP].sum()) - wanted) / 100
        missing += max(0.0, -surplus - _SLACK_S)
        extra += max(0.0, surplus - _SLACK_S)
    return Unheard(missing, extra, found)


def _anchors(said: _Floats, heard: _Floats) -> tuple[list[tuple[int, int]], float]:
    """Places in what was said, and where they are heard, in samples of 48 kHz; and the share of
    pieces that were found."""
    loud = 0.3 * float(np.sqrt(np.mean(said**2)))
    starts = range(0, len(said) - _PIECE, _EVERY)
    pieces = [(start, said[start : start + _PIECE]) for start in starts]
    tried = [(start, piece) for start, piece in pieces if np.sqrt(np.mean(piece**2)) >= loud]
    found = [(start, place) for start, piece in tried if (place := _find(piece, heard)) is not None]
    places = _in_order(found)
    middle = _PIECE // 2
    anchors = [((start + middle) * _FOLD, (place + middle) * _FOLD) for start, place in places]
    return anchors, len(places) / len(tried) if tried else 0.0


def _in_order(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The most of them that are heard in the order in which they were said: a piece that was lost
    may resemble another, anywhere."""
    chains: list[list[tuple[int, int]]] = []
    for one in found:
        before = [chain for chain in chains if chain[-1][1] < one[1]]
        chains.append([*max(before, key=len, default=[]), one])
    return max(chains, key=len, default=[])


def _find(piece: _Floats, heard: _Floats) -> int | None:
    count = len(piece)
    if len(heard) < count:
        return None
    size = 1 << (len(heard) + count - 1).bit_length()
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(piece, size))
    dots = np.fft.irfft(spectrum, size)[: len(heard) - count + 1]
    total = np.concatenate(([0.0], np.cumsum(heard**2)))
    energy = total[count:] - total[:-count]
    scores = dots / np.sqrt(np.maximum(energy, 1e-3) * float(np.sum(piece**2)))
    best = int(np.argmax(scores))
    return best if scores[best] >= _FOUND else None


def _folded(pcm: Pcm) -> _Floats:
    whole = pcm[: len(pcm) // _FOLD * _FOLD].astype(np.float64) / 32768
    return np.asarray(whole.reshape(-1, _FOLD).mean(axis=1))
