"""What wraps the sink (livekit-agents 1.8.9), with `AvatarAudioOutput` at the tail of the chain: a
tail that is replaced, the recorder, any order of calls. And what its base class does for the sink.

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
from livekit import rtc
from livekit.agents.voice.io import (
    AgentOutput,
    AudioInput,
    AudioOutput,
    AudioOutputCapabilities,
    PlaybackFinishedEvent,
    PlaybackProgressedEvent,
    PlaybackStartedEvent,
)
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

pytestmark = pytest.mark.sampled

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
    with mock.patch("livekit_plugins_runway.playout.segment_queue.MAX_BUFFERED", 1.0):
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


# -- what the base class does for the sink --------------------------------------------------------


class Bare(AudioOutput):
    """A sink that has nothing but what its base class gives it, and notes what is called."""

    def __init__(self, *, pause: bool = True) -> None:
        super().__init__(label="Bare", capabilities=AudioOutputCapabilities(pause=pause))
        self.calls: list[str] = []

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)

    def flush(self) -> None:
        super().flush()
        self.calls.append("flush")

    def clear_buffer(self) -> None:
        self.calls.append("clear")

    def pause(self) -> None:
        super().pause()
        self.calls.append("pause")

    def resume(self) -> None:
        super().resume()
        self.calls.append("resume")

    def on_attached(self) -> None:
        self.calls.append("attached")

    def on_detached(self) -> None:
        self.calls.append("detached")

    async def say(self, frames: int = 2) -> None:
        for _ in range(frames):
            await self.capture_frame(rtc.AudioFrame(bytes(960), 48_000, 1, 480))
        self.flush()


async def test_all_frames_up_to_a_flush_are_one_segment() -> None:
    sink = Bare()
    await sink.say(3)
    sink.flush()
    await sink.say(1)
    assert sink.captured_playout_segments == 2


async def test_waiting_for_playout_takes_in_all_segments_up_to_then_and_gives_the_last_end() -> (
    None
):
    sink = Bare()
    await sink.say()
    await sink.say()
    waiting = asyncio.create_task(sink.wait_for_playout())
    sink.on_playback_finished(playback_position=1.0, interrupted=False)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    sink.on_playback_finished(playback_position=2.0, interrupted=True)
    async with asyncio.timeout(1.0):
        end = await waiting
    assert (end.playback_position, end.interrupted) == (2.0, True)
    async with asyncio.timeout(1.0):
        assert await sink.wait_for_playout() == end  # at once: nothing is outstanding


async def test_an_end_too_many_is_told_to_nobody_but_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Bare()
    events = Listener().listen(sink)
    await sink.say()
    for _ in range(2):
        sink.on_playback_finished(playback_position=1.0, interrupted=False)
    assert len(events.finished) == 1
    assert "more times" in caplog.text


async def test_what_the_sink_tells_passes_the_wrappers_as_it_is() -> None:
    sink = Bare()
    wrapper = Passthrough(sink)
    told: list[Any] = []
    for event in ("playback_started", "playback_progressed", "playback_finished"):
        wrapper.on(event, told.append)
    await wrapper.capture_frame(rtc.AudioFrame(bytes(960), 48_000, 1, 480))
    wrapper.flush()
    sink.on_playback_started(created_at=5.0)
    sink.on_playback_progressed(started_at=5.0, offset=0.0, duration=0.5)
    sink.on_playback_finished(playback_position=0.5, interrupted=True)
    assert told == [
        PlaybackStartedEvent(created_at=5.0),
        PlaybackProgressedEvent(started_at=5.0, offset=0.0, duration=0.5),
        PlaybackFinishedEvent(playback_position=0.5, interrupted=True),
    ]


@pytest.mark.parametrize("pause", [True, False])
async def test_pause_and_resume_reach_the_tail_which_says_whether_it_can(pause: bool) -> None:
    sink = Bare(pause=pause)
    wrapper = Passthrough(sink)
    assert wrapper.can_pause is pause
    wrapper.pause()
    wrapper.resume()
    assert sink.calls == ["pause", "resume"]


async def test_a_sink_that_asks_for_no_rate_gets_the_frames_as_they_are() -> None:
    sink = Bare()
    proxy = Passthrough(sink).next_in_chain
    assert proxy is not None
    assert proxy.sample_rate is None
    await proxy.capture_frame(rtc.AudioFrame(bytes(2 * 2 * 441), 44_100, 2, 441))
    assert sink.captured_playout_segments == 1


async def test_the_chain_leads_from_any_wrapper_to_the_tail() -> None:
    sink = Bare()
    output: AudioOutput = Passthrough(Passthrough(sink))
    while output.next_in_chain is not None:
        output = output.next_in_chain
    assert output is sink


async def test_replacing_the_tail_takes_the_old_one_off_and_puts_the_new_one_on() -> None:
    old, new = Bare(), Bare()
    output = AgentOutput(lambda: None, lambda: None, lambda: None)
    wrapper = Passthrough(old)
    output.audio = wrapper
    output.replace_audio_tail(new)
    assert output.audio is wrapper
    assert wrapper.next_in_chain is not None
    assert wrapper.next_in_chain.next_in_chain is new
    assert old.calls[-1] == "detached"
    assert new.calls == ["attached"]


async def test_replacing_the_tail_of_nothing_or_of_a_bare_sink_makes_it_the_output() -> None:
    first, second = Bare(), Bare()
    changes: list[str] = []
    output = AgentOutput(lambda: None, lambda: changes.append("audio"), lambda: None)
    output.replace_audio_tail(first)
    assert output.audio is first
    output.replace_audio_tail(second)
    assert output.audio is second
    output.audio = None
    assert output.audio is None
    assert len(changes) == 3
