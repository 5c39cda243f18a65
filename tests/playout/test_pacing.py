"""Speech as TTS engines bring it and workers take it: late, in bursts, with pauses, with clicks.

In virtual time, with tones.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from livekit import rtc
from numpy.typing import NDArray

from livekit_plugins_runway.errors import LossReason
from livekit_plugins_runway.testing.tones import ToneScript, foreign, frequency, in_order, missing
from tests.support.speech_world import RATE, Worker, World, world
from tests.support.virtual_clock import timers_only

pytestmark = pytest.mark.sampled

PCM = NDArray[np.int16]
SENTENCE = ToneScript(8)
OTHER = ToneScript(6, offset=40)
LATENCY = 0.25


def silence(seconds: float) -> PCM:
    return np.zeros(round(seconds * RATE), np.int16)


def tone(seconds: float, index: int = 30) -> PCM:
    """One sound without a gap, in place of a word."""
    times = np.arange(round(seconds * RATE)) / RATE
    return (13_000 * np.sin(2 * np.pi * frequency(index) * times)).astype(np.int16)


def joined(*pieces: PCM) -> PCM:
    return np.concatenate(pieces)


def sentence() -> PCM:
    pcm: PCM = SENTENCE.pcm(RATE)
    return pcm


def late_by(w: World, pcm: PCM, began: float) -> float:
    """Seconds from when the last of it was heard to the end of the segment."""
    return w.finished_at[-1] - began - LATENCY - len(pcm) / RATE


# -- pauses of the TTS ----------------------------------------------------------------------------


@timers_only
@pytest.mark.parametrize("lead", [2.0, 0.3])
@pytest.mark.parametrize("pause", [0.5, 2.0, 8.0])
async def test_after_a_pause_of_the_tts_no_more_is_sent_ahead_than_before_it(
    pause: float, lead: float
) -> None:
    async with world() as w:
        worker = w.attach(lead=lead)
        await w.say_pcm(sentence())
        await asyncio.sleep(LATENCY + SENTENCE.duration_s + pause)
        before, resumed = worker.sent, w.now
        await w.say_pcm(ToneScript(40).pcm(RATE))
        most = 0.0
        for _ in range(100):
            await asyncio.sleep(0.05)
            most = max(most, (worker.sent - before) / RATE - (w.now - resumed))
        assert most <= lead + 0.05
        w.output.flush()
        await w.spoken()
        assert w.losses == []


@timers_only
@pytest.mark.parametrize("keeps_back", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("pause", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("after", [0.6, 1.1, 1.45])
async def test_a_worker_that_keeps_a_little_back_while_the_tts_pauses_is_waited_for(
    after: float, pause: float, keeps_back: float
) -> None:
    async with world() as w:
        w.attach(keeps_back=keeps_back)
        pcm, cut = sentence(), round(after * RATE)
        await w.say_pcm(pcm[:cut])
        await asyncio.sleep(after + LATENCY + pause)
        await w.say_pcm(pcm[cut:])
        w.output.flush()
        await w.spoken()
        assert w.losses == []
        assert w.output.stats.carried_on == 0
        assert missing(SENTENCE, w.ear.tones(), fraction=0.6) == []


@timers_only
@pytest.mark.parametrize("pause", [0.3, 0.7, 1.2, 4.0])
async def test_a_last_word_that_the_tts_brings_late_is_said_by_the_avatar(pause: float) -> None:
    async with world() as w:
        w.attach()
        await w.say_pcm(sentence())
        await asyncio.sleep(SENTENCE.duration_s + LATENCY + pause)
        asked, word = w.now, joined(tone(0.3), silence(0.1))
        await w.say_pcm(word)
        w.output.flush()
        await w.spoken()
        assert w.output.stats.carried_on == 0
        assert late_by(w, word, asked) == pytest.approx(0.0, abs=0.15)


@timers_only
@pytest.mark.parametrize("by", ["avatar", "voice"])
async def test_a_recording_has_the_pause_of_the_tts_where_it_was(by: str) -> None:
    async with world(wait_for_avatar=0.0) as w:
        if by == "avatar":
            w.attach()
        await w.say_pcm(sentence())
        await asyncio.sleep(SENTENCE.duration_s + 3.0)
        resumed = w.now
        await w.say_pcm(sentence())
        w.output.flush()
        await w.spoken()
        before, after = w.progressed
        assert (before.offset, before.duration) == pytest.approx((0.0, 2.0), abs=0.05)
        assert (after.offset, after.duration) == pytest.approx((2.0, 2.0), abs=0.05)
        heard_after = resumed + (LATENCY if by == "avatar" else 0.0)
        offset = w.output._player._reporter.wall_offset
        assert after.started_at - offset == pytest.approx(heard_after, abs=0.1)


# -- pauses that are said -------------------------------------------------------------------------


@timers_only
@pytest.mark.parametrize("word", [0.09, 0.2, 0.45, 0.8])
@pytest.mark.parametrize("pause", [0.2, 0.4, 0.7, 1.0, 2.0])
async def test_a_short_last_word_after_a_pause_is_said_by_the_avatar(
    pause: float, word: float
) -> None:
    pcm = joined(sentence(), silence(pause), tone(word), silence(0.1))
    async with world() as w:
        w.attach()
        began = w.now
        await w.say_pcm(pcm)
        w.output.flush()
        await w.spoken()
        assert w.output.stats.carried_on == 0
        assert w.losses == []
        assert late_by(w, pcm, began) == pytest.approx(0.0, abs=0.15)


@timers_only
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("early", [0.0, 0.5, 0.6])
async def test_a_worker_that_reports_its_end_early_costs_no_last_word(
    early: float, waits: bool
) -> None:
    pcm = joined(sentence(), silence(0.4), tone(0.3))
    async with world() as w:
        worker, began = w.attach(), w.now
        await w.say_pcm(pcm)
        w.output.flush()
        switched = (await w.stand_by())[1] if waits else []
        await asyncio.sleep(LATENCY + len(pcm) / RATE - early)
        w.output.worker_finished(interrupted=False)
        await w.spoken()
        assert late_by(w, pcm, began) == pytest.approx(0.0, abs=0.1)
        if waits:
            await asyncio.sleep(1.0)
            assert switched[0] >= began + LATENCY + len(pcm) / RATE - 0.02
        assert worker.losses == []


@timers_only
@pytest.mark.parametrize("first", [0.0, 0.3, 1.0, 1.8])
@pytest.mark.parametrize("lead", [2.0, 0.3])
async def test_the_latency_does_not_count_the_silence_before_the_first_word(
    lead: float, first: float
) -> None:
    async with world() as w:
        w.attach(lead=lead)
        await w.say_pcm(joined(silence(first), sentence()))
        w.output.flush()
        await w.spoken()
        assert w.output.latency == pytest.approx(LATENCY, abs=0.03)


# -- clicks ---------------------------------------------------------------------------------------


class Swallowing(Worker):
    """It plays silence in place of sounds."""

    def send(self, pcm: bytes) -> None:
        super().send(bytes(len(pcm)))


@timers_only
@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("click", [0.005, 0.01, 0.02, 0.04, 0.09])
async def test_a_click_is_not_waited_for(click: float, swallows: bool) -> None:
    pcm = joined(silence(0.2), tone(click), silence(0.2))
    async with world() as w:
        worker = (Swallowing if swallows else Worker)(w.output, w.ear)
        w.workers.append(worker)
        w.output.attach_avatar(worker)
        began = w.now
        await w.say_pcm(pcm)
        w.output.flush()
        end = await w.spoken()
        assert end.playback_position == pytest.approx(len(pcm) / RATE, abs=0.01)
        assert w.now - began <= len(pcm) / RATE + LATENCY + 0.35
        assert w.losses == []
        assert w.output.stats.forced == 0


# -- old words, and words of its own --------------------------------------------------------------


@timers_only
@pytest.mark.parametrize("wait", [0.0, 0.4])
@pytest.mark.parametrize("residue", [0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("at", [0.8, 1.13, 1.62])
async def test_what_a_worker_had_rendered_already_does_not_come_with_the_next_reply(
    at: float, residue: float, wait: float
) -> None:
    slow = ToneScript(16, slot_s=0.5, gap_s=0.3)  # gaps as long as those between sentences
    async with world() as w:
        w.attach(residue=residue)
        await w.say(slow)
        await asyncio.sleep(at)
        w.output.clear_buffer()
        await w.spoken()
        cut = w.now
        await asyncio.sleep(wait)
        await w.say(OTHER)
        await w.spoken()
        assert foreign(OTHER, w.ear.tones(cut + 0.02)) == []
        assert missing(OTHER, w.ear.tones(cut), fraction=0.9) == []
        assert w.losses == []


@timers_only
async def test_an_avatar_that_never_falls_silent_after_a_barge_in_is_given_up() -> None:
    async with world() as w:
        worker = w.attach(clear="ignores")
        await w.say(SENTENCE)
        worker.send(ToneScript(96).pcm(RATE).tobytes())  # nobody has told it to
        await asyncio.sleep(1.0)
        w.output.clear_buffer()
        await w.spoken()
        for _ in range(2):
            cut = w.now
            await w.say(OTHER)
            await w.spoken()
            assert missing(OTHER, w.ear.tones(cut)) == []
        assert w.losses == [LossReason.SPEECH_FOREIGN]


@timers_only
async def test_a_greeting_waits_for_the_end_of_the_start_script() -> None:
    async with world() as w:
        worker = w.attach()
        w.output.let_speak(20.0)
        worker.send(OTHER.pcm(RATE).tobytes())  # by itself
        await asyncio.sleep(0.2)
        await w.say(SENTENCE)
        await w.spoken()
        tones = w.ear.tones()
        assert missing(OTHER, tones, fraction=0.9) == missing(SENTENCE, tones, fraction=0.9) == []
        assert in_order(SENTENCE, [it for it in tones if it.index < 40])
        assert w.losses == []


# -- what fails -----------------------------------------------------------------------------------


@timers_only
@pytest.mark.parametrize("call", ["send", "finish"])
async def test_a_way_to_the_avatar_that_raises_costs_the_avatar_and_no_word(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise TypeError("no such room")

    async with world() as w:
        worker = w.attach()
        monkeypatch.setattr(worker, call, broken)
        await w.say(SENTENCE)
        end = await w.spoken()
        assert not end.interrupted
        assert missing(SENTENCE, w.ear.tones(), fraction=0.9) == []
        assert w.losses == [LossReason.SPEECH_FAILED]


@timers_only
async def test_a_fault_in_a_step_of_the_sink_is_told_and_the_voice_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as w:
        worker = w.attach()
        await w.say(SENTENCE)
        await asyncio.sleep(0.6)
        route = w.output._current.route

        def broken(*_: Any, **__: Any) -> None:
            raise TypeError("a fault of ours")

        monkeypatch.setattr(route, "step", broken)
        await w.spoken()
        await w.say(OTHER)
        await w.spoken()
        assert "the voice goes on" in caplog.text
        assert w.losses == [LossReason.SPEECH_FAILED]
        assert worker.losses == w.losses
        assert len(w.finished) == 2
        assert missing(OTHER, w.ear.tones(), fraction=0.9) == []


@timers_only
async def test_a_segment_in_which_the_sink_always_fails_is_given_up_and_the_next_is_spoken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world(wait_for_avatar=0.0) as w:
        speak, first = w.ear.push_audio, True

        async def push_audio(pcm: bytes) -> None:
            if first:
                raise TypeError("a fault of ours")
            await speak(pcm)

        monkeypatch.setattr(w.ear, "push_audio", push_audio)
        await w.say(SENTENCE)
        await w.spoken()
        assert w.output.stats.forced == 1
        first = False
        await w.say(OTHER)
        await w.spoken()
        assert missing(OTHER, w.ear.tones()) == []


# -- frames ---------------------------------------------------------------------------------------


@timers_only
@pytest.mark.parametrize(("first", "second"), [(24_000, 48_000), (24_000, 16_000), (8_000, 48_000)])
async def test_a_rate_that_changes_inside_a_segment_costs_no_sound(first: int, second: int) -> None:
    async with world(wait_for_avatar=0.0) as w:
        for rate in (first, second):
            await w.say_pcm(SENTENCE.pcm(rate), rate=rate)
        w.output.flush()
        end = await w.spoken()
        assert end.playback_position == pytest.approx(4.0, abs=0.001)


@timers_only
async def test_a_frame_of_minutes_does_not_keep_the_event_loop() -> None:
    async with world(wait_for_avatar=0.0) as w:
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(take_turns(), name="turns")
        await asyncio.sleep(0)
        turns = 0
        await w.output.capture_frame(
            rtc.AudioFrame(bytes(2 * 24_000 * 120), 24_000, 1, 24_000 * 120)
        )
        other.cancel()
        assert turns >= 200  # 0.5 s at a time
        w.output.clear_buffer()


@timers_only
async def test_of_a_long_frame_whose_capture_is_cancelled_nothing_is_lost() -> None:
    async with world(wait_for_avatar=0.0) as w:
        pcm = sentence()
        frame = rtc.AudioFrame(pcm.tobytes(), RATE, 1, len(pcm))
        capturing = asyncio.create_task(w.output.capture_frame(frame), name="capture")
        await asyncio.sleep(0)
        capturing.cancel()
        await asyncio.gather(capturing, return_exceptions=True)
        assert capturing.cancelled()
        w.output.flush()
        end = await w.spoken()
        assert end.playback_position == pytest.approx(SENTENCE.duration_s, abs=0.001)
        assert missing(SENTENCE, w.ear.tones()) == []


# -- listeners ------------------------------------------------------------------------------------


@timers_only
@pytest.mark.parametrize("by", ["avatar", "voice"])
@pytest.mark.parametrize("event", ["playback_started", "playback_progressed", "playback_finished"])
async def test_a_listener_that_raises_stops_neither_the_speech_nor_the_other_listeners(
    event: Any, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    def careless(_: object) -> None:
        raise TypeError("a fault of the user's")

    async with world(wait_for_avatar=0.0) as w:
        if by == "avatar":
            w.attach()
        w.output.on(event, careless)
        told: list[object] = []
        w.output.on(event, told.append)
        for script in (SENTENCE, OTHER):
            await w.say(script)
            await w.spoken()
        assert len(told) == len(w.finished) == 2
        assert missing(SENTENCE, w.ear.tones(), fraction=0.9) == []
        assert missing(OTHER, w.ear.tones(), fraction=0.9) == []
        assert "a listener of an event failed" in caplog.text
        assert w.losses == []
