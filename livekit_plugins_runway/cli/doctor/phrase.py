"""What `doctor` says to an avatar: speech whose return can be recognised."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigurationError
from ...playout.audio import BYTES_PER_SAMPLE, SAMPLE_RATE

LONGEST = 10.0
"""Seconds; what a session costs grows with it."""
_LEAD = 0.1
_SYLLABLE = 0.2
_PITCH = (135.0, 125.0, 140.0, 120.0, 130.0, 118.0, 145.0, 122.0, 128.0, 112.0, 134.0, 108.0)
"""Hz of the voice, a syllable each."""
# First three formants of the vowels a, i, u, e, o of an adult's voice, in Hz, rounded.
_VOWELS = (
    (730, 1090, 2440),
    (270, 2290, 3010),
    (300, 870, 2240),
    (530, 1840, 2480),
    (570, 840, 2410),
)
_ORDER = (0, 1, 2, 3, 4, 1, 0, 4, 3, 2, 0, 1)
_WIDTHS = (90.0, 130.0, 180.0)
_TOP_HZ = 5_000.0


def built_in() -> bytes:
    """2.5 s of vowels, int16 mono at 48 kHz: no words, but a voice with pitch and formants, which
    detectors of speech take for speech."""
    pieces = [np.zeros(int(_LEAD * SAMPLE_RATE))]
    pieces += [_syllable(_VOWELS[v], hz) for v, hz in zip(_ORDER, _PITCH, strict=True)]
    samples = np.concatenate(pieces)
    return _int16(samples / np.abs(samples).max() * 0.4 * 32767)


def _syllable(formants: tuple[int, ...], pitch: float) -> NDArray[np.float64]:
    time = np.arange(int(_SYLLABLE * SAMPLE_RATE)) / SAMPLE_RATE
    voice = np.zeros_like(time)
    for harmonic in range(1, int(_TOP_HZ / pitch)):
        hz = harmonic * pitch
        gains = (np.exp(-0.5 * ((hz - f) / w) ** 2) for f, w in zip(formants, _WIDTHS, strict=True))
        # A voice falls off by about 6 dB an octave.
        voice += (sum(gains) + 0.01) / harmonic**0.5 * np.sin(2 * np.pi * hz * time)
    edge = np.minimum(time, time[::-1])
    # All vowels equally loud, so that none is lost among the others.
    shaped: NDArray[np.float64] = voice / np.sqrt(np.mean(voice**2)) * np.minimum(1.0, edge / 0.03)
    return shaped


def from_wav(path: Path) -> bytes:
    """A WAV file of 16 bit as int16 mono at 48 kHz.

    Raises:
        ConfigurationError: not such a file, or longer than `LONGEST` seconds.
    """
    try:
        with wave.open(str(path)) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            raw = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise ConfigurationError(f"--speech {path} cannot be read: {error}.") from None
    if width != BYTES_PER_SAMPLE:
        raise ConfigurationError(f"--speech {path} must have 16 bits a sample, not {8 * width}.")
    samples = np.frombuffer(raw, np.int16).reshape(-1, channels).mean(axis=1)
    seconds = len(samples) / rate
    if not 0.5 <= seconds <= LONGEST:
        raise ConfigurationError(
            f"--speech {path} must last 0.5 to {LONGEST:g} seconds, not {seconds:.1f}."
        )
    count = round(seconds * SAMPLE_RATE)
    resampled = np.interp(np.arange(count) * rate / SAMPLE_RATE, np.arange(len(samples)), samples)
    return _int16(resampled)


def _int16(samples: NDArray[np.float64]) -> bytes:
    return bytes(samples.astype(np.int16).data)
