"""The way to the media with the SDK's public streams and sources. Sound has an event loop of its
own, which runs on while the agent's is busy; pictures use the agent's.
"""

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

_AUDIO_CAPACITY = 300  # 3 s; reached only if the event loop stalls
_MOST_WAITING = 100
"""Pieces of sound that may wait for the event loop: 1 s of a voice. Older ones are dropped, because
playing them would delay the voice for the rest of the call.
"""
_MOST_SILENCE = 10
"""Silence is dropped if more than this many pieces wait: late silence in a burst would make the
user's receiver buffer the following words for longer.
"""
_MOST_UNDER_WAY = 4
"""Pieces that may wait for the SDK's answer. The SDK passes every event to each waiter, so more
waiters make answers later.
"""
_END_AFTER = 0.5
"""Seconds within which the end of a picture track is noticed."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_lock = threading.Lock()
_loop: tuple[int, asyncio.AbstractEventLoop] | None = None
"""The process id and the loop; None before the first use. Written by `voice_loop()` under the lock.
It runs until the process ends: it costs nothing while idle, and sources that were made for it may
still exist.
"""


class VoiceLoop(asyncio.SelectorEventLoop):
    """An event loop that several calls from other threads wake up only once. A wake-up is a system
    call, which releases the interpreter lock; the SDK makes one for each event and each waiter, and
    everything else waits meanwhile (livekit 1.1.21).
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: deque[tuple[asyncio.Handle, Callable[[], object]]] = deque()
        """Filled by any thread, emptied by the loop's."""
        self._is_woken = False
        """Set by any thread after it has appended; cleared by the loop's before it empties the
        deque.
        """

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
    """The loop of this process; it runs when this returns. From any thread."""
    global _loop
    with _lock:
        if (
            _loop is None or _loop[0] != os.getpid()
        ):  # a forked child has no thread that runs the loop
            loop = VoiceLoop()
            threading.Thread(target=loop.run_forever, name="runway_voice", daemon=True).start()
            _loop = os.getpid(), loop
        return _loop[1]


async def in_loop(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Run a coroutine in that loop, which may be the current one."""
    if loop is asyncio.get_running_loop():
        return await coroutine
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))


class Sender:
    """A `ways.Sender` by `capture_frame`, each call in a task of its own. If each answer was
    awaited before the next call, sending would be slower than real time on a busy event loop.

    `_waiting` is filled by any thread and emptied by the loop's. `_closed` and `_era` are written
    by the callers of `aclose()` and `clear()`, and read in the loop. `_sending` belongs to the
    loop's thread: the running tasks, which call the SDK in the order of their creation.

    Args:
        loop: the loop that the source was made for; None: the running loop.
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
        """Incremented by `clear()`: pieces of an earlier era are not sent any more."""
        self.dropped = 0
        """Number of pieces of sound, not silence, that were dropped because they were late.
        Incremented by any thread.
        """

    def send(self, pcm: bytes) -> None:
        late = len(self._waiting) >= _MOST_SILENCE and not pcm.strip(b"\0")
        if late or self._closed:
            return
        if len(self._waiting) == _MOST_WAITING:
            self.dropped += 1
            if self.dropped == 1:
                logger.warning(
                    "the event loop was blocked too long, and sound was dropped; "
                    "further drops are not logged"
                )
        self._waiting.append(pcm)
        with contextlib.suppress(
            RuntimeError
        ):  # the loop was closed before, so nothing is to be sent
            self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        while len(self._sending) < _MOST_UNDER_WAY and not self._closed:
            era = self._era
            try:
                pcm = self._waiting.popleft()
            except IndexError:  # also if another thread has cleared it meanwhile
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
        hops: number of 10 ms hops per frame.
    """
    stream = _audio_stream(track, hops)
    try:
        async with aclosing(_pieces(stream, hops)) as pieces:
            async for pcm in pieces:
                yield pcm
    finally:
        await ended(stream.aclose())


class VoiceTap:
    """A `ways.VoiceTap`; its callback is called in the thread of the voice loop, which owns
    everything except `_closed`, written by `aclose()`.
    """

    def __init__(self, track: rtc.RemoteAudioTrack, on_sound: Callable[[bytes], None]) -> None:
        self._stream: rtc.AudioStream | None = None
        """Set when the loop has made it."""
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
        await asyncio.wait([over])  # a cancelled wait does not end the listening
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
    """Retrieve its exception: waiting callers get it too, but there may be none."""
    if not over.cancelled():
        over.exception()


class PictureTap:
    """A `ways.PictureTap` of copied pictures. Used by the event loop's thread only."""

    def __init__(self, track: rtc.RemoteVideoTrack, capacity: int) -> None:
        self._stream = rtc.VideoStream(track, capacity=capacity)

    def __aiter__(self) -> PictureTap:
        return self

    async def __anext__(self) -> Picture:
        while True:
            # The SDK's stream reports its end to later calls, but does not wake up a waiting one
            # (livekit 1.1.21, 1.2.1).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_AFTER):
                    event = await anext(self._stream)
                return Picture(event.frame, event.timestamp_us)

    async def aclose(self) -> None:
        await ended(self._stream.aclose())


WAY = MediaWay("public", _sender, VoiceTap, PictureTap, _source)
