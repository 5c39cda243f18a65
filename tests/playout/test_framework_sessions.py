"""An agent session (livekit-agents 1.8.9) with `AvatarAudioOutput` at the tail of its audio:
interruptions, coughs, captions, history, close.

Where it can, a case also runs over the framework's own sink as a control.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from livekit.agents.voice.speech_handle import INTERRUPTION_TIMEOUT

from livekit_plugins_runway.testing.tones import (
    ToneScript,
    foreign,
    in_order,
    missing,
    repeated_seconds,
)
from tests.support.framework_stage import (
    OURS,
    UNPAUSABLE,
    WITH_AVATAR,
    Captions,
    Sink,
    Stage,
    now,
    scripted,
    stage,
)
from tests.support.scripted_session import Talk, talking

pytestmark = pytest.mark.slow

ALL = tuple(Sink)
SPEECH = ToneScript(16)
OTHER = ToneScript(6, offset=40)
WORD = SPEECH.slot_s
REPEATED = 0.3
"""Seconds of speech that may be said twice after a loss."""


# -- the user interrupts --------------------------------------------------------------------------


async def next_speech_is_whole(talk: Talk) -> None:
    began = now()
    handle = await talk.done(talk.say(OTHER))
    tones = talk.stage.tones(since=began + 0.02)
    assert not handle.interrupted
    assert missing(OTHER, tones) == []
    assert foreign(OTHER, tones) == []
    assert talk.history[-1] == (list(OTHER.indices), False)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("how", ["say", "reply"])
@scripted
async def test_interrupted_before_anybody_can_hear_it_leaves_no_trace(kind: Sink, how: str) -> None:
    async with stage(kind, subscribed=False) as s, talking(s) as talk:
        handle = talk.reply(SPEECH) if how == "reply" else talk.say(SPEECH)
        await asyncio.sleep(0.5)
        handle.interrupt()
        await talk.done(handle)
        assert talk.history == []
        assert talk.captions.text == ""
        s.subscribe()
        await next_speech_is_whole(talk)
        assert len(talk.history) == 1


@pytest.mark.parametrize("kind", WITH_AVATAR)
@pytest.mark.parametrize("lead_in", [0.0, 1.2])
@scripted
async def test_interrupted_before_the_avatar_opened_its_mouth_leaves_no_trace(
    kind: Sink, lead_in: float
) -> None:
    """Also where the speech itself begins with silence."""
    async with stage(kind, worker={"latency": 1.0}) as s, talking(s) as talk:
        handle = talk.say(SPEECH, lead_in=lead_in)
        await asyncio.sleep(0.9)
        handle.interrupt()
        await talk.done(handle)
        assert talk.history == []
        assert talk.listener.finished[0].playback_position == 0.0
        await next_speech_is_whole(talk)
        assert len(talk.history) == 1


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("how", "at"), [("slow", 3.1), ("burst", 0.8), ("reply", 0.8), ("reply", 3.1)]
)
@scripted
async def test_interrupted_in_mid_speech_the_history_holds_the_words_heard(
    kind: Sink, how: str, at: float
) -> None:
    async with stage(kind) as s, talking(s) as talk:
        slow = how == "slow"
        handle = talk.reply(SPEECH) if how == "reply" else talk.say(SPEECH, realtime=slow)
        await asyncio.sleep(at)
        handle.interrupt()
        cut = now()
        await talk.done(handle)
        assert handle.interrupted
        assert now() - cut <= 0.1
        heard = [tone.index for tone in s.tones()]
        ((told, interrupted),) = talk.history
        assert interrupted
        assert told == list(SPEECH.indices)[: len(told)]
        assert len(heard) - 2 <= len(told) <= len(heard) + 1
        assert talk.captions.text == SPEECH.text[: len(talk.captions.text)]
        await next_speech_is_whole(talk)
        assert s.silent(cut + 0.02, s.tones(since=cut + 0.02)[0].start_s - 0.02)
        assert len(talk.listener.finished) == 2


# -- a noise that is no turn ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("at", [0.1, 1.5], ids=["before it is heard", "in mid-speech"])
@scripted
async def test_a_cough_does_not_kill_the_sentence(kind: Sink, at: float) -> None:
    async with stage(kind, can_pause=True) as s, talking(s, hears_user=True) as talk:
        audio = talk.session.output.audio
        assert audio is not None
        assert audio.can_pause
        handle = talk.say(SPEECH)
        await asyncio.sleep(at)
        noise = now()
        await talk.noise.make(0.6)
        quiet = now()
        await talk.done(handle)
        assert not handle.interrupted
        assert talk.history == [(list(SPEECH.indices), False)]
        assert talk.captions.text == SPEECH.text
        (end,) = talk.listener.finished
        assert not end.interrupted
        if kind in OURS:  # the framework's own lets go of the 0.2 s that were queued
            assert s.silent(noise + 0.37, quiet)
            assert missing(SPEECH, s.tones()) == []
            assert in_order(SPEECH, s.tones())
            assert repeated_seconds(SPEECH, s.tones()) <= 0.3
            assert end.playback_position == pytest.approx(SPEECH.duration_s, abs=0.02)
        await next_speech_is_whole(talk)


@pytest.mark.parametrize("kind", OURS)
@scripted
async def test_a_sink_that_cannot_pause_is_interrupted_instead(
    kind: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(kind, can_pause=False) as s, talking(s, hears_user=True) as talk:
        audio = talk.session.output.audio
        assert audio is not None
        assert not audio.can_pause
        assert UNPAUSABLE in caplog.text
        handle = talk.say(SPEECH)
        await asyncio.sleep(1.5)
        await talk.noise.make(0.6)
        await talk.done(handle)
        assert handle.interrupted
        assert talk.resumed == []
        await next_speech_is_whole(talk)


@pytest.mark.parametrize("kind", ALL)
@scripted
async def test_a_cough_that_turns_into_an_interruption_keeps_the_words_heard(kind: Sink) -> None:
    async with stage(kind, can_pause=True) as s, talking(s, hears_user=True) as talk:
        handle = talk.say(SPEECH)
        await asyncio.sleep(1.5)
        await talk.noise.make(0.6)
        paused_with = [tone.index for tone in s.tones()]
        await talk.session.interrupt()
        await talk.done(handle)
        ((told, interrupted),) = talk.history
        assert interrupted
        assert len(paused_with) - 2 <= len(told) <= len(paused_with) + 1
        await asyncio.sleep(2.0)
        assert [tone.index for tone in s.tones()] == paused_with
        await next_speech_is_whole(talk)


@pytest.mark.parametrize("kind", WITH_AVATAR)
@scripted
async def test_an_avatar_that_is_lost_in_the_pause_leaves_the_rest_to_the_voice(kind: Sink) -> None:
    async with stage(kind, can_pause=True) as s, talking(s, hears_user=True) as talk:
        handle = talk.say(SPEECH)
        await asyncio.sleep(1.5)
        noise = asyncio.create_task(talk.noise.make(0.6))
        await asyncio.sleep(0.5)
        s.lose()
        await noise
        await talk.done(handle)
        assert not handle.interrupted
        assert talk.history == [(list(SPEECH.indices), False)]
        assert missing(SPEECH, s.tones()) == []
        assert talk.listener.finished[0].playback_position == pytest.approx(SPEECH.duration_s)


# -- captions -------------------------------------------------------------------------------------


def lead_of_the_captions(captions: Captions, s: Stage) -> float:
    """Seconds by which the earliest word was shown before it began to be heard."""
    begins: dict[int, float] = {}
    for tone in s.tones():
        begins.setdefault(tone.index, tone.start_s)
    shown: dict[int, float] = {}
    for at, _ in captions.shown:
        for index in captions.words(until=at):
            shown.setdefault(index, at)
    return max(begins[index] - at for index, at in shown.items())


@pytest.mark.parametrize(
    ("kind", "realtime"), [(kind, False) for kind in ALL] + [(kind, True) for kind in OURS]
)
@scripted
async def test_captions_do_not_run_ahead_of_the_voice(kind: Sink, realtime: bool) -> None:
    async with stage(kind) as s, talking(s) as talk:
        await talk.done(talk.say(SPEECH, realtime=realtime))
        assert talk.captions.text == SPEECH.text
        assert lead_of_the_captions(talk.captions, s) <= 2 * WORD


@pytest.mark.parametrize("kind", WITH_AVATAR)
@scripted
async def test_captions_of_an_avatar_that_answers_late_wait_for_it(kind: Sink) -> None:
    async with stage(kind, worker={"latency": 1.4}) as s, talking(s) as talk:
        await talk.done(talk.say(SPEECH))
        assert talk.captions.text == SPEECH.text
        assert lead_of_the_captions(talk.captions, s) <= 2 * WORD


@pytest.mark.parametrize("kind", WITH_AVATAR)
@pytest.mark.parametrize("at", [0.1, 0.9, 2.6])
@scripted
async def test_captions_are_whole_after_a_loss_in_mid_sentence(kind: Sink, at: float) -> None:
    async with stage(kind) as s, talking(s) as talk:
        handle = talk.say(SPEECH)
        await asyncio.sleep(at)
        s.lose()
        await talk.done(handle)
        assert not handle.interrupted
        assert missing(SPEECH, s.tones(), fraction=0.9) == []
        assert talk.captions.text == SPEECH.text
        assert talk.history == [(list(SPEECH.indices), False)]
        # The framework paces them by the clock: they are ahead by the hole and what is repeated.
        assert lead_of_the_captions(talk.captions, s) <= 2 * WORD + 0.3 + REPEATED


@pytest.mark.parametrize("kind", WITH_AVATAR)
@scripted
async def test_interrupted_after_a_loss_the_history_is_ahead_by_the_hole_at_most(
    kind: Sink,
) -> None:
    """The framework takes the words for history from its captions, which go by the clock."""
    hole = 0.3
    async with stage(kind) as s, talking(s) as talk:
        handle = talk.say(SPEECH)
        await asyncio.sleep(1.0)
        s.lose()
        await asyncio.sleep(1.6)
        handle.interrupt()
        await talk.done(handle)
        ((told, interrupted),) = talk.history
        assert interrupted
        heard = {tone.index for tone in s.tones()}
        assert len(heard) - 2 <= len(told) <= len(heard) + 1 + (hole + REPEATED) / WORD
        assert talk.listener.finished[0].playback_position == pytest.approx(
            len(heard) * WORD, abs=1.5 * WORD
        )


# -- the end --------------------------------------------------------------------------------------

WORKERS: list[dict[str, Any]] = [{}, {"clear": "ignores"}, {"clear_delay": 1.5}, {"latency": 3.0}]
PENDING: list[tuple[Sink, dict[str, Any]]] = [(kind, {}) for kind in ALL]
PENDING += [(Sink.STREAM, worker) for worker in WORKERS[1:]]


@pytest.mark.parametrize(("kind", "worker"), PENDING)
@pytest.mark.parametrize("at", [0.1, 1.2])
@scripted
async def test_a_session_that_closes_does_not_wait_for_the_sink(
    kind: Sink, worker: dict[str, Any], at: float
) -> None:
    async with stage(kind, worker=worker) as s, talking(s) as talk:
        handles = [talk.say(SPEECH), talk.say(OTHER)]
        await asyncio.sleep(at)
        began = now()
        async with asyncio.timeout(INTERRUPTION_TIMEOUT):
            await talk.session.aclose()
        assert now() - began < 1.0
        assert all(handle.done() for handle in handles)
        await asyncio.sleep(3.0)
        assert len(talk.listener.finished) == s.sink.captured_playout_segments
        assert s.silent(since=began + 0.05)


@pytest.mark.parametrize("kind", OURS)
@scripted
async def test_a_session_that_closes_in_a_pause_does_not_wait_either(kind: Sink) -> None:
    async with stage(kind, can_pause=True) as s, talking(s, hears_user=True) as talk:
        handle = talk.say(SPEECH)
        await asyncio.sleep(1.2)
        noise = asyncio.create_task(talk.noise.make(2.0))
        await asyncio.sleep(0.6)
        began = now()
        async with asyncio.timeout(INTERRUPTION_TIMEOUT):
            await talk.session.aclose()
        await noise
        assert now() - began < 3.0
        assert handle.done()
        assert len(talk.listener.finished) == 1


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("at", [None, 0.1, 1.2], ids=["idle", "before it is heard", "speaking"])
@scripted
async def test_a_session_that_goes_on_after_the_sink_was_closed_never_hangs(
    kind: Sink, at: float | None
) -> None:
    async with stage(kind) as s, talking(s) as talk:
        assert s.world is not None
        handle = talk.say(SPEECH)
        if at is None:
            await talk.done(handle)
        else:
            await asyncio.sleep(at)
        await s.world.output.aclose()
        await talk.done(handle)
        await talk.done(talk.say(OTHER))
        interrupted = talk.say(SPEECH, realtime=True)
        await asyncio.sleep(0.5)
        interrupted.interrupt()
        await talk.done(interrupted)
        assert len(talk.listener.finished) == 3
