"""Who was in a room, what they published and what was captioned, each with its time.

All times are `time.monotonic()`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from livekit import rtc
from livekit.agents.types import (
    ATTRIBUTE_TRANSCRIPTION_FINAL,
    ATTRIBUTE_TRANSCRIPTION_SEGMENT_ID,
)


@dataclass
class TrackSeen:
    """A publication in the room."""

    sid: str
    identity: str
    kind: str
    """`audio` or `video`."""
    source: str
    """`camera`, `microphone`, ... as in `rtc.TrackSource`, in lower case."""
    published_at: float
    unpublished_at: float | None = None


@dataclass
class ParticipantSeen:
    """Another participant of the room. One that comes back is entered again."""

    identity: str
    is_agent: bool
    attributes: dict[str, str]
    joined_at: float
    left_at: float | None = None


@dataclass
class Caption:
    """One segment of transcription; `text` grows while it is spoken."""

    identity: str
    segment_id: str
    text: str
    started_at: float
    updated_at: float
    final: bool = False


@dataclass(frozen=True)
class AttributeChange:
    """A participant's attribute got a new value, such as `lk.agent.state`."""

    at: float
    identity: str
    name: str
    value: str


class RoomLog:
    """Keeps the lists below up to date from the room's events, and calls `changed` each time."""

    def __init__(self, room: rtc.Room, changed: Callable[[], None]) -> None:
        self._room = room
        self._changed = changed
        self.participants: list[ParticipantSeen] = []
        self.tracks: list[TrackSeen] = []
        self.captions: list[Caption] = []
        self.attribute_changes: list[AttributeChange] = []
        room.on("participant_connected", self.on_participant)
        room.on("participant_disconnected", self._on_participant_left)
        room.on("participant_attributes_changed", self._on_attributes)
        room.on("track_published", self.on_published)
        room.on("track_unpublished", self._on_unpublished)

    def look_around(self) -> None:
        """Enter those who were in the room before its events came."""
        for participant in self._room.remote_participants.values():
            self.on_participant(participant)
            for publication in participant.track_publications.values():
                self.on_published(publication, participant)

    def on_participant(self, participant: rtc.RemoteParticipant) -> None:
        if self._present(participant.identity) is None:
            kind_agent = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
            self.participants.append(
                ParticipantSeen(
                    identity=participant.identity,
                    is_agent=participant.kind == kind_agent,
                    attributes=dict(participant.attributes),
                    joined_at=time.monotonic(),
                )
            )
        self._changed()

    def _present(self, identity: str) -> ParticipantSeen | None:
        here = (p for p in self.participants if p.identity == identity and p.left_at is None)
        return next(here, None)

    def _on_participant_left(self, participant: rtc.RemoteParticipant) -> None:
        if (seen := self._present(participant.identity)) is not None:
            seen.left_at = time.monotonic()
        self._changed()

    def _on_attributes(self, changed: dict[str, str], participant: rtc.Participant) -> None:
        now = time.monotonic()
        self.attribute_changes += (
            AttributeChange(now, participant.identity, name, value)
            for name, value in changed.items()
        )
        if (seen := self._present(participant.identity)) is not None:
            seen.attributes = dict(participant.attributes)
        self._changed()

    def on_published(
        self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        if not any(track.sid == publication.sid for track in self.tracks):
            video = publication.kind == rtc.TrackKind.KIND_VIDEO
            source = rtc.TrackSource.Name(publication.source).removeprefix("SOURCE_").lower()
            self.tracks.append(
                TrackSeen(
                    sid=publication.sid,
                    identity=participant.identity,
                    kind="video" if video else "audio",
                    source=source,
                    published_at=time.monotonic(),
                )
            )
        self._changed()

    def _on_unpublished(
        self, publication: rtc.RemoteTrackPublication, _participant: rtc.RemoteParticipant
    ) -> None:
        for track in self.tracks:
            if track.sid == publication.sid:
                track.unpublished_at = time.monotonic()
        self._changed()

    async def read_caption(self, reader: rtc.TextStreamReader, identity: str) -> None:
        """Follow one stream of transcription to its end."""
        attributes = reader.info.attributes or {}
        segment = attributes.get(ATTRIBUTE_TRANSCRIPTION_SEGMENT_ID, reader.info.stream_id)
        now = time.monotonic()
        caption = next((c for c in self.captions if c.segment_id == segment), None)
        if caption is None:
            caption = Caption(identity, segment, "", now, now)
            self.captions.append(caption)
        # A segment that comes again comes whole: interim transcripts of speech recognition.
        text = ""
        try:
            async for chunk in reader:
                text += chunk
                caption.text, caption.updated_at = text, time.monotonic()
                self._changed()
        except rtc.StreamError:
            return  # the sender left in the middle: what came is kept, as not final
        finally:
            reader.close()
        attributes = reader.info.attributes or {}
        caption.final = attributes.get(ATTRIBUTE_TRANSCRIPTION_FINAL) == "true"
        self._changed()
