"""A call without a server, in virtual time: the real avatar, supervisor, sink and client between a
Runway in memory and rooms that do what a test says.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from unittest import mock

from livekit import rtc
from livekit.agents import APIConnectOptions
from livekit.agents.voice.io import AgentOutput

from livekit_plugins_runway import AvatarSession, AvatarState
from livekit_plugins_runway.errors import (
    AvatarJoinError,
    LossReason,
    RunwayException,
    UnavailableError,
)
from livekit_plugins_runway.lifecycle.instance import AvatarInstance
from livekit_plugins_runway.lifecycle.supervisor import Supervisor
from livekit_plugins_runway.lifecycle.telemetry import Telemetry
from livekit_plugins_runway.media.participant import Eviction
from livekit_plugins_runway.runway.models import CreateRealtimeSession
from livekit_plugins_runway.runway.session import RealtimeSession
from livekit_plugins_runway.transport.worker_protocol import DeliveryKind
from tests.support.memory_runway import MemoryRunway, MemorySession, now
from tests.support.scripted_room import ScriptedRoom, start_in
from tests.support.virtual_clock import VirtualClockLoop

EPOCH = 1_700_000_000.0
LOGGER = "livekit.plugins.runway_bridge"
EVENTS = (
    "state_changed", "error", "restarting", "gave_up", "replaced", "session_ended",
    "usage_updated", "stage_reached",
)  # fmt: skip


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs an async test on a clock of its own, which `time.time()` follows. Nothing real is waited
    for. Fails it if it leaves a task."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(0.0)) as runner:
            clock = runner.get_loop().time

            def wall_clock() -> float:  # a mock would keep each call
                return EPOCH + clock()

            with mock.patch.object(time, "time", wall_clock):
                runner.run(_leaving_nothing(test(*args, **kwargs)))

    return run


async def _leaving_nothing(work: Coroutine[Any, Any, None]) -> None:
    await work
    await asyncio.sleep(0)
    left = sorted(t.get_name() for t in asyncio.all_tasks() - {cast(Any, asyncio.current_task())})
    assert left == []


class Scripted(Exception):
    """Raised by what a test has told to fail."""


@dataclass
class Manners:
    """What a room does. Seconds; NEVER for what does not come back."""

    connect: float = 0.2
    leave: float = 0.05
    fails_to_leave: bool = False
    goodbye: float = 0.02
    """For END_CALL to be sent."""
    worker: float = 1.0
    """Until the worker comes."""
    first_frame: float = 0.3
    obeys: float = 0.3
    """Until the worker leaves after END_CALL."""
    settles: float = 0.0
    """After that, until Runway says so."""
    tracks_first: float = 0.02
    """From when its tracks have gone until it has left."""
    refuses: bool = False
    """It cannot be joined."""


NEVER = 1e6
LEAVE_LIMIT = 5.0
"""As of `media.connect.leave()`."""


class ScriptedDelivery:
    lead, batch, room = 2.0, 4800, 96_000

    def send(self, pcm: bytes) -> None: ...

    def finish(self) -> None: ...

    async def clear(self) -> bool:
        return True


class ScriptedMedia:
    def __init__(self, connection: ScriptedConnection, on_first_frame: Callable[[], None]) -> None:
        self._connection = connection
        self._on_first_frame = on_first_frame
        self.active = False
        self.reading = False
        self.last_frame: float | None = None
        self.fails: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def activate(self) -> None:
        self.active = True

    def deactivate(self) -> None:
        self.active = False

    async def run(self) -> None:
        self.reading = True
        try:
            await asyncio.sleep(self._connection.manners.first_frame)
            self.last_frame = now()
            self._on_first_frame()
            await self.fails
        finally:
            self.reading = False

    async def wait_until_shown(self) -> float:
        return now()


class ScriptedConnection:
    """To a worker in a room of Runway's, which is not there."""

    def __init__(self, transport: ScriptedTransport) -> None:
        self.transport = transport
        self.manners = transport.rooms.pop(0) if transport.rooms else transport.manners
        self.room = rtc.EventEmitter[Any]()
        self.worker_gone = asyncio.Event()
        self.session: RealtimeSession | None = None
        self.media: ScriptedMedia | None = None
        self.rejected = False
        self._on_lost: Callable[[LossReason], None] = lambda _: None
        self._joined = False

    def is_worker(self, identity: str) -> bool:
        return identity == "worker"

    def body(self, request: CreateRealtimeSession) -> CreateRealtimeSession:
        return request

    def reject(self) -> None:
        self.rejected = True

    @property
    def made(self) -> MemorySession:
        assert self.session is not None
        return self.transport.runway.sessions[self.session.id]

    async def open(
        self,
        session: RealtimeSession,
        timeout: float,
        *,
        queue_timeout: float,
        on_queued: Callable[[bool], None],
        on_stage: Callable[[Any], None],
        on_lost: Callable[[LossReason], None],
    ) -> float:
        self.session, self._on_lost = session, on_lost
        self.made.on_end = self._on_end
        ready = await session.wait_until_ready(timeout, on_queued, queue_timeout=queue_timeout)
        on_stage("ready")
        await session.consume(ready)
        on_stage("consumed")
        self.transport.people.add(self)
        await asyncio.sleep(self.manners.connect)
        if self.manners.refuses:
            raise UnavailableError("The room is not there.")
        self._joined = True
        on_stage("connected")
        return now()

    async def wait_for_worker(self, timeout: float) -> None:
        if self.manners.worker > timeout:
            await asyncio.sleep(timeout)
            raise AvatarJoinError(waited=timeout)
        await asyncio.sleep(self.manners.worker)
        if not self.made.alive:
            raise AvatarJoinError(reason="worker_left")
        self.made.run()
        if (cap := self.transport.runway.cap) is not None:
            made = self.made
            asyncio.get_running_loop().call_later(cap, lambda: made.end("COMPLETED"))

    async def may_speak_unseen(self, _option: str, _timeout: float) -> bool:
        return False

    async def open_media(
        self, _timeout: float, *, on_first_frame: Callable[[], None]
    ) -> ScriptedMedia:
        self.media = ScriptedMedia(self, on_first_frame)
        return self.media

    async def open_delivery(self, _option: object) -> tuple[DeliveryKind, ScriptedDelivery]:
        return "datastream", ScriptedDelivery()

    def way_out(self, reason: LossReason) -> str:
        return f"Against {reason.value}, call us."

    async def send_end_call(self) -> bool:
        if not self._joined or self.made.running_at is None or self.worker_gone.is_set():
            return False
        await asyncio.sleep(self.manners.goodbye)
        self.transport.end_calls.append((now(), self.made.id))
        made, loop, manners = self.made, asyncio.get_running_loop(), self.manners
        loop.call_later(manners.obeys, self._on_end)
        loop.call_later(manners.obeys + manners.settles, lambda: made.end("COMPLETED"))
        return True

    async def ensure_gone(self, _patience: float) -> None: ...

    async def aclose(self) -> None:
        self._joined = False
        await self.transport.leave(self)

    def _on_end(self) -> None:
        self._on_lost(LossReason.TRACKS_UNPUBLISHED)
        asyncio.get_running_loop().call_later(self.manners.tracks_first, self.worker_gone.set)

    def lose(self, reason: LossReason) -> None:
        """This end sees it; Runway knows of nothing."""
        self._on_lost(reason)

    def crash(self) -> None:
        """The worker is gone, and Runway knows."""
        self.made.end("FAILED")


class ScriptedTransport:
    """Over the bridge: one participant for the call, a connection for each session."""

    identity = "runway-avatar-agent"
    kind: Literal["bridge"] = "bridge"
    subscribed = reachable = True

    def __init__(self, runway: MemoryRunway) -> None:
        self.runway = runway
        self.goes_over: list[RunwayException | None] = []
        """What `go_over()` returns, in order; then the error that it is given."""
        self.failures: list[RunwayException] = []
        """Those that it was given."""
        self.manners = Manners()
        """Of Runway's rooms that are joined from now on."""
        self.rooms: list[Manners] = []
        """Of the next ones, in their order."""
        self.agent_room = Manners()
        self.connections: list[ScriptedConnection] = []
        self.people: set[object] = set()
        """Who of ours is in a room, or about to be."""
        self.end_calls: list[tuple[float, str]] = []
        """Loop time of sending, and the session."""
        self._on_evicted: Callable[[Eviction, str], None] | None = None
        """From `join()` on."""

    def evict(self, reason: Literal["replaced", "removed", "room_over"]) -> None:
        """As the agent's room does. Nothing happens before it is joined."""
        if self._on_evicted is not None:
            self._on_evicted(Eviction(reason), self.identity)

    @property
    def microphone(self) -> ScriptedTransport:
        return self

    def keep_alive(self) -> None: ...

    async def push_audio(self, pcm: bytes) -> None: ...

    def hide_face(self) -> None: ...

    def note_repeats(self) -> None: ...

    async def go_over(self, error: RunwayException) -> RunwayException | None:
        self.failures.append(error)
        return self.goes_over.pop(0) if self.goes_over else error

    async def join(self, on_evicted: Callable[[Eviction, str], None]) -> None:
        self._on_evicted = on_evicted
        self.people.add(self)
        await asyncio.sleep(self.agent_room.connect)
        if self.agent_room.refuses:
            raise UnavailableError("The agent's room is not there.")

    def connection(self, _listener: object) -> ScriptedConnection:
        self.connections.append(ScriptedConnection(self))
        return self.connections[-1]

    async def leave(self, who: object) -> None:
        manners = who.manners if isinstance(who, ScriptedConnection) else self.agent_room
        await asyncio.sleep(min(manners.leave, LEAVE_LIMIT))
        self.people.discard(who)
        if manners.fails_to_leave:
            raise Scripted("leaving")

    async def aclose(self) -> None:
        await self.leave(self)


class ScriptedAgent(rtc.EventEmitter[Any]):
    """An agent session with nothing behind it but its outputs."""

    def __init__(self) -> None:
        super().__init__()
        nothing: Any = lambda: None  # noqa: E731
        self.output = AgentOutput(nothing, nothing, nothing)

    @property
    def current_agent(self) -> object:
        raise RuntimeError("not started")


@dataclass
class ScriptedCall:
    """An avatar that is not started yet, and all around it."""

    runway: MemoryRunway
    transport: ScriptedTransport
    room: ScriptedRoom
    agent: ScriptedAgent
    avatar: AvatarSession
    told: list[tuple[str, Any]] = field(default_factory=list)
    """Events in their order."""

    async def start(self) -> None:
        await start_in(self.room, self.avatar, cast(Any, self.agent))

    @property
    def supervisor(self) -> Supervisor:
        assert self.avatar._call is not None
        return self.avatar._call.supervisor

    @property
    def instance(self) -> AvatarInstance:
        assert self.avatar._instance is not None
        return self.avatar._instance

    @property
    def connection(self) -> ScriptedConnection:
        """The newest."""
        return self.transport.connections[-1]

    def of(self, event: str) -> list[Any]:
        return [payload for name, payload in self.told if name == event]

    @property
    def states(self) -> list[AvatarState]:
        return [change.new for change in self.of("state_changed")]

    async def until(self, condition: Callable[[], object], timeout: float = 120.0) -> None:
        async with asyncio.timeout(timeout):
            while not condition():  # noqa: ASYNC110  of many things, most without an event
                await asyncio.sleep(0.05)

    async def until_live(self) -> None:
        await self.until(lambda: self.avatar.state is AvatarState.LIVE)

    async def close(self) -> None:
        """In the time that is promised, and with nothing left."""
        began = now()
        await self.avatar.aclose()
        assert now() - began <= 8.0
        await self.nothing_is_left()

    async def nothing_is_left(self) -> None:
        """A while after the close, that is: what nobody was told of dies by itself."""
        await asyncio.sleep(60.0)
        assert [session.id for session in self.runway.alive] == []
        assert self.transport.people == set()
        assert self.room.listeners == 0
        assert handlers(self.agent) == 0
        assert self.avatar._background.pending == 0
        assert not any(isinstance(of, Telemetry) for of in listeners(self.avatar))


def listeners(emitter: rtc.EventEmitter[Any]) -> list[object]:
    """Whose methods are called back."""
    calls = [call for some in emitter._events.values() for call in some]
    return [getattr(call, "__self__", None) for call in calls]


def handlers(emitter: rtc.EventEmitter[Any]) -> int:
    return sum(len(calls) for calls in emitter._events.values())


def make_call(users: int = 1, **options: Any) -> ScriptedCall:
    runway, room = MemoryRunway(), ScriptedRoom()
    transport = ScriptedTransport(runway)
    for number in range(users):
        room.join(f"user-{number}")
    avatar = AvatarSession(
        **{
            "preset_id": "influencer",
            "api_key": "key_x",
            "conn_options": APIConnectOptions(max_retry=1, retry_interval=0.5, timeout=5.0),
            **options,
        }
    )
    runway.serve(avatar._client)
    call = ScriptedCall(runway, transport, room, ScriptedAgent(), avatar)
    for event in EVENTS:
        told = functools.partial(_tell, call.told, event)
        avatar.on(cast(Any, event), told)
    return call


def _tell(told: list[tuple[str, Any]], event: str, payload: object) -> None:
    told.append((event, payload))


@asynccontextmanager
async def calling(**options: Any) -> AsyncIterator[ScriptedCall]:
    """A call whose avatar is not started yet; closed at the end, with nothing left."""
    call = make_call(**options)
    making = mock.Mock(return_value=call.transport)
    with mock.patch("livekit_plugins_runway.avatar.make_transport", making):
        try:
            yield call
        except BaseException:
            await call.avatar.aclose()
            raise
        await call.close()


@asynccontextmanager
async def live(**options: Any) -> AsyncIterator[ScriptedCall]:
    """A call whose face is there."""
    async with calling(**options) as call:
        await call.start()
        await call.until_live()
        yield call


class Complaints(logging.Handler):
    """What our logger was told at ERROR, with what was raised."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
