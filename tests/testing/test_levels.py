"""The level of what is heard: too loud, clipped, clicking and missing are told from merely late."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from bench.ear.dsp import resampled, to_pcm, to_signal
from bench.ear.sounds import chord, music, ring_tone
from livekit_plugins_runway.testing.levels import compare, levels_match, loudest, too_loud
from livekit_plugins_runway.testing.tones import Pcm, ToneScript
from tests.testing.test_tones import through_opus

pytestmark = pytest.mark.sampled

RATE = 48_000
SOUNDS = {
    "chord": chord(3.0),
    "music": music(4.0),
    "ring tone": ring_tone(4.0),
    "tones": ToneScript(12).pcm(RATE),
}
every_sound = pytest.mark.parametrize("said", SOUNDS.values(), ids=SOUNDS.keys())


def late(pcm: Pcm, seconds: float = 0.43) -> Pcm:
    silence = np.zeros(round(seconds * RATE), np.int16)
    return np.concatenate([silence, pcm, silence])


def amplified(pcm: Pcm, factor: float, start_s: float, length_s: float) -> Pcm:
    out = pcm.astype(np.float64)
    out[round(start_s * RATE) : round((start_s + length_s) * RATE)] *= factor
    return np.clip(out, -32768, 32767).astype(np.int16)


@every_sound
@pytest.mark.parametrize(("bit_rate", "seconds"), [(24_000, 0.43), (64_000, 3.14)])
def test_what_is_only_late_and_went_through_a_codec_matches(
    said: Pcm, bit_rate: int, seconds: float
) -> None:
    heard = late(through_opus(said, bit_rate, "voip"), seconds)
    assert levels_match(said, heard, RATE), compare(said, heard, RATE)


@every_sound
@pytest.mark.parametrize("pace", [0.97, 1.03])
def test_what_a_receiver_stretches_or_cuts_a_little_matches(said: Pcm, pace: float) -> None:
    ratio = Fraction(pace).limit_denominator(100)
    heard = late(
        to_pcm(resampled(to_signal(said), RATE * ratio.numerator / ratio.denominator, RATE))
    )
    assert levels_match(said, heard, RATE), compare(said, heard, RATE)


@pytest.mark.parametrize("hole_s", [0.1, 0.3, 0.5, 0.7])
def test_what_is_late_after_a_hole_is_not_taken_for_too_loud(hole_s: float) -> None:
    said = SOUNDS["tones"]
    hole = np.zeros(round(hole_s * RATE), np.int16)
    for slot in range(1, 12):  # steady levels tell no slot from the next
        at = round(slot * 0.25 * RATE)
        heard = late(np.concatenate([said[:at], hole, said[at:]]))
        assert compare(said, heard, RATE).louder == 0, slot


@every_sound
@pytest.mark.parametrize("start_s", [0.0, 0.5])
def test_a_tenth_of_a_second_that_is_twice_as_loud_does_not(said: Pcm, start_s: float) -> None:
    quiet = (said // 4).astype(np.int16)  # nothing clips: it is the level that is told
    found = compare(quiet, late(amplified(quiet, 2.0, start_s, 0.2)), RATE)
    assert found.louder > 0
    assert found.loudest_db == pytest.approx(6.0, abs=1.5)
    assert found.clipped == 0
    assert not found.match(softer=1.0)


def test_clipped_samples_are_counted() -> None:
    said = SOUNDS["chord"]
    found = compare(said, late(amplified(said, 12.0, 0.5, 0.01)), RATE)
    assert found.clipped > 0
    assert not found.match(softer=1.0)


def test_a_step_that_was_not_said_is_a_click() -> None:
    said = SOUNDS["chord"]
    heard = late(said)
    heard[RATE] += np.int16(12_000)
    assert compare(said, heard, RATE).clicks > 0
    assert not levels_match(said, heard, RATE)


def test_what_is_heard_again_later_is_not_taken_for_too_loud() -> None:
    said = SOUNDS["chord"]
    found = compare(said, np.concatenate([late(said), said]), RATE)
    assert found.louder == 0


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_what_is_missing_or_too_soft_counts_by_its_share(factor: float) -> None:
    said = SOUNDS["chord"]
    found = compare(said, late(amplified(said, factor, 1.0, 0.6)), RATE)
    assert 0.1 < found.softer < 0.3
    assert found.louder == 0
    assert not found.match()
    assert found.softer == pytest.approx(0.2, abs=0.06)


def test_a_recording_of_whole_calls_is_held_to_the_loudest_that_was_said() -> None:
    said = SOUNDS["tones"]
    most = loudest(said, RATE)
    assert too_loud(most, late(said), RATE) is None
    assert too_loud(most, late(amplified(said, 1.6, 0.5, 0.3)), RATE) is not None
    assert too_loud(1.0, late(amplified(said, 12.0, 0.5, 0.01)), RATE) is not None


def test_silence_has_no_level_that_could_be_wrong() -> None:
    nothing = np.zeros(0, np.int16)
    assert levels_match(nothing, nothing, RATE)
    assert levels_match(nothing, np.zeros(RATE, np.int16), RATE)
    assert not levels_match(nothing, SOUNDS["chord"], RATE)
    assert not levels_match(SOUNDS["chord"], np.zeros(RATE, np.int16), RATE)
