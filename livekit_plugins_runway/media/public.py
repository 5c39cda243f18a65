"""The way to the media by the SDK's public streams and sources: sound in an event loop of
its own, which goes on while the agent's is busy; pictures in the agent's."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

from livekit import rtc

from ..log import logger
from ..playout.audio import BYTES_PER_SAMPLE, HOP, PACKET, SAMPLE_RATE
from .ways import Guarded, MediaWay, Picture, ended

_AUDIO_CAPACITY = 300  # 3 s: only a stalled event loop ever gets near it
_MOST_WAITING = 100
"""Pieces of sound that wait for the event loop: 1 s of a voice. Older ones are dropped, for who
hears them would be late for the rest of the call."""
_MOST_SILENCE = 10
"""So many wait before silence is dropped: late, and in a burst, it would only teach the user's
receiver to keep more of the words that follow."""
_MOST_UNDER_WAY = 4
"""Pieces for which the SDK's answer has not come yet. It gives every event to each of them: the
more there are, the later the answers are."""
_END_AFTER = 0.5
"""Seconds after which the end of a picture track is noticed at the latest."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_lock = threading.Lock()
_loop: tuple[int, asyncio.AbstractEventLoop] | None = None
"""The process that it runs in, and the loop; None before it is asked for. Written by `voice_loop()`
under the lock. It runs until the process ends: idle it costs nothing, and who would stop it would
have to know that no source is left that was made for it."""


class VoiceLoop(asyncio.SelectorEventLoop):
    """Is woken once for however many calls come from other threads in a row. A wake-up is a system
    call, for which the interpreter lock is given away; the SDK makes one for each event and each
    that waits for one, and keeps all others waiting meanwhile (livekit 1.1.21)."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: deque[tuple[asyncio.Handle, Callable[[], object]]] = deque()
        """Filled by any thread, emptied by the loop's."""
        self._is_woken = False
        """Set by any thread, after it has filled; reset by the loop's, before it empties."""

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._calls.append((handle, partial(self.call_soon, callback, *args, context=context)))
        if not self._is_woken:
            self._is_woken = True
            super().call_soon_threadsafe(self._make_calls)
        return handle

    def _make_calls(self) -> None:
        self._is_woken = False
        while self._calls:
            handle, call = self._calls.popleft()
            if not handle.cancelled():
                call()


def voice_loop() -> asyncio.AbstractEventLoop:
    """The loop of this process, which runs once this has returned. From any thread."""
    global _loop
    with _lock:
        if _loop is None or _loop[0] != os.getpid():  # a fork has no threads but its own
            loop = VoiceLoop()
            threading.Thread(target=loop.run_forever, name="runway_voice", daemon=True).start()
            _loop = os.getpid(), loop
        return _loop[1]


async def in_loop(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Run it in that loop, which may be the one that runs here."""
    if loop is asyncio.get_running_loop():
        return await coroutine
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))


class Sender:
    """A `ways.Sender` by `capture_frame`, each call in a task of its own: whoever waited for the
    answer to one before the next would be slower than sound where the event loop is busy.

    `_waiting` is filled by any thread and emptied by the loop's. `_closed` and `_era` are written
    by whoever closes and clears, and read in the loop. `_sending` belongs to the loop's thread; it
    has the tasks under way, which the SDK is asked by in the order of their making.

    Args:
        loop: the one that the source was made for; None: the one that runs.
    """

    def __init__(
        self, source: rtc.AudioSource, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self._source = source
        self._loop = loop or asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque(maxlen=_MOST_WAITING)
        self._sending: set[asyncio.Task[None]] = set()
        self._closed = False
        self._era = 0
        """Counts what was cleared: a piece of an earlier one is not sent any more."""
        self.dropped = 0
        """Pieces of sound, not silence, that were too late to be heard. Any thread counts."""

    def send(self, pcm: bytes) -> None:
        late = len(self._waiting) >= _MOST_SILENCE and not pcm.strip(b"\0")
        if late or self._closed:
            return
        if len(self._waiting) == _MOST_WAITING:
            self.dropped += 1
            if self.dropped == 1:
                logger.warning(
                    "the event loop was blocked for so long that sound was dropped; more of it is "
                    "counted, not logged"
                )
        self._waiting.append(pcm)
        with contextlib.suppress(RuntimeError):  # the loop was closed first: nobody listens now
            self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        while len(self._sending) < _MOST_UNDER_WAY and not self._closed:
            era = self._era
            try:
                pcm = self._waiting.popleft()
            except IndexError:  # also where another thread has cleared it meanwhile
                return
            task = self._loop.create_task(self._capture(pcm, era), name="runway_send")
            self._sending.add(task)
            task.add_done_callback(self._on_sent)

    def _on_sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._start()

    async def _capture(self, pcm: bytes, era: int) -> None:
        if era != self._era:
            return
        frame = rtc.AudioFrame(pcm, SAMPLE_RATE, 1, len(pcm) // BYTES_PER_SAMPLE)
        try:
            await self._source.capture_frame(frame)
        except Exception as error:  # noqa: BLE001  the SDK raises nothing narrower
            logger.debug("sound was not sent", extra={"error": str(error)})

    def clear(self) -> None:
        self._era += 1
        self._waiting.clear()

    async def aclose(self) -> None:
        self._closed = True
        self.clear()
        await in_loop(self._finish(), self._loop)

    async def _finish(self) -> None:
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)


def _source(queue_ms: int) -> rtc.AudioSource:
    return rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=queue_ms, loop=voice_loop())


def _sender(source: rtc.AudioSource) -> Sender:
    return Sender(source, voice_loop())


def _audio_stream(track: rtc.RemoteAudioTrack, hops: int) -> rtc.AudioStream:
    return rtc.AudioStream(
        track,
        capacity=_AUDIO_CAPACITY // hops,
        sample_rate=SAMPLE_RATE,
        num_channels=1,
        frame_size_ms=10 * hops,
    )


async def _pieces(stream: rtc.AudioStream, hops: int) -> AsyncGenerator[bytes, None]:
    async for event in stream:
        pcm = bytes(event.frame.data)
        if len(pcm) == hops * HOP * BYTES_PER_SAMPLE:
            yield pcm


async def sound(track: rtc.RemoteAudioTrack, hops: int) -> AsyncGenerator[bytes, None]:
    """The sound of a track, int16 mono PCM at 48 kHz, until the track ends.

    Args:
        hops: how many times 10 ms come at a time.
    """
    stream = _audio_stream(track, hops)
    try:
        async with aclosing(_pieces(stream, hops)) as pieces:
            async for pcm in pieces:
                yield pcm
    finally:
        await ended(stream.aclose())


class VoiceTap:
    """A `ways.VoiceTap`; its callback is called in the thread of the voice loop, which owns all but
    `_closed`, written by `aclose()`."""

    def __init__(self, track: rtc.RemoteAudioTrack, on_sound: Callable[[bytes], None]) -> None:
        self._stream: rtc.AudioStream | None = None
        """None until the loop has made it."""
        self._on_sound = Guarded(on_sound)
        self._closed = False
        self._loop = voice_loop()
        self._listening = asyncio.run_coroutine_threadsafe(self._listen(track), self._loop)

    async def _listen(self, track: rtc.RemoteAudioTrack) -> None:
        self._stream = _audio_stream(track, PACKET // HOP)
        async with aclosing(_pieces(self._stream, PACKET // HOP)) as pieces:
            async for pcm in pieces:
                if not self._closed:
                    self._on_sound(pcm)

    async def wait_until_ended(self) -> None:
        over = asyncio.wrap_future(self._listening)
        over.add_done_callback(_note)
        await asyncio.wait([over])  # who stops waiting does not end the listening
        if not over.cancelled():
            over.result()

    async def aclose(self) -> None:
        self._closed = True
        await ended(in_loop(self._finish(), self._loop))

    async def _finish(self) -> None:
        try:
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            self._listening.cancel()


def _note(over: asyncio.Future[None]) -> None:
    """Whoever waits is told what it has raised, and there may be nobody."""
    if not over.cancelled():
        over.exception()


class PictureTap:
    """A `ways.PictureTap`, of copies of the pictures. The event loop's thread owns all here."""

    def __init__(self, track: rtc.RemoteVideoTrack, capacity: int) -> None:
        self._stream = rtc.VideoStream(track, capacity=capacity)

    def __aiter__(self) -> PictureTap:
        return self

    async def __anext__(self) -> Picture:
        while True:
            # The SDK's stream says that it has ended to who asks after that, but does not wake up
            # who waits (livekit 1.1.21, 1.2.1).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_AFTER):
                    event = await anext(self._stream)
                return Picture(event.frame, event.timestamp_us)

    async def aclose(self) -> None:
        await ended(self._stream.aclose())


WAY = MediaWay("public", _sender, VoiceTap, PictureTap, _source)
