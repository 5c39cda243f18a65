"""Onsets: each sound after a pause is found, to the millisecond, however the samples are cut."""

from __future__ import annotations

import numpy as np
import pytest

from livekit_plugins_runway.testing.onsets import Onsets
from livekit_plugins_runway.testing.tones import Pcm, ToneScript

RATE = 48_000
SCRIPT = ToneScript(5, slot_s=0.5, gap_s=0.2)


def onsets(pcm: Pcm, piece: int) -> list[float]:
    ear = Onsets(RATE)
    found = []
    for start in range(0, len(pcm), piece):
        found += [(start + n) / RATE for n in ear.push(pcm[start : start + piece])]
    return found


@pytest.mark.parametrize("piece", [480, 960, 7_777, 10**9])
def test_every_tone_after_a_pause_is_found_to_the_millisecond(piece: int) -> None:
    pcm = np.concatenate([np.zeros(1000, np.int16), SCRIPT.pcm(RATE)])
    expected = [1000 / RATE + 0.5 * n for n in range(5)]
    assert onsets(pcm, piece) == pytest.approx(expected, abs=0.0015)


def test_a_short_gap_is_no_pause_and_noise_is_no_sound() -> None:
    assert len(onsets(ToneScript(5).pcm(RATE), 480)) == 1
    noise = np.random.default_rng(1).normal(0, 0.01 * 32768, RATE).astype(np.int16)
    assert onsets(noise, 480) == []
