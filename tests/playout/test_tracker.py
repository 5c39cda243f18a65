"""The tracker knows which word is heard, whatever a receiver and a network do to the pace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from livekit_plugins_runway.playout.audio import HOP
from livekit_plugins_runway.playout.features import hop_features
from livekit_plugins_runway.playout.segment import Segment
from livekit_plugins_runway.playout.tracker import SpeechTracker
from livekit_plugins_runway.testing.tones import Pcm, ToneScript

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
    samples: Pcm = (voice / np.abs(voice).max() * syllables * pauses * 12_000).astype(np.int16)
    return samples


VOICES = {"tones": TONES, "voice": speech()}


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
    levels, bands = hop_features(late[: len(late) // HOP * HOP])
    errors = []
    for hop in range(len(levels)):
        tracker.hear(levels[hop : hop + 1], bands[hop : hop + 1])
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
