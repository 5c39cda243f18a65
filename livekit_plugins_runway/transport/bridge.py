"""`transport="bridge"`: Runway's own room on one side, the avatar participant on the other."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from livekit import rtc
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF

from .._common.tasks import BackgroundTasks, cancel_and_wait, first_of, watched
from ..errors import LossReason, RunwayException
from ..events import Stage
from ..log import logger
from ..media.connect import encryption_of
from ..media.fallback_track import FallbackTrack
from ..media.participant import AvatarParticipant, Eviction
from ..media.relay import Relay
from ..media.video import VideoOptions
from ..playout.ports import AvatarListener, SpeechDelivery
from ..runway.models import CreateRealtimeSession
from ..runway.session import RealtimeSession
from .identity import ATTRIBUTE_GAVE_WAY, another
from .livekit_url import is_public
from .runway_room import RunwayRoom
from .tokens import RoomCredentials
from .worker_protocol import DeliveryKind, DeliveryOption

_LOOK_FOR_KEYS_EVERY = 0.5
"""Seconds between polls; there is no event for a new key."""
_ASK_FOR_OTHERS_EVERY = 2.0
"""Seconds of a join that takes longer than usual."""


def _instead_of_a_conversation(url: str) -> str:
    """Advice for a worker that converses by itself in the room that Runway hosts; Runway's
    documentation does not rule that out.
    """
    instead = (
        "If it comes again, the account's workers may hold a conversation of their own in Runway's "
        'room: with transport="direct" they join yours, to say what the agent says'
    )
    if is_public(url):
        return f"{instead}. LIVEKIT_URL would do for that."
    return (
        f"{instead}. For that Runway must be able to reach LIVEKIT_URL, and it cannot reach this."
    )


class Bridge:
    """One avatar participant for the whole call; a Runway room and a relay for each session."""

    def __init__(
        self,
        room: rtc.Room,
        credentials: RoomCredentials,
        *,
        identity: str,
        name: str,
        stall_timeout: float,
        video: VideoOptions | None = None,
        background: BackgroundTasks | None = None,
        room_options: rtc.RoomOptions | None = None,
    ) -> None:
        self._agent_room = room
        self._given_options = room_options or rtc.RoomOptions()
        self._encrypted = asyncio.Event()
        """True while the participant is in the room, or joining it, with encryption keys."""
        self._credentials = credentials
        self._first_identity = self._identity = identity
        """The second: of the participant now. Changed when another one has taken it, or may."""
        self._joined_as = identity
        """The identity of the last attempt to join."""
        self._gave_way = ""
        """See `ATTRIBUTE_GAVE_WAY`."""
        self._name = name
        self._stall_timeout = stall_timeout
        self._background = background or BackgroundTasks()
        self.participant = AvatarParticipant(
            video,
            background=background,
            room_options=self._room_options,
            audience=credentials.participant.audience,
        )
        self._voice: FallbackTrack | None = None
        """Set once the participant was removed."""
        self._joined = asyncio.Event()
        """Set when `join()` has succeeded. Never reset."""
        self.delivery: DeliveryKind | None = None
        """With `delivery="auto"`: a delivery that is known to work, or is to be tried next, without
        asking the worker. Written by `AutoTransport`.
        """
        self.last_delivery: DeliveryKind | None = None
        """The delivery of the newest session that opened one. Written by its connection."""
        self.on_trial = False
        """For later connections: True if a worker that does not listen is given up at once, because
        another transport may work. Written by `AutoTransport`, as is the next attribute.
        """
        self.doubts_first_words = False
        self._following: asyncio.Task[None] | None = None
        """The task of `_follow_keys()`, once the participant has joined. Cancelled by
        `aclose()`.
        """

    @property
    def kind(self) -> Literal["bridge"]:
        return "bridge"

    @property
    def microphone(self) -> AvatarParticipant:
        return self.participant

    @property
    def identity(self) -> str:
        return self._identity

    async def join(self, on_evicted: Callable[[Eviction, str], None]) -> None:
        self._agent_room.on("track_subscribed", self._on_track_subscribed)
        self._agent_room.on("connection_state_changed", self._on_connection_state_changed)
        self._agent_room.on("participant_connected", self._on_participant_connected)

        def on_put_out(eviction: Eviction) -> None:
            identity = self._identity
            if eviction is Eviction.REPLACED:
                self._identity = another(self._first_identity)
            elif eviction is Eviction.REMOVED:
                self._speak_by_the_agent()
            on_evicted(eviction, identity)

        joining = self.participant.join(self._credentials.url, self._make_token, on_put_out)
        await first_of(joining, self._give_way_to_whom_the_server_knows())
        self._enter_anew_if_encrypted()
        self._enter_anew_if_renamed()
        self._following = watched(
            asyncio.create_task(self._follow_keys(), name="runway_follow_keys")
        )
        self._joined.set()

    async def wait_until_joined(self) -> None:
        """Without limit: if `join()` fails, its caller gives everything up."""
        await self._joined.wait()

    async def _make_token(self) -> str:
        self._joined_as = self._identity
        return await self._credentials.participant_token(self._identity, self._name, self._gave_way)

    async def _follow_keys(self) -> None:
        """Follow changes of the keys of the agent's room in mid-call, unless the avatar was given
        its own.
        """
        while self._given_options.encryption is None and self._given_options.e2ee is None:
            await self._encrypted.wait()
            self.participant.adopt_keys_of(self._agent_room)
            await asyncio.sleep(_LOOK_FOR_KEYS_EVERY)

    def _room_options(self) -> rtc.RoomOptions:
        """The given options, with the keys of the agent's own room unless they name others."""
        options = self._given_options
        if options.encryption is None and options.e2ee is None:
            options = dataclasses.replace(options, encryption=encryption_of(self._agent_room))
        if options.encryption or options.e2ee:
            self._encrypted.set()
        else:
            self._encrypted.clear()
        return options

    def _on_participant_connected(self, participant: rtc.RemoteParticipant) -> None:
        """Two agents that are dispatched at once both find the default identity free."""
        agent, mine = self._credentials.agent_identity, self._identity
        if participant.attributes.get(ATTRIBUTE_PUBLISH_ON_BEHALF) == agent:
            return
        # A user may set any attribute, but cannot claim to be an agent.
        is_agent = participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
        if participant.identity == mine:
            self._give_way()
        elif is_agent and participant.attributes.get(ATTRIBUTE_GAVE_WAY) == mine:
            logger.warning("another agent's avatar uses the same identity: taking another one")
            self._identity = another(self._first_identity)
            self._enter_anew_if_renamed()

    async def _give_way_to_whom_the_server_knows(self) -> None:
        """While the participant joins: for an agent whose own room is joined only after it. Ends
        with that."""
        while True:
            await asyncio.sleep(_ASK_FOR_OTHERS_EVERY)
            if await self._credentials.is_taken(self._identity):
                self._give_way()

    def _give_way(self) -> None:
        left = self._identity
        if self.participant.give_way():
            self._gave_way = left

    def _enter_anew_if_renamed(self) -> None:
        """Called again after joining, because a running attempt to join cannot be restarted."""
        if self._joined_as != self._identity:
            self.participant.enter_anew()

    def _on_connection_state_changed(self, state: rtc.ConnectionState.ValueType) -> None:
        """An agent that connects after `avatar.start()` may do so with keys."""
        if state == rtc.ConnectionState.CONN_CONNECTED:
            self._enter_anew_if_encrypted()
            for there in list(self._agent_room.remote_participants.values()):
                self._on_participant_connected(there)

    def _enter_anew_if_encrypted(self) -> None:
        """Called again after joining, because a running attempt to join cannot be restarted."""
        if not self._encrypted.is_set() and encryption_of(self._agent_room) is not None:
            logger.warning("the agent's room is encrypted: the avatar joins it again with its keys")
            self.participant.enter_anew()

    def _speak_by_the_agent(self) -> None:
        """Go on by voice, on the agent's own participant."""
        self._voice = voice = FallbackTrack(self._agent_room, anew=True)
        self.participant.speak_by(voice)
        self._background.start(voice.publish(), "runway_publish_voice_instead")

    def connection(self, listener: AvatarListener) -> BridgeConnection:
        # Without keys Runway's worker would not do in a room that is encrypted.
        encrypted = self._encrypted.is_set()
        return BridgeConnection(
            self,
            listener,
            self._stall_timeout,
            self._background,
            "" if encrypted else _instead_of_a_conversation(self._credentials.url),
        )

    def hide_face(self) -> None:
        self.participant.mute_camera()

    def note_repeats(self) -> None:
        """Nothing to do."""

    async def go_over(self, error: RunwayException) -> RunwayException:
        """No change: there is no other transport."""
        return error

    def _on_track_subscribed(
        self,
        _track: rtc.RemoteTrack,
        publication: rtc.RemoteTrackPublication,
        participant: rtc.RemoteParticipant,
    ) -> None:
        """By default an agent subscribes to all tracks, so it would decode those of its own avatar.
        Unsubscribe it, but only once it is subscribed: unsubscribing right after the publication
        makes livekit 1.1.21 loop, which takes a whole core.
        """
        if participant.identity == self._identity:
            publication.set_subscribed(False)

    async def aclose(self) -> None:
        self._agent_room.off("track_subscribed", self._on_track_subscribed)
        self._agent_room.off("connection_state_changed", self._on_connection_state_changed)
        self._agent_room.off("participant_connected", self._on_participant_connected)
        await cancel_and_wait(self._following)
        await self.participant.aclose()
        if self._voice is not None:
            await self._voice.aclose()


@dataclass(frozen=True)
class _Opened:
    """State of a connection from `open()` on, once its session is consumed."""

    room: RunwayRoom
    """Joined, or joining; must be closed in either case."""
    on_lost: Callable[[LossReason], None]


class BridgeConnection:
    """An `AvatarConnection` through the room that Runway hosts for the session."""

    doubts_first_words = False

    def __init__(
        self,
        bridge: Bridge,
        listener: AvatarListener,
        stall_timeout: float,
        background: BackgroundTasks | None = None,
        instead_of_a_conversation: str = "",
    ) -> None:
        self._bridge = bridge
        """The transport of the call; not closed here."""
        self.doubts_first_words = bridge.doubts_first_words
        """True until `open_delivery()` has found out that the worker speaks what it is sent."""
        self._on_trial = bridge.on_trial
        self._instead_of_a_conversation = instead_of_a_conversation
        """Advice if the worker converses by itself; "" if there is none."""
        self._listener = listener
        self._stall_timeout = stall_timeout
        self._background = background
        self._opened: _Opened | None = None
        """Set when `open()` has consumed the session. Before that there is no worker."""
        self._not_joined = asyncio.Event()
        """Never set: the `worker_gone` of a connection without a worker."""

    def _way(self) -> _Opened:
        if self._opened is None:
            raise RuntimeError("open() has not joined the room that Runway hosts")
        return self._opened

    @property
    def room(self) -> rtc.Room:
        return self._way().room.room

    def is_worker(self, identity: str) -> bool:
        return self._opened is not None and self._opened.room.is_worker(identity)

    @property
    def worker_gone(self) -> asyncio.Event:
        return self._not_joined if self._opened is None else self._opened.room.worker_gone

    def body(self, request: CreateRealtimeSession) -> CreateRealtimeSession:
        return request

    def reject(self) -> None:
        """Nothing to do: a session that is not consumed has no worker."""

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
        ready = await session.wait_until_ready(timeout, on_queued, queue_timeout=queue_timeout)
        on_stage("ready")
        # A consumed session soon has a worker, which bills and whose picture must have a way.
        await self._bridge.wait_until_joined()
        credentials = await session.consume(ready)
        consumed_at = asyncio.get_running_loop().time()
        on_stage("consumed")
        room = RunwayRoom(
            session.id,
            on_lost=on_lost,
            reports=self._listener,
            background=self._background,
        )
        self._opened = _Opened(room, on_lost)
        await room.join(credentials)
        on_stage("connected")
        return consumed_at

    async def wait_for_worker(self, timeout: float) -> None:
        await self._way().room.wait_for_worker(timeout)

    async def may_speak_unseen(self, option: DeliveryOption, timeout: float) -> bool:
        """True if the worker takes data streams. It has then said that it listens, and the official
        plugin (livekit-plugins-runway 1.8.9) sends such a worker speech from its video track on. A
        worker that is to repeat what it hears on a track may not listen before its first picture;
        that is not documented.
        """
        if "track" in (option, self._bridge.delivery):
            return False
        return await self._way().room.takes_streams(timeout)

    async def open_media(self, timeout: float, *, on_first_frame: Callable[[], None]) -> Relay:
        way = self._way()
        audio, video = await way.room.wait_for_media(timeout)
        return Relay(
            audio=audio,
            video=video,
            participant=self._bridge.participant,
            listener=self._listener,
            on_first_frame=on_first_frame,
            on_stall=lambda _: way.on_lost(LossReason.VIDEO_STALLED),
            stall_timeout=self._stall_timeout,
        )

    async def open_delivery(self, option: DeliveryOption) -> tuple[DeliveryKind, SpeechDelivery]:
        known = self._bridge.delivery if option == "auto" else None
        room = self._way().room
        kind, delivery = await room.open_delivery(known or option, must_listen=self._on_trial)
        self._bridge.last_delivery = kind
        if option == "auto" and known is None and kind == "datastream":
            # A worker that answers `lk.clear_buffer` speaks what it is sent.
            self.doubts_first_words = False
        return kind, delivery

    def way_out(self, reason: LossReason) -> str:
        does_not_say_it = reason in (LossReason.SPEECH_FOREIGN, LossReason.SPEECH_STALLED)
        return self._instead_of_a_conversation if does_not_say_it else ""

    async def send_end_call(self) -> bool:
        return self._opened is not None and await self._opened.room.send_end_call()

    async def ensure_gone(self, patience: float) -> None:
        """Nothing to do: once the relay has stopped, nothing of the worker reaches the user."""

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.room.aclose()
