"""Finds Runway's avatar worker in a room, and notices when it is lost; for both transports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal

from livekit import rtc

from ..errors import AvatarJoinError, LossReason

_ANSWER = 0.1
"""Minimum seconds of a worker from speech to voice; Runway states a turn-around of 1.75 s
(runwayml.com, "Building Runway Characters").
"""


def has_left(participant: rtc.RemoteParticipant) -> bool:
    """True if the server said that it has left, or was removed. When this side's own connection is
    re-established, a leave without a reason is reported for every participant (livekit 1.1.21).
    """
    return participant.disconnect_reason is not None


class WorkerWatch:
    """Waits in a room for the avatar worker, subscribes to its tracks, and reports its loss.

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
        on_lost: Callable[[LossReason], None],
    ) -> None:
        # Used by the event loop's thread only.
        self._room = room
        self._is_worker = is_worker
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        """Set by every change that a wait depends on; cleared by the wait."""
        self._wanted = {rtc.TrackKind.KIND_AUDIO, rtc.TrackKind.KIND_VIDEO}
        """Kinds of tracks to subscribe to. The end of a subscription to another kind is no loss."""
        self._published_at: dict[rtc.TrackKind.ValueType, float] = {}
        """Loop times at which the worker's publications were first seen here."""
        self._subscribed_at: dict[rtc.TrackKind.ValueType, float] = {}
        """Loop times at which their tracks first came."""
        self._tracks: dict[rtc.TrackKind.ValueType, rtc.RemoteTrack] = {}
        """The worker's subscribed tracks, according to the room's events."""
        self._watching = False
        """True from when both tracks were there until `close()`: losses are reported."""
        self._lost = False
        """A loss was reported; there is no second report."""
        self._away = False
        """The server said that the worker has left. Never reset."""
        self._disconnected = False
        """The connection to the room was lost for good. Never reset."""
        self.identity: str | None = None
        """Identity of the worker; None until it was seen, and kept when it has left."""
        self.gone = asyncio.Event()
        """Set when the worker was seen to leave by itself. Not set if this side has lost the room
        or sight of the worker, or if the worker was removed: then the session goes on, and bills.
        """
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
    def worker(self) -> str:
        """Its identity. `RuntimeError` before it was seen."""
        if self.identity is None:
            raise RuntimeError("no avatar worker was seen in the room yet")
        return self.identity

    @property
    def present(self) -> bool:
        """Whether the worker is in the room, as far as this side can see."""
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
        """Wait for the worker to be in the room.

        Raises:
            AvatarJoinError: it was not there after `timeout` seconds, or the connection to the room
                was lost before.
        """
        await self._wait(lambda: self.identity is not None, "participant", session_id, timeout)

    async def wait_for_others(self, session_id: str, timeout: float) -> None:
        """Wait until others in the room will have subscribed to the worker's tracks as well.

        LiveKit does not say when *others* have subscribed. So it is estimated: this side's own
        first subscription took a time t, so wait t again, minus the worker's minimum response time.
        On a busy machine t grows by itself.

        Raises:
            AvatarJoinError: a track was not published after `timeout` seconds, or the worker or
                the connection to the room was lost before.
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
            AvatarJoinError: one of them had not come after `timeout` seconds for each, or the
                worker or the connection to the room was lost before.
        """
        video_kind, audio_kind = rtc.TrackKind.KIND_VIDEO, rtc.TrackKind.KIND_AUDIO
        await self._wait(lambda: video_kind in self._tracks, "video", session_id, timeout)
        await self._wait(lambda: audio_kind in self._tracks, "audio", session_id, timeout)
        audio, video = self._tracks[audio_kind], self._tracks[video_kind]
        assert isinstance(audio, rtc.RemoteAudioTrack)
        assert isinstance(video, rtc.RemoteVideoTrack)
        self._watching = True
        return audio, video

    def unsubscribe_video(self) -> None:
        """Unsubscribe from the picture, which is no longer needed here. Its publication is still
        watched.
        """
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
        began = self._loop.time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not (condition() or self._away or self._disconnected):
                    self._changed.clear()
                    await self._changed.wait()
        if condition():
            return
        reason: Literal["timed_out", "worker_left", "room_lost"] = "timed_out"
        if self._away:
            reason = "worker_left"
        elif self._disconnected:
            reason = "room_lost"
        raise AvatarJoinError(
            session_id=session_id,
            missing=missing,
            waited=self._loop.time() - began,
            reason=reason,
        )

    # -- room events ----------------------------------------------------------------------------

    def _scan(self, *_: object) -> None:
        """Find the worker and subscribe. Reads the room's state, because events may be lost in a
        reconnect.
        """
        for identity, participant in self._room.remote_participants.items():
            if not self._is_worker(identity):
                continue
            self.identity = identity
            for publication in participant.track_publications.values():
                self._published_at.setdefault(publication.kind, self._loop.time())
                if not publication.subscribed and publication.kind in self._wanted:
                    publication.set_subscribed(True)
        if self._watching and self.identity not in self._room.remote_participants:
            self._report_loss(LossReason.WORKER_LEFT)
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
            self._report_loss(LossReason.TRACKS_UNPUBLISHED)

    def _on_track_unsubscribed(
        self,
        track: rtc.RemoteTrack,
        _publication: rtc.RemoteTrackPublication,
        participant: rtc.RemoteParticipant,
    ) -> None:
        if self._is_here(participant) and self._tracks.get(track.kind) is track:
            self._tracks.pop(track.kind)
            if track.kind in self._wanted:
                self._report_loss(LossReason.TRACKS_UNPUBLISHED)

    def _on_participant_disconnected(self, participant: rtc.RemoteParticipant) -> None:
        if not self._is_here(participant):
            return
        if has_left(participant):
            self._away = True
            if participant.disconnect_reason != rtc.DisconnectReason.PARTICIPANT_REMOVED:
                self.gone.set()
        self._changed.set()
        self._report_loss(LossReason.WORKER_LEFT)

    def _on_connection_state_changed(self, state: rtc.ConnectionState.ValueType) -> None:
        # "disconnected" is not always emitted for one's own disconnect (livekit 1.1.21).
        if state == rtc.ConnectionState.CONN_DISCONNECTED:
            self._disconnected = True
            self._changed.set()
            self._report_loss(LossReason.ROOM_LOST)
        else:
            self._scan()

    def _report_loss(self, loss: LossReason) -> None:
        if self._watching and not self._lost:
            self._lost = True
            self._on_lost(loss)
