"""Sound of a track by the SDK's public streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from livekit import rtc

from ..playout.audio import BYTES_PER_SAMPLE, HOP, SAMPLE_RATE

_AUDIO_CAPACITY = 300  # 3 s: only a stalled event loop ever gets near it


async def sound(track: rtc.RemoteAudioTrack, hops: int) -> AsyncGenerator[bytes, None]:
    """The sound of a track, int16 mono PCM at 48 kHz, until the track ends.

    Args:
        hops: how many times 10 ms come at a time.
    """
    stream = rtc.AudioStream(
        track,
        capacity=_AUDIO_CAPACITY // hops,
        sample_rate=SAMPLE_RATE,
        num_channels=1,
        frame_size_ms=10 * hops,
    )
    async with aclosing(stream):
        async for event in stream:
            pcm = bytes(event.frame.data)
            if len(pcm) == hops * HOP * BYTES_PER_SAMPLE:
                yield pcm
