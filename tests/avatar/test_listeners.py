"""Whatever a user's callback does, the others are told and the call goes on, and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.voice.io import AudioOutput

from livekit_plugins_runway import AvatarSession, AvatarState, StateChanged
from livekit_plugins_runway._common.emitter import SafeEmitter
from livekit_plugins_runway.events import ToolCall
from tests.support.scripted_room import start_in
from tests.support.scripted_runway import ScriptedRunway
from tests.support.virtual_clock import virtual_clock

LOGGER = "livekit.plugins.runway_bridge"
PAYLOAD = "what only the listeners are told"


class Base(rtc.EventEmitter[Literal["said"]]):
    """Somebody else's class, which emits by itself."""

    def say(self) -> None:
        self.emit("said", PAYLOAD)


class Ours(SafeEmitter[Literal["said"]], Base):
    pass


def type_error(_: object) -> None:
    raise TypeError("of a user")


def value_error(_: object) -> None:
    raise ValueError("of a user")


def cancelled(_: object) -> None:
    raise asyncio.CancelledError


def wants_more(one: object, two: object) -> None:
    raise AssertionError("it cannot be called")


FAULTS = [type_error, value_error, cancelled, wants_more]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_listener_raises_is_logged_and_the_others_are_told(
    fault: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    emitter, told = Ours(), list[str]()
    emitter.on("said", told.append)
    emitter.on("said", fault)
    emitter.on("said", lambda what: told.append(what))
    emitter.say()
    assert told == [PAYLOAD] * 2
    (record,) = [record for record in caplog.records if record.name == LOGGER]
    assert (record.levelname, vars(record)["event"]) == ("ERROR", "said")
    assert record.exc_info
    assert PAYLOAD not in caplog.text


def test_a_listener_gets_as_many_arguments_as_it_takes() -> None:
    emitter, told = SafeEmitter[str](), list[Any]()
    emitter.on("event", lambda: told.append(()))
    emitter.on("event", lambda a, *, b=0: told.append((a, b)))
    emitter.on("event", lambda *all_of_it: told.append(all_of_it))
    emitter.on("event", dict)  # a builtin whose signature nobody can read
    emitter.emit("event", 1, 2)
    emitter.emit("nobody listens", 1)
    assert told == [(), (1, 0), (1, 2)]


def test_a_listener_may_take_itself_off_while_it_is_told() -> None:
    emitter, told = SafeEmitter[str](), list[int]()
    emitter.once("event", told.append)
    emitter.on("event", told.append)
    emitter.emit("event", 1)
    emitter.emit("event", 2)
    assert told == [1, 1, 2]


def test_coroutine_functions_are_refused_as_by_the_framework() -> None:
    async def listen() -> None: ...

    with pytest.raises(ValueError, match="async"):
        SafeEmitter[str]().on("event", listen)


# -- an avatar ------------------------------------------------------------------------------------


class Nobody:
    """A transport, and its connection, that wait for a worker for ever."""

    identity = "runway-avatar-agent"
    subscribed = reachable = True

    def __init__(self) -> None:
        self.closed = 0
        self.worker_gone = asyncio.Event()

    @property
    def microphone(self) -> Nobody:
        return self

    def keep_alive(self) -> None: ...

    def hide_face(self) -> None: ...

    def note_repeats(self) -> None: ...

    async def go_over(self, error: Exception) -> Exception:
        return error

    def connection(self, _listener: object) -> Any:
        return self

    def body(self, request: Any) -> Any:
        return request

    async def join(self, on_evicted: Any = None) -> None: ...

    async def open(self, *_args: object, **_options: object) -> None:
        await asyncio.Event().wait()

    async def push_audio(self, pcm: bytes) -> None: ...

    async def send_end_call(self) -> bool:
        return False

    async def ensure_gone(self, _patience: float) -> None: ...

    async def aclose(self) -> None:
        self.closed += 1


class AgentRoom(rtc.EventEmitter[Any]):
    def __init__(self) -> None:
        super().__init__()
        self.name = "r"
        self.local_participant = SimpleNamespace(identity="agent", track_publications={})
        self.remote_participants: dict[str, Any] = {}

    def isconnected(self) -> bool:
        return True


async def start(avatar: AvatarSession, session: AgentSession[Any]) -> None:
    await start_in(AgentRoom(), avatar, session)


EVENTS = ["state_changed", "stage_reached", "session_ended", "usage_updated", "error"]


@virtual_clock
async def _start_and_close(transport: Nobody, fault: Callable[..., None]) -> None:
    async with ScriptedRunway().running() as runway:
        avatar = AvatarSession(preset_id="influencer", api_key="key_x", api_url=runway.url)
        changes: list[StateChanged] = []
        for event in EVENTS:
            avatar.on(cast(Any, event), fault)
        avatar.on("state_changed", changes.append)
        session: AgentSession[Any] = AgentSession()
        await start(avatar, session)
        await avatar.aclose()
        assert avatar.state is AvatarState.CLOSED
        assert [change.new for change in changes] == [AvatarState.STARTING, AvatarState.CLOSED]
        assert runway.deleted == runway.created
        assert len(runway.created) == 1
        await session.aclose()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_callback_that_raises_keeps_no_session_from_its_end(
    fault: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    transport = Nobody()
    monkeypatch.setattr("livekit_plugins_runway.avatar.make_transport", lambda *_, **__: transport)
    _start_and_close(transport, fault)
    assert transport.closed == 2  # the connection, and the transport
    told = {vars(record).get("event") for record in caplog.records if record.name == LOGGER}
    assert told >= {"state_changed", "stage_reached", "session_ended", "usage_updated"}


class Fussy(AudioOutput):
    """A user's own output, which cannot be put back."""

    def __init__(self) -> None:
        super().__init__(label="fussy", capabilities=cast(Any, SimpleNamespace(pause=False)))
        self.gone = False

    async def capture_frame(self, frame: rtc.AudioFrame) -> None: ...

    def flush(self) -> None: ...

    def clear_buffer(self) -> None: ...

    def on_attached(self) -> None:
        if self.gone:
            raise TypeError("of a user")

    def on_detached(self) -> None:
        self.gone = True


@virtual_clock
async def _close_with_a_fussy_output() -> None:
    async with ScriptedRunway().running() as runway:
        avatar = AvatarSession(preset_id="influencer", api_key="key_x", api_url=runway.url)
        session: AgentSession[Any] = AgentSession()
        session.output.audio = Fussy()
        await start(avatar, session)
        await avatar.aclose()
        assert runway.deleted == runway.created != []
        await session.aclose()


def test_an_output_that_cannot_be_put_back_keeps_no_session_from_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("livekit_plugins_runway.avatar.make_transport", lambda *_, **__: Nobody())
    _close_with_a_fussy_output()
    assert "could not be restored" in caplog.text


@pytest.mark.parametrize("fault", FAULTS)
def test_a_use_of_a_tool_is_told_without_an_error_for_who_answers_it(
    fault: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    avatar = AvatarSession(preset_id="influencer", api_key="key_x")
    told: list[ToolCall] = []
    avatar.on("tool_called", fault)
    avatar.on("tool_called", told.append)
    desk = avatar._options.instance.tools
    assert desk is not None
    desk.on_called(ToolCall("client_event", "card", {}, "s"))
    assert len(told) == 1
    assert "tool_called" in [vars(record).get("event") for record in caplog.records]
