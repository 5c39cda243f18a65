"""Short-time spectra, by which sent speech is found in the avatar's voice."""

from __future__ import annotations

import numpy as np
from numpy import fft
from numpy.typing import NDArray

from ..audio import HOP

Levels = NDArray[np.float32]

# Band edges in FFT bins of 100 Hz, up to 7 kHz: the range of a data stream of 16 kHz. Tones of
# tests, 60 Hz apart, share a band from 1 kHz on: there only the pauses tell one from the next.
_EDGES = np.array(
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22, 25, 28, 31, 35, 39, 44, 50, 57]
)
_TOP_BIN = 70
_WINDOW = np.hanning(HOP).astype(np.float32)
_FLOOR_DB = -60.0
SHAPE_DB = 30.0
"""A band that is so many dB below the loudest one is ignored."""

AUDIBLE_DB = -55.0
"""dBFS above which a relayed hop counts as sound."""
SPOKEN_DB = -42.0
"""dBFS above which a hop of the agent's own speech must come out audibly. Kept well above
`AUDIBLE_DB`, so that a soft breath never looks like a word that is missing."""


SILENT_DB = -100.0
"""dBFS of digital silence, and of everything below the threshold of sound."""


def _hops(pcm: NDArray[np.int16]) -> Levels:
    x: Levels = pcm.reshape(-1, HOP).astype(np.float32) / 32768.0
    return x


def hop_levels(pcm: NDArray[np.int16]) -> Levels:
    """Level in dBFS of each hop, of a whole number of them."""
    x = _hops(pcm)
    power = np.einsum("ht,ht->h", x, x) / HOP
    levels: Levels = (10.0 * np.log10(power + 1e-10)).astype(np.float32)
    return levels


def hop_bands(pcm: NDArray[np.int16]) -> Levels:
    """Log energy of each hop's bands, of a whole number of hops."""
    spectrum = fft.rfft(_hops(pcm) * _WINDOW, axis=1)[:, : _TOP_BIN + 1]
    power = (spectrum.real**2 + spectrum.imag**2) / (HOP * HOP / 4)
    bands = 10.0 * np.log10(np.add.reduceat(power, _EDGES, axis=1) + 1e-7)
    return np.maximum(bands, _FLOOR_DB).astype(np.float32)


def hop_features(pcm: NDArray[np.int16]) -> tuple[Levels, Levels]:
    """`hop_levels` and `hop_bands`."""
    return hop_levels(pcm), hop_bands(pcm)


def shape_of(bands: Levels) -> Levels:
    """The shape of a sound, regardless of its level: how far each band, in dB, is above the ignored
    level; for one hop or many.
    """
    shape: Levels = np.maximum(bands - bands.max(axis=-1, keepdims=True) + SHAPE_DB, 0.0)
    return shape


class Hops:
    """A growing record of hop features; amortised append, no copy on read."""

    def __init__(self) -> None:
        self.count = 0
        self._levels = np.empty(256, np.float32)
        self._bands = np.empty((256, len(_EDGES)), np.float32)
        self._shapes = np.empty((256, len(_EDGES)), np.float32)

    def append(self, levels: Levels, bands: Levels) -> None:
        end = self.count + len(levels)
        if end > len(self._levels):
            size = max(end, 2 * len(self._levels))
            self._levels = np.resize(self._levels, size)
            self._bands = np.resize(self._bands, (size, len(_EDGES)))
            self._shapes = np.resize(self._shapes, (size, len(_EDGES)))
        self._levels[self.count : end] = levels
        self._bands[self.count : end] = bands
        self._shapes[self.count : end] = shape_of(bands)
        self.count = end

    def append_silence(self, count: int) -> None:
        """Add hops whose features are not needed."""
        self.append(
            np.full(count, SILENT_DB, np.float32),
            np.full((count, len(_EDGES)), _FLOOR_DB, np.float32),
        )

    def forget(self, count: int) -> None:
        """Drop the first `count` hops; the rest is counted from 0 again."""
        rows = slice(count, self.count)
        kept = self._levels[rows].copy(), self._bands[rows].copy(), self._shapes[rows].copy()
        self.count -= count
        for record, rest in zip((self._levels, self._bands, self._shapes), kept, strict=True):
            record[: self.count] = rest

    @property
    def levels(self) -> Levels:
        return self._levels[: self.count]

    @property
    def bands(self) -> Levels:
        return self._bands[: self.count]

    @property
    def shapes(self) -> Levels:
        """The shapes of the bands; see `shape_of`."""
        return self._shapes[: self.count]
