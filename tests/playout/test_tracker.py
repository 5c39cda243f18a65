"""The tracker knows which word is heard, whatever a receiver and a network do to the pace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from livekit_plugins_runway.playout.audio import HOP
from livekit_plugins_runway.playout.hearing.features import AUDIBLE_DB, hop_levels
from livekit_plugins_runway.playout.hearing.tracker import SpeechTracker, Words
from livekit_plugins_runway.playout.segment import Segment
from livekit_plugins_runway.testing.tones import Pcm, ToneScript
from tests.support.chords import chords, faded, part, silence

pytestmark = pytest.mark.sampled

TONES = ToneScript(16).pcm(48_000)
LATENCY_HOPS = 20
ONE_TONE = 20
"""Hops. Inside a tone that is drawn out, nothing tells which part of it is heard."""


def speech(seconds: float = 4.0) -> Pcm:
    """Like a voice: a pitch that moves, formants that glide, syllables, pauses between phrases."""
    time = np.arange(int(seconds * 48_000)) / 48_000
    rng = np.random.default_rng(5)
    knots = np.arange(0.0, seconds + 0.2, 0.12)
    formants = [
        np.interp(time, knots, rng.uniform(low, high, len(knots)))
        for low, high in ((300, 900), (900, 2400), (2400, 3600))
    ]
    pitch = np.interp(time, knots, rng.uniform(90, 180, len(knots)))
    phase = 2 * np.pi * np.cumsum(pitch) / 48_000
    voice = np.zeros_like(time)
    for harmonic in range(1, 36):
        at = harmonic * pitch
        strength = sum(np.exp(-(((at - formant) / 150.0) ** 2)) for formant in formants)
        voice += strength * np.sin(harmonic * phase)
    syllables = np.interp(time, knots, rng.uniform(0.15, 1.0, len(knots)))
    pauses = (time % 1.6) < 1.4
    pcm: Pcm = (voice / np.abs(voice).max() * syllables * pauses * 12_000).astype(np.int16)
    return pcm


VOICES = {"tones": TONES, "voice": speech()}


def heard_by(tracker: SpeechTracker, pcm: Pcm) -> int | None:
    levels = hop_levels(pcm)
    return tracker.hear(pcm, levels, levels > AUDIBLE_DB)


@dataclass
class Walk:
    """What a receiver heard, and after each 10 ms of it how much of the speech that is."""

    pcm: Pcm
    truth: list[int]


def as_said(said: Pcm) -> Walk:
    return Walk(said, [hop + 1 for hop in range(len(said) // HOP)])


def stretched(said: Pcm, at: int, length: int, factor: int) -> Walk:
    """`length` hops from hop `at` on, each pitch period repeated as NetEq does when it starves."""
    sound = said.astype(float)
    out, truth = list(sound[: at * HOP]), [hop + 1 for hop in range(at)]
    for hop in range(at, at + length):
        out.extend(sound[hop * HOP : (hop + 1) * HOP])
        while len(out) < (at + (hop + 1 - at) * factor) * HOP:
            history = np.array(out[-2 * HOP :])
            tail = history[-HOP // 2 :]
            period = max(
                range(120, HOP, 4),
                key=lambda lag: float(
                    np.dot(tail, history[-HOP // 2 - lag : -lag])
                    / (np.linalg.norm(history[-HOP // 2 - lag : -lag]) + 1)
                ),
            )
            out.extend(history[-period:])
        truth.extend([hop + 1] * (len(out) // HOP - len(truth)))
    rest = sound[(at + length) * HOP :]
    out.extend(rest)
    truth.extend(at + length + hop + 1 for hop in range(len(rest) // HOP))
    return Walk(np.array(out[: len(truth) * HOP]).astype(np.int16), truth)


def waited(said: Pcm, at: int, hops: int) -> Walk:
    """The avatar had nothing to say for a while."""
    pcm = np.concatenate([said[: at * HOP], np.zeros(hops * HOP, np.int16), said[at * HOP :]])
    count = len(said) // HOP
    return Walk(pcm, [*range(1, at + 1), *[at] * hops, *range(at + 1, count + 1)])


def held_and_faded(said: Pcm, at: int, wait: int) -> Walk:
    """The stream stopped: the last sound is held for 0.1 s and fades; then it comes again."""
    last = said[(at - 1) * HOP : at * HOP]
    gains = [10 ** (-0.075 * max(0, hop - 10)) for hop in range(40)]
    fade = np.concatenate([last * gain for gain in gains]).astype(np.int16)
    walk = waited(said, at, 40 + wait)
    walk.pcm[at * HOP : (at + 40) * HOP] = fade
    return walk


def lost(said: Pcm, at: int, hops: int) -> Walk:
    """The network lost a piece."""
    pcm = said.copy()
    pcm[at * HOP : (at + hops) * HOP] = 0
    walk = as_said(said)
    return Walk(pcm, walk.truth)


def hurried(said: Pcm, at: int, hops: int) -> Walk:
    pcm = np.concatenate([said[: at * HOP], said[(at + hops) * HOP :]])
    return Walk(pcm, [hop + 1 if hop < at else hop + hops + 1 for hop in range(len(pcm) // HOP)])


def follow(said: Pcm, walk: Walk, *, gain: float = 1.0, noise: float = 0.0) -> list[int]:
    """The tracker's error after each 10 ms, in hops; above zero it believes too much."""
    segment = Segment()
    segment.push(said.tobytes())
    segment.flush()
    segment.describe(segment.pushed)
    tracker = SpeechTracker(segment, 0)
    heard = walk.pcm * gain + np.random.default_rng(1).normal(0, noise, len(walk.pcm))
    # Off the grid of hops, as a receiver is.
    late = np.concatenate([np.zeros(LATENCY_HOPS * HOP + 137), heard]).astype(np.int16)
    errors = []
    for hop in range(len(late) // HOP):
        heard_by(tracker, part(late, hop, hop + 1))
        since = hop - LATENCY_HOPS
        if tracker.onset and since < len(walk.truth):
            errors.append(tracker.position // HOP - walk.truth[since])
    return errors


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize("gain", [1.0, 0.25])
@pytest.mark.parametrize("noise", [0.0, 20.0])
def test_a_voice_that_comes_back_as_it_was_said_is_followed(
    voice: str, gain: float, noise: float
) -> None:
    errors = follow(VOICES[voice], as_said(VOICES[voice]), gain=gain, noise=noise)
    assert max(errors) <= 3
    assert min(errors) >= -10
    assert np.mean(np.abs(errors)) <= 1.5


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("at", [5, 30, 60, 103, 150])
def test_sound_that_a_starved_receiver_drew_out_does_not_count_twice(
    voice: str, at: int, factor: int
) -> None:
    errors = follow(VOICES[voice], stretched(VOICES[voice], at, 20, factor))
    assert max(errors) <= ONE_TONE
    assert abs(errors[-1]) <= 3


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize("at", [63, 110])
@pytest.mark.parametrize("wait", [20, 80, 300])
def test_while_the_avatar_waits_for_more_to_say_nothing_counts_as_heard(
    voice: str, at: int, wait: int
) -> None:
    errors = follow(VOICES[voice], waited(VOICES[voice], at, wait))
    assert max(errors) <= 6
    assert abs(errors[-1]) <= 3


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize("at", [70, 115])
def test_after_a_sound_that_was_held_and_faded_the_place_is_found_again(
    voice: str, at: int
) -> None:
    errors = follow(VOICES[voice], held_and_faded(VOICES[voice], at, 30))
    assert np.mean(np.abs(errors[at + 40 + 60 :]) <= 5) > 0.9
    assert abs(errors[-1]) <= 3


LOSSES: list[tuple[Callable[[Pcm, int, int], Walk], int]] = [(lost, 20), (lost, 80), (hurried, 10)]


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize(("walk", "hops"), LOSSES, ids=["lost-20", "lost-80", "hurried-10"])
@pytest.mark.parametrize("at", [63, 110])
def test_after_a_piece_that_never_came_the_place_is_found_again(
    voice: str, walk: Callable[[Pcm, int, int], Walk], hops: int, at: int
) -> None:
    errors = follow(VOICES[voice], walk(VOICES[voice], at, hops))
    assert max(errors) <= 6
    assert np.mean(np.abs(errors[at + hops + 120 :]) <= 5) > 0.9


@pytest.mark.parametrize("voice", VOICES)
def test_a_last_word_that_does_not_come_is_missed(voice: str) -> None:
    said = VOICES[voice]
    walk = as_said(said)
    cut = 25 if voice == "tones" else 45
    walk.pcm = walk.pcm.copy()
    walk.pcm[-cut * HOP :] = 0
    count = len(walk.truth) - cut
    walk.truth = [min(hop, count) for hop in walk.truth]
    pause = np.zeros(100 * HOP, np.int16)
    walk = Walk(np.concatenate([walk.pcm, pause]), walk.truth + [count] * 100)
    assert max(follow(said, walk)[-100:]) <= 5


# -- on speech of which the place is known exactly --

SAID = chords(400)


def tracked(*heard: Pcm, said: Pcm = SAID, start: int = 0) -> SpeechTracker:
    """A tracker of the delivery from hop `start` on, which has heard all of it, 10 ms at a time."""
    tracker = tracker_of(said, start)
    pcm = np.concatenate(heard)
    for hop in range(len(pcm) // HOP):
        heard_by(tracker, part(pcm, hop, hop + 1))
    return tracker


def tracker_of(said: Pcm, start: int = 0) -> SpeechTracker:
    segment = Segment()
    segment.push(said.tobytes())
    segment.flush()
    segment.describe(segment.pushed)
    return SpeechTracker(segment, start * HOP)


def onset_of(*heard: Pcm, said: Pcm = SAID, block: int = 1) -> int | None:
    """The hop at which the avatar was noticed to speak, told `block` hops at a time."""
    tracker = tracker_of(said)
    pcm = np.concatenate(heard)
    for first in range(0, len(pcm) // HOP, block):
        found = heard_by(tracker, part(pcm, first, first + block))
        assert tracker.onset == (found is not None)
        if found is not None:
            return first + found
    return None


def test_the_avatar_is_noticed_to_speak_at_the_second_hop_of_sound_after_a_silence() -> None:
    assert onset_of(silence(5), part(SAID, 0, 20)) == 6
    assert onset_of(silence(2), part(SAID, 0, 20)) == 3
    assert onset_of(silence(20)) is None


def test_a_click_of_one_hop_is_no_speech() -> None:
    assert onset_of(silence(5), part(SAID, 0, 1), silence(10), part(SAID, 0, 20)) == 17


def test_the_end_of_the_segment_before_is_not_taken_for_this_one() -> None:
    old = chords(30, seed=9)
    assert onset_of(old, silence(2), part(SAID, 0, 20)) == 33
    assert onset_of(old, silence(1), part(SAID, 0, 19)) is None
    # but not for ever: after half a second it must be this one
    assert onset_of(part(SAID, 0, 80)) == 50


@pytest.mark.parametrize("block", [1, 2, 7, 24, 25, 26, 60])
def test_the_onset_is_the_same_in_whatever_pieces_it_is_told(block: int) -> None:
    assert onset_of(silence(31), part(SAID, 0, 29), block=block) == 32


def test_as_long_as_nothing_audible_was_said_no_sound_is_the_avatars() -> None:
    assert onset_of(silence(5), part(SAID, 0, 20), said=silence(100)) is None


@pytest.mark.parametrize("block", [2, 7, 25, 60])
def test_in_whatever_pieces_it_is_told_the_same_counts_as_heard(block: int) -> None:
    walk = np.concatenate(
        [silence(9), part(SAID, 0, 110), silence(40), part(SAID, 110, 200), silence(13)]
    )
    tracker = tracker_of(SAID)
    for first in range(0, len(walk) // HOP, block):
        heard_by(tracker, part(walk, first, first + block))
    single = tracked(walk)
    assert tracker.position == single.position == 200 * HOP
    assert tracker.clear_position == single.clear_position
    assert tracker.silence == single.silence == pytest.approx(0.13)
    assert (tracker.words, tracker.alike) == (single.words, single.alike)


def test_a_delivery_from_the_middle_counts_from_the_segments_start() -> None:
    assert tracked(silence(5), start=150).position == 150 * HOP
    assert tracked(silence(5), part(SAID, 150, 250), start=150).position == 250 * HOP


def test_the_silence_before_the_first_word_is_told() -> None:
    said = np.concatenate([silence(12), part(SAID, 0, 20), silence(8), part(SAID, 20, 60)])
    assert tracker_of(said).lead_in == 12 * HOP
    assert tracker_of(said, start=20).lead_in == 0
    assert tracker_of(said, start=35).lead_in == 5 * HOP
    assert tracker_of(silence(30)).lead_in == 0
    # The avatar may leave it out: the first word is heard at its place.
    assert tracked(silence(5), part(SAID, 0, 20), said=said).position == 32 * HOP


def test_silence_is_counted_from_the_last_sound() -> None:
    assert tracked(silence(7)).silence == pytest.approx(0.07)
    assert tracked(silence(7), part(SAID, 0, 30)).silence == 0.0
    assert tracked(silence(7), part(SAID, 0, 30), silence(23)).silence == pytest.approx(0.23)


def test_an_avatar_that_says_what_it_is_told_is_known_by_it() -> None:
    tracker = tracked(silence(5), part(SAID, 0, 100))
    assert tracker.alike
    assert tracker.words is Words.OWN


@pytest.mark.parametrize("sounds", [19, 20])
def test_what_is_heard_is_compared_from_a_fifth_of_a_second_of_it_on(sounds: int) -> None:
    # At the 25th hop.
    tracker = tracked(silence(25 - sounds), part(SAID, 0, sounds))
    assert tracker.alike == (sounds == 20)


def test_an_avatar_that_speaks_its_own_words_is_known_within_a_second_and_a_half() -> None:
    own = chords(150, seed=9)
    assert tracked(silence(5), part(own, 0, 80)).words is Words.UNKNOWN
    tracker = tracked(silence(5), own)
    assert tracker.words is Words.FOREIGN
    assert not tracker.alike


def test_an_avatar_that_says_other_words_after_its_own_is_known_as_well() -> None:
    tracker = tracked(silence(5), part(SAID, 0, 60), chords(240, seed=9))
    assert tracker.words is Words.FOREIGN
    assert tracker.alike
    assert abs(tracker.foreign_since - 60 * HOP) <= 12 * HOP


def test_a_silence_is_not_compared_again_and_again() -> None:
    own = chords(45, seed=9)
    tracker = tracked(silence(5), own, silence(300))
    assert tracker.words is not Words.FOREIGN


@pytest.mark.parametrize("hops", [30, 60, 140])
def test_after_a_leap_that_no_receiver_makes_the_place_is_found_by_likeness(hops: int) -> None:
    tracker = tracked(silence(5), part(SAID, 0, 100), part(SAID, 100 + hops, 230 + hops))
    assert tracker.position == (230 + hops) * HOP


@pytest.mark.parametrize("hops", [12, 25, 40])
def test_a_tail_that_the_receiver_made_up_is_not_clearly_heard(hops: int) -> None:
    held = faded(part(SAID, 99, 100), hops + 10, held=10)
    tracker = tracked(silence(5), part(SAID, 0, 100), held)
    assert tracker.clear_position == 100 * HOP
    tracker = tracked(silence(5), part(SAID, 0, 100), held, silence(30))
    assert tracker.clear_position == 100 * HOP


def test_without_such_a_tail_all_that_was_heard_was_heard_clearly() -> None:
    for heard in (
        [part(SAID, 0, 100)],
        [part(SAID, 0, 100), silence(30)],
        [(part(SAID, 0, 100) * 0.3).astype(np.int16)],  # a softer avatar
        [part(SAID, 0, 96), (part(SAID, 96, 100) * 0.3).astype(np.int16)],  # a word's own end
        [part(SAID, 0, 12)],
    ):
        tracker = tracked(silence(5), *heard)
        assert tracker.position > 0
        assert tracker.clear_position == tracker.position


def test_a_tail_after_too_little_speech_is_not_told_from_it() -> None:
    tail = faded(part(SAID, 9, 10), 15)
    tracker = tracked(silence(5), part(SAID, 0, 10), tail)
    assert tracker.clear_position <= tracker.position
    delivered = tracked(silence(5), part(SAID, 150, 190), tail, start=150)
    assert 150 * HOP <= delivered.clear_position <= delivered.position


def test_how_loud_the_avatar_was_more_than_two_seconds_ago_makes_no_tail() -> None:
    softer = (part(SAID, 230, 400) * 0.3).astype(np.int16)
    tracker = tracked(silence(5), part(SAID, 0, 230), softer)
    assert tracker.clear_position == tracker.position == 400 * HOP


def test_words_that_were_said_softly_are_no_tail() -> None:
    said = np.concatenate([part(SAID, 0, 100), (part(SAID, 100, 140) * 0.2).astype(np.int16)])
    tracker = tracked(silence(5), said, said=said)
    assert tracker.clear_position == tracker.position == 140 * HOP
