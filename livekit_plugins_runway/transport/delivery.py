"""The two ways to send speech to an avatar worker. Both take int16 mono PCM at 48 kHz.

Protocol of the data stream: livekit-agents 1.8.9 `voice/avatar/_datastream_io.py`. Which of the two
Runway's own rooms understand could not be verified without an account; see `open_delivery`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from livekit import rtc
from livekit.agents import utils
from livekit.rtc.participant import UnpublishTrackError

from .._common.tasks import cancel_and_wait
from ..log import logger
from ..media.ways import MediaWay, choose
from ..playout.audio import BYTES_PER_SAMPLE, HOP, SAMPLE_RATE
from ..playout.resampler import Resampler
from .worker_protocol import AUDIO_STREAM_TOPIC, clear_buffer

STREAM_RATE = 16_000
"""Hz on the wire of the data stream, as the official plugin (livekit-plugins-runway 1.8.9)."""
_SUBSCRIBE_TIMEOUT = 3.0
_SETTLE = 0.25
_PUBLISH_TIMEOUT = 10.0
_UNPUBLISH_TIMEOUT = 2.0
_END_TIMEOUT = 1.0
_QUEUE_MS = 500  # more than is ever sent ahead
_QUEUE_SLACK = 0.05
"""Seconds by which the source's own clock may be behind this one."""


class DataStreamDelivery:
    """Speech as byte streams, one per segment.

    A stream may run ahead of real time, so that the avatar does not run dry when this process is
    busy; only a little, so that a worker that ignores `lk.clear_buffer` has little left to say.
    """

    lead = 2.0
    batch = SAMPLE_RATE // 5  # 0.2 s

    def __init__(self, room: rtc.Room, worker: str, on_failed: Callable[[], None]) -> None:
        """`on_failed` is called once, when no more speech can be sent; not after `aclose()`."""
        self._room = room
        self._worker = worker
        self._on_failed = on_failed
        self._waiting: deque[bytes | None] = deque()  # None: the end of a segment
        self._more = asyncio.Event()
        self._stream: asyncio.Task[rtc.ByteStreamWriter] | None = None
        """The task that opens the stream of the present segment; its result is the stream. It is
        not cancelled with its waiter: a stream whose opening is given up may be open at the worker,
        and would never end.
        """
        self._resampler = Resampler(SAMPLE_RATE, STREAM_RATE)
        self._task = asyncio.create_task(self._run(), name="runway_speech_stream")

    @property
    def room(self) -> int:
        """On a slow connection at most one lead of speech is queued."""
        waiting = sum(len(piece) for piece in self._waiting if piece is not None)
        samples = waiting // BYTES_PER_SAMPLE * SAMPLE_RATE // STREAM_RATE
        return max(0, int(self.lead * SAMPLE_RATE) - samples)

    def send(self, pcm: bytes) -> None:
        self._waiting.append(self._resampler.push(pcm))
        self._more.set()

    def finish(self) -> None:
        if tail := self._resampler.flush():
            self._waiting.append(tail)
        self._end_segment()

    async def clear(self) -> bool:
        self._waiting.clear()
        self._end_segment()
        return await clear_buffer(self._room, self._worker)

    def _end_segment(self) -> None:
        self._waiting.append(None)
        self._more.set()
        self._resampler = Resampler(SAMPLE_RATE, STREAM_RATE)

    async def _run(self) -> None:
        try:
            while True:
                self._more.clear()
                while self._waiting:
                    if self._waiting[0] is None:
                        self._waiting.popleft()
                        await self._end_stream()
                    else:
                        await self._write_on()
                await self._more.wait()
        except Exception as error:  # noqa: BLE001  whatever the error is, no more speech is sent
            logger.warning("the speech stream failed", extra={"error": type(error).__name__})
            self._on_failed()

    async def _opened(self) -> rtc.ByteStreamWriter:
        if self._stream is None:
            opening = self._room.local_participant.stream_bytes(
                name=utils.shortuuid("AUDIO_"),
                topic=AUDIO_STREAM_TOPIC,
                attributes={"sample_rate": str(STREAM_RATE), "num_channels": "1"},
                destination_identities=[self._worker],
            )
            self._stream = asyncio.create_task(opening, name="runway_open_stream")
        return await asyncio.shield(self._stream)

    async def _write_on(self) -> None:
        """Write everything queued of a segment at once: each write is awaited, and more is queued
        meanwhile.
        """
        writer = await self._opened()
        pieces = []
        while self._waiting and (piece := self._waiting[0]) is not None:
            pieces.append(piece)
            self._waiting.popleft()
        if data := b"".join(pieces):
            await writer.write(data)

    async def _end_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await (await stream).aclose()

    async def aclose(self) -> None:
        """Send no more, and end the stream that is open or being opened. Takes 1 s at most, because
        a lost room may not answer. Idempotent.
        """
        await cancel_and_wait(self._task)
        try:
            async with asyncio.timeout(_END_TIMEOUT):
                await self._end_stream()
        except Exception as error:  # noqa: BLE001  the SDK raises nothing narrower
            logger.debug("the last stream was not ended", extra={"error": type(error).__name__})


class TrackDelivery:
    """Speech as a microphone track, in real time, with silence between segments.

    A source with a queue keeps the pace by itself, even if this process is busy, and sends silence
    while the queue is empty (livekit 1.1.21).

    Args:
        way: the way to the SDK's media; None: that of `ways.choose()`.
    """

    lead = 0.3
    batch = SAMPLE_RATE // 10  # 0.1 s

    def __init__(self, room: rtc.Room, way: MediaWay | None = None) -> None:
        self._room = room
        way = way or choose()
        self._source = way.source(_QUEUE_MS)
        self._sender = way.sender(self._source)
        self._publication: rtc.LocalTrackPublication | None = None
        self._loose = 0  # samples beyond the last whole 10 ms
        self._loop = asyncio.get_running_loop()
        self._played_by = self._loop.time()
        """Loop time at which the source's queue is empty."""

    async def publish(self) -> None:
        """Raises `livekit.rtc.participant.PublishTrackError` if the server or the token refuses,
        and `TimeoutError` if no answer comes."""
        track = rtc.LocalAudioTrack.create_audio_track("agent-voice", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)
        async with asyncio.timeout(_PUBLISH_TIMEOUT):
            self._publication = await self._room.local_participant.publish_track(track, options)

    async def wait_until_heard(self) -> bool:
        """Wait until the worker listens, so that it does not miss the first word. Bounded.

        Returns:
            False if it has not subscribed in time.
        """
        assert self._publication is not None
        subscribed = True
        try:
            async with asyncio.timeout(_SUBSCRIBE_TIMEOUT):
                await self._publication.wait_for_subscription()
        except TimeoutError:
            subscribed = False
            logger.warning("the avatar worker has not subscribed to the agent's voice")
        # A subscription comes before the decoder runs; send silence meanwhile.
        await asyncio.sleep(_SETTLE)
        return subscribed

    @property
    def room(self) -> int:
        """Room in the source's queue, which is emptied in real time."""
        queued = max(0.0, self._played_by - self._loop.time())
        return max(0, int((_QUEUE_MS / 1000 - _QUEUE_SLACK - queued) * SAMPLE_RATE))

    def send(self, pcm: bytes) -> None:
        self._sender.send(pcm)
        samples = len(pcm) // BYTES_PER_SAMPLE
        self._played_by = max(self._played_by, self._loop.time()) + samples / SAMPLE_RATE
        self._loose = (self._loose + samples) % HOP

    def finish(self) -> None:
        """On a track, only silence marks the end of a segment. The source holds back less than 10
        ms until more comes.
        """
        if self._loose:
            self.send(bytes((HOP - self._loose) * BYTES_PER_SAMPLE))

    async def clear(self) -> bool:
        self._sender.clear()
        self._source.clear_queue()
        self._loose = 0
        self._played_by = self._loop.time()
        return False

    async def aclose(self) -> None:
        try:
            await self._sender.aclose()
        finally:
            await self._source.aclose()

    async def withdraw(self) -> None:
        """Stop, and unpublish the track. At most 2 s."""
        await self.aclose()
        assert self._publication is not None
        # Never answered if the room is lost meanwhile (livekit 1.1.21). If it is refused, a silent
        # track stays, which does no harm.
        with contextlib.suppress(TimeoutError, UnpublishTrackError):
            async with asyncio.timeout(_UNPUBLISH_TIMEOUT):
                await self._room.local_participant.unpublish_track(self._publication.sid)
