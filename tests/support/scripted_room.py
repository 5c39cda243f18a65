"""A LiveKit room without a server: who is in it and what they publish is what a test says.

Events are told as the SDK tells them: from the event loop, after the room itself has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from livekit import rtc
from livekit.agents import AgentSession

from livekit_plugins_runway import AvatarSession

AUDIO = rtc.TrackKind.KIND_AUDIO
VIDEO = rtc.TrackKind.KIND_VIDEO
USER = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD
AGENT = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT

RpcHandler = Callable[[rtc.RpcInvocationData], str]


async def start_in(room: object, avatar: AvatarSession, session: AgentSession[Any]) -> None:
    """Start the avatar in what stands for a room, on a server that nobody reaches."""
    await avatar.start(
        session,
        cast(rtc.Room, room),
        livekit_url="wss://h.test",
        livekit_api_key="k",
        livekit_api_secret="s" * 32,
    )


class ScriptedAudioTrack(rtc.RemoteAudioTrack):
    def __init__(self) -> None:
        """Nothing of the SDK stands behind it."""

    @property
    def kind(self) -> rtc.TrackKind.ValueType:
        return AUDIO


class ScriptedVideoTrack(rtc.RemoteVideoTrack):
    def __init__(self) -> None:
        """Nothing of the SDK stands behind it."""

    @property
    def kind(self) -> rtc.TrackKind.ValueType:
        return VIDEO


class ScriptedPublication(rtc.RemoteTrackPublication):
    def __init__(self, sid: str, kind: rtc.TrackKind.ValueType) -> None:
        self._sid = sid
        self._kind = kind
        self.arrived: rtc.RemoteTrack | None = None
        """The track, once the test has let it come: see `ScriptedRoom.deliver`."""
        self.asked: list[bool] = []
        """What `set_subscribed` was called with."""

    @property
    def sid(self) -> str:
        return self._sid

    @property
    def kind(self) -> rtc.TrackKind.ValueType:
        return self._kind

    @property
    def source(self) -> rtc.TrackSource.ValueType:
        camera, microphone = rtc.TrackSource.SOURCE_CAMERA, rtc.TrackSource.SOURCE_MICROPHONE
        return camera if self._kind == VIDEO else microphone

    @property
    def track(self) -> rtc.RemoteTrack | None:
        return self.arrived

    @property
    def subscribed(self) -> bool:
        return self.arrived is not None

    def set_subscribed(self, subscribed: bool) -> None:
        self.asked.append(subscribed)


class ScriptedParticipant(rtc.RemoteParticipant):
    def __init__(self, identity: str, kind: rtc.ParticipantKind.ValueType) -> None:
        self._identity = identity
        self._kind = kind
        self.publications: dict[str, ScriptedPublication] = {}
        self.told_attributes: dict[str, str] = {}
        self.left_because: rtc.DisconnectReason.ValueType | None = None

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def kind(self) -> rtc.ParticipantKind.ValueType:
        return self._kind

    @property
    def attributes(self) -> dict[str, str]:
        return self.told_attributes

    @property
    def track_publications(self) -> dict[str, rtc.RemoteTrackPublication]:
        return {**self.publications}

    @property
    def disconnect_reason(self) -> rtc.DisconnectReason.ValueType | None:
        return self.left_because


@dataclass(frozen=True)
class SentData:
    payload: bytes
    reliable: bool
    to: tuple[str, ...]


class ScriptedLocalParticipant:
    """This end of the room: what it sent, and the RPC methods that it offers."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.sent: list[SentData] = []
        self.refuses: Exception | None = None
        """Raised instead of sending."""
        self.methods: dict[str, RpcHandler] = {}

    async def publish_data(
        self, payload: bytes, *, reliable: bool = True, destination_identities: list[str]
    ) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.sent.append(SentData(payload, reliable, tuple(destination_identities)))

    def register_rpc_method(self, method: str, handler: RpcHandler) -> None:
        self.methods[method] = handler

    def unregister_rpc_method(self, method: str) -> None:
        del self.methods[method]

    def call(self, method: str, payload: str = "", *, sender: str) -> str:
        """What `sender` gets for an answer to its RPC."""
        return self.methods[method](rtc.RpcInvocationData("1", sender, payload, 10.0, method))


class ScriptedRoom(rtc.EventEmitter[rtc.room.EventTypes]):
    """Joined, and empty but for `local_participant`."""

    def __init__(self, identity: str = "agent") -> None:
        super().__init__()
        self.name = "room"
        self.local_participant = ScriptedLocalParticipant(identity)
        self.remote_participants: dict[str, ScriptedParticipant] = {}
        self.connected = True
        self.e2ee_manager = SimpleNamespace(enabled=False, options=None)
        self._sids = 0

    @property
    def as_room(self) -> rtc.Room:
        """For what asks for the SDK's own."""
        return cast(rtc.Room, self)

    @property
    def listeners(self) -> int:
        """Handlers of events that are registered now."""
        return sum(len(handlers) for handlers in self._events.values())

    def isconnected(self) -> bool:
        return self.connected

    def join(
        self,
        identity: str,
        *publishes: rtc.TrackKind.ValueType,
        kind: rtc.ParticipantKind.ValueType = USER,
        told: bool = True,
    ) -> ScriptedParticipant:
        """Somebody comes. `told`: False for what a reconnect has swallowed."""
        participant = ScriptedParticipant(identity, kind)
        self.remote_participants[identity] = participant
        if told:
            self.emit("participant_connected", participant)
            self.emit("participant_active", participant)
        for track in publishes:
            self.publish(participant, track, told=told)
        return participant

    def leave(
        self,
        participant: ScriptedParticipant,
        reason: rtc.DisconnectReason.ValueType | None = rtc.DisconnectReason.CLIENT_INITIATED,
        *,
        told: bool = True,
    ) -> None:
        participant.left_because = reason
        del self.remote_participants[participant.identity]
        if told:
            self.emit("participant_disconnected", participant)

    def publish(
        self,
        participant: ScriptedParticipant,
        kind: rtc.TrackKind.ValueType,
        *,
        told: bool = True,
    ) -> ScriptedPublication:
        self._sids += 1
        publication = ScriptedPublication(f"TR_{self._sids}", kind)
        participant.publications[publication.sid] = publication
        if told:
            self.emit("track_published", publication, participant)
        return publication

    def deliver(
        self, participant: ScriptedParticipant, kind: rtc.TrackKind.ValueType
    ) -> rtc.RemoteTrack:
        """The subscription to the participant's first track of this kind has come about."""
        publication = _publication_of(participant, kind)
        track = ScriptedVideoTrack() if kind == VIDEO else ScriptedAudioTrack()
        publication.arrived = track
        self.emit("track_subscribed", track, publication, participant)
        return track

    def unsubscribe(self, participant: ScriptedParticipant, kind: rtc.TrackKind.ValueType) -> None:
        publication = _publication_of(participant, kind)
        track, publication.arrived = publication.arrived, None
        self.emit("track_unsubscribed", track, publication, participant)

    def unpublish(self, participant: ScriptedParticipant, kind: rtc.TrackKind.ValueType) -> None:
        publication = _publication_of(participant, kind)
        del participant.publications[publication.sid]
        self.emit("track_unpublished", publication, participant)

    def lose_connection(self) -> None:
        """For good."""
        self.connected = False
        self.emit("connection_state_changed", rtc.ConnectionState.CONN_DISCONNECTED)


def _publication_of(
    participant: ScriptedParticipant, kind: rtc.TrackKind.ValueType
) -> ScriptedPublication:
    return next(p for p in participant.publications.values() if p.kind == kind)


async def settle() -> None:
    """Let every task of the loop go as far as it comes without a timer."""
    for _ in range(10):
        await asyncio.sleep(0)
