"""The way to the media past the queues of the LiveKit SDK.

Of each event the SDK tells every room and every stream of the process, through the event loop. What
blocks that loop for 50 ms delays all that passes it by as much, the user's receiver keeps a longer
jitter buffer for ten seconds and more, and most of the work is done for nobody (docs/relay.md).
What is here asks the native library as the SDK's own streams and sources do (`audio_stream.py`,
`audio_source.py`, `video_stream.py`), by parts of the SDK that are not public. They are used
nowhere else, and nothing imports this module but `ways.py`, when it has chosen it.
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
"""Who waits for the answer to `Sender.send()`; the SDK counts those who do wait from 1."""

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
    """What this module uses of the SDK, beyond what it imports, and does not find there. Loads the
    native library."""
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
    """The SDK's queue of events, in its place as long as somebody here uses it: what concerns this
    module goes straight to whom it concerns, in the thread of the SDK in which it arrives; all else
    goes to the queue that was there before.

    It has that queue's own lock and list of subscribers. So whichever of the two somebody still
    holds while they are exchanged, what is put there reaches everybody, and who subscribes there
    stays subscribed.

    `_users` and the client's queue are written under that lock, from any thread. `_streams` is
    written by the opener, under `_opening`, and by the SDK's thread that tells of a stream's end.
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
        """The one that is in place; from any thread. Each `enter()` needs one `leave()`."""
        client = FfiClient.instance
        with client.queue._lock:
            exchange = client.queue
            if not isinstance(exchange, cls):
                exchange = client._queue = cls(exchange)
            exchange._users += 1
        return exchange

    def leave(self) -> None:
        """The last one puts the former queue back, unless somebody else has put one in this one's
        place meanwhile."""
        client = FfiClient.instance
        with self._lock:
            self._users -= 1
            if self._users == 0 and client.queue is self:
                client._queue = self._former

    def open(self, request: ffi_pb2.FfiRequest, on_event: Callable[[Any], None]) -> FfiHandle:
        """Open a stream; each of its events goes to `on_event`, from the first one on, which must
        not raise."""
        with self._opening:
            answer: Any = FfiClient.instance.request(request)
            opened = getattr(answer, answer.WhichOneof("message"))
            handle = FfiHandle(opened.stream.handle.id)
            self._streams[handle.handle] = on_event
        return handle

    def forget(self, stream: int) -> None:
        """Of a stream that has ended."""
        self._streams.pop(stream, None)

    def put(self, item: ffi_pb2.FfiEvent) -> None:
        """In any thread of the SDK."""
        kind = item.WhichOneof("message")
        if kind == "audio_stream_event" or kind == "video_stream_event":
            event = getattr(item, kind)
            on_event = self._streams.get(event.stream_handle)
            if on_event is None:
                with self._opening:  # it may be the first of a stream that is opened right now
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
        """Let Python keep its state of this thread, which the SDK made. It would make and free one,
        with its memory mappings, in each of its calls: where two calls shared two cores, the kernel
        took 2.1 to 2.4 s for each instead of 1.6 s, and speech stalled (docs/relay.md). The state
        is not released; such threads are few, and last as long as the process."""
        if not hasattr(self._known, "thread"):
            self._known.thread = True
            ctypes.pythonapi.PyGILState_Ensure()


class Sender:
    """A `ways.Sender` that asks the native library in the thread of who sends.

    `_closed` is written by the event loop's thread. What another thread sends at that moment may
    still go out; the answer to it, should it come when the SDK's queue is back in its place, finds
    nobody who waits for it.
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
        """Nothing waits here."""

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._exchange.leave()


def _ask(request: ffi_pb2.FfiRequest) -> None:
    """Make a request whose answer says nothing that is wanted."""
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
        request: that opens it.
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
        """Idempotent. To be awaited before the room is left: the library still holds the track
        until it tells of the stream's end."""
        self._handle.dispose()
        await ended(self.ended.wait())


class VoiceTap:
    """A `ways.VoiceTap` whose callback is called in a thread of the SDK, as the sound comes out of
    the jitter buffer. It holds up all events of the SDK.

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
    """A picture where the native library keeps it: nothing is copied. Valid as long as it is
    held."""

    def __init__(self, buffer: video_frame_pb2.OwnedVideoBuffer) -> None:
        info = buffer.info
        self._owner = FfiHandle(buffer.handle.id)  # frees it when it is collected
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
