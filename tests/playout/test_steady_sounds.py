"""Sounds that hardly change (tones, chords, ring tones) have no waveform by which to know a place.

An avatar that plays them as it is told, through a codec, is not given up.
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bench.ear.dsp import Pcm
from bench.ear.sounds import chord, music, ring_tone
from bench.ear.treatments import treatment
from livekit_plugins_runway.testing.tones import ToneScript
from tests.support.speech_world import RATE, world
from tests.support.virtual_clock import timers_only

pytestmark = pytest.mark.sampled

SOUNDS: dict[str, Pcm] = {
    "chord": chord(4.0),
    "music": music(4.0),
    "ring tone": ring_tone(4.0),
    "long tones": ToneScript(10, slot_s=0.5, gap_s=0.15).pcm(RATE),
}


@timers_only
@pytest.mark.parametrize("what", ["as it is", "Opus 24 kbit/s", "20 ms lost each 0.3 s"])
@pytest.mark.parametrize("sound", SOUNDS)
async def test_steady_sounds_are_the_avatars_to_play(sound: str, what: str) -> None:
    said = SOUNDS[sound]
    async with world() as w:
        worker = w.attach()
        worker.own_words = np.asarray(treatment(what)(said), np.int16).tobytes()
        await w.say_pcm(said)
        w.output.flush()
        end = await w.spoken()
        assert w.losses == []
        assert w.output.stats.carried_on == 0
        assert end.playback_position == pytest.approx(len(said) / RATE, abs=0.02)
        await asyncio.sleep(1.0)
