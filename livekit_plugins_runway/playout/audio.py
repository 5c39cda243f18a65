"""The audio format: int16 mono PCM at `SAMPLE_RATE` everywhere inside this package.

One rate is used from the agent's speech to the user's track, so that a position means the same
everywhere: a count of samples.
"""

SAMPLE_RATE = 48_000
"""Hz. The rate of WebRTC audio (Opus); the avatar's voice arrives at it."""
HOP = SAMPLE_RATE // 100
"""Samples in 10 ms: the grain of all accounting, and the frame size of a zero-queue AudioSource."""
HOP_SECONDS = HOP / SAMPLE_RATE
PACKET = 2 * HOP
"""Samples that an encoder takes before it sends any: 20 ms, libwebrtc's frame of Opus."""
BYTES_PER_SAMPLE = 2
SILENCE = bytes(HOP * BYTES_PER_SAMPLE)
"""10 ms."""
