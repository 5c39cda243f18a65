"""Of an avatar of which nothing is known, nobody hears a word that is not the agent's."""

from __future__ import annotations

import asyncio
import functools
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from bench.ear.dsp import Pcm
from bench.ear.sounds import chord
from bench.ear.voices import speech, voices
from livekit_plugins_runway.errors import LossReason
from livekit_plugins_runway.playout.ear import HeldVoice
from livekit_plugins_runway.playout.hearing.coherence import STRIDE, Block
from livekit_plugins_runway.playout.hearing.judge import WordJudge, Words
from livekit_plugins_runway.playout.ports import OwnWordsHeard
from tests.support.speech_world import RATE, SILENCE, World, world
from tests.support.virtual_clock import timers_only

pytestmark = pytest.mark.sampled

OURS = "Your parcel has left our store. It will reach you on Monday, in the afternoon."
OTHERS = "That is a fine idea. Let me think about it, and tell you more in a while."
LOUD = 800
"""Smallest of the largest samples of a hop that is more than a pause between words."""
HELD = 0.4
"""Seconds by which the first words may be later."""
HOP = 480


@functools.cache
def spoken(text: str) -> Pcm:
    (voice, *_) = voices(synthesizer="espeak", language="en", held_out=False)
    pcm = speech(text, voice)
    return pcm[: len(pcm) // HOP * HOP]


async def say(w: World, text: str) -> None:
    await w.say_pcm(spoken(text))
    w.output.flush()


def sounds(pcm: Any) -> Pcm:
    """Without silence before and after, and between words."""
    hops = pcm[: len(pcm) // HOP * HOP].reshape(-1, HOP)
    loud: Pcm = hops[np.abs(hops).max(axis=1) > LOUD].reshape(-1)
    return loud


async def first_sound_at(doubts: bool) -> float:
    async with world() as w:
        w.attach().doubts_first_words = doubts
        began = w.now
        await say(w, OURS)
        await w.spoken()
        assert w.losses == []
        await asyncio.sleep(0.5)
        assert np.array_equal(sounds(w.ear.pcm(began)), sounds(spoken(OURS)))
        assert OwnWordsHeard() in w.reports
        loud = (at for at, pcm in w.ear.frames if np.abs(np.frombuffer(pcm, "<i2")).max() > 300)
        return next(loud) - began


@timers_only
async def test_its_own_words_are_heard_whole_and_a_little_later() -> None:
    later = await first_sound_at(True) - await first_sound_at(False)
    assert 0.0 < later <= HELD


@timers_only
async def test_words_of_its_own_are_not_heard_and_the_voice_says_what_was_to_be_said() -> None:
    async with world() as w:
        worker = w.attach()
        worker.doubts_first_words = True
        worker.own_words = spoken(OTHERS).tobytes()
        await say(w, OURS)
        await w.spoken()
        assert w.losses == [LossReason.SPEECH_FOREIGN]
        assert np.array_equal(sounds(w.ear.pcm()), sounds(spoken(OURS)))


@timers_only
async def test_the_second_reply_is_not_later() -> None:
    async with world() as w:
        w.attach().doubts_first_words = True
        await say(w, OURS)
        await w.spoken()
        began = w.now
        await say(w, OTHERS)
        await w.spoken()
        loud = [at for at, pcm in w.ear.frames if np.abs(np.frombuffer(pcm, "<i2")).max() > 300]
        assert next(at for at in loud if at > began + 0.1) - began < 0.25 + 0.1


@timers_only
async def test_who_interrupts_what_was_held_has_heard_nothing_of_it() -> None:
    async with world() as w:
        w.attach().doubts_first_words = True
        await say(w, OURS)
        while not w.output._current.ear.behind:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)
        w.output.clear_buffer()
        end = await w.spoken()
        assert end.interrupted
        assert end.playback_position == 0.0
        await asyncio.sleep(1.0)
        assert len(sounds(w.ear.pcm())) == 0


@timers_only
async def test_a_sound_that_does_not_change_is_let_through() -> None:
    async with world() as w:
        w.attach().doubts_first_words = True
        said = chord(3.0)
        await w.say_pcm(said)
        w.output.flush()
        await w.spoken()
        await asyncio.sleep(1.0)
        assert w.losses == []
        assert len(sounds(w.ear.pcm())) >= len(sounds(said)) - 0.1 * RATE


@timers_only
async def test_a_reply_that_is_too_short_to_be_known_is_heard_at_its_end() -> None:
    async with world() as w:
        w.attach().doubts_first_words = True
        said = spoken(OURS)[: HOP * 16]
        await w.say_pcm(said)
        w.output.flush()
        await w.spoken()
        await say(w, OTHERS)
        await w.spoken()
        await asyncio.sleep(0.5)
        whole = np.concatenate([sounds(said), sounds(spoken(OTHERS))])
        assert np.array_equal(sounds(w.ear.pcm()), whole)


def test_what_stays_unknown_is_not_held_back_for_ever() -> None:
    judge = WordJudge(0, trusted=False)
    hops = 0
    while not judge.seems_own:
        block = Block(hops, hops + 8, cast(Any, None))
        judge.judge(block, cast(Any, SimpleNamespace(evidence=2.0)), 0.0)
        assert judge.words is Words.UNKNOWN
        hops += STRIDE
    assert hops == 200


# -- the line that it waits in


def tone(hops: int) -> bytes:
    return np.full(hops * HOP, 5000, np.int16).tobytes()


def test_what_was_held_is_heard_when_it_is_let_go_and_the_pauses_make_up_for_it() -> None:
    held = HeldVoice()
    assert held.push(SILENCE * 50, let_go=False) == SILENCE * 50
    assert held.push(tone(20), let_go=False) == SILENCE * 20
    assert held.behind == 21
    assert held.push(tone(5), let_go=True) == tone(5)
    assert held.behind == 20
    heard = held.push(SILENCE * 60, let_go=True)
    assert heard == tone(20) + SILENCE * 40
    assert held.behind == 0
    assert held.push(tone(2), let_go=True) == tone(2)


def test_nobody_is_behind_with_the_silence_that_follows_what_was_heard() -> None:
    held = HeldVoice()
    held.push(tone(20), let_go=False)
    assert held.push(SILENCE * 20, let_go=True) == tone(20)
    assert held.behind == 0
    heard = held.push(SILENCE * 4 + tone(5), let_go=True)
    assert heard == SILENCE * 9
    assert held.behind == 11  # the silence before them is waited for


def test_what_was_let_go_is_heard_though_two_have_followed_before_anything_came() -> None:
    first = HeldVoice()
    first.push(tone(10), let_go=False)
    assert first.push(tone(1), let_go=True) == tone(1)
    third = HeldVoice(HeldVoice(first))
    assert third.behind == 10
    assert third.push(SILENCE * 10, let_go=False) == tone(10)
    assert third.behind == 0


def test_what_is_held_next_does_not_hold_up_what_was_let_go() -> None:
    first = HeldVoice()
    first.push(tone(10), let_go=False)
    assert first.push(tone(1), let_go=True) == tone(1)
    second = HeldVoice(first)
    assert second.behind == 10
    assert second.push(SILENCE * 4, let_go=False) == tone(4)
    assert second.push(SILENCE * 10, let_go=False) == tone(6) + SILENCE * 4
    assert second.push(tone(5), let_go=False) == SILENCE * 5
    assert second.push(tone(8), let_go=True) == tone(8)
    assert second.behind == 5
