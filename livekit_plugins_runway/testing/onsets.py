"""Where sound begins after a pause, to the sample: the moments that tell how late a voice is."""

from __future__ import annotations

import numpy as np

from .tones import Pcm

LOUD = 0.05
"""Amplitude (1.0 = full scale) that counts as sound: above what Opus smears ahead of a tone, and
reached within 1 ms of the beginning of one of a `ToneScript`."""


class Onsets:
    """Finds them in samples that come piece by piece.

    Args:
        sample_rate: in Hz.
        pause_s: seconds of quiet that must come before one.
    """

    def __init__(self, sample_rate: int, *, pause_s: float = 0.1) -> None:
        self._pause = round(pause_s * sample_rate)
        self._seen = 0
        self._last_loud = -self._pause

    def push(self, samples: Pcm) -> list[int]:
        """The onsets in these samples, which follow those of the last call."""
        loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > LOUD * 32768) + self._seen
        found: list[int] = []
        if len(loud):
            quiet = np.diff(loud, prepend=self._last_loud)
            found = (loud[quiet >= self._pause] - self._seen).tolist()
            self._last_loud = int(loud[-1])
        self._seen += len(samples)
        return found
