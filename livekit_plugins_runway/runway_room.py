"""The room that Runway hosts for one session: speech in, the worker's media and its loss out."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import enum
import json
from collections.abc import Callable, Iterable
from typing import Literal

from livekit import rtc
from livekit.rtc.participant import PublishDataError, PublishTrackError

from .connecting import connect
from .delivery import (
    RPC_PLAYBACK_FINISHED,
    RPC_PLAYBACK_STARTED,
    DataStreamDelivery,
    TrackDelivery,
    clear_buffer,
)
from .errors import AvatarJoinError, RoomTokenError, UnavailableError
from .log import logger
from .models import ConsumedCredentials
from .speech import SpeechDelivery

WORKER_PREFIX = "worker:"
"""The avatar worker in a Runway room is `worker:<session id>` (runwayml/avatars-node-rpc)."""
END_CALL = json.dumps({"type": "END_CALL"}).encode()
"""Ends a session as COMPLETED, with transcript and recording (runwayml/avatars-sdk-react)."""

DeliveryOption = Literal["auto", "datastream", "track"]
DeliveryKind = Literal["datastream", "track"]


class Loss(enum.StrEnum):
    """Why an avatar that was there is no longer."""

    WORKER_LEFT = "worker_left"
    ROOM_LOST = "room_lost"
    TRACKS_UNPUBLISHED = "tracks_unpublished"
    SESSION_ENDED = "session_ended"
    VIDEO_STALLED = "video_stalled"
    SPEECH_STALLED = "speech_stalled"
    SPEECH_FOREIGN = "speech_foreign"
    SPEECH_FAILED = "speech_failed"


def _missing_grants(token: str, needed: Iterable[str]) -> list[str]:
    """Grants that a LiveKit token denies outright. Not verified: the server does that."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        video = claims["video"]
    except (IndexError, KeyError, ValueError):
        return []
    # LiveKit grants what a token does not mention.
    return [grant for grant in needed if video.get(grant) is False]


_NEEDS: dict[DeliveryKind, tuple[str, ...]] = {
    "datastream": ("canPublishData",),
    "track": ("canPublish",),
}


class RunwayRoom:
    """Joined as the session's user. Subscribes to the avatar worker's tracks alone.

    Args:
        on_lost: called at most once, from the event loop, after the worker's media had come.
        on_playback_finished: called with `interrupted` when the worker reports a segment's end.
    """

    def __init__(
        self,
        session_id: str,
        *,
        on_lost: Callable[[Loss], None],
        on_playback_finished: Callable[[bool], None],
    ) -> None:
        self._session_id = session_id
        self._on_lost = on_lost
        self._on_playback_finished = on_playback_finished
        self._room = rtc.Room()
        self._token = ""
        self._changed = asyncio.Event()
        self._tracks: dict[rtc.TrackKind.ValueType, rtc.RemoteTrack] = {}
        self._worker: str | None = None
        self._watching = False
        self._lost = False
        self._disconnected = False
        self._microphone: TrackDelivery | None = None
        self._stream: DataStreamDelivery | None = None
        self.worker_gone = asyncio.Event()
        """Set when the worker was seen to leave. That this end has lost the room says nothing about
        the worker, which goes on, and bills."""

    @property
    def room(self) -> rtc.Room:
        return self._room

    async def join(self, credentials: ConsumedCredentials) -> None:
        """Join, and publish a microphone at once: a participant that publishes nothing is announced
        to the others, and so to the worker that waits for it, 2 to 3 s later than one that does
        (livekit-server 1.11.0, livekit 1.1.21).

        Raises:
            UnavailableError: the room could not be joined.
            RoomTokenError: its token forbids to subscribe.
        """
        self._token = credentials.token.get_secret_value()
        if missing := _missing_grants(self._token, ["canSubscribe"]):
            raise RoomTokenError(missing=missing, needed_for="seeing the avatar")
        room = self._room
        room.on("participant_connected", self._scan)
        room.on("participant_disconnected", self._on_participant_disconnected)
        room.on("track_published", self._scan)
        room.on("track_subscribed", self._on_track_subscribed)
        room.on("track_unpublished", self._on_track_unpublished)
        room.on("track_unsubscribed", self._on_track_unsubscribed)
        room.on("disconnected", self._on_disconnected)
        room.on("reconnected", self._scan)
        try:
            await connect(room, credentials.url, self._token)
        except rtc.ConnectError as error:
            raise UnavailableError(
                "The room that Runway hosts for this session could not be joined. Check that this "
                "machine may reach *.livekit.cloud over WebRTC."
            ) from error
        room.local_participant.register_rpc_method(RPC_PLAYBACK_FINISHED, self._on_finished_rpc)
        room.local_participant.register_rpc_method(RPC_PLAYBACK_STARTED, self._on_started_rpc)
        self._scan()
        if not _missing_grants(self._token, _NEEDS["track"]):
            self._microphone = TrackDelivery(room)
            try:
                await self._microphone.publish()
            except PublishTrackError as error:
                raise UnavailableError("The agent's voice could not be published.") from error

    async def wait_for_worker(self, timeout: float) -> None:
        """Wait for the worker to be in the room; `AvatarJoinError` after `timeout` seconds."""
        await self._wait(lambda: self._worker is not None, "participant", timeout)

    async def wait_for_media(
        self, timeout: float
    ) -> tuple[rtc.RemoteAudioTrack, rtc.RemoteVideoTrack]:
        """Wait for the worker's camera and microphone; from then on their loss is reported.

        Raises:
            AvatarJoinError: one of them had not come after `timeout` seconds for each.
        """
        video_kind, audio_kind = rtc.TrackKind.KIND_VIDEO, rtc.TrackKind.KIND_AUDIO
        await self._wait(lambda: video_kind in self._tracks, "video", timeout)
        await self._wait(lambda: audio_kind in self._tracks, "audio", timeout)
        audio, video = self._tracks[audio_kind], self._tracks[video_kind]
        assert isinstance(audio, rtc.RemoteAudioTrack)
        assert isinstance(video, rtc.RemoteVideoTrack)
        self._watching = True
        return audio, video

    async def _wait(
        self,
        condition: Callable[[], bool],
        missing: Literal["participant", "video", "audio"],
        timeout: float,
    ) -> None:
        try:
            async with asyncio.timeout(timeout):
                gone = self.worker_gone
                while not (condition() or gone.is_set() or self._disconnected):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        if not condition():
            raise AvatarJoinError(session_id=self._session_id, missing=missing, waited=timeout)

    async def open_delivery(self, option: DeliveryOption) -> tuple[DeliveryKind, SpeechDelivery]:
        """Find out how the worker takes speech, and open that way.

        `auto` asks with an `lk.clear_buffer` call: a worker that answers it takes data streams; one
        that refuses it, does not know it or does not answer within 2 s is given a microphone track.

        Raises:
            RoomTokenError: the token forbids what is needed.
        """
        assert self._worker is not None
        kind = option if option != "auto" else await self._probe()
        if missing := _missing_grants(self._token, _NEEDS[kind]):
            raise RoomTokenError(missing=missing, needed_for=f"delivery {kind!r}")
        if kind == "track":
            assert self._microphone is not None
            await self._microphone.wait_until_heard()
            return kind, self._microphone
        self._stream = DataStreamDelivery(
            self._room, self._worker, lambda: self._report_loss(Loss.SPEECH_FAILED)
        )
        if self._microphone is not None:
            microphone, self._microphone = self._microphone, None
            await microphone.withdraw()
        return kind, self._stream

    async def _probe(self) -> DeliveryKind:
        assert self._worker is not None
        if _missing_grants(self._token, _NEEDS["datastream"]):
            return "track"
        return "datastream" if await clear_buffer(self._room, self._worker) else "track"

    async def send_end_call(self) -> bool:
        """Tell the worker that the call is over. False if nothing could be sent."""
        if not self._room.isconnected() or self._worker is None or self.worker_gone.is_set():
            return False
        try:
            await self._room.local_participant.publish_data(
                END_CALL, reliable=True, destination_identities=[self._worker]
            )
        except PublishDataError as error:
            logger.debug("END_CALL was not sent", extra={"error": type(error).__name__})
            return False
        return True

    async def aclose(self) -> None:
        """Leave. Idempotent."""
        self._watching = False
        stream, self._stream = self._stream, None
        microphone, self._microphone = self._microphone, None
        if stream is not None:
            await stream.aclose()
        if microphone is not None:
            await microphone.aclose()
        await self._room.disconnect()

    # -- room events ----------------------------------------------------------------------------

    def _scan(self, *_: object) -> None:
        """Find the worker and subscribe. A reconnect may swallow events, but not the state."""
        for identity, participant in self._room.remote_participants.items():
            if not identity.startswith(WORKER_PREFIX):
                continue
            self._worker = identity
            for publication in participant.track_publications.values():
                if not publication.subscribed:
                    publication.set_subscribed(True)
        if self._watching and self._worker not in self._room.remote_participants:
            self._report_loss(Loss.WORKER_LEFT)
        self._changed.set()

    def _is_worker(self, participant: rtc.RemoteParticipant) -> bool:
        return participant.identity == self._worker

    def _on_track_subscribed(
        self,
        track: rtc.RemoteTrack,
        _publication: rtc.RemoteTrackPublication,
        participant: rtc.RemoteParticipant,
    ) -> None:
        if self._is_worker(participant):
            self._tracks[track.kind] = track
            self._changed.set()

    def _on_track_unpublished(
        self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        if self._is_worker(participant):
            self._tracks.pop(publication.kind, None)
            self._report_loss(Loss.TRACKS_UNPUBLISHED)

    def _on_track_unsubscribed(
        self,
        track: rtc.RemoteTrack,
        _publication: rtc.RemoteTrackPublication,
        participant: rtc.RemoteParticipant,
    ) -> None:
        if self._is_worker(participant) and self._tracks.get(track.kind) is track:
            self._tracks.pop(track.kind)
            self._report_loss(Loss.TRACKS_UNPUBLISHED)

    def _on_participant_disconnected(self, participant: rtc.RemoteParticipant) -> None:
        if self._is_worker(participant):
            self.worker_gone.set()
            self._changed.set()
            self._report_loss(Loss.WORKER_LEFT)

    def _on_disconnected(self, *_: object) -> None:
        self._disconnected = True
        self._changed.set()
        self._report_loss(Loss.ROOM_LOST)

    def _report_loss(self, loss: Loss) -> None:
        if self._watching and not self._lost:
            self._lost = True
            self._on_lost(loss)

    # -- calls from the worker --------------------------------------------------------------------

    def _on_finished_rpc(self, call: rtc.RpcInvocationData) -> str:
        if call.caller_identity != self._worker:
            logger.warning(
                "playback_finished came from someone else than the avatar worker",
                extra={"lk.pii.caller": call.caller_identity},
            )
            return "reject"
        interrupted = True
        with contextlib.suppress(ValueError):
            payload = json.loads(call.payload)
            interrupted = not isinstance(payload, dict) or payload.get("interrupted") is not False
        self._on_playback_finished(interrupted)
        return "ok"

    def _on_started_rpc(self, _call: rtc.RpcInvocationData) -> str:
        # What the user hears decides when a segment has started; answering keeps the worker calm.
        return "ok"
