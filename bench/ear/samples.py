"""Sounds by name: what an agent may say in `bench/levels.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.ear.dsp import Pcm
from bench.ear.sentences import AGENT
from bench.ear.sounds import chord, music, ring_tone
from bench.ear.voices import speech, voices

_CHORD_HZ = (440.0, 554.0, 659.0)


def _spoken() -> Pcm:
    (voice, *_) = voices(synthesizer="espeak", language="en", held_out=False)
    return speech(AGENT["en"][0], voice)


def _sentences() -> Pcm:
    (voice, *_) = voices(synthesizer="pico", language="en")
    return np.concatenate([speech(text, voice) for text in AGENT["en"][:3]])


SAMPLES: dict[str, Callable[[], Pcm]] = {
    "close tones": lambda: chord(1.6),
    "tones": lambda: chord(1.6, hz=_CHORD_HZ),
    "music": lambda: music(2.4),
    "ring tone": lambda: ring_tone(1.0, level_db=-16.0),
    "speech": _spoken,
    "sentences": _sentences,
}
"""int16 mono at 48 kHz, for two seconds or so; `sentences` for about ten."""


def sample(name: str) -> Pcm:
    return np.asarray(SAMPLES[name]())
