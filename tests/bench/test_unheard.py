"""The bench's measure of words that were never heard, or twice, on speech it knows all about."""

from __future__ import annotations

import numpy as np
import pytest

from bench.ear.dsp import RATE, Pcm
from bench.ear.sentences import AGENT
from bench.ear.stage import spoken
from bench.ear.treatments import treatment
from bench.ear.voices import speech, voices
from bench.unheard import compare

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def said() -> Pcm:
    (voice, *_) = voices(synthesizer="espeak", language="en", held_out=False)
    return np.concatenate([speech(text, voice) for text in AGENT["en"][:2]])


def around(*parts: Pcm) -> Pcm:
    edge = np.zeros(RATE // 3, np.int16)
    return np.concatenate([edge, *parts, edge])


def cut(pcm: Pcm, seconds: float, since: float) -> tuple[Pcm, float]:
    """Without so many seconds, and how many of them were spoken."""
    first, last = round(since * RATE), round((since + seconds) * RATE)
    lost = np.count_nonzero(spoken(pcm)[first:last]) / RATE
    return np.concatenate([pcm[:first], pcm[last:]]), lost


def test_speech_that_arrives_is_heard_whole_whatever_a_codec_does_to_it(said: Pcm) -> None:
    found = compare(said, around(treatment("Opus 24 kbit/s")(said)))
    assert (found.missing, found.extra) == (0.0, 0.0), found
    assert found.found > 0.9


def test_a_pause_of_the_tts_is_no_loss(said: Pcm) -> None:
    middle = len(said) // 2
    paused = around(said[:middle], np.zeros(3 * RATE, np.int16), said[middle:])
    assert compare(said, paused).missing == 0.0


@pytest.mark.parametrize("since", [0.0, 0.8, 2.0])
@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_words_that_are_lost_are_missed(said: Pcm, since: float, seconds: float) -> None:
    heard, lost = cut(said, seconds, since)
    assert compare(said, around(heard)).missing == pytest.approx(lost, abs=0.12)


def test_silence_in_place_of_words_is_missed(said: Pcm) -> None:
    heard = said.copy()
    heard[RATE : 2 * RATE] = 0
    lost = np.count_nonzero(spoken(said)[RATE : 2 * RATE]) / RATE
    assert compare(said, around(heard)).missing == pytest.approx(lost, abs=0.15)


def test_words_that_are_said_again_are_counted(said: Pcm) -> None:
    again = around(said[: 2 * RATE], said[RATE:])
    twice = np.count_nonzero(spoken(said)[RATE : 2 * RATE]) / RATE
    found = compare(said, again)
    assert found.missing == 0.0
    assert found.extra == pytest.approx(twice, abs=0.15)
