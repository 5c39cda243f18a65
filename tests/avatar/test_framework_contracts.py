"""What the avatar relies on of the framework (livekit-agents 1.8.9) and of its event emitter: a new
version that changes one of these is told here by name, and not by a call that goes wrong.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, get_args
from unittest import mock

import pytest
from livekit import rtc
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    Agent,
    AgentSession,
    JobContext,
    Plugin,
    get_job_context,
    utils,
)
from livekit.agents.job import _JobContextVar
from livekit.agents.telemetry import tracer
from livekit.agents.testing import fake_job_context
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF
from livekit.agents.utils import is_given
from livekit.agents.voice.avatar import AvatarSession as BaseAvatarSession
from livekit.agents.voice.avatar import _datastream_io as wire

from livekit_plugins_runway.log import logger
from livekit_plugins_runway.transport import worker_protocol as ours


class Face(BaseAvatarSession[str]):
    """What every avatar is to the framework."""

    @property
    def avatar_identity(self) -> str:
        return "face"

    @property
    def provider(self) -> str:
        return "runway"


class AgentRoom(rtc.EventEmitter[str]):
    """As much of a room as the base class asks for."""

    def __init__(self, *, connected: bool) -> None:
        super().__init__()
        self.name = "room"
        self.connected = connected
        self.local_participant = SimpleNamespace(identity="agent", track_publications={})
        self.remote_participants: dict[str, Any] = {}

    def isconnected(self) -> bool:
        return self.connected


def agent_session() -> AgentSession[Any]:
    return AgentSession(turn_handling={"turn_detection": None}, vad=None)


# -- the event emitter ----------------------------------------------------------------------------


def test_a_listener_that_raises_keeps_no_news_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    emitter: rtc.EventEmitter[str] = rtc.EventEmitter()
    told: list[int] = []

    def fail(_: int) -> None:
        raise RuntimeError("of a user")

    emitter.on("event", fail)
    emitter.on("event", told.append)
    emitter.emit("event", 1)
    assert told == [1]
    assert "failed to emit event" in caplog.text


def test_a_type_error_of_a_listener_comes_back_to_who_emits() -> None:
    emitter: rtc.EventEmitter[str] = rtc.EventEmitter()

    def fail() -> None:
        raise TypeError("of a user")

    emitter.on("event", fail)
    with pytest.raises(TypeError, match="of a user"):
        emitter.emit("event")


def test_a_listener_gets_as_many_arguments_as_it_takes() -> None:
    emitter: rtc.EventEmitter[str] = rtc.EventEmitter()
    told: list[tuple[int, ...]] = []
    emitter.on("event", lambda: told.append(()))
    emitter.on("event", lambda a: told.append((a,)))
    emitter.on("event", lambda *all_of_it: told.append(all_of_it))
    emitter.emit("event", 1, 2)
    assert told == [(), (1,), (1, 2)]


def test_a_method_is_taken_off_by_its_name_twice_and_while_it_is_told() -> None:
    emitter: rtc.EventEmitter[str] = rtc.EventEmitter()

    class Listener:
        def __init__(self) -> None:
            self.told = 0

        def on_event(self) -> None:
            self.told += 1
            emitter.off("event", self.on_event)

    first, second = Listener(), Listener()
    emitter.on("event", first.on_event)
    emitter.on("event", second.on_event)
    emitter.emit("event")
    emitter.emit("event")
    emitter.off("event", first.on_event)
    emitter.off("never heard of", first.on_event)
    assert (first.told, second.told) == (1, 1)


def test_a_coroutine_function_is_no_listener() -> None:
    async def listen() -> None: ...

    with pytest.raises(ValueError, match="async"):
        rtc.EventEmitter[str]().on("event", listen)


def test_the_room_has_every_event_that_is_listened_to() -> None:
    assert set(get_args(rtc.room.EventTypes)) >= {
        "connected",
        "connection_state_changed",
        "data_received",
        "disconnected",
        "local_track_republished",
        "local_track_subscribed",
        "participant_active",
        "participant_attributes_changed",
        "participant_connected",
        "participant_disconnected",
        "reconnected",
        "reconnecting",
        "track_published",
        "track_subscribed",
        "track_unpublished",
        "track_unsubscribed",
    }


# -- the base class of avatars --------------------------------------------------------------------


async def test_started_it_knows_the_agent_session_and_closed_it_does_not() -> None:
    face, session = Face(), agent_session()
    room: Any = AgentRoom(connected=False)
    await face.start(session, room)
    assert face._agent_session is session
    await face.wait_for_join(timeout=0.1)  # of a room that is not connected yet: returns at once
    await face.aclose()
    assert face._agent_session is None
    await face.aclose()
    await session.aclose()


async def test_closed_before_it_was_started_is_no_error() -> None:
    await Face().aclose()


@pytest.mark.parametrize("connected", [True, False])
async def test_it_waits_for_the_participant_with_its_identity_and_its_camera(
    connected: bool,
) -> None:
    face, session = Face(), agent_session()
    room: Any = AgentRoom(connected=connected)
    metrics: list[Any] = []
    face.on("metrics_collected", metrics.append)
    await face.start(session, room)
    if not connected:
        room.connected = True
        room.emit("connection_state_changed", rtc.ConnectionState.CONN_CONNECTED)
    with pytest.raises(asyncio.TimeoutError):
        await face.wait_for_join(timeout=0.1)
    camera = SimpleNamespace(kind=rtc.TrackKind.KIND_VIDEO, sid="TR_1")
    participant = SimpleNamespace(
        identity="face",
        kind=rtc.ParticipantKind.PARTICIPANT_KIND_AGENT,
        track_publications={"TR_1": camera},
        attributes={},
    )
    room.remote_participants["face"] = participant
    room.emit("participant_connected", participant)
    room.emit("participant_active", participant)
    room.emit("track_published", camera, participant)
    await face.wait_for_join(timeout=1.0)
    (told,) = metrics
    assert told.metadata.model_provider == "runway"
    room.connected = False
    await face.aclose()
    await session.aclose()


async def test_in_a_job_its_end_closes_the_avatar() -> None:
    face, session = Face(), agent_session()
    job = mock.Mock(spec=JobContext)
    token = _JobContextVar.set(job)
    try:
        await face.start(session, AgentRoom(connected=False))  # type: ignore[arg-type]
        job.add_shutdown_callback.assert_called_once_with(face.aclose)
        await face.aclose()
    finally:
        _JobContextVar.reset(token)
    await session.aclose()


async def test_in_a_job_with_a_room_closing_puts_the_avatar_out_of_it() -> None:
    face, session = Face(), agent_session()
    job = mock.Mock(spec=JobContext)
    job.api.room.remove_participant = mock.AsyncMock()
    token = _JobContextVar.set(job)
    try:
        await face.start(session, AgentRoom(connected=True))  # type: ignore[arg-type]
        await face.aclose()
    finally:
        _JobContextVar.reset(token)
    (call,) = job.api.room.remove_participant.call_args_list
    assert (call.args[0].room, call.args[0].identity) == ("room", "face")
    await session.aclose()


# -- the agent session ----------------------------------------------------------------------------


async def test_an_agent_session_that_was_not_started_has_no_agent_and_no_audio() -> None:
    session = agent_session()
    with pytest.raises(RuntimeError):
        _ = session.current_agent
    assert session.output.audio is None
    await session.aclose()


async def test_an_agent_session_that_is_closed_tells_so_once() -> None:
    session = agent_session()
    told: list[object] = []
    session.on("close", told.append)
    await session.start(Agent(instructions=""))
    assert session.current_agent is not None
    await session.aclose()
    await session.aclose()
    assert len(told) == 1


# -- jobs and plugins -----------------------------------------------------------------------------


def test_outside_a_job_there_is_no_context() -> None:
    assert get_job_context(required=False) is None


def test_console_mode_is_a_job_that_is_told_as_fake() -> None:
    room = mock.Mock()
    room.name = "console"
    with fake_job_context(room=room):
        job = get_job_context(required=False)
        assert job is not None
        assert job.is_fake_job()


def test_a_job_has_what_an_avatar_reads_before_its_room_is_connected() -> None:
    for name in ("job", "local_participant_identity", "add_shutdown_callback", "api"):
        assert hasattr(JobContext, name), name


@pytest.fixture
def _registered() -> Iterator[None]:
    with mock.patch.object(Plugin, "registered_plugins", []):
        yield


@pytest.mark.usefixtures("_registered")
def test_a_plugin_is_registered_on_the_main_thread_only() -> None:
    class Ours(Plugin):
        pass

    errors: list[BaseException] = []

    def register() -> None:
        try:
            Plugin.register_plugin(Ours("title", "1.0", "package", logger))
        except RuntimeError as error:
            errors.append(error)

    elsewhere = threading.Thread(target=register)
    elsewhere.start()
    elsewhere.join()
    assert "main thread" in str(errors[0])
    assert Plugin.registered_plugins == []
    register()
    (plugin,) = Plugin.registered_plugins
    assert (plugin.title, plugin.version, plugin.package) == ("title", "1.0", "package")
    assert plugin.logger is logger


def test_this_package_is_registered_under_its_name() -> None:
    import livekit_plugins_runway

    mine = [p for p in Plugin.registered_plugins if p.title == livekit_plugins_runway.__name__]
    assert len(mine) == 1
    assert mine[0].version == livekit_plugins_runway.__version__


# -- names and values -----------------------------------------------------------------------------


def test_what_was_not_given_is_false() -> None:
    assert not NOT_GIVEN
    assert not is_given(NOT_GIVEN)
    assert is_given(None)


def test_connect_options_are_retries_and_seconds() -> None:
    options = DEFAULT_API_CONNECT_OPTIONS
    assert (options.max_retry, options.retry_interval, options.timeout) == (3, 2.0, 10.0)


def test_the_wire_to_an_avatar_worker_is_the_one_that_is_spoken_here() -> None:
    theirs = (
        wire.AUDIO_STREAM_TOPIC,
        wire.RPC_CLEAR_BUFFER,
        wire.RPC_PLAYBACK_FINISHED,
        wire.RPC_PLAYBACK_STARTED,
    )
    assert theirs == (
        ours.AUDIO_STREAM_TOPIC,
        ours.RPC_CLEAR_BUFFER,
        ours.RPC_PLAYBACK_FINISHED,
        ours.RPC_PLAYBACK_STARTED,
    )
    assert ATTRIBUTE_PUBLISH_ON_BEHALF == "lk.publish_on_behalf"


def test_small_things_that_are_used_are_there() -> None:
    assert utils.shortuuid("AUDIO_").startswith("AUDIO_")
    assert utils.nodename()
    tracer.start_span("contract").end()
