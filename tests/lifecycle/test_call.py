"""What a call takes of its agent session and gives back, and what it tells on the way."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from unittest import mock

import pytest
from livekit.agents.voice.avatar import QueueAudioOutput
from livekit.agents.voice.io import AudioOutput

from livekit_plugins_runway import AvatarState, PlayoutForced
from livekit_plugins_runway._common.tasks import BackgroundTasks
from livekit_plugins_runway.errors import UnavailableError
from livekit_plugins_runway.events import CallEvents
from livekit_plugins_runway.lifecycle.agent.output import AgentVoice, OutputSlot
from livekit_plugins_runway.lifecycle.state import StateMachine
from livekit_plugins_runway.lifecycle.supervisor import Phase
from livekit_plugins_runway.playout.ports import FirstSpeechHeard
from tests.support.scripted_call import ScriptedAgent, calling, in_virtual_time, live
from tests.support.scripted_room import ScriptedRoom


class Agent(ScriptedAgent):
    """One that was started."""

    @property
    def current_agent(self) -> object:
        return self


def slot_of(agent: ScriptedAgent) -> OutputSlot:
    return OutputSlot(cast(Any, agent), ScriptedRoom().as_room, BackgroundTasks())


def sink() -> Any:
    return QueueAudioOutput()


def test_the_former_output_is_put_back() -> None:
    agent, former = Agent(), QueueAudioOutput()
    ours = sink()
    agent.output.audio = former
    slot = slot_of(agent)
    slot.install(ours)
    assert [agent.output.audio] == [ours]
    slot.restore(ours)
    slot.restore(ours)
    assert [agent.output.audio] == [former]


def test_an_output_that_somebody_else_has_put_there_stays() -> None:
    agent, theirs = Agent(), QueueAudioOutput()
    ours = sink()
    slot = slot_of(agent)
    slot.install(ours)
    agent.output.audio = theirs
    slot.restore(ours)
    assert agent.output.audio is theirs


class Wrapper(QueueAudioOutput):
    """Of the framework's: stays while what is behind it changes."""

    def __init__(self, behind: AudioOutput) -> None:
        super().__init__()
        self._next_in_chain = behind


def test_behind_a_wrapper_the_end_of_the_chain_is_put_back() -> None:
    agent, former, ours = Agent(), QueueAudioOutput(), sink()
    agent.output.audio = former
    slot = slot_of(agent)
    slot.install(ours)
    agent.output.audio = Wrapper(ours)
    with mock.patch.object(agent.output, "replace_audio_tail") as replace_audio_tail:
        slot.restore(ours)
    replace_audio_tail.assert_called_once_with(former)


async def test_a_session_that_goes_on_without_an_output_of_its_own_is_left_a_voice() -> None:
    agent, voices = Agent(), list[object]()
    for starts in (True, False, True):  # a second avatar takes the place of that voice, and so on
        ours = sink()
        slot = slot_of(agent)
        slot.install(ours)
        assert [agent.output.audio] == [ours]
        if starts:
            slot.keep()
        slot.restore(ours)
        voices.append(agent.output.audio)
        assert isinstance(voices[-1], AgentVoice)
    first, after_one_that_did_not_start, last = voices
    assert after_one_that_did_not_start is first
    assert last is not first
    agent.emit("close", None)


async def test_a_voice_that_was_left_and_is_not_put_back_is_closed() -> None:
    agent, ours, theirs = Agent(), sink(), QueueAudioOutput()
    voice = AgentVoice(cast(Any, agent), ScriptedRoom().as_room, BackgroundTasks())
    agent.output.audio = voice
    slot = slot_of(agent)
    slot.install(ours)
    agent.output.audio = theirs
    with mock.patch.object(voice, "close_soon") as close_soon:
        slot.restore(ours)
    close_soon.assert_called_once_with()
    voice.close_soon()


@pytest.mark.parametrize("is_over", [True, False])
async def test_a_session_that_does_not_go_on_is_left_nothing(is_over: bool) -> None:
    """It was closed, or its start is still to come: then it makes an output of its own."""
    agent, ours = Agent() if is_over else ScriptedAgent(), sink()
    slot = slot_of(agent)
    slot.install(ours)
    if is_over:
        agent.emit("close", None)
    slot.restore(ours)
    assert agent.output.audio is None


@pytest.mark.parametrize("agent", [Agent, ScriptedAgent])
def test_a_running_agent_without_an_output_is_warned_of(
    agent: type[ScriptedAgent], caplog: pytest.LogCaptureFixture
) -> None:
    one = agent()
    slot_of(one).install(sink())
    assert ("without an audio output" in caplog.text) is (agent is Agent)


@in_virtual_time
async def test_a_session_is_asked_for_its_status_while_the_transport_still_joins() -> None:
    async with calling() as call:
        call.transport.agent_room.connect = 3.0
        starting = asyncio.create_task(call.start())
        await call.until(lambda: "get" in [kind for _, kind, _ in call.runway.asked])
        assert not starting.done()
        await starting


@in_virtual_time
async def test_a_start_whose_transport_cannot_join_leaves_no_session() -> None:
    async with calling() as call:
        call.transport.agent_room.connect, call.transport.agent_room.refuses = 3.0, True
        with pytest.raises(UnavailableError):
            await call.start()
        assert call.avatar.state is AvatarState.CLOSED
        await call.nothing_is_left()


@in_virtual_time
async def test_what_the_sink_reports_is_told() -> None:
    async with live() as call:
        made: Any = call.avatar._call
        forced: list[PlayoutForced] = []
        call.avatar.on("playout_forced", forced.append)
        made._on_playout_report(FirstSpeechHeard(0.2))
        made._on_playout_report(FirstSpeechHeard(0.2))
        made._on_playout_report(PlayoutForced(2.0, 1.0))
        assert call.of("stage_reached").count("first_speech") == 1
        assert forced == [PlayoutForced(2.0, 1.0)]
        assert "holding" in repr(made)
        assert "live" in repr(call.avatar)


def test_a_step_that_is_not_allowed_is_a_fault() -> None:
    states = StateMachine(CallEvents(lambda *_: None))
    with pytest.raises(RuntimeError, match="cannot go from new to live"):
        states.move_to(AvatarState.LIVE, "")
    states.move_to(AvatarState.CLOSED, "")
    states.move_to(AvatarState.LIVE, "late")
    assert states.state is AvatarState.CLOSED


@in_virtual_time
async def test_a_phase_that_is_not_allowed_is_a_fault() -> None:
    async with live() as call:
        with pytest.raises(RuntimeError, match="cannot go from holding to new"):
            call.supervisor._enter(Phase.NEW)
