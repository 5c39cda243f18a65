"""The room that Runway hosts for one session: sends speech, subscribes to the worker, reports its
loss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import jwt
from livekit import rtc
from livekit.rtc.participant import PublishTrackError

from .._common.tasks import BackgroundTasks
from ..errors import (
    AvatarLostError,
    LossReason,
    RoomTokenError,
    RunwayRoomError,
    UnavailableError,
)
from ..log import logger
from ..media.connect import connect, leave
from ..playout.ports import SpeechDelivery, WorkerReports
from ..runway.models import ConsumedCredentials
from .delivery import DataStreamDelivery, TrackDelivery
from .worker_protocol import (
    RPC_PLAYBACK_FINISHED,
    RPC_PLAYBACK_STARTED,
    DeliveryKind,
    DeliveryOption,
    answer_to_clear_buffer,
    says_interrupted,
    send_end_call,
)
from .worker_watch import WorkerWatch

_WORKER_PREFIX = "worker:"
"""The avatar worker in a Runway room is `worker:<session id>` (runwayml/avatars-node-rpc)."""


def _missing_grants(token: str, needed: Iterable[str]) -> list[str]:
    """The grants that a LiveKit token denies explicitly. The token is not verified here; the server
    does that.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return []
    # A grant that a token does not mention is given.
    match claims.get("video"):
        case dict(video):
            return [grant for grant in needed if video.get(grant) is False]
    return []


_NEEDS: dict[DeliveryKind, tuple[str, ...]] = {
    "datastream": ("canPublishData",),
    "track": ("canPublish",),
}


class RunwayRoom:
    """Joins as the session's user. Subscribes to the avatar worker's tracks only.

    Args:
        on_lost: called from the event loop when the worker is lost after its media had come, and
            when its speech stream fails. So perhaps twice; only the first counts.
        reports: receives the worker's reports on its playback; None: they are ignored.
        background: finishes an attempt to join that was given up; None: `join()` does.
    """

    def __init__(
        self,
        session_id: str,
        *,
        on_lost: Callable[[LossReason], None],
        reports: WorkerReports | None,
        background: BackgroundTasks | None = None,
    ) -> None:
        # Used by the event loop's thread only.
        self._session_id = session_id
        self._on_lost = on_lost
        self._reports = reports
        self._background = background
        self._room = rtc.Room()
        """Connected from `join()` until `aclose()`, unless the connection is lost for good."""
        self._watch = WorkerWatch(
            self._room,
            is_worker=self.is_worker,
            on_lost=on_lost,
        )
        """Open from `join()` until `aclose()`."""
        self._me: rtc.LocalParticipant | None = None
        """From `join()` until `aclose()`."""
        self._token = ""
        """The token of `join()`; its grants say what is allowed in this room."""
        self._speech_track: TrackDelivery | None = None
        """Published by `join()`, if the token allows it. Unpublished when a `_stream` is used: the
        worker is never sent speech by both.
        """
        self._takes: DeliveryKind | None = None
        """Written by `_probe()`; None: to be asked, again if it refused."""
        self._stream: DataStreamDelivery | None = None
        """Made by `open_delivery()`, if the worker takes data streams."""
        self._withdrawing: asyncio.Task[None] | None = None
        """The task that unpublishes the track while the first words go into the `_stream`."""

    @property
    def worker_gone(self) -> asyncio.Event:
        """Set when the worker was seen to leave."""
        return self._watch.gone

    @property
    def room(self) -> rtc.Room:
        return self._room

    def is_worker(self, identity: str) -> bool:
        """By its identity, or, because that identity is not documented, any participant that
        publishes video. Only Runway admits participants to this room.
        """
        if identity.startswith(_WORKER_PREFIX):
            return True
        there = self._room.remote_participants.get(identity)
        video = rtc.TrackKind.KIND_VIDEO
        tracks = [] if there is None else there.track_publications.values()
        return any(publication.kind == video for publication in tracks)

    async def join(self, credentials: ConsumedCredentials) -> None:
        """Join, and publish a microphone at once: a participant that publishes nothing is announced
        to the others, and so to the worker that waits for it, 2 to 3 s later than one that does
        (livekit-server 1.11.0, livekit 1.1.21).

        Raises:
            RunwayRoomError: the room could not be joined.
            UnavailableError: the agent's voice could not be published there.
            RoomTokenError: its token forbids subscribing.
        """
        self._token = credentials.token.get_secret_value()
        if missing := _missing_grants(self._token, ["canSubscribe"]):
            raise RoomTokenError(missing=missing, needed_for="seeing the avatar")
        room = self._room
        self._watch.open()
        try:
            await connect(room, credentials.url, self._token, self._background)
        except rtc.ConnectError as error:
            raise RunwayRoomError from error
        self._me = room.local_participant
        self._me.register_rpc_method(RPC_PLAYBACK_FINISHED, self._on_finished_rpc)
        self._me.register_rpc_method(RPC_PLAYBACK_STARTED, self._on_started_rpc)
        if not _missing_grants(self._token, _NEEDS["track"]):
            self._speech_track = TrackDelivery(room)
            try:
                await self._speech_track.publish()
            except (PublishTrackError, TimeoutError) as error:
                raise UnavailableError("The agent's voice could not be published.") from error

    async def wait_for_worker(self, timeout: float) -> None:
        """As `WorkerWatch.wait_for_worker`."""
        await self._watch.wait_for_worker(self._session_id, timeout)

    async def wait_for_media(
        self, timeout: float
    ) -> tuple[rtc.RemoteAudioTrack, rtc.RemoteVideoTrack]:
        """As `WorkerWatch.wait_for_media`."""
        return await self._watch.wait_for_media(self._session_id, timeout)

    async def takes_streams(self, timeout: float) -> bool:
        """Whether the worker takes data streams, once it has its tracks: before that it may not
        have registered what answers. Raises as `wait_for_media()`.
        """
        await self.wait_for_media(timeout)
        return await self._probe(self._watch.worker) == "datastream"

    async def open_delivery(
        self, option: DeliveryOption, *, must_listen: bool = False
    ) -> tuple[DeliveryKind, SpeechDelivery]:
        """Find out how the worker takes speech, and open that delivery.

        `auto` asks with an `lk.clear_buffer` call: a worker that answers it takes data streams; one
        that refuses it, does not know it or does not answer within 2 s is given a microphone track.

        Args:
            must_listen: give the worker up if it does not subscribe to the track.

        Raises:
            RoomTokenError: the token forbids what is needed.
            AvatarLostError: see `must_listen`.
        """
        worker = self._watch.worker
        kind = option
        if kind == "auto":
            kind = self._takes or await self._probe(worker)
        if missing := _missing_grants(self._token, _NEEDS[kind]):
            raise RoomTokenError(missing=missing, needed_for=f"delivery {kind!r}")
        if kind == "track":
            if self._speech_track is None:
                raise RuntimeError("join() has published no voice, or a stream has replaced it")
            listens = await self._speech_track.wait_until_heard()
            if must_listen and not listens:
                raise AvatarLostError(
                    "The avatar worker takes neither a data stream nor the agent's voice.",
                    reason=LossReason.SPEECH_STALLED,
                )
            return kind, self._speech_track
        self._stream = DataStreamDelivery(
            self._room, worker, lambda: self._on_lost(LossReason.SPEECH_FAILED)
        )
        if self._speech_track is not None:
            # Do not delay the first words until the server answers.
            withdrawal = self._speech_track.withdraw()
            self._withdrawing = asyncio.create_task(withdrawal, name="runway_withdraw")
            self._speech_track = None
        return kind, self._stream

    async def _probe(self, worker: str) -> DeliveryKind:
        if _missing_grants(self._token, _NEEDS["datastream"]):
            return "track"
        answer = await answer_to_clear_buffer(self._room, worker)
        if answer is not False:  # who refuses may not have registered it yet, and does so at once
            self._takes = "datastream" if answer else "track"
        return "datastream" if answer else "track"

    async def send_end_call(self) -> bool:
        """Tell the worker that the call is over. False if nothing could be sent."""
        worker = self._watch.identity
        if worker is None or not self._watch.present:
            return False
        return await send_end_call(self._room, worker)

    async def aclose(self) -> None:
        """Close the delivery and leave the room; leave it even if closing fails. Idempotent."""
        self._watch.close()
        stream, self._stream = self._stream, None
        speech_track, self._speech_track = self._speech_track, None
        withdrawing, self._withdrawing = self._withdrawing, None
        endings: list[Awaitable[None]] = [] if withdrawing is None else [withdrawing]
        endings += [part.aclose() for part in (stream, speech_track) if part is not None]
        try:
            for outcome in await asyncio.gather(*endings, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    told = {"error": type(outcome).__name__}
                    logger.warning(
                        "the delivery of speech could not be closed properly", extra=told
                    )
        finally:
            try:
                self._unregister()
            finally:
                await leave(self._room)

    def _unregister(self) -> None:
        """The SDK keeps a room for good, 0.6 MB, whose RPC methods stay registered (livekit 1.1.21,
        livekit-ffi/src/server/participant.rs: the handler holds the room).
        """
        me, self._me = self._me, None
        if me is not None:
            me.unregister_rpc_method(RPC_PLAYBACK_FINISHED)
            me.unregister_rpc_method(RPC_PLAYBACK_STARTED)

    # -- calls from the worker --------------------------------------------------------------------

    def _on_finished_rpc(self, call: rtc.RpcInvocationData) -> str:
        if call.caller_identity != self._watch.identity:
            logger.warning(
                "playback_finished came from a participant that is not the avatar worker",
                extra={"lk.pii.caller": call.caller_identity},
            )
            return "reject"
        if self._reports is not None:
            self._reports.worker_finished(interrupted=says_interrupted(call.payload))
        return "ok"

    def _on_started_rpc(self, call: rtc.RpcInvocationData) -> str:
        if self._reports is not None and call.caller_identity == self._watch.identity:
            self._reports.worker_started()
        return "ok"  # answer in any case, so that the caller does not time out
