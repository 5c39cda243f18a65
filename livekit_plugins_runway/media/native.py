"""The way to the media that bypasses the queues of the LiveKit SDK.

The SDK passes each event to every room and every stream of the process, through the event loop. If
that loop is blocked for 50 ms, all media are delayed by as much, and the user's receiver keeps a
longer jitter buffer for ten seconds and more; and most of these deliveries are discarded by their
receivers (docs/relay.md). This module calls the native library as the SDK's own streams and sources
do (`audio_stream.py`, `audio_source.py`, `video_stream.py`), with private parts of the SDK. They
are used nowhere else, and this module is imported by `ways.py` only, when this way was chosen.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from livekit import rtc
from livekit.rtc._ffi_client import FfiClient, FfiHandle, FfiQueue
from livekit.rtc._proto import audio_frame_pb2, ffi_pb2, video_frame_pb2

from ..playout.audio import BYTES_PER_SAMPLE, PACKET, SAMPLE_RATE
from .ways import Guarded, MediaWay, Picture, ended

_NOBODY = 1 << 62
"""The async id of requests of `Sender.send()`, whose answers are not awaited. The SDK counts its
own ids from 1.
"""

_REQUESTS = {
    "capture_audio_frame": ("source_handle", "request_async_id", "buffer"),
    "new_audio_stream": ("track_handle", "type", "sample_rate", "num_channels", "frame_size_ms"),
    "new_video_stream": ("track_handle", "type", "normalize_stride"),
}
_EVENTS = {
    "capture_audio_frame": ("async_id",),
    "audio_stream_event": ("stream_handle", "frame_received", "eos"),
    "video_stream_event": ("stream_handle", "frame_received", "eos"),
}


def missing() -> list[str]:
    """The private parts that this module uses, besides its imports, and that the installed SDK
    lacks. Loads the native library.
    """
    client = FfiClient.instance
    attributes = [(client, "_queue"), (client, "_ffi_lib")]
    attributes += [(client.queue, name) for name in ("_lock", "_subscribers", "put")]
    lacking = [f"{type(who).__name__}.{name}" for who, name in attributes if not hasattr(who, name)]
    for message, wanted in ((ffi_pb2.FfiRequest, _REQUESTS), (ffi_pb2.FfiEvent, _EVENTS)):
        known = message.DESCRIPTOR.fields_by_name
        for kind, names in wanted.items():
            part = known[kind].message_type if kind in known else None
            there = part.fields_by_name if part is not None else ()
            lacking += [f"{kind}.{name}" for name in names if name not in there]
    return lacking


class _Exchange(FfiQueue[ffi_pb2.FfiEvent]):
    """Replaces the SDK's process-wide queue of events while it is in use. Events of this module's
    streams are handled at once, on the SDK's thread in which they arrive; all others are forwarded
    to the former queue.

    It shares that queue's lock and list of subscribers. So code that still holds either of the two
    during the exchange reaches all subscribers, and subscriptions to either stay valid.

    `_users` and the client's queue are written under that lock, from any thread. `_streams` is
    written by the opener, under `_opening`, and by the SDK's thread that reports a stream's end.
    """

    def __init__(self, former: FfiQueue[ffi_pb2.FfiEvent]) -> None:
        self._former = former
        self._lock = former._lock
        self._subscribers = former._subscribers
        self._users = 0
        self._streams: dict[int, Callable[[Any], None]] = {}
        self._opening = threading.Lock()
        self._known = threading.local()
        """Has `thread` in threads whose state is kept; each thread writes its own."""

    @classmethod
    def enter(cls) -> _Exchange:
        """Put it in place, or return the one that is; from any thread. Each `enter()` needs one
        `leave()`.
        """
        client = FfiClient.instance
        with client.queue._lock:
            exchange = client.queue
            if not isinstance(exchange, cls):
                exchange = client._queue = cls(exchange)
            exchange._users += 1
        return exchange

    def leave(self) -> None:
        """The last `leave()` restores the former queue, unless other code has replaced this one
        meanwhile.
        """
        client = FfiClient.instance
        with self._lock:
            self._users -= 1
            if self._users == 0 and client.queue is self:
                client._queue = self._former

    def open(self, request: ffi_pb2.FfiRequest, on_event: Callable[[Any], None]) -> FfiHandle:
        """Open a stream. `on_event` gets all its events, from the first one on, and must not
        raise.
        """
        with self._opening:
            answer: Any = FfiClient.instance.request(request)
            opened = getattr(answer, answer.WhichOneof("message"))
            handle = FfiHandle(opened.stream.handle.id)
            self._streams[handle.handle] = on_event
        return handle

    def forget(self, stream: int) -> None:
        """Forget a stream that has ended."""
        self._streams.pop(stream, None)

    def put(self, item: ffi_pb2.FfiEvent) -> None:
        """Called in any thread of the SDK."""
        kind = item.WhichOneof("message")
        if kind == "audio_stream_event" or kind == "video_stream_event":
            event = getattr(item, kind)
            on_event = self._streams.get(event.stream_handle)
            if on_event is None:
                with self._opening:  # it may be the first event of a stream that is being opened
                    on_event = self._streams.get(event.stream_handle)
            if on_event is not None:
                self._keep_thread_state()
                on_event(event)
                return
        elif kind == "capture_audio_frame" and item.capture_audio_frame.async_id == _NOBODY:
            self._keep_thread_state()
            return
        self._former.put(item)

    def _keep_thread_state(self) -> None:
        """Make Python keep its thread state for this thread, which the SDK created. Otherwise it
        makes and frees one, with its memory mappings, in each callback: with two calls on two
        cores, kernel time rose from 1.6 s to 2.1 to 2.4 s for each, and speech stalled
        (docs/relay.md). The state is not released; such threads are few, and live as long as the
        process.
        """
        if not hasattr(self._known, "thread"):
            self._known.thread = True
            ctypes.pythonapi.PyGILState_Ensure()


class Sender:
    """A `ways.Sender` that calls the native library in the sender's thread.

    `_closed` is written by the event loop's thread. Sound that another thread sends at that moment
    may still go out. Its answer is ignored, even if it comes when the SDK's queue was restored.
    """

    def __init__(self, source: rtc.AudioSource) -> None:
        self._source = source
        self._exchange = _Exchange.enter()
        self._closed = False

    def send(self, pcm: bytes) -> None:
        handle = self._source._ffi_handle
        if self._closed or handle.disposed:
            return
        request = ffi_pb2.FfiRequest()
        capture = request.capture_audio_frame
        capture.source_handle = handle.handle
        capture.request_async_id = _NOBODY
        capture.buffer.data_ptr = ctypes.cast(ctypes.c_char_p(pcm), ctypes.c_void_p).value or 0
        capture.buffer.num_channels = 1
        capture.buffer.sample_rate = SAMPLE_RATE
        capture.buffer.samples_per_channel = len(pcm) // BYTES_PER_SAMPLE
        _ask(request)  # the library has its own copy of the sound when this returns

    def clear(self) -> None:
        """Nothing to do: nothing is queued here."""

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._exchange.leave()


def _ask(request: ffi_pb2.FfiRequest) -> None:
    """Make a request whose answer is not needed."""
    library, data = FfiClient.instance._ffi_lib, request.SerializeToString()
    answer, size = ctypes.POINTER(ctypes.c_ubyte)(), ctypes.c_size_t()
    there = ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_ubyte))
    _drop(library.livekit_ffi_request(there, len(data), ctypes.byref(answer), ctypes.byref(size)))


def _drop(handle: int) -> None:
    FfiClient.instance._ffi_lib.livekit_ffi_drop_handle(handle)


class _Stream:
    """A stream of the native library. Its events come one after the other, in threads of the SDK;
    `ended` is set in the event loop.

    Args:
        request: the request that opens it.
        on_frame: called with each `frame_received` of its events, in a thread of the SDK.
        on_end: called in the event loop when it has ended.
    """

    def __init__(
        self,
        request: ffi_pb2.FfiRequest,
        on_frame: Callable[[Any], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_frame = on_frame
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self._exchange = _Exchange.enter()
        try:
            self._handle = self._exchange.open(request, Guarded(self._on_event))
        except BaseException:
            self._exchange.leave()
            raise

    def _on_event(self, event: Any) -> None:
        if event.HasField("frame_received"):
            self._on_frame(event.frame_received)
            return
        self._exchange.forget(event.stream_handle)
        self._exchange.leave()
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.ended.set()
        self._on_end()

    async def aclose(self) -> None:
        """Idempotent. Await it before the room is left: the library holds the track until it
        reports the stream's end.
        """
        self._handle.dispose()
        await ended(self.ended.wait())


class VoiceTap:
    """A `ways.VoiceTap` whose callback is called in a thread of the SDK, as sound leaves the jitter
    buffer. The callback delays all events of the SDK.

    `_closed` is written by the event loop's thread and read by that of the SDK.
    """

    def __init__(self, track: rtc.RemoteAudioTrack, on_sound: Callable[[bytes], None]) -> None:
        self._on_sound = on_sound
        self._closed = False
        request = ffi_pb2.FfiRequest()
        stream = request.new_audio_stream
        stream.track_handle = track._ffi_handle.handle
        stream.type = audio_frame_pb2.AudioStreamType.AUDIO_STREAM_NATIVE
        stream.sample_rate = SAMPLE_RATE
        stream.num_channels = 1
        stream.queue_size_frames = 0
        stream.frame_size_ms = 1000 * PACKET // SAMPLE_RATE
        self._stream = _Stream(request, self._on_frame)

    def _on_frame(self, received: audio_frame_pb2.AudioFrameReceived) -> None:
        frame = received.frame
        size = frame.info.samples_per_channel * BYTES_PER_SAMPLE
        pcm = ctypes.string_at(frame.info.data_ptr, size)
        _drop(frame.handle.id)
        if size == PACKET * BYTES_PER_SAMPLE and not self._closed:
            self._on_sound(pcm)

    async def wait_until_ended(self) -> None:
        await self._stream.ended.wait()

    async def aclose(self) -> None:
        self._closed = True
        await self._stream.aclose()


class _BorrowedFrame(rtc.VideoFrame):
    """A picture in the native library's memory; nothing is copied. Valid as long as this object is
    held.
    """

    def __init__(self, buffer: video_frame_pb2.OwnedVideoBuffer) -> None:
        info = buffer.info
        self._owner = FfiHandle(buffer.handle.id)  # freed when it is garbage-collected
        size = sum(component.size for component in info.components)
        there = (ctypes.c_uint8 * size).from_address(info.data_ptr)
        super().__init__(info.width, info.height, info.type, memoryview(there).cast("B"))


class PictureTap:
    """A `ways.PictureTap` of pictures that are not copied.

    `_pictures` is filled by a thread of the SDK and emptied by the event loop's.
    """

    def __init__(self, track: rtc.RemoteVideoTrack, capacity: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._pictures: deque[Picture] = deque(maxlen=capacity)
        self._more = asyncio.Event()
        request = ffi_pb2.FfiRequest()
        stream = request.new_video_stream
        stream.track_handle = track._ffi_handle.handle
        stream.type = video_frame_pb2.VideoStreamType.VIDEO_STREAM_NATIVE
        stream.normalize_stride = True
        self._stream = _Stream(request, self._on_frame, self._more.set)

    def _on_frame(self, received: video_frame_pb2.VideoFrameReceived) -> None:
        self._pictures.append(Picture(_BorrowedFrame(received.buffer), received.timestamp_us))
        self._loop.call_soon_threadsafe(self._more.set)

    def __aiter__(self) -> PictureTap:
        return self

    async def __anext__(self) -> Picture:
        while not self._pictures:
            if self._stream.ended.is_set():
                raise StopAsyncIteration
            self._more.clear()
            await self._more.wait()
        return self._pictures.popleft()

    async def aclose(self) -> None:
        await self._stream.aclose()


WAY = MediaWay("native", Sender, VoiceTap, PictureTap)
