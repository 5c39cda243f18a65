"""Frames of any rate and number of channels as int16 mono PCM at 48 kHz."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from livekit import rtc
from numpy.typing import NDArray

from .audio import BYTES_PER_SAMPLE, SAMPLE_RATE
from .resampler import Resampler

_PIECE = 0.5
"""Seconds of speech that are made ready in one step: a frame may have minutes of it."""
_AROUND = 100
"""What a change of rate looks at before and after it: this part of a second of each."""


class Intake:
    """Of one sink; segments come one after the other."""

    def __init__(self) -> None:
        # All of it is written by `_resampled()` and `flush()`.
        self._rate = SAMPLE_RATE
        """Of the last frame, in Hz."""
        self._resampler: Resampler | None = None
        """From that rate; None for one that needs none."""
        self._last = b""
        """The end of the segment as it was given; empty before it has begun."""

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
        rest = b"" if rate == self._rate else self._change_to(rate, pcm)
        around = rate // _AROUND * BYTES_PER_SAMPLE
        self._last = (self._last + pcm)[-around:] if len(pcm) < around else pcm[-around:]
        return rest + (pcm if self._resampler is None else self._resampler.push(pcm))

    def _change_to(self, rate: int, pcm: bytes) -> bytes:
        """What is left of the sound so far; each side is told how the other goes on, or there
        would be a click between them."""
        before, after = _across(self._last, self._rate, pcm, rate)
        rest = b"" if self._resampler is None else self._resampler.flush(after)
        self._resampler = None if rate == SAMPLE_RATE else Resampler(rate, SAMPLE_RATE, before)
        self._rate, self._last = rate, before
        return rest

    def flush(self) -> bytes:
        """The rest of the segment's sound."""
        self._last = b""
        if self._resampler is None:
            return b""
        rest = self._resampler.flush()
        # For the next segment: its first words shall not wait for it to be made.
        self._resampler = Resampler(self._rate, SAMPLE_RATE)
        return rest


def _across(former: bytes, former_rate: int, pcm: bytes, rate: int) -> tuple[bytes, bytes]:
    """The end of `former` at the new rate, and the beginning of `pcm` at the former one."""
    if not former:
        return b"", b""
    end = np.frombuffer(former, np.int16)
    begin = np.frombuffer(pcm, np.int16)[: rate // _AROUND]
    times = np.concatenate((np.arange(-len(end), 0) / former_rate, np.arange(len(begin)) / rate))
    sound = np.concatenate((end, begin))

    def at(wanted: NDArray[np.float64]) -> bytes:
        return np.interp(wanted, times, sound).astype(np.int16).tobytes()

    count_before, count_after = (
        len(end) * rate // former_rate,
        len(begin) * former_rate // rate,
    )
    return at(np.arange(-count_before, 0) / rate), at(np.arange(count_after) / former_rate)
