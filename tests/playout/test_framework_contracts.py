"""What wraps the sink (livekit-agents 1.8.9), with `AvatarAudioOutput` at the tail of the chain: a
tail that is replaced, the recorder, any order of calls.

Where it can, a case also runs over the framework's own sink as a control: what that one does, its
wrappers are built to bear.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
import pytest
from livekit.agents.voice.io import AgentOutput, AudioInput
from livekit.agents.voice.recorder_io import RecorderIO

from livekit_plugins_runway.testing.tones import ToneScript, foreign, hear, missing
from tests.support.framework_stage import (
    LATENCY,
    OURS,
    WITH_AVATAR,
    Listener,
    Passthrough,
    Sink,
    Stage,
    capture,
    now,
    scripted,
    speak,
    stage,
    time_for_threads,
)
from tests.support.speech_world import RATE

ALL = tuple(Sink)
SPEECH = ToneScript(16)
OTHER = ToneScript(6, offset=40)
WORD = SPEECH.slot_s


# -- the tail is replaced -------------------------------------------------------------------------

SWAPS = [(kind, Sink.FRAMEWORK) for kind in OURS] + [(Sink.FRAMEWORK, kind) for kind in OURS]


def chain(tail: Stage) -> tuple[AgentOutput, Passthrough, Listener]:
    output = AgentOutput(lambda: None, lambda: None, lambda: None)
    wrapper = Passthrough(tail.sink)
    output.audio = wrapper
    return output, wrapper, Listener().listen(wrapper)


@pytest.mark.parametrize(("old", "new"), SWAPS)
@scripted
async def test_a_tail_that_is_replaced_while_idle_leaves_the_next_segment_to_the_new_one(
    old: Sink, new: Sink
) -> None:
    async with stage(old) as a, stage(new) as b:
        output, wrapper, events = chain(a)
        await speak(wrapper, SPEECH)
        output.replace_audio_tail(b.sink)
        swapped = now()
        end = await speak(wrapper, OTHER)
        assert (end.interrupted, len(events.finished)) == (False, 2)
        assert missing(OTHER, b.tones()) == []
        assert foreign(OTHER, b.tones()) == []
        assert a.silent(since=swapped + 0.02)


@pytest.mark.parametrize(("old", "new"), SWAPS)
@pytest.mark.parametrize("after", [0.1, 1.1])
@scripted
async def test_a_tail_that_is_replaced_after_the_flush_ends_the_segment_where_it_was(
    old: Sink, new: Sink, after: float
) -> None:
    async with stage(old) as a, stage(new) as b:
        output, wrapper, events = chain(a)
        await capture(wrapper, SPEECH)
        wrapper.flush()
        await asyncio.sleep(after)
        output.replace_audio_tail(b.sink)
        swapped = now()
        async with asyncio.timeout(1.0):
            end = await wrapper.wait_for_playout()
        assert end.interrupted
        heard = sum(tone.duration_s for tone in a.tones()) / SPEECH.tone_s * WORD
        assert end.playback_position == pytest.approx(heard, abs=0.15)
        end = await speak(wrapper, OTHER)
        await asyncio.sleep(3.0)
        assert (end.interrupted, len(events.finished)) == (False, 2)
        assert missing(OTHER, b.tones()) == []
        assert foreign(OTHER, b.tones()) == []
        assert a.silent(since=swapped + 0.02)


@pytest.mark.parametrize(("old", "new"), SWAPS)
@scripted
async def test_a_tail_that_is_replaced_in_mid_capture_leaves_the_rest_to_the_new_one(
    old: Sink, new: Sink
) -> None:
    first, second = ToneScript(6), ToneScript(8, offset=6)
    async with stage(old) as a, stage(new) as b:
        output, wrapper, events = chain(a)
        await capture(wrapper, first, realtime=True)
        output.replace_audio_tail(b.sink)
        swapped = now()
        end = await speak(wrapper, second)
        await asyncio.sleep(3.0)
        assert (end.interrupted, len(events.finished)) == (False, 1)
        assert missing(second, b.tones()) == []
        assert foreign(second, b.tones()) == []
        assert a.silent(since=swapped + 0.02)
        last = events.progressed[-1]
        assert last.offset + last.duration == pytest.approx(14 * WORD, abs=0.03)


@pytest.mark.parametrize("old", OURS)
@scripted
async def test_a_tail_that_is_replaced_while_it_makes_the_speaker_wait_says_nothing_more(
    old: Sink,
) -> None:
    with mock.patch("livekit_plugins_runway.playout.output.MAX_BUFFERED", 1.0):
        async with stage(old) as a, stage(Sink.VOICE) as b:
            output, wrapper, events = chain(a)
            speaking = asyncio.create_task(capture(wrapper, SPEECH))
            await asyncio.sleep(0.7)
            assert not speaking.done()
            output.replace_audio_tail(b.sink)
            swapped = now()
            async with asyncio.timeout(10.0):
                await speaking
                wrapper.flush()
                end = await wrapper.wait_for_playout()
            assert (end.interrupted, len(events.finished)) == (False, 1)
            assert a.world is not None
            assert not a.world.output.speaking
            assert a.silent(since=swapped + 0.02)


# -- the framework's recorder ---------------------------------------------------------------------


async def record(s: Stage, path: Path, *, at: float, event: str) -> tuple[Any, Listener]:
    """What the recorder wrote of `SPEECH` on the agent's channel, from loop time 0 on."""
    recorder = RecorderIO(agent_session=mock.Mock())
    recorder.record_input(AudioInput(label="deaf"))
    output = recorder.record_output(s.sink)
    events = Listener().listen(output)
    await recorder.start(output_path=path)
    began = now()
    speaking = asyncio.create_task(speak(output, SPEECH))
    await asyncio.sleep(at)
    if event == "loss":
        s.lose()
    elif event == "pause":
        output.pause()
        await asyncio.sleep(1.0)
        output.resume()
    await speaking
    with time_for_threads():
        await recorder.aclose()
    with av.open(str(path)) as container:
        pieces = [frame.to_ndarray()[1] for frame in container.decode(audio=0)]
    pcm = (np.concatenate(pieces) * 32767).astype(np.int16)
    return np.concatenate([np.zeros(round(began * RATE), np.int16), pcm]), events


RECORDED = [
    (kind, event)
    for kind in ALL
    for event in ("nothing", "pause", "loss")
    if kind in WITH_AVATAR or event != "loss"
]


@pytest.mark.parametrize(("kind", "event"), RECORDED)
@scripted
async def test_the_recording_has_every_word_where_it_was_heard(
    kind: Sink, event: str, tmp_path: Path
) -> None:
    async with stage(kind, can_pause=True) as s:
        pcm, events = await record(s, tmp_path / "call.ogg", at=1.6, event=event)
        heard: dict[int, list[float]] = {}
        for tone in s.tones():
            heard.setdefault(tone.index, []).append(tone.start_s)
        recorded = hear(pcm, RATE, min_s=0.1)
        assert {tone.index for tone in recorded} >= set(SPEECH.indices[:5] + SPEECH.indices[8:])
        for tone in recorded:
            # The hop in which a tone was cut in two may lie on either side.
            assert min(abs(at - tone.start_s) for at in heard[tone.index]) <= 0.06
        if kind in OURS:
            played = 0.0
            for run in events.progressed:
                assert run.offset == pytest.approx(played, abs=0.001)
                played = run.offset + run.duration
            assert played == pytest.approx(SPEECH.duration_s, abs=0.02)
            assert missing(SPEECH, recorded) == []
        ends = [run.started_at + run.duration for run in events.progressed]
        assert all(
            end <= run.started_at + 0.011
            for end, run in zip(ends, events.progressed[1:], strict=False)
        )


# -- any order of calls ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
@scripted
async def test_no_order_of_calls_finishes_a_segment_twice(kind: Sink) -> None:
    async with stage(kind, can_pause=True) as s:
        events = Listener().listen(s.sink)
        s.sink.flush()
        s.sink.clear_buffer()
        await speak(s.sink, OTHER)
        s.sink.flush()
        s.sink.clear_buffer()
        await asyncio.sleep(0.1)
        assert len(events.finished) == 1
        await capture(s.sink, SPEECH)
        s.sink.flush()
        await asyncio.sleep(LATENCY + 0.5)
        s.sink.clear_buffer()
        s.sink.clear_buffer()
        if s.world is not None:
            s.world.output.worker_finished(interrupted=True)
            s.world.output.worker_finished(interrupted=False)
            s.world.output.detach_avatar()
        async with asyncio.timeout(2.0):
            end = await s.sink.wait_for_playout()
        assert end.interrupted
        s.sink.pause()
        s.sink.resume()
        s.sink.clear_buffer()
        await asyncio.sleep(3.0)
        assert len(events.finished) == s.sink.captured_playout_segments == 2
