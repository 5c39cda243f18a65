"""Speech at another sample rate, without delay: int16 mono PCM.

PyAV's resampler keeps back 1 ms until more speech comes (2 ms at 8 kHz). The SDK's
(`rtc.AudioResampler`) keeps back up to 39 ms, that is, the first two frames of every utterance
(measured at 24 to 48 and 48 to 16 kHz with frames of 10 ms; livekit 1.1.21, av 18.1).
"""

from __future__ import annotations

import math

import av

from .audio import BYTES_PER_SAMPLE


class Resampler:
    """For one stretch of speech. Rates in Hz."""

    def __init__(self, input_rate: int, output_rate: int) -> None:
        self.input_rate = input_rate
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=output_rate)
        self._silence_left = 0
        # With the first sound it gets it builds its filter, for 0.3 ms: that shall not be speech.
        step = input_rate // math.gcd(input_rate, output_rate)
        silent = step * math.ceil(input_rate / 100 / step)
        given = len(self.push(bytes(silent * BYTES_PER_SAMPLE)))
        self._silence_left = silent * output_rate // input_rate * BYTES_PER_SAMPLE - given

    def push(self, pcm: bytes) -> bytes:
        """What can be given now of all that was pushed."""
        if not pcm:
            return b""
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(pcm) // BYTES_PER_SAMPLE)
        frame.sample_rate = self.input_rate
        # A plane is longer than its samples.
        frame.planes[0].update(pcm.ljust(frame.planes[0].buffer_size, b"\0"))
        return self._given(frame)

    def flush(self) -> bytes:
        """The rest. Nothing can be pushed after it."""
        return self._given(None)

    def _given(self, frame: av.AudioFrame | None) -> bytes:
        given = b"".join(
            bytes(out.planes[0])[: out.samples * BYTES_PER_SAMPLE]
            for out in self._resampler.resample(frame)
        )
        silent = min(self._silence_left, len(given))
        self._silence_left -= silent
        return given[silent:]
