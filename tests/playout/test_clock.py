"""`playout="clock"`: an avatar whose voice does not come back alike is followed by time."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from livekit_plugins_runway.errors import LossReason
from livekit_plugins_runway.testing.tones import ToneScript, missing
from tests.support.speech_world import RATE, Worker, world
from tests.support.virtual_clock import timers_only

pytestmark = pytest.mark.sampled

SENTENCE = ToneScript(16)
OTHER = ToneScript(6, offset=40)


class OtherVoice(Worker):
    """It says noise in place of words, at their pace: its voice is nothing like what it is told."""

    def send(self, pcm: bytes) -> None:
        loud = np.abs(np.frombuffer(pcm, np.int16)) > 300
        noise = np.random.default_rng(1).normal(0, 3000, len(loud)) * loud
        super().send(noise.astype(np.int16).tobytes())


@timers_only
@pytest.mark.parametrize("confirms", [True, False])
@pytest.mark.parametrize("latency", [0.25, 1.2])
async def test_an_avatar_with_another_voice_says_all_and_the_segment_ends_with_it(
    latency: float, confirms: bool
) -> None:
    async with world(by_clock=True) as w:
        worker = OtherVoice(w.output, w.ear, latency=latency)
        w.workers.append(worker)
        w.output.attach_avatar(worker)
        for _ in range(3):
            began = w.now
            await w.say(SENTENCE)
            if confirms:
                await asyncio.sleep(latency + SENTENCE.duration_s)
                w.output.worker_finished(interrupted=False)
            end = await w.spoken()
            assert not end.interrupted
            assert end.playback_position == pytest.approx(SENTENCE.duration_s, abs=0.01)
            assert w.now - began == pytest.approx(latency + SENTENCE.duration_s, abs=0.25)
        assert w.losses == []
        assert w.output.latency == pytest.approx(latency, abs=0.05)
        assert w.output.stats.carried_on == 0


@timers_only
async def test_by_the_ear_the_same_avatar_is_given_up() -> None:
    async with world() as w:
        worker = OtherVoice(w.output, w.ear)
        w.workers.append(worker)
        w.output.attach_avatar(worker)
        await w.say(SENTENCE)
        await w.spoken()
        assert w.losses == [LossReason.SPEECH_FOREIGN]


@timers_only
async def test_a_barge_in_ends_where_the_time_has_come_to() -> None:
    async with world(by_clock=True) as w:
        w.attach()
        await w.say(SENTENCE)
        await asyncio.sleep(1.65)
        w.output.clear_buffer()
        end = await w.spoken()
        assert end.playback_position == pytest.approx(1.4, abs=0.05)
        cut = w.now
        await w.say(OTHER)
        await w.spoken()
        assert missing(OTHER, w.ear.tones(cut + 0.02), fraction=0.9) == []


@timers_only
async def test_the_workers_report_that_it_has_begun_is_believed() -> None:
    async with world(by_clock=True) as w:
        worker = w.attach(latency=0.5)
        worker.hidden = True  # nothing of it comes back
        await w.say(SENTENCE)
        await asyncio.sleep(0.5)
        w.output.worker_started()
        hops = round(SENTENCE.duration_s * 100)
        for _ in range(hops):
            w.output.relayed(bytes(960))
            await asyncio.sleep(0.01)
        await w.spoken()
        assert w.losses == []
        assert w.now == pytest.approx(0.5 + SENTENCE.duration_s, abs=0.3)


@timers_only
async def test_an_avatar_of_which_nothing_comes_back_does_not_hang_the_segment() -> None:
    async with world(by_clock=True, stall_timeout=1.5) as w:
        w.attach().frozen = True
        await w.say(SENTENCE)
        end = await w.spoken()
        assert missing(SENTENCE, w.ear.tones()) == []
        assert not end.interrupted
        assert w.losses == [LossReason.SPEECH_STALLED]


@timers_only
async def test_a_pause_of_the_tts_is_waited_for() -> None:
    async with world(by_clock=True) as w:
        w.attach()
        await w.say_pcm(SENTENCE.pcm(RATE))
        await asyncio.sleep(SENTENCE.duration_s + 3.0)
        await w.say_pcm(SENTENCE.pcm(RATE))
        w.output.flush()
        end = await w.spoken()
        assert end.playback_position == pytest.approx(2 * SENTENCE.duration_s, abs=0.02)
        assert w.losses == []
        assert w.now == pytest.approx(2 * SENTENCE.duration_s + 3.25, abs=0.3)
