"""Frames of any rate and number of channels as int16 mono PCM at 48 kHz."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from livekit import rtc
from numpy.typing import NDArray

from .audio import BYTES_PER_SAMPLE, SAMPLE_RATE
from .resampler import Resampler

_PIECE = 0.5
"""Seconds of speech that are converted in one step, because a frame may hold minutes."""
_AROUND = 100
"""The resamplers get 1/`_AROUND` of a second before and after a change of rate as context."""


class Intake:
    """One per sink; segments come one after the other."""

    def __init__(self) -> None:
        # Written by `_resampled()` and `flush()` only.
        self._rate = SAMPLE_RATE
        """Rate of the last frame, in Hz."""
        self._resampler: Resampler | None = None
        """Resampler from that rate; None if none is needed."""
        self._last = b""
        """The last input samples of the segment; empty before its begin."""

    def pieces(self, frame: rtc.AudioFrame) -> Iterator[bytes]:
        """Yields the frame's sound in small pieces. If the rate has changed, the rest of the former
        rate's sound comes first.
        """
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
        """The rest of the sound at the former rate. Both resamplers get the samples beyond the
        change as context, else there would be a click.
        """
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
        # For the next segment, so that its first words do not wait for the resampler.
        self._resampler = Resampler(self._rate, SAMPLE_RATE)
        return rest


def _across(former: bytes, former_rate: int, pcm: bytes, rate: int) -> tuple[bytes, bytes]:
    """The end of `former` at the new rate, and the beginning of `pcm` at the former rate."""
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
