"""Frames of any rate and number of channels as int16 mono PCM at 48 kHz."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from livekit import rtc

from .audio import SAMPLE_RATE
from .resampler import Resampler

_PIECE = 0.5
"""Seconds of speech that are made ready in one step: a frame may have minutes of it."""


class Intake:
    """Of one sink; segments come one after the other."""

    def __init__(self) -> None:
        self._resampler: Resampler | None = None
        """From the rate of the last frame that needed one."""

    def pieces(self, frame: rtc.AudioFrame) -> Iterator[bytes]:
        """The frame's sound, a little of it at a time; a frame of another rate than the one before
        it is preceded by the rest of that."""
        channels = frame.num_channels
        step = max(1, int(_PIECE * frame.sample_rate)) * channels
        samples = np.frombuffer(bytes(frame.data), np.int16)
        for start in range(0, len(samples), step):
            piece = samples[start : start + step]
            if channels > 1:
                piece = piece.reshape(-1, channels).mean(axis=1).astype(np.int16)
            yield self._resampled(piece.tobytes(), frame.sample_rate)

    def _resampled(self, pcm: bytes, rate: int) -> bytes:
        if self._resampler is not None and self._resampler.input_rate != rate:
            rest = self._resampler.flush()
            self._resampler = None
            return rest + self._resampled(pcm, rate)
        if rate == SAMPLE_RATE:
            return pcm
        if self._resampler is None:
            self._resampler = Resampler(rate, SAMPLE_RATE)
        return self._resampler.push(pcm)

    def flush(self) -> bytes:
        """The rest of the segment's sound."""
        if self._resampler is None:
            return b""
        rest = self._resampler.flush()
        # For the next segment: its first words shall not wait for it to be made.
        self._resampler = Resampler(self._resampler.input_rate, SAMPLE_RATE)
        return rest
