"""An agent session whose speech comes from a realtime model, in the framework's own pipeline."""

from __future__ import annotations

import asyncio

import pytest
from livekit.agents import Agent

from livekit_plugins_runway.testing.tones import ToneScript, foreign, in_order, missing
from tests.support.framework_stage import OURS, Sink, now, scripted, stage
from tests.support.scripted_realtime import Pacing, ScriptedRealtime
from tests.support.scripted_session import Talk, talking

pytestmark = pytest.mark.slow

SPEECH = ToneScript(16)
OTHER = ToneScript(6, offset=40)
PACINGS = {
    "in one burst": Pacing(chunk=0.05),
    "in real time": Pacing(chunk=0.04, speed=1.0),
    "a little ahead": Pacing(chunk=0.25, speed=1.5),
    "slower than speech": Pacing(chunk=SPEECH.slot_s, speed=0.7),
    "a long pause": Pacing(pause=3.0),
    "ends late": Pacing(chunk=0.04, speed=2.0, late_end=4.0),
}


async def is_heard(talk: Talk, script: ToneScript, since: float) -> None:
    tones = talk.stage.tones(since=since)
    assert missing(script, tones) == []
    assert foreign(script, tones) == []
    assert in_order(script, tones)
    assert talk.history[-1] == (list(script.indices), False)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("pacing", PACINGS)
@scripted
async def test_whatever_its_pacing_all_of_it_is_heard_from_the_same_speaker(
    kind: Sink, pacing: str
) -> None:
    model = ScriptedRealtime(PACINGS[pacing])
    async with stage(kind) as s, talking(s, realtime=model) as talk:
        for model.script in (SPEECH, OTHER):
            began = now()
            handle = await talk.done(talk.session.generate_reply())
            assert not handle.interrupted
            await is_heard(talk, model.script, began)
        assert s.world is None or s.world.losses == []


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("pacing", ["in one burst", "in real time", "ends late"])
@scripted
async def test_interrupted_by_the_user_the_model_is_told_what_was_heard(
    kind: Sink, pacing: str
) -> None:
    model = ScriptedRealtime(PACINGS[pacing])
    model.script = SPEECH
    async with stage(kind) as s, talking(s, realtime=model) as talk:
        began = now()
        model.answer()
        await asyncio.sleep(2.0)
        model.hear_the_user()
        await asyncio.sleep(1.0)
        heard = s.tones(since=began)
        (truncation,) = model.truncations
        end = heard[-1].end_s - heard[0].start_s
        assert truncation.audio_end_ms / 1000 == pytest.approx(end, abs=0.3)
        ((words, interrupted),) = talk.history
        assert interrupted
        assert len({tone.index for tone in heard} ^ set(words)) <= 1  # the word at the cut
        began, model.script = now(), OTHER
        model.answer()
        await asyncio.sleep(8.0)
        await is_heard(talk, OTHER, began)


class Greeter(Agent):
    async def on_enter(self) -> None:
        self.session.generate_reply()


@pytest.mark.parametrize("kind", OURS)
@scripted
async def test_another_agent_takes_over_and_both_are_heard_whole(kind: Sink) -> None:
    first, second = ScriptedRealtime(), ScriptedRealtime(PACINGS["slower than speech"])
    first.script, second.script = SPEECH, OTHER
    async with stage(kind) as s, talking(s, realtime=first) as talk:
        began = now()
        await talk.done(talk.session.generate_reply())
        await is_heard(talk, SPEECH, began)
        began = now()
        talk.session.update_agent(Greeter(instructions="", llm=second))
        await asyncio.sleep(8.0)
        await is_heard(talk, OTHER, began)


@pytest.mark.parametrize("kind", OURS)
@scripted
async def test_what_is_said_from_a_recording_stands_beside_what_the_model_says(kind: Sink) -> None:
    model = ScriptedRealtime()
    model.script = SPEECH
    async with stage(kind) as s, talking(s, realtime=model) as talk:
        began = now()
        await talk.done(talk.say(OTHER))
        await is_heard(talk, OTHER, began)
        began = now()
        await talk.done(talk.session.generate_reply())
        await is_heard(talk, SPEECH, began)
