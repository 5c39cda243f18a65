"""Whose words come back of an avatar: on speech of eSpeak NG, through what avatars do to it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench.ear.voices import speech as spoken
from bench.ear.voices import voices
from livekit_plugins_runway.playout.hearing.features import hop_levels
from livekit_plugins_runway.playout.hearing.tracker import SpeechTracker, Words
from livekit_plugins_runway.playout.segment import Segment
from livekit_plugins_runway.testing.tones import Pcm
from tests.support.chords import HOP, part, silence

pytestmark = pytest.mark.sampled

Sound = npt.NDArray[np.floating[Any]]

RATE = 48_000
OURS = "Your parcel has left our store. It will reach you on Monday, in the afternoon."
OTHERS = (
    "That is a fine idea. Let me think about it, and tell you more in a while.",
    "Good evening! My name is Robin, and I know all about gardens and flowers.",
)


@functools.cache
def speech(text: str) -> Pcm:
    """At 48 kHz, whole hops, speech of about -22 dBFS; the same each time, as eSpeak's is not."""
    (voice, *_) = voices(synthesizer="espeak", language="en", held_out=False)
    pcm = spoken(text, voice)
    return pcm[: len(pcm) // HOP * HOP].copy()


def described(pcm: Pcm) -> Segment:
    segment = Segment()
    segment.push(pcm.tobytes())
    segment.flush()
    segment.describe(segment.pushed)
    return segment


def hear(tracker: SpeechTracker, pcm: Pcm, *, threshold: float = -55.0, hops: int = 7) -> None:
    for first in range(0, len(pcm) // HOP, hops):
        samples = part(pcm, first, first + hops)
        levels = hop_levels(samples)
        tracker.hear(samples, levels, levels > threshold)


def as_pcm(sound: Sound) -> Pcm:
    pcm: Pcm = np.clip(sound[: len(sound) // HOP * HOP], -32768, 32767).astype(np.int16)
    return pcm


def filtered(sound: Sound, response: Callable[[Sound], Sound]) -> Sound:
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    result: Sound = np.fft.irfft(spectrum * response(hertz), len(sound))
    return result


def in_a_room(sound: Sound) -> Sound:
    time = np.arange(round(0.4 * RATE)) / RATE
    echo = np.random.default_rng(2).normal(0, 1, len(time)) * 10 ** (-3 * time / 0.4)
    echo *= 0.6 / np.sqrt(np.sum(echo**2))
    echo[0] = 1.0
    size = len(sound) + len(echo)
    wet: Sound = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(echo, size), size)
    return wet[: len(sound)]


def noisy(sound: Sound) -> Sound:
    noise = np.random.default_rng(3).normal(0, 32768 * 10 ** (-45 / 20), len(sound))
    result: Sound = sound + noise
    return result


def in_pieces(sound: Sound, piece: int, wait: int) -> Sound:
    """A worker that has nothing more to say after each piece; both in samples."""
    count = len(sound) // piece
    pieces = sound[: count * piece].reshape(count, piece)
    result: Sound = np.concatenate([pieces, np.zeros((count, wait))], axis=1).reshape(-1)
    return result


def after_a_breath(sound: Sound) -> Sound:
    breath = np.random.default_rng(4).normal(0, 400, round(0.5 * RATE))
    result: Sound = np.concatenate([breath * np.hanning(len(breath)), sound])
    return result


CHANGES: dict[str, Callable[[Sound], Sound]] = {
    "as it is": lambda sound: sound,
    "softer": lambda sound: sound * 0.25,
    "clipped": lambda sound: sound * 4.0,
    "telephone": lambda sound: filtered(sound, lambda f: ((f > 300) & (f < 3400)) * 1.0),
    "dull": lambda sound: filtered(sound, lambda f: (f < 1500) * 1.0),
    "thin": lambda sound: filtered(sound, lambda f: (f > 1000) * 1.0),
    "in a room": in_a_room,
    "noisy": noisy,
    "after a breath": after_a_breath,
    "1.5 x slower, in pieces of 20 ms": lambda sound: in_pieces(sound, 960, 480),
    "2 x slower, in pieces of 20 ms": lambda sound: in_pieces(sound, 960, 960),
    "2 x slower, in pieces of 40 ms": lambda sound: in_pieces(sound, 1920, 1920),
    "2 x slower, in pieces of 100 ms": lambda sound: in_pieces(sound, 4800, 4800),
    "waiting for 3 s in mid-word": lambda sound: np.concatenate(
        [sound[: RATE + 99], np.zeros(3 * RATE), sound[RATE + 99 :]]
    ),
}


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_its_own_words_are_known_whatever_the_way_does_to_them(change: str, trusted: bool) -> None:
    said = speech(OURS)
    tracker = SpeechTracker(described(said), 0, trusted=trusted)
    heard = as_pcm(np.concatenate([np.zeros(9137), CHANGES[change](said.astype(float))]))
    threshold = -39.0 if change == "noisy" else -55.0
    words = set()
    for first in range(0, len(heard) // HOP, 7):
        hear(tracker, part(heard, first, first + 7), threshold=threshold)
        words.add(tracker.words)
    assert words == {Words.UNKNOWN, Words.OWN}
    assert tracker.alike
    assert tracker.foreign_since <= tracker.position


def test_its_own_words_are_known_after_a_third_of_a_second() -> None:
    said = speech(OURS)
    tracker = SpeechTracker(described(said), 0)
    hear(tracker, np.concatenate([silence(20), part(said, 0, 46)]))
    assert tracker.words is Words.OWN


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("other", OTHERS)
def test_other_words_of_the_same_voice_are_noticed_within_a_second_and_a_half(
    other: str, trusted: bool
) -> None:
    tracker = SpeechTracker(described(speech(OURS)), 0, trusted=trusted)
    heard = np.concatenate([silence(20), speech(other)])
    sounding = np.flatnonzero(hop_levels(heard) > -55.0)
    hear(tracker, heard[: int(sounding[149] + 1) * HOP])
    assert tracker.words is Words.FOREIGN
    assert tracker.foreign_since == 0
    assert not tracker.alike


def test_other_words_after_its_own_are_noticed_and_where_they_began_is_told() -> None:
    said = speech(OURS)
    tracker = SpeechTracker(described(said), 0)
    hear(tracker, np.concatenate([silence(20), part(said, 0, 150), speech(OTHERS[0])]))
    assert tracker.words is Words.FOREIGN
    assert tracker.alike
    assert abs(tracker.foreign_since - 150 * HOP) <= 20 * HOP


def test_a_breath_and_a_click_are_nobodys_words() -> None:
    tracker = SpeechTracker(described(speech(OURS)), 0)
    breath = as_pcm(after_a_breath(np.zeros(RATE)))
    hear(tracker, np.concatenate([silence(20), breath, part(speech(OURS), 30, 32), silence(200)]))
    assert tracker.words is Words.UNKNOWN


@pytest.mark.parametrize("at", [60, 120, 230])
def test_after_a_leap_its_place_is_right_again_within_half_a_second(at: int) -> None:
    said = speech(OURS)
    tracker = SpeechTracker(described(said), 0)
    heard = np.concatenate([silence(20), part(said, 0, 40), part(said, at, at + 50)])
    hear(tracker, heard, hops=1)
    assert abs(tracker.position // HOP - (at + 50)) <= 5


# -- while the TTS is no faster than speech --


def hear_while_it_is_said(heard: Pcm, said: Pcm, said_at: list[int]) -> SpeechTracker:
    """`said_at`: hops that were said at each hop heard; the avatar gets them 0.2 s before."""
    segment = Segment()
    tracker = SpeechTracker(segment, 0)
    for first in range(0, len(heard) // HOP, 15):
        end = min(said_at[first] + 20, len(said) // HOP)
        segment.push(part(said, segment.pushed // HOP, end).tobytes())
        segment.describe(segment.pushed)
        hear(tracker, part(heard, first, first + 15), hops=15)
    return tracker


@pytest.mark.parametrize("other", OTHERS)
def test_other_words_are_noticed_as_soon_while_there_is_no_more_to_say(other: str) -> None:
    heard = np.concatenate([silence(20), speech(other)])
    sounding = np.flatnonzero(hop_levels(heard) > -55.0)
    heard = heard[: int(sounding[164] + 1) * HOP]
    tracker = hear_while_it_is_said(heard, speech(OURS), list(range(len(heard) // HOP)))
    assert tracker.words is Words.FOREIGN


@pytest.mark.parametrize("pieces", [2, 4, 10])
def test_its_own_words_in_pieces_are_not_taken_for_others_at_another_pace(pieces: int) -> None:
    said = speech(OURS)
    faster = np.interp(np.arange(0, len(said) - 1, 1.1), np.arange(len(said)), said.astype(float))
    count = len(faster) // (pieces * HOP)
    words = faster[: count * pieces * HOP].reshape(count, -1)
    heard = as_pcm(np.concatenate([words, np.zeros_like(words)], axis=1).reshape(-1))
    said_at = [round(hop * 0.55) for hop in range(len(heard) // HOP)]
    seconds = 2.0
    tracker = hear_while_it_is_said(heard[: int(2 * seconds * RATE)], said, said_at)
    assert tracker.words is not Words.FOREIGN


# -- what a receiver makes up --


def held_and_faded(sound: Sound) -> Sound:
    """The last period, repeated for 0.1 s, and then 1.5 dB softer every 10 ms."""
    last = sound[-HOP:]
    periods = range(120, HOP)
    fits = [float(last @ sound[-HOP - period : -period]) for period in periods]
    period = periods[int(np.argmax(fits))]
    hops = np.resize(sound[-period:], 50 * HOP).reshape(50, HOP)
    gains = 10 ** (-0.075 * np.maximum(0, np.arange(50) - 10))
    made_up: Sound = (hops * gains[:, np.newaxis]).reshape(-1)
    return made_up


@pytest.mark.parametrize("at", [30, 52, 77, 118, 160, 205, 251, 290, 333])
def test_what_a_receiver_made_of_its_last_sound_is_not_taken_for_words(at: int) -> None:
    said = speech(OURS)
    segment = described(said)
    heard = part(said, 0, at).astype(float)
    walk = as_pcm(np.concatenate([np.zeros(9137), heard, held_and_faded(heard), np.zeros(RATE)]))
    tracker = SpeechTracker(segment, 0)
    hear(tracker, walk, hops=15)
    goes_on = segment.restart_point(tracker.clear_position, margin=0.08)
    assert segment.spoken_after(at * HOP, max(at * HOP, goes_on)) <= 0.1 * RATE
    assert segment.spoken_after(min(at * HOP, goes_on), at * HOP) <= 0.45 * RATE


CLEAR = ["as it is", "softer", "in a room", "noisy", "telephone"]


def faded_out(sound: Sound) -> Sound:
    """The last 0.3 s of it fall by 12 dB."""
    loud = np.flatnonzero(np.abs(sound) > 100.0)
    fall = np.clip((np.arange(len(sound)) - loud[-1]) / (0.3 * RATE) + 1.0, 0.0, 1.0)
    result: Sound = sound * 10 ** (-12 / 20 * fall)
    return result


@pytest.mark.parametrize(
    "change",
    [*(CHANGES[name] for name in CLEAR), faded_out],
    ids=[*CLEAR, "faded out"],
)
def test_a_last_word_that_was_said_to_its_end_is_clearly_heard(
    change: Callable[[Sound], Sound],
) -> None:
    segment = described(speech(OURS))
    heard = change(speech(OURS).astype(float))
    tracker = SpeechTracker(segment, 0)
    walk = as_pcm(np.concatenate([np.zeros(9137), heard, np.zeros(RATE // 2)]))
    hear(tracker, walk, threshold=-39.0 if change is noisy else -55.0, hops=15)
    assert segment.spoken_after(tracker.clear_position) < 0.12 * RATE


# -- a reply of one or two words --


def hear_out(said: str, heard: Sound, *, threshold: float = -55.0) -> SpeechTracker:
    """Up to its last sound."""
    tracker = SpeechTracker(described(speech(said)), 0)
    last = int(np.flatnonzero(np.abs(heard) > 300.0)[-1])
    hear(tracker, as_pcm(np.concatenate([np.zeros(9137), heard[:last]])), threshold=threshold)
    return tracker


@pytest.mark.parametrize("said", ["Okay.", "Yes, please.", "One moment."])
@pytest.mark.parametrize("change", CLEAR)
def test_a_short_reply_of_its_own_is_not_doubted(change: str, said: str) -> None:
    heard = CHANGES[change](speech(said).astype(float))
    tracker = hear_out(said, heard, threshold=-39.0 if change == "noisy" else -55.0)
    assert not tracker.is_in_doubt
    assert not tracker.others_go_on


@pytest.mark.parametrize("other", ["Good evening!", "See you soon.", OTHERS[0]])
@pytest.mark.parametrize("said", ["Okay.", "Yes, please.", "One moment."])
def test_other_words_in_the_place_of_a_short_reply_are_doubted(said: str, other: str) -> None:
    tracker = hear_out(said, speech(other).astype(float))
    assert tracker.words is Words.FOREIGN or tracker.others_go_on


# -- words of the segment before --


def after_a_barge_in(former: Pcm, at: int, said: Pcm) -> SpeechTracker:
    old = described(former)
    old.heard = at * HOP
    return SpeechTracker(described(said), 0, former=old)


@pytest.mark.parametrize("at", [80, 150, 260])
@pytest.mark.parametrize("left", [40, 60, 100])
def test_words_of_the_segment_before_do_not_begin_the_new_one(at: int, left: int) -> None:
    old = speech(OTHERS[0])
    tracker = after_a_barge_in(old, at, speech(OURS))
    hear(tracker, np.concatenate([silence(10), part(old, at, at + left), silence(30)]))
    assert tracker.words is Words.STALE
    assert not tracker.onset
    assert tracker.position == 0


@pytest.mark.parametrize("gap", [3, 20, 100])
def test_after_words_of_the_segment_before_its_own_are_heard_from_their_beginning(gap: int) -> None:
    old, said = speech(OTHERS[0]), speech(OURS)
    tracker = after_a_barge_in(old, 150, said)
    stale = [silence(10), part(old, 150, 220), silence(gap)]
    hear(tracker, np.concatenate([*stale, part(said, 0, 110)]), hops=1)
    assert tracker.words is Words.OWN
    assert tracker.onset
    assert abs(tracker.position // HOP - 110) <= 5


def test_without_words_of_the_segment_before_its_own_begin_within_0_4_s() -> None:
    said = speech(OURS)
    tracker = after_a_barge_in(speech(OTHERS[0]), 150, said)
    hear(tracker, np.concatenate([silence(10), part(said, 0, 50)]), hops=1)
    assert tracker.onset
    assert 0.3 <= tracker.began_ago <= 0.5


def test_a_short_word_of_its_own_begins_it_at_its_end() -> None:
    said = speech("Okay.")
    tracker = after_a_barge_in(speech(OTHERS[0]), 150, said)
    hear(tracker, np.concatenate([silence(10), said, silence(30)]))
    assert tracker.onset
    assert tracker.words is not Words.STALE


def test_the_same_sentence_said_again_is_not_taken_for_the_one_before() -> None:
    said = speech(OURS)
    tracker = after_a_barge_in(said, 0, said)
    hear(tracker, np.concatenate([silence(10), part(said, 0, 120)]))
    assert tracker.words is Words.OWN
    assert tracker.onset


# -- what is kept --


def test_what_was_heard_long_ago_is_not_kept() -> None:
    said = np.tile(speech(OURS), 8)
    segment = described(said)
    tracker = SpeechTracker(segment, 0)
    hear(tracker, np.concatenate([silence(10), said]))
    assert abs(tracker.position // HOP - len(said) // HOP) <= 10
    assert tracker.words is Words.OWN
    assert segment.waveform.first > len(said) // HOP - 400
