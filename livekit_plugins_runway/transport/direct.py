"""`transport="direct"`: Runway's worker joins the agent's room by itself and publishes there."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from livekit import rtc

from .._common.tasks import BackgroundTasks, cancel_and_wait, first_of, watched
from ..errors import LossReason, RunwayException, UnavailableError
from ..events import Stage
from ..log import logger
from ..media.fallback_track import FallbackTrack
from ..media.monitor import AvatarMonitor
from ..media.participant import Eviction, eviction_by
from ..playout.ports import AvatarListener, SpeechDelivery
from ..runway.client import session_failed
from ..runway.models import CreateRealtimeSession
from ..runway.session import RealtimeSession
from .delivery import DataStreamDelivery
from .tokens import RoomCredentials
from .worker_protocol import DeliveryKind, DeliveryOption, send_end_call
from .worker_registry import WorkerRegistry
from .worker_watch import WorkerWatch

_STATUS_INTERVAL = 2.0


class Direct:
    """The workers of one call come one after the other, each as a participant of its own.

    One identity for all of them would be simpler for front ends. But LiveKit removes the first of
    two participants with the same identity as soon as the second one joins, seconds before its
    first picture, and two workers that both rejoin would remove each other again and again. So the
    first one has the requested identity, and later ones have a number appended.

    Args:
        room: the agent's room; connected by the application, now or later.
        token_ttl: seconds that a worker may take to join.
        background: evicts the workers of lost sessions that come after `aclose()`.
    """

    def __init__(
        self,
        room: rtc.Room,
        credentials: RoomCredentials,
        *,
        identity: str,
        name: str,
        token_ttl: datetime.timedelta,
        background: BackgroundTasks | None = None,
    ) -> None:
        self._room = room
        self._credentials = credentials
        self._identity = identity
        self._name = name
        self._token_ttl = token_ttl
        self._invited = 0
        self._was_connected = False
        self._entering: asyncio.Task[None] | None = None
        self.fallback = FallbackTrack(room)
        self.registry = WorkerRegistry(room, credentials.remove, background)
        self.identity = identity
        """Identity of the present worker; at first, of the expected one."""
        self._on_evicted: Callable[[Eviction, str], None] | None = None
        """Set by `join()`."""

    @property
    def kind(self) -> Literal["direct"]:
        return "direct"

    @property
    def last_delivery(self) -> DeliveryKind:
        """The only one."""
        return "datastream"

    @property
    def microphone(self) -> FallbackTrack:
        return self.fallback

    async def join(self, on_evicted: Callable[[Eviction, str], None]) -> None:
        """If the room is not connected yet, this happens once it is. The only eviction that is
        reported is the end of the room, which is the agent's own: a worker that was removed counts
        as lost, and another one follows.
        """
        self._on_evicted = on_evicted
        self._room.on("disconnected", self._on_disconnected)
        if self._room.isconnected():
            await self._enter()
        else:
            self._room.on("connection_state_changed", self._on_connection_state_changed)

    def _on_disconnected(self, reason: rtc.DisconnectReason.ValueType) -> None:
        if self._on_evicted is not None and eviction_by(reason) is Eviction.ROOM_OVER:
            self._on_evicted(Eviction.ROOM_OVER, self.identity)

    def _on_connection_state_changed(self, state: rtc.ConnectionState.ValueType) -> None:
        if state == rtc.ConnectionState.CONN_CONNECTED and self._entering is None:
            self._entering = watched(
                asyncio.create_task(self._enter_late(), name="runway_enter_agent_room")
            )

    async def _enter_late(self) -> None:
        try:
            await self._enter()
        except UnavailableError as error:
            logger.error("the agent cannot speak without its avatar", extra={"detail": str(error)})

    async def _enter(self) -> None:
        self._was_connected = True
        self.registry.open()
        await self.fallback.publish()

    def connection(self, listener: AvatarListener) -> DirectConnection:
        if self._was_connected and not self._room.isconnected():
            raise UnavailableError("The agent's room is lost: no avatar can be invited to it.")
        self._invited += 1
        number = "" if self._invited == 1 else f"-{self._invited}"
        return DirectConnection(
            self, self._room, self._credentials, self._identity + number, listener
        )

    @property
    def token_seconds(self) -> float:
        """Seconds for which a worker's token is valid."""
        return self._token_ttl.total_seconds()

    def integrated(
        self, request: CreateRealtimeSession, identity: str, invitation: str
    ) -> CreateRealtimeSession:
        integration = self._credentials.worker_integration(
            identity, self._name, self._token_ttl, invitation
        )
        return request.model_copy(update={"integration": integration})

    def hide_face(self) -> None:
        """Nothing to do: the worker publishes the camera, and takes it along."""

    def note_repeats(self) -> None:
        """Nothing to do."""

    async def go_over(self, error: RunwayException) -> RunwayException:
        """No change: there is no other transport."""
        return error

    async def aclose(self) -> None:
        self._room.off("disconnected", self._on_disconnected)
        self._room.off("connection_state_changed", self._on_connection_state_changed)
        await cancel_and_wait(self._entering)
        await self.registry.aclose()
        await self.fallback.aclose()


@dataclass(frozen=True)
class _Opened:
    """State of a connection from `open()` on."""

    session: RealtimeSession
    watch: WorkerWatch
    """Open, until the connection is closed."""
    on_lost: Callable[[LossReason], None]


class DirectConnection:
    """An `AvatarConnection` that relays nothing: the worker is in the agent's room."""

    doubts_first_words = False
    """The user hears the worker itself."""

    def __init__(
        self,
        direct: Direct,
        room: rtc.Room,
        credentials: RoomCredentials,
        identity: str,
        listener: AvatarListener,
    ) -> None:
        self._direct = direct
        self._room = room
        """The agent's room; not left here."""
        self._credentials = credentials
        self._identity = identity
        """Identity of the session's worker, unique in the call."""
        self._invitation = secrets.token_hex(4)
        """An attribute in the worker's token."""
        self._admitted_until = 0.0
        """Loop time in seconds at which that token expires; set when it is made."""
        self._listener = listener
        self._opened: _Opened | None = None
        """None until `open()` looks for the worker."""
        self._stream: DataStreamDelivery | None = None
        """Set from `open_delivery()` until `aclose()`."""
        self._never_came = asyncio.Event()
        """Never set: the `worker_gone` before `open()`."""

    def _way(self) -> _Opened:
        if self._opened is None:
            raise RuntimeError("open() has not begun to look for the worker")
        return self._opened

    @property
    def room(self) -> rtc.Room:
        return self._room

    def is_worker(self, identity: str) -> bool:
        return identity == self._identity

    @property
    def worker_gone(self) -> asyncio.Event:
        return self._never_came if self._opened is None else self._opened.watch.gone

    def body(self, request: CreateRealtimeSession) -> CreateRealtimeSession:
        now = asyncio.get_running_loop().time()
        self._admitted_until = now + self._direct.token_seconds
        return self._direct.integrated(request, self._identity, self._invitation)

    def reject(self) -> None:
        self._direct.registry.evict(self._identity, self._invitation, self._admitted_until)

    async def open(
        self,
        session: RealtimeSession,
        timeout: float,
        *,
        queue_timeout: float,
        on_queued: Callable[[bool], None],
        on_stage: Callable[[Stage], None],
        on_lost: Callable[[LossReason], None],
    ) -> float:
        watch = WorkerWatch(self._room, is_worker=self.is_worker, on_lost=on_lost)
        self._opened = _Opened(session, watch, on_lost)
        watch.open()
        self._direct.registry.listen(self._identity, self._listener)
        # Whichever is seen first, because Runway's statuses of such a session are not documented.
        await first_of(
            session.wait_until_under_way(timeout, on_queued),
            watch.wait_for_worker(session.id, timeout + 1.0),
        )
        on_stage("ready")
        return asyncio.get_running_loop().time()

    async def wait_for_worker(self, timeout: float) -> None:
        way = self._way()
        await first_of(
            way.watch.wait_for_worker(way.session.id, timeout), self._until_ended(way.session)
        )

    async def _until_ended(self, session: RealtimeSession) -> None:
        state = await session.wait_until_ended(_STATUS_INTERVAL)
        raise session_failed(session.id, state)

    async def may_speak_unseen(self, option: DeliveryOption, timeout: float) -> bool:
        """True as soon as the user can hear it; the first picture may take longer."""
        way = self._way()
        await way.watch.wait_for_others(way.session.id, timeout)
        return True

    async def open_media(
        self, timeout: float, *, on_first_frame: Callable[[], None]
    ) -> AvatarMonitor:
        way = self._way()
        audio, video = await way.watch.wait_for_media(way.session.id, timeout)

        def on_seen() -> None:
            way.watch.unsubscribe_video()
            on_first_frame()

        def on_active(active: bool) -> None:
            if active:
                self._direct.identity = self._identity
                self._direct.fallback.speaking_avatars.add(self._identity)
            else:
                self._direct.fallback.speaking_avatars.discard(self._identity)

        return AvatarMonitor(
            audio=audio,
            video=video,
            listener=self._listener,
            on_first_frame=on_seen,
            on_active=on_active,
        )

    async def open_delivery(self, option: DeliveryOption) -> tuple[DeliveryKind, SpeechDelivery]:
        """Always a data stream: the user would hear a track for the worker."""
        way = self._way()
        self._stream = DataStreamDelivery(
            self._room, self._identity, lambda: way.on_lost(LossReason.SPEECH_FAILED)
        )
        return "datastream", self._stream

    def way_out(self, reason: LossReason) -> str:
        """No advice: Runway documents that its worker says what the agent says here."""
        return ""

    async def send_end_call(self) -> bool:
        if self._opened is None or not self._opened.watch.present:
            return False
        return await send_end_call(self._room, self._identity)

    async def ensure_gone(self, patience: float) -> None:
        if self._opened is None or not self._opened.watch.present:
            return
        watch = self._opened.watch
        # Front ends show the first worker that they find, which is this one until it has left.
        retiring = asyncio.create_task(
            self._credentials.retire(self._identity), name="runway_retire_worker"
        )
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await watch.gone.wait()
        finally:
            await cancel_and_wait(retiring)
        if watch.present:
            await self._credentials.remove(self._identity)

    async def aclose(self) -> None:
        self._direct.registry.forget(self._identity)
        stream, self._stream = self._stream, None
        if self._opened is not None:
            self._opened.watch.close()
        if stream is not None:
            await stream.aclose()
