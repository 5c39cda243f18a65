"""A user who joins the agent's room as an app would, and records what was heard, seen and read.

Everything carries the time at which it reached the user, on the clock of `time.monotonic()`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from livekit import api, rtc
from livekit.agents.types import (
    ATTRIBUTE_PUBLISH_ON_BEHALF,
    TOPIC_CHAT,
    TOPIC_TRANSCRIPTION,
)

from .recording import SAMPLE_RATE, AudioTimeline, VideoRecorder, write_mp4
from .room_log import AttributeChange, Caption, ParticipantSeen, RoomLog, TrackSeen
from .tones import SILENCE, Pcm

_SMALLEST_PICTURE = 16  # px: a track that closes ends with 2x2 pixels, which nobody sees
_MAX_FPS = 60


@dataclass(frozen=True)
class FrameSeen:
    """A video frame that arrived; width and height in pixels."""

    at: float
    width: int
    height: int


@dataclass
class _Ears:
    """The record of one audio track."""

    identity: str
    timeline: AudioTimeline
    loud_at: float = field(default=float("-inf"))


class SimulatedUser:
    """Joins a room with a silent microphone, subscribes to everything, and keeps a record.

    Use it as an async context manager. It records the participants in `listen_to`; without it,
    those who publish on behalf of an agent; if there are none, the agents.

    Args:
        url: the LiveKit server, `ws://` or `wss://`.
        room: name of the room.
        api_key: of the LiveKit server, to mint the user's own token.
        api_secret: likewise.
        identity: of the user.
        listen_to: identity of the participant to listen to and look at, or several.
        hidden: join without being seen by anybody, and publish nothing: a spectator.
        kind: "sip" for a caller by phone.
        attributes: of the participant, as `{"sip.callStatus": "ringing"}`; it may change them.
        auto_subscribe: False for a client that subscribes to tracks by itself, or never.
        encryption: keys of a room that is end-to-end encrypted.
        on_picture: called with each picture and the time of its arrival; must be quick.
        record_video: keep a film for `write_mp4()`; costs some CPU.
        video_size: of the film, even numbers of pixels.
        max_seconds: how much is kept: the last so many seconds of sound, the first of the film.
    """

    def __init__(
        self,
        url: str,
        room: str,
        *,
        api_key: str,
        api_secret: str,
        identity: str = "user",
        listen_to: str | Collection[str] | None = None,
        hidden: bool = False,
        kind: Literal["standard", "sip"] = "standard",
        attributes: dict[str, str] | None = None,
        auto_subscribe: bool = True,
        encryption: rtc.E2EEOptions | None = None,
        on_picture: Callable[[float, rtc.VideoFrame], None] | None = None,
        record_video: bool = False,
        video_size: tuple[int, int] = (544, 352),
        max_seconds: float = 600.0,
    ) -> None:
        self._url = url
        grants = api.VideoGrants(
            room_join=True, room=room, hidden=hidden, can_update_own_metadata=True
        )
        self._token = (
            api.AccessToken(api_key, api_secret)
            .with_identity(identity)
            .with_kind(kind)
            .with_attributes(attributes or {})
            .with_grants(grants)
            .to_jwt()
        )
        self._options = rtc.RoomOptions(auto_subscribe=auto_subscribe, encryption=encryption)
        self._hidden = hidden
        self._on_picture = on_picture
        self._listen_to = {listen_to} if isinstance(listen_to, str) else listen_to
        self._record_video = record_video
        self._video_size = video_size
        self._max_seconds = max_seconds
        self._room = rtc.Room()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._readers: dict[str, set[asyncio.Task[None]]] = {}
        """Those of `_tasks` that read a track, by the publication's sid, as long as it is there."""
        self._ears: dict[str, _Ears] = {}
        self._eyes: dict[str, deque[FrameSeen]] = {}
        self._recorder: VideoRecorder | None = None
        self._microphone = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=200)
        self._changed = asyncio.Event()
        self._left_at: float | None = None
        self.joined_at = time.monotonic()
        """When the user had joined; second 0 of the film and of `heard()`."""
        self._log = RoomLog(self._room, self._notify)

    def __repr__(self) -> str:
        return f"SimulatedUser(frames={len(self.frames)}, tracks={len(self.tracks)})"

    @property
    def room(self) -> rtc.Room:
        """The user's own connection, for anything that this class has no method for."""
        return self._room

    @property
    def participants(self) -> list[ParticipantSeen]:
        """Everyone else who was in the room, in the order of joining."""
        return self._log.participants

    @property
    def tracks(self) -> list[TrackSeen]:
        """Every publication there was, in the order of appearance."""
        return self._log.tracks

    @property
    def captions(self) -> list[Caption]:
        """The segments of transcription, the agent's and the user's, as they began."""
        return self._log.captions

    @property
    def attribute_changes(self) -> list[AttributeChange]:
        """Every change of a participant's attributes, in the order of arrival."""
        return self._log.attribute_changes

    @property
    def frames(self) -> list[FrameSeen]:
        """The video frames that arrived, without the tiny ones that end a track."""
        chosen = self._chosen()
        seen = [f for identity, frames in self._eyes.items() if identity in chosen for f in frames]
        return sorted(seen, key=lambda frame: frame.at)

    # -- joining and leaving

    async def __aenter__(self) -> Self:
        self._listen_for_events()
        try:
            await self._room.connect(self._url, self._token, self._options)
            self.joined_at = time.monotonic()
            self._log.look_around()
            if self._record_video:
                self._recorder = VideoRecorder(
                    origin=self.joined_at, size=self._video_size, max_seconds=self._max_seconds
                )
                self._start("recorder", self._recorder.run())
            if not self._hidden:
                await self._publish_microphone()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the room and end every task; what was recorded stays. Idempotent."""
        if self._left_at is None:
            self._left_at = time.monotonic()
        try:
            await self._finish_film()
        finally:
            running = self._stop_tasks()
            await self._room.disconnect()
            await self._microphone.aclose()
            # A track may have been subscribed while the room was left.
            running += self._stop_tasks()
            results = await asyncio.gather(*running, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _stop_tasks(self) -> list[asyncio.Task[None]]:
        running, self._tasks = list(self._tasks.values()), {}
        for task in running:
            task.cancel()
        return running

    # -- speaking

    async def say(self, text: str) -> None:
        """Send a chat message; the framework takes it as the user's turn and interrupts the agent.

        Topic `lk.chat`, livekit-agents 1.8.9 voice/room_io.
        """
        await self._room.local_participant.send_text(text, topic=TOPIC_CHAT)

    async def speak(self, pcm: Pcm, sample_rate: int) -> None:
        """Speak int16 mono samples on the user's microphone; returns when they have been sent."""
        frame = rtc.AudioFrame(np.ascontiguousarray(pcm).tobytes(), sample_rate, 1, len(pcm))
        if sample_rate != SAMPLE_RATE:
            resampler = rtc.AudioResampler(sample_rate, SAMPLE_RATE)
            frame = rtc.combine_audio_frames([*resampler.push(frame), *resampler.flush()])
        size = SAMPLE_RATE // 100
        samples = np.frombuffer(frame.data, np.int16)
        for piece in np.pad(samples, (0, -len(samples) % size)).reshape(-1, size):
            await self._microphone.capture_frame(
                rtc.AudioFrame(piece.tobytes(), SAMPLE_RATE, 1, size)
            )
        await self._microphone.wait_for_playout()

    async def _publish_microphone(self) -> None:
        # As apps do. And the server (1.11.0) shows a participant who publishes nothing to the
        # others only 3 seconds after the join.
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._microphone)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self._room.local_participant.publish_track(track, options)

    # -- hearing and seeing

    def heard(self, since: float | None = None, until: float | None = None) -> Pcm:
        """What was heard from `since` to `until`, 48 kHz int16 mono; every track mixed.

        Both are `time.monotonic()`; by default from joining until now (or until leaving). Sample n
        sounded at `since + n / 48000`: where nothing arrived, there is silence.
        """
        since = self.joined_at if since is None else since
        end = self._left_at or time.monotonic()
        until = end if until is None else until
        mixed = np.zeros(max(0, round((until - since) * SAMPLE_RATE)), np.int32)
        chosen = self._chosen()
        for ears in self._ears.values():
            if ears.identity in chosen:
                ears.timeline.mix_into(mixed, since)
        return np.clip(mixed, -32768, 32767).astype(np.int16)

    def level(self, t: float, window: float = 0.05) -> float:
        """Loudness (RMS, 1.0 = full scale) of the `window` seconds that end at `t`."""
        samples = self.heard(t - window, t).astype(np.float64) / 32768
        return float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0

    def fps(self, since: float, until: float) -> float:
        """Video frames a second between two times of `time.monotonic()`."""
        inside = 0
        for identity in self._chosen() & self._eyes.keys():
            late = itertools.takewhile(lambda f: f.at >= since, reversed(self._eyes[identity]))
            inside += sum(frame.at < until for frame in late)
        return inside / (until - since) if until > since else 0.0

    async def wait_for_audio(self, timeout: float, *, since: float | None = None) -> float:
        """Wait until something is heard after `since` (default: now); returns when it arrived.

        Raises:
            TimeoutError: nothing was heard within `timeout` seconds.
        """
        since = time.monotonic() if since is None else since
        async with asyncio.timeout(timeout):
            while (loud_at := self._loud_at()) <= since:
                await self._changed.wait()
            return loud_at

    async def wait_for_silence(self, duration: float, timeout: float) -> float:
        """Wait until nothing was heard for `duration` seconds; returns when the silence began.

        The time before the call counts. `duration` must exceed the pauses of the speech.

        Raises:
            TimeoutError: something was still heard after `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while True:
                began = max(self._loud_at(), self.joined_at)
                left = began + duration - time.monotonic()
                if left <= 0:
                    return began
                await asyncio.sleep(left)

    async def wait_for_video(self, timeout: float, *, since: float | None = None) -> float:
        """Wait for a video frame after `since` (default: now); returns when it arrived.

        Raises:
            TimeoutError: none came within `timeout` seconds.
        """
        since = time.monotonic() if since is None else since
        async with asyncio.timeout(timeout):
            while True:
                later = (frame.at for frame in self.frames if frame.at > since)
                if (at := next(later, None)) is not None:
                    return at
                await self._changed.wait()

    async def wait_until(self, condition: Callable[[], bool], timeout: float) -> None:
        """Wait until the condition holds; it is looked at whenever something is heard or seen.

        Raises:
            TimeoutError: it did not hold within `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while not condition():
                await self._changed.wait()

    async def write_mp4(self, path: Path) -> None:
        """Write what was seen and heard since joining as MP4 (H.264, AAC), black before the face.

        Ends the recording of the picture. Needs `record_video=True`.
        """
        if self._recorder is None:
            raise RuntimeError("nothing was filmed: SimulatedUser needs record_video=True")
        await self._finish_film()
        until = min(self._left_at or time.monotonic(), self.joined_at + self._max_seconds)
        sound = self.heard(self.joined_at, until)
        await asyncio.to_thread(write_mp4, path, self._recorder.packed(), sound)

    async def _finish_film(self) -> None:
        if self._recorder is not None and (task := self._tasks.get("recorder")) is not None:
            self._recorder.finish()
            await asyncio.shield(task)

    def _chosen(self) -> set[str]:
        if self._listen_to is not None:
            return set(self._listen_to)
        on_behalf = {
            p.identity for p in self.participants if ATTRIBUTE_PUBLISH_ON_BEHALF in p.attributes
        }
        return on_behalf or {p.identity for p in self.participants if p.is_agent}

    def _loud_at(self) -> float:
        chosen = self._chosen()
        times = (ears.loud_at for ears in self._ears.values() if ears.identity in chosen)
        return max(times, default=float("-inf"))

    # -- the room's events

    def _listen_for_events(self) -> None:
        self._room.on("track_subscribed", self._on_subscribed)
        self._room.on("track_unsubscribed", self._on_unsubscribed)
        self._room.on("track_unpublished", self._on_unpublished)
        self._room.register_text_stream_handler(TOPIC_TRANSCRIPTION, self._on_transcription)

    def _on_subscribed(
        self,
        track: rtc.Track,
        publication: rtc.RemoteTrackPublication,
        participant: rtc.RemoteParticipant,
    ) -> None:
        self._log.on_participant(participant)
        self._log.on_published(publication, participant)
        self._stop_reading(publication)
        if track.kind == rtc.TrackKind.KIND_VIDEO:
            reading = self._start(publication.sid, self._watch(track, participant.identity))
        else:
            ears = _Ears(participant.identity, AudioTimeline(self._max_seconds))
            self._ears[f"{publication.sid} {time.monotonic()}"] = ears
            reading = self._start(publication.sid, self._listen(track, ears))
        self._readers.setdefault(publication.sid, set()).add(reading)

    def _on_unsubscribed(
        self,
        _track: rtc.Track,
        publication: rtc.RemoteTrackPublication,
        _participant: rtc.RemoteParticipant,
    ) -> None:
        self._stop_reading(publication)

    def _on_unpublished(
        self, publication: rtc.RemoteTrackPublication, _participant: rtc.RemoteParticipant
    ) -> None:
        self._stop_reading(publication)

    def _stop_reading(self, publication: rtc.RemoteTrackPublication) -> None:
        """Its track is gone. A VideoStream does not end with it, and an AudioStream may be given
        the sound of another track (livekit 1.1.21)."""
        for reading in self._readers.pop(publication.sid, ()):
            reading.cancel()

    def _on_transcription(self, reader: rtc.TextStreamReader, identity: str) -> None:
        self._start(f"caption {reader.info.stream_id}", self._log.read_caption(reader, identity))

    # -- tasks

    def _start(self, key: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as a task that `aclose()` awaits. One that fails is kept until then."""
        if self._left_at is not None or key in self._tasks:
            key = f"{key} {time.monotonic()}"
        task = asyncio.create_task(work, name=f"simulated user: {key}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _forget(self, key: str, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._tasks.pop(key, None)

    async def _listen(self, track: rtc.Track, ears: _Ears) -> None:
        try:
            stream = rtc.AudioStream(
                track, capacity=250, sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=20
            )
        except AssertionError:  # of the SDK, about a track that has gone in this very moment
            return
        try:
            async for event in stream:
                now = time.monotonic()
                samples = bytes(event.frame.data)
                ears.timeline.add(now, samples)
                loudness = np.frombuffer(samples, np.int16).astype(np.float32)
                if np.sqrt(np.mean(loudness**2)) >= SILENCE * 32768:
                    ears.loud_at = now
                    self._notify()
        finally:
            await stream.aclose()

    async def _watch(self, track: rtc.Track, identity: str) -> None:
        try:
            stream = rtc.VideoStream(track, capacity=32, format=rtc.VideoBufferType.I420)
        except AssertionError:  # as above
            return
        limit = round(self._max_seconds * _MAX_FPS)
        frames = self._eyes.setdefault(identity, deque(maxlen=limit))
        try:
            async for event in stream:
                frame = event.frame
                if min(frame.width, frame.height) < _SMALLEST_PICTURE:
                    continue
                now = time.monotonic()
                frames.append(FrameSeen(now, frame.width, frame.height))
                if self._on_picture is not None and identity in self._chosen():
                    self._on_picture(now, frame)
                if self._recorder is not None and identity in self._chosen():
                    self._recorder.offer(now, frame)
                self._notify()
        finally:
            await stream.aclose()

    def _notify(self) -> None:
        """Wake everyone who waits for something to be heard or seen."""
        self._changed.set()
        self._changed = asyncio.Event()
