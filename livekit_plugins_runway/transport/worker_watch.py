"""What both transports know of Runway's avatar worker: how it is found, heard, lost and ended."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Literal

from livekit import rtc
from livekit.rtc.participant import PublishDataError

from ..errors import AvatarJoinError
from ..log import logger
from ..playout.segment import BYTES_PER_SAMPLE, HOP, SAMPLE_RATE

END_CALL = json.dumps({"type": "END_CALL"}).encode()
"""Ends a session as COMPLETED, with transcript and recording (runwayml/avatars-sdk-react)."""
PATIENCE = 2.0
"""Seconds in which a worker that was sent END_CALL may leave by itself."""
_ANSWER = 0.1
"""Seconds that a worker takes at the least from speech to voice; Runway states a turn-around of
1.75 s (runwayml.com, "Building Runway Characters")."""
_AUDIO_CAPACITY = 300  # 3 s: only a stalled event loop ever gets near it

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


async def send_end_call(room: rtc.Room, worker: str) -> bool:
    """Tell the worker that the call is over. False if nothing could be sent."""
    if not room.isconnected():
        return False
    try:
        await room.local_participant.publish_data(
            END_CALL, reliable=True, destination_identities=[worker]
        )
    except PublishDataError as error:
        logger.debug("END_CALL was not sent", extra={"error": type(error).__name__})
        return False
    return True


def says_interrupted(payload: str) -> bool:
    """What a worker's `lk.playback_finished` says; True where it does not say otherwise."""
    try:
        told = json.loads(payload)
    except ValueError:
        return True
    return not isinstance(told, dict) or told.get("interrupted") is not False


async def sound(track: rtc.RemoteAudioTrack, hops: int) -> AsyncGenerator[bytes, None]:
    """The sound of a track, int16 mono PCM at 48 kHz, until the track ends.

    Args:
        hops: how many times 10 ms come at a time.
    """
    stream = rtc.AudioStream(
        track,
        capacity=_AUDIO_CAPACITY // hops,
        sample_rate=SAMPLE_RATE,
        num_channels=1,
        frame_size_ms=10 * hops,
    )
    async with aclosing(stream):
        async for event in stream:
            pcm = bytes(event.frame.data)
            if len(pcm) == hops * HOP * BYTES_PER_SAMPLE:
                yield pcm


class WorkerWatch:
    """Waits in a room for the avatar worker, subscribes to its tracks, and sees it go.

    Args:
        room: joined, or about to be.
        is_worker: tells the worker by its identity.
        on_lost: called at most once, from the event loop, after the worker's media had come.
    """

    def __init__(
        self,
        room: rtc.Room,
        *,
        is_worker: Callable[[str], bool],
        on_lost: Callable[[Loss], None],
    ) -> None:
        self._room = room
        self._is_worker = is_worker
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._wanted = {rtc.TrackKind.KIND_AUDIO, rtc.TrackKind.KIND_VIDEO}
        self._published_at: dict[rtc.TrackKind.ValueType, float] = {}  # as seen here
        self._subscribed_at: dict[rtc.TrackKind.ValueType, float] = {}
        self._tracks: dict[rtc.TrackKind.ValueType, rtc.RemoteTrack] = {}
        self._watching = False
        self._lost = False
        self._away = False
        self._disconnected = False
        self.identity: str | None = None
        """Of the worker; None until it was seen."""
        self.gone = asyncio.Event()
        """Set when the worker was seen to leave by itself. That this end has lost the room, or that
        somebody has put it out, says nothing about the worker, which goes on, and bills."""
        self._handlers: dict[rtc.room.EventTypes, Callable[..., None]] = {
            "connection_state_changed": self._on_connection_state_changed,
            "participant_connected": self._scan,
            "participant_disconnected": self._on_participant_disconnected,
            "track_published": self._scan,
            "track_subscribed": self._on_track_subscribed,
            "track_unpublished": self._on_track_unpublished,
            "track_unsubscribed": self._on_track_unsubscribed,
            "reconnected": self._scan,
        }

    @property
    def present(self) -> bool:
        """Whether the worker is in the room, as far as this end can see."""
        return self.identity is not None and not self._away

    def open(self) -> None:
        for event, handler in self._handlers.items():
            self._room.on(event, handler)
        self._scan()

    def close(self) -> None:
        """Idempotent."""
        self._watching = False
        for event, handler in self._handlers.items():
            self._room.off(event, handler)

    async def wait_for_worker(self, session_id: str, timeout: float) -> None:
        """Wait for the worker to be in the room; `AvatarJoinError` after `timeout` seconds."""
        await self._wait(lambda: self.identity is not None, "participant", session_id, timeout)

    async def wait_for_others(self, session_id: str, timeout: float) -> None:
        """Wait until others in the room will have subscribed to the worker's tracks as well.

        Nobody tells an agent when they have. This end has to subscribe to both as they do; once it
        has the first, as much time again is enough, less what a worker takes to answer. A busy
        machine makes that longer by itself.

        Raises:
            AvatarJoinError: a track was not published after `timeout` seconds.
        """
        video, audio = rtc.TrackKind.KIND_VIDEO, rtc.TrackKind.KIND_AUDIO
        await self._wait(lambda: video in self._tracks, "video", session_id, timeout)
        await self._wait(lambda: audio in self._published_at, "audio", session_id, timeout)
        took = self._subscribed_at[video] - self._published_at[video]
        with contextlib.suppress(AvatarJoinError):
            await self._wait(
                lambda: audio in self._tracks, "audio", session_id, max(0.0, took - _ANSWER)
            )

    async def wait_for_media(
        self, session_id: str, timeout: float
    ) -> tuple[rtc.RemoteAudioTrack, rtc.RemoteVideoTrack]:
        """Wait for the worker's camera and microphone; from then on their loss is reported.

        Raises:
            AvatarJoinError: one of them had not come after `timeout` seconds for each.
        """
        video_kind, audio_kind = rtc.TrackKind.KIND_VIDEO, rtc.TrackKind.KIND_AUDIO
        await self._wait(lambda: video_kind in self._tracks, "video", session_id, timeout)
        await self._wait(lambda: audio_kind in self._tracks, "audio", session_id, timeout)
        audio, video = self._tracks[audio_kind], self._tracks[video_kind]
        assert isinstance(audio, rtc.RemoteAudioTrack)
        assert isinstance(video, rtc.RemoteVideoTrack)
        self._watching = True
        return audio, video

    def spare_video(self) -> None:
        """The picture is no longer needed here; that it is published still counts."""
        self._wanted = {rtc.TrackKind.KIND_AUDIO}
        worker = self._room.remote_participants.get(self.identity or "")
        for publication in worker.track_publications.values() if worker else ():
            if publication.kind == rtc.TrackKind.KIND_VIDEO:
                publication.set_subscribed(False)

    async def _wait(
        self,
        condition: Callable[[], bool],
        missing: Literal["participant", "video", "audio"],
        session_id: str,
        timeout: float,
    ) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not (condition() or self._away or self._disconnected):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        if not condition():
            raise AvatarJoinError(session_id=session_id, missing=missing, waited=timeout)

    # -- room events ----------------------------------------------------------------------------

    def _scan(self, *_: object) -> None:
        """Find the worker and subscribe. A reconnect may swallow events, but not the state."""
        for identity, participant in self._room.remote_participants.items():
            if not self._is_worker(identity):
                continue
            self.identity = identity
            for publication in participant.track_publications.values():
                self._published_at.setdefault(publication.kind, self._loop.time())
                if not publication.subscribed and publication.kind in self._wanted:
                    publication.set_subscribed(True)
        if self._watching and self.identity not in self._room.remote_participants:
            self._report_loss(Loss.WORKER_LEFT)
        self._changed.set()

    def _is_here(self, participant: rtc.RemoteParticipant) -> bool:
        return participant.identity == self.identity

    def _on_track_subscribed(
        self,
        track: rtc.RemoteTrack,
        _publication: rtc.RemoteTrackPublication,
        participant: rtc.RemoteParticipant,
    ) -> None:
        if self._is_here(participant):
            self._tracks[track.kind] = track
            self._subscribed_at.setdefault(track.kind, self._loop.time())
            self._changed.set()

    def _on_track_unpublished(
        self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        if self._is_here(participant):
            self._tracks.pop(publication.kind, None)
            self._report_loss(Loss.TRACKS_UNPUBLISHED)

    def _on_track_unsubscribed(
        self,
        track: rtc.RemoteTrack,
        _publication: rtc.RemoteTrackPublication,
        participant: rtc.RemoteParticipant,
    ) -> None:
        if self._is_here(participant) and self._tracks.get(track.kind) is track:
            self._tracks.pop(track.kind)
            if track.kind in self._wanted:
                self._report_loss(Loss.TRACKS_UNPUBLISHED)

    def _on_participant_disconnected(self, participant: rtc.RemoteParticipant) -> None:
        if not self._is_here(participant):
            return
        self._away = True
        if participant.disconnect_reason != rtc.DisconnectReason.PARTICIPANT_REMOVED:
            self.gone.set()
        self._changed.set()
        self._report_loss(Loss.WORKER_LEFT)

    def _on_connection_state_changed(self, state: rtc.ConnectionState.ValueType) -> None:
        # "disconnected" is not always told of one's own disconnect (livekit 1.1.21).
        if state == rtc.ConnectionState.CONN_DISCONNECTED:
            self._disconnected = True
            self._changed.set()
            self._report_loss(Loss.ROOM_LOST)
        else:
            self._scan()

    def _report_loss(self, loss: Loss) -> None:
        if self._watching and not self._lost:
            self._lost = True
            self._on_lost(loss)
