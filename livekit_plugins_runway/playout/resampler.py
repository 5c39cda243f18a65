"""Resamples speech without delay: int16 mono PCM.

PyAV's resampler keeps back 1 ms until more speech comes (2 ms at 8 kHz). The SDK's
(`rtc.AudioResampler`) keeps back up to 39 ms, that is, the first two frames of every utterance
(measured at 24 to 48 and 48 to 16 kHz with frames of 10 ms; livekit 1.1.21, av 18.1).
"""

from __future__ import annotations

import math

import av

from .audio import BYTES_PER_SAMPLE


class Resampler:
    """Resamples one stretch of speech. Rates in Hz.

    Args:
        before: the samples before it, at the input rate, 10 ms at most; silence by default.
    """

    def __init__(self, input_rate: int, output_rate: int, before: bytes = b"") -> None:
        self.input_rate = input_rate
        self._output_rate = output_rate
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=output_rate)
        self._pushed = 0
        """Bytes, from the stretch's start."""
        # The first input makes it build its filter, which takes 0.3 ms: do that before speech
        # comes.
        step = input_rate // math.gcd(input_rate, output_rate)
        count = step * math.ceil(input_rate / 100 / step)
        self._given = -(count * output_rate // input_rate) * BYTES_PER_SAMPLE
        """Bytes, from the stretch's start; negative within the context before it."""
        size = count * BYTES_PER_SAMPLE
        self._resample(_frame(before[-size:].rjust(size, b"\0"), input_rate))

    def push(self, pcm: bytes) -> bytes:
        """The output that is available now."""
        if not pcm:
            return b""
        self._pushed += len(pcm)
        return self._resample(_frame(pcm, self.input_rate))

    def flush(self, after: bytes = b"") -> bytes:
        """The rest. Nothing can be pushed after it.

        Args:
            after: the samples after it, at the input rate; silence by default.
        """
        if not after:
            return self._resample(None)
        whole = self._pushed // BYTES_PER_SAMPLE * self._output_rate / self.input_rate
        left = max(0, round(whole) * BYTES_PER_SAMPLE - self._given)
        return (self._resample(_frame(after, self.input_rate)) + self._resample(None))[:left]

    def _resample(self, frame: av.AudioFrame | None) -> bytes:
        given = b"".join(
            bytes(out.planes[0])[: out.samples * BYTES_PER_SAMPLE]
            for out in self._resampler.resample(frame)
        )
        before = min(max(0, -self._given), len(given))
        self._given += len(given)
        return given[before:]


def _frame(pcm: bytes, rate: int) -> av.AudioFrame:
    frame = av.AudioFrame(format="s16", layout="mono", samples=len(pcm) // BYTES_PER_SAMPLE)
    frame.sample_rate = rate
    # A plane is longer than its samples.
    frame.planes[0].update(pcm.ljust(frame.planes[0].buffer_size, b"\0"))
    return frame
