"""Signals as arrays: levels, resampling and filters, with numpy alone.

`Pcm` is int16 mono at `RATE`; `Signal` is the same as floats, 1.0 = full scale.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pcm: TypeAlias = NDArray[np.int16]
Signal: TypeAlias = NDArray[np.float64]

RATE = 48_000
"""Samples per second of all sound in this package."""
_FRAME = RATE // 50
_SPOKEN_DB = 25.0
"""A frame of 20 ms counts as speech down to this far below the loud ones."""


def to_signal(pcm: Pcm) -> Signal:
    return pcm.astype(np.float64) / 32768.0


def to_pcm(signal: Signal) -> Pcm:
    """Rounds, and clips what is above full scale."""
    return np.clip(np.rint(signal * 32768.0), -32768, 32767).astype(np.int16)


def gain(db: float) -> float:
    """The factor of amplitude that `db` stands for."""
    return float(10.0 ** (db / 20.0))


def decibels(amplitude: float) -> float:
    """dBFS of an amplitude; silence is -120."""
    return float(20.0 * np.log10(max(amplitude, 1e-6)))


def rms_db(signal: Signal) -> float:
    """Level of all of it, in dBFS."""
    return decibels(float(np.sqrt(np.mean(signal**2)))) if len(signal) else decibels(0.0)


def frame_levels(signal: Signal) -> Signal:
    """RMS of each 20 ms, 1.0 = full scale. What is left at the end is not counted."""
    whole = len(signal) // _FRAME * _FRAME
    levels: Signal = np.sqrt(np.mean(signal[:whole].reshape(-1, _FRAME) ** 2, axis=1))
    return levels


def speech_level_db(signal: Signal) -> float:
    """Level while something is said, in dBFS: pauses are left out."""
    levels = frame_levels(signal)
    if not len(levels):
        return rms_db(signal)
    spoken = levels[levels >= np.percentile(levels, 95) * gain(-_SPOKEN_DB)]
    return decibels(float(np.sqrt(np.mean(spoken**2))))


def resampled(signal: Signal, rate: float, to_rate: float) -> Signal:
    """The same sound at another sample rate in whole Hz, band-limited; keeps its time."""
    ratio = Fraction(round(to_rate), round(rate))
    if ratio == 1 or not len(signal):
        return signal
    unit = ratio.denominator  # so many samples become a whole number of samples
    margin = unit * -(-480 // unit)  # keeps the ends apart, which a transform takes for neighbours
    padded = np.pad(signal, (margin, margin + -len(signal) % unit))
    length = int(len(padded) * ratio)
    spectrum = np.fft.rfft(padded)
    kept = np.zeros(length // 2 + 1, dtype=complex)
    count = min(len(spectrum), len(kept))
    kept[:count] = spectrum[:count]
    out: Signal = np.fft.irfft(kept, length) * float(ratio)
    start = int(margin * ratio)
    return out[start : start + round(len(signal) * ratio)]


def band_passed(signal: Signal, low_hz: float, high_hz: float) -> Signal:
    """What lies between two frequencies, with flanks of a sixth of an octave; keeps its time."""
    padded = np.concatenate([signal, np.zeros(4800)])
    hz = np.fft.rfftfreq(len(padded), 1 / RATE).astype(np.float64)
    shape = _flank(hz, low_hz, rising=True) * _flank(hz, high_hz, rising=False)
    out: Signal = np.fft.irfft(np.fft.rfft(padded) * shape, len(padded))
    return out[: len(signal)]


def _flank(hz: Signal, edge_hz: float, *, rising: bool) -> Signal:
    """1 on one side of an edge, 0 on the other; half of it at the edge. 0 and inf: no edge."""
    if edge_hz in (0.0, float("inf")):
        return np.ones(len(hz))
    octaves = np.log2(np.maximum(hz, 1e-3) / edge_hz) * (1 if rising else -1)
    flank: Signal = 0.5 + 0.5 * np.sin(np.pi / 2 * np.clip(octaves * 12, -1, 1))
    return flank


def convolved(signal: Signal, response: Signal) -> Signal:
    """Filtered by an impulse response; as long as `signal`, the rest is cut off."""
    length = len(signal) + len(response) - 1
    size = 1 << (length - 1).bit_length()
    product = np.fft.rfft(signal, size) * np.fft.rfft(response, size)
    out: Signal = np.fft.irfft(product, size)
    return out[: len(signal)]
