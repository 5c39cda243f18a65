"""The audio format: int16 mono PCM at `SAMPLE_RATE` everywhere inside this package.

The same rate is used from the agent's speech to the user's track, so that a position is a count of
samples everywhere.
"""

SAMPLE_RATE = 48_000
"""Hz. The rate of WebRTC audio (Opus), at which the avatar's voice arrives."""
HOP = SAMPLE_RATE // 100
"""Samples in 10 ms (a "hop"): the unit of all accounting, and the frame size of an AudioSource
without a queue.
"""
HOP_SECONDS = HOP / SAMPLE_RATE
PACKET = 2 * HOP
"""Samples in one packet: 20 ms, libwebrtc's frame of Opus."""
BYTES_PER_SAMPLE = 2
SILENCE = bytes(HOP * BYTES_PER_SAMPLE)
"""10 ms."""
