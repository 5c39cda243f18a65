"""Speech of which each 10 ms is a chord of its own, so that its place can be known exactly."""

from __future__ import annotations

import numpy as np

from livekit_plugins_runway.testing.tones import Pcm

HOP = 480
"""Samples in 10 ms at 48 kHz."""


def chords(hops: int, seed: int = 4) -> Pcm:
    """So many hops, each of three pitches below 6 kHz."""
    rng = np.random.default_rng(seed)
    time = np.arange(HOP) / 48_000
    sounds = []
    for _ in range(hops):
        pitches = rng.choice(np.arange(2, 60), 3, replace=False) * 100.0
        sounds.append(sum(np.sin(2 * np.pi * pitch * time) for pitch in pitches) * 3000)
    return np.concatenate(sounds).astype(np.int16)


def part(pcm: Pcm, first: int, end: int) -> Pcm:
    """The hops [first, end)."""
    return pcm[first * HOP : end * HOP]


def silence(hops: int) -> Pcm:
    return np.zeros(hops * HOP, np.int16)


def faded(hop: Pcm, hops: int, *, held: int = 0) -> Pcm:
    """What a receiver makes of a hop after which nothing comes: it repeats it, for `held` hops as
    it is, then 1.5 dB softer each time."""
    gains = [10 ** (-0.075 * max(0, count - held)) for count in range(hops)]
    return np.concatenate([hop * gain for gain in gains]).astype(np.int16)
