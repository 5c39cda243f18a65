"""The ways in which speech reaches the worker: byte streams, or a microphone track."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import numpy as np
from livekit import rtc

from ...log import logger
from .performance import SAMPLE_RATE, HeardSegment, Performance
from .speech import Ear, EchoVoice, Pcm, SegmentVoice, answer_tones

_TOPIC = "lk.audio_stream"
_IDLE_SECONDS = 10
"""A stream without a chunk for so long has lost its trailer; one second when a newer one waits."""

IsSpeaker = Callable[[rtc.RemoteParticipant | str | None], bool]


class ByteStreams:
    """Takes one byte stream per segment, in order: int16 PCM with the attributes `sample_rate` (Hz)
    and `num_channels`, as fast as it comes."""

    def __init__(
        self,
        voice: SegmentVoice,
        is_speaker: IsSpeaker,
        listens: Callable[[], bool] = lambda: True,
    ) -> None:
        """What comes while it does not listen is dropped."""
        self._voice = voice
        self._is_speaker = is_speaker
        self._listens = listens
        self._streams: asyncio.Queue[tuple[HeardSegment, rtc.ByteStreamReader]] = asyncio.Queue()

    def attend(self, room: rtc.Room) -> None:
        """Be ready for streams; call when connected."""
        clock = asyncio.get_running_loop().time

        def on_stream(reader: rtc.ByteStreamReader, sender: str) -> None:
            if self._is_speaker(sender):
                self._streams.put_nowait((self._voice.open(clock()), reader))
            else:
                reader.close()

        room.register_byte_stream_handler(_TOPIC, on_stream)

    def clear(self) -> None:
        self._voice.clear()

    async def run(self) -> None:
        """Receive until cancelled."""
        try:
            while True:
                segment, reader = await self._streams.get()
                try:
                    await self._receive(segment, reader)
                finally:
                    self._voice.close(segment)
                    reader.close()
        finally:
            while not self._streams.empty():
                self._streams.get_nowait()[1].close()

    async def _receive(self, segment: HeardSegment, reader: rtc.ByteStreamReader) -> None:
        clock = asyncio.get_running_loop().time
        attributes = reader.info.attributes or {}
        try:
            converter = _Converter(int(attributes["sample_rate"]), int(attributes["num_channels"]))
        except (KeyError, ValueError):
            logger.warning("simulated worker refused a byte stream without usable attributes")
            return
        async for chunk in self._chunks(reader):
            samples = converter.push(chunk)
            if self._listens():
                self._voice.feed(segment, samples, clock())
        self._voice.feed(segment, converter.flush(), clock())

    async def _chunks(self, reader: rtc.ByteStreamReader) -> AsyncIterator[bytes]:
        """Until the trailer, or until it is clear that it was lost."""
        idle = 0
        while True:
            try:
                async with asyncio.timeout(1.0):
                    chunk = await anext(reader)
            except TimeoutError:
                idle += 1
                if idle >= _IDLE_SECONDS or not self._streams.empty():
                    return
                continue
            except (StopAsyncIteration, rtc.StreamError):
                return
            idle = 0
            yield chunk


class _Converter:
    """Any rate and number of channels, in chunks cut anywhere, to mono at `SAMPLE_RATE`."""

    def __init__(self, rate: int, channels: int) -> None:
        if rate < 8000 or channels < 1:
            raise ValueError("no such audio")
        self._channels = channels
        self._rest = b""
        self._resampler = (
            None
            if rate == SAMPLE_RATE
            else rtc.AudioResampler(rate, SAMPLE_RATE, quality=rtc.AudioResamplerQuality.MEDIUM)
        )

    def push(self, chunk: bytes) -> Pcm:
        data = self._rest + chunk
        whole = len(data) - len(data) % (2 * self._channels)
        self._rest = data[whole:]
        samples = np.frombuffer(data[:whole], np.int16)
        if self._channels > 1:
            samples = samples.reshape(-1, self._channels).mean(axis=1).astype(np.int16)
        if self._resampler is None:
            return samples
        return _joined(self._resampler.push(bytearray(samples.tobytes())))

    def flush(self) -> Pcm:
        return _joined([] if self._resampler is None else self._resampler.flush())


def _joined(frames: list[rtc.AudioFrame]) -> Pcm:
    return np.frombuffer(b"".join(bytes(frame.data) for frame in frames), np.int16)


class Answer:
    """Words of the avatar's own: int16 mono PCM at 48 kHz; `None`: tones."""

    def __init__(self, voice: SegmentVoice, words: bytes | None) -> None:
        self._voice = voice
        self._words = answer_tones() if words is None else np.frombuffer(words, np.int16)

    def say(self, now: float) -> None:
        segment = self._voice.open(now)
        self._voice.feed(segment, self._words, now)
        self._voice.close(segment)


class Deaf:
    """Takes no speech."""

    def attend(self, room: rtc.Room) -> None: ...

    def clear(self) -> None: ...

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.get_running_loop().create_future()


class Microphone:
    """Hears the speaker's microphone track, and either speaks it (`echo`) or, when the speaker
    pauses, answers in a voice of its own (`answer`)."""

    def __init__(
        self,
        pause: float,
        performance: Performance,
        is_speaker: IsSpeaker,
        *,
        echo: EchoVoice | None = None,
        answer: Answer | None = None,
    ) -> None:
        self._is_speaker = is_speaker
        self._echo = echo
        self._answer = answer
        self._ear = Ear(pause, performance)
        self._track: asyncio.Queue[rtc.Track] = asyncio.Queue()
        self._gone: set[rtc.Track] = set()
        """Tracks that are not there any more, of those that `run()` has still to do with."""

    def attend(self, room: rtc.Room) -> None:
        """Subscribe to the microphone, now or when it is published; call when connected."""
        room.on("track_published", self._on_published)
        room.on("track_subscribed", self._on_subscribed)
        room.on("track_unsubscribed", lambda track, *_: self._gone.add(track))
        for participant in room.remote_participants.values():
            for publication in participant.track_publications.values():
                self._on_published(publication, participant)

    def _on_published(
        self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        microphone = publication.source == rtc.TrackSource.SOURCE_MICROPHONE
        if microphone and self._is_speaker(participant):
            publication.set_subscribed(True)

    def _on_subscribed(
        self, track: rtc.Track, _: rtc.RemoteTrackPublication, __: rtc.RemoteParticipant
    ) -> None:
        self._track.put_nowait(track)

    def clear(self) -> None:
        if self._echo is not None:
            self._echo.clear()

    async def run(self) -> None:
        """Listen until cancelled; a newer track takes over when the older one ends."""
        while True:
            track = await self._track.get()
            stream = rtc.AudioStream(track, capacity=100, sample_rate=SAMPLE_RATE, frame_size_ms=20)
            try:
                async with contextlib.aclosing(stream):
                    async for event in stream:
                        if (
                            track in self._gone
                        ):  # it may be the sound of another track (livekit 1.1.21)
                            break
                        self._hear(np.frombuffer(event.frame.data, np.int16))
            finally:
                self._gone.discard(track)
                self.clear()

    def _hear(self, samples: Pcm) -> None:
        now = asyncio.get_running_loop().time()
        paused = self._ear.listen(samples, now)
        if self._echo is not None:
            self._echo.feed(samples, now)
        if self._answer is not None and paused:
            self._answer.say(now)
