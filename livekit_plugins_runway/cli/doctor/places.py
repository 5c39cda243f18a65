"""The two rooms in which `doctor --live` meets an avatar worker: Runway's, and one of its own."""

from __future__ import annotations

import asyncio
import datetime
import secrets
from collections.abc import Callable
from typing import Protocol

from livekit import api, rtc

from ..._common.tasks import first_of
from ...errors import LossReason, UnavailableError
from ...media.connect import connect, leave
from ...playout.ports import SpeechDelivery
from ...runway.models import CreateRealtimeSession
from ...runway.session import RealtimeSession
from ...transport.delivery import DataStreamDelivery
from ...transport.runway_room import RunwayRoom
from ...transport.tokens import RoomCredentials
from ...transport.worker_protocol import DeliveryKind, send_end_call
from ...transport.worker_watch import WorkerWatch

_TOKEN_TTL = datetime.timedelta(minutes=3)
_WORKER = "runway-avatar-doctor"


class Place(Protocol):
    """Entered once, left once, whatever happens in between."""

    kinds: tuple[DeliveryKind, ...]
    """To be tried here, in this order."""

    @property
    def room(self) -> rtc.Room: ...

    @property
    def worker_gone(self) -> asyncio.Event: ...

    def is_worker(self, identity: str) -> bool: ...

    async def invite(self, request: CreateRealtimeSession) -> CreateRealtimeSession:
        """The body of the create call. Raises what keeps anybody from being invited."""

    async def enter(
        self, session: RealtimeSession, timeout: float, reached: Callable[[str], None]
    ) -> None:
        """From a created session to a room in which its worker can be waited for."""

    async def wait_for_worker(self, timeout: float) -> None: ...

    async def wait_for_media(
        self, timeout: float
    ) -> tuple[rtc.RemoteAudioTrack, rtc.RemoteVideoTrack]: ...

    async def open_delivery(self, kind: DeliveryKind) -> SpeechDelivery:
        """Raises `RoomTokenError` where that is not allowed."""

    async def send_end_call(self) -> bool: ...

    async def aclose(self) -> None: ...


class HostedPlace:
    """The room that Runway hosts: as the bridge does."""

    # In this order: opening the data stream takes the microphone off the room.
    kinds: tuple[DeliveryKind, ...] = ("track", "datastream")

    def __init__(self, on_lost: Callable[[LossReason], None]) -> None:
        self._on_lost = on_lost
        self._joined: RunwayRoom | None = None
        """From `enter()` on."""
        self._never = asyncio.Event()

    def _way(self) -> RunwayRoom:
        if self._joined is None:
            raise RuntimeError("enter() has not come as far as the room")
        return self._joined

    @property
    def room(self) -> rtc.Room:
        return self._way().room

    @property
    def worker_gone(self) -> asyncio.Event:
        return self._never if self._joined is None else self._joined.worker_gone

    def is_worker(self, identity: str) -> bool:
        return self._way().is_worker(identity)

    async def invite(self, request: CreateRealtimeSession) -> CreateRealtimeSession:
        return request

    async def enter(
        self, session: RealtimeSession, timeout: float, reached: Callable[[str], None]
    ) -> None:
        ready = await session.wait_until_ready(timeout)
        reached("ready")
        credentials = await session.consume(ready)
        reached("consumed")
        self._joined = RunwayRoom(session.id, on_lost=self._on_lost, reports=None)
        await self._joined.join(credentials)
        reached("connected")

    async def wait_for_worker(self, timeout: float) -> None:
        await self._way().wait_for_worker(timeout)

    async def wait_for_media(
        self, timeout: float
    ) -> tuple[rtc.RemoteAudioTrack, rtc.RemoteVideoTrack]:
        return await self._way().wait_for_media(timeout)

    async def open_delivery(self, kind: DeliveryKind) -> SpeechDelivery:
        _, delivery = await self._way().open_delivery(kind)
        return delivery

    async def send_end_call(self) -> bool:
        return self._joined is not None and await self._joined.send_end_call()

    async def aclose(self) -> None:
        if self._joined is not None:
            await self._joined.aclose()


class InvitedPlace:
    """A room of the doctor's own on the agents' LiveKit server: as direct does.

    Args:
        url, api_key, api_secret: of that server. A token for this room goes to Runway, which admits
            one participant for three minutes.
    """

    kinds: tuple[DeliveryKind, ...] = ("datastream",)

    def __init__(
        self, url: str, api_key: str, api_secret: str, on_lost: Callable[[LossReason], None]
    ) -> None:
        name = f"runway-doctor-{secrets.token_hex(4)}"
        self._credentials = RoomCredentials(url, api_key, api_secret, name, "doctor")
        self._on_lost = on_lost
        self.room = rtc.Room()
        self._watch = WorkerWatch(self.room, is_worker=self.is_worker, on_lost=on_lost)
        self._session_id = ""
        self._stream: DataStreamDelivery | None = None

    @property
    def worker_gone(self) -> asyncio.Event:
        return self._watch.gone

    def is_worker(self, identity: str) -> bool:
        return identity == _WORKER

    async def invite(self, request: CreateRealtimeSession) -> CreateRealtimeSession:
        self._watch.open()
        credentials = self._credentials
        try:
            await connect(self.room, credentials.url, self._own_token())
        except rtc.ConnectError as error:
            raise UnavailableError(
                "A room on your own LiveKit server could not be joined over WebRTC."
            ) from error
        integration = credentials.worker_integration(_WORKER, _WORKER, _TOKEN_TTL)
        return request.model_copy(update={"integration": integration})

    def _own_token(self) -> str:
        """As an agent's: Runway's worker takes speech from the one that the invitation names."""
        mine = self._credentials
        return (
            api.AccessToken(mine.api_key, mine.api_secret)
            .with_kind("agent")
            .with_identity(mine.agent_identity)
            .with_grants(api.VideoGrants(room_join=True, room=mine.room))
            .with_ttl(_TOKEN_TTL)
            .to_jwt()
        )

    async def enter(
        self, session: RealtimeSession, timeout: float, reached: Callable[[str], None]
    ) -> None:
        self._session_id = session.id
        await first_of(
            session.wait_until_under_way(timeout),
            self._watch.wait_for_worker(session.id, timeout + 1.0),
        )
        reached("ready")

    async def wait_for_worker(self, timeout: float) -> None:
        await self._watch.wait_for_worker(self._session_id, timeout)

    async def wait_for_media(
        self, timeout: float
    ) -> tuple[rtc.RemoteAudioTrack, rtc.RemoteVideoTrack]:
        return await self._watch.wait_for_media(self._session_id, timeout)

    async def open_delivery(self, kind: DeliveryKind) -> SpeechDelivery:
        self._stream = DataStreamDelivery(
            self.room, self._watch.worker, lambda: self._on_lost(LossReason.SPEECH_FAILED)
        )
        return self._stream

    async def send_end_call(self) -> bool:
        return self._watch.present and await send_end_call(self.room, _WORKER)

    async def aclose(self) -> None:
        self._watch.close()
        if self._stream is not None:
            await self._stream.aclose()
        if self._watch.present and not self._watch.gone.is_set():
            await self._credentials.remove(_WORKER)
        await leave(self.room)
