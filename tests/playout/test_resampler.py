"""Speech at another rate comes out as it went in, and at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit import rtc

from livekit_plugins_runway.playout.intake import Intake
from livekit_plugins_runway.playout.resampler import Resampler

RATES = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000]


def tone(rate: int, seconds: float) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * 1000 * np.arange(round(seconds * rate)) / rate)).astype(
        np.int16
    )


@pytest.mark.parametrize("given_rate", RATES)
@pytest.mark.parametrize("wanted_rate", [16_000, 48_000])
def test_no_more_than_two_milliseconds_are_kept_back(given_rate: int, wanted_rate: int) -> None:
    resampler = Resampler(given_rate, wanted_rate)
    frame = tone(given_rate, 0.02).tobytes()
    got = 0
    for number in range(1, 6):
        got += len(resampler.push(frame)) // 2
        pushed = number * len(frame) // 2 / given_rate
        assert pushed - got / wanted_rate < 0.0025  # 1 ms from 16 kHz on


@pytest.mark.parametrize("given_rate", RATES)
@pytest.mark.parametrize("wanted_rate", [16_000, 48_000])
def test_where_nothing_was_said_nothing_comes_out(given_rate: int, wanted_rate: int) -> None:
    resampler = Resampler(given_rate, wanted_rate)
    assert resampler.push(b"") + resampler.flush() == b""


@given(
    rates=st.tuples(st.sampled_from(RATES), st.sampled_from([16_000, 48_000])),
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=20),
)
def test_whatever_the_pieces_the_same_speech_comes_out(
    rates: tuple[int, int], sizes: list[int]
) -> None:
    given_rate, wanted_rate = rates
    speech = tone(given_rate, sum(sizes) / given_rate)
    whole, pieces = Resampler(*rates), Resampler(*rates)
    at_once = whole.push(speech.tobytes()) + whole.flush()
    parts, start = b"", 0
    for size in sizes:
        parts += pieces.push(speech[start : start + size].tobytes())
        start += size
    parts += pieces.flush()
    assert parts == at_once
    if len(speech) >= 100:  # of a handful of samples, nothing may come
        assert abs(len(at_once) // 2 - len(speech) * wanted_rate / given_rate) <= 2


def test_the_pitch_and_the_place_of_a_sound_stay() -> None:
    resampler = Resampler(24_000, 48_000)
    out = np.frombuffer(resampler.push(tone(24_000, 0.5).tobytes()) + resampler.flush(), np.int16)
    assert len(out) == 24_000
    error = out[48:-2000].astype(int) - tone(48_000, 0.5)[48:-2000]
    assert np.abs(error).max() < 8000 * 0.01


RATE_CHANGES = [
    (24_000, 48_000),
    (48_000, 24_000),
    (24_000, 16_000),
    (22_050, 44_100),
    (44_100, 22_050),
    (8_000, 48_000),
    (48_000, 8_000),
]


@pytest.mark.parametrize(("former", "rate"), RATE_CHANGES)
@pytest.mark.parametrize("frame_ms", [10, 20, 130])
def test_a_change_of_rate_within_a_sentence_does_not_click(
    former: int, rate: int, frame_ms: int
) -> None:
    intake, out = Intake(), b""
    for given_rate in (former, rate):
        speech = tone(given_rate, 0.5)
        step = given_rate * frame_ms // 1000
        for start in range(0, len(speech), step):
            piece = speech[start : start + step]
            frame = rtc.AudioFrame(piece.tobytes(), given_rate, 1, len(piece))
            out += b"".join(intake.pieces(frame))
    pcm = np.frombuffer(out + intake.flush(), np.int16).astype(int)
    assert abs(len(pcm) - 48_000) <= 2
    error = pcm[48:47_000] - tone(48_000, 1.0)[48:47_000].astype(int)
    assert np.abs(error).max() < 8000 * 0.12  # a sample too many or too few is 0.13


def test_a_segment_does_not_begin_with_the_end_of_the_one_before() -> None:
    intake = Intake()
    for rate in (24_000, 16_000):
        loud = np.full(rate // 10, 9000, np.int16)
        list(intake.pieces(rtc.AudioFrame(loud.tobytes(), rate, 1, len(loud))))
        intake.flush()
    quiet = np.zeros(800, np.int16).tobytes()
    out = b"".join(intake.pieces(rtc.AudioFrame(quiet, 8_000, 1, 800))) + intake.flush()
    assert len(out) == 800 * 6 * 2
    assert not any(out)
