"""Sound and pictures to and from the LiveKit SDK, past its queues.

Of each event the SDK tells every room and every stream of the process, through the event loop. What
blocks that loop for 50 ms delays all that passes it by as much, the user's receiver keeps a longer
jitter buffer for ten seconds and more, and most of the work is done for nobody (docs/relay.md). The
functions here ask the native library as the SDK's own streams and sources do (livekit 1.1.21
`audio_stream.py`, `audio_source.py`, `video_stream.py`), by parts of the SDK that are not public.
They are used nowhere else; tests/media/test_native.py holds the SDK to them.
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

_NOBODY = 1 << 62
"""Who waits for the answer to `send()`; the SDK counts those who do wait from 1."""


class _Exchange(FfiQueue[ffi_pb2.FfiEvent]):
    """The SDK's queue of events, in its place: what concerns this module goes straight to whom it
    concerns, in the thread of the SDK in which it arrives; all else goes its usual way."""

    def __init__(self, former: FfiQueue[ffi_pb2.FfiEvent]) -> None:
        self._lock = former._lock
        self._subscribers = former._subscribers
        self._thread = threading.local()
        self._streams: dict[int, Callable[[Any], None]] = {}
        self._opening = threading.Lock()

    def open(self, request: ffi_pb2.FfiRequest, on_event: Callable[[Any], None]) -> FfiHandle:
        """Open a stream; each of its events goes to `on_event`, from the first one on."""
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
        kind = item.WhichOneof("message")
        if kind == "audio_stream_event" or kind == "video_stream_event":
            event = getattr(item, kind)
            on_event = self._streams.get(event.stream_handle)
            if on_event is None:
                with self._opening:  # it may be the first of a stream that is opened right now
                    on_event = self._streams.get(event.stream_handle)
            if on_event is not None:
                self._stay_known()
                on_event(event)
                return
        elif kind == "capture_audio_frame" and item.capture_audio_frame.async_id == _NOBODY:
            self._stay_known()
            return
        super().put(item)

    def _stay_known(self) -> None:
        """Let Python keep its record of this thread. It would make one for each call from a thread
        that it does not know, which takes as long as all that is done in such a call (60 us of 240
        for 10 ms sent). The SDK sends what concerns this module from threads that last."""
        if not hasattr(self._thread, "known"):
            self._thread.known = True
            ctypes.pythonapi.PyGILState_Ensure()  # never released


_installing = threading.Lock()


def _exchange() -> _Exchange:
    client = FfiClient.instance
    queue = client.queue
    if isinstance(queue, _Exchange):
        return queue
    with _installing:
        if not isinstance(client.queue, _Exchange):
            client._queue = _Exchange(client.queue)
        queue = client.queue
    assert isinstance(queue, _Exchange)
    return queue


def send(source: rtc.AudioSource, pcm: bytes) -> None:
    """Give a source int16 mono PCM at 48 kHz, from any thread, and do not wait until it was sent.

    Args:
        source: of `SAMPLE_RATE` and one channel. One without a queue takes 10 ms exactly; to one
            with a queue no more may be given than there is room for. Without effect once it was
            closed.
    """
    if source._ffi_handle.disposed:
        return
    _exchange()
    request = ffi_pb2.FfiRequest()
    capture = request.capture_audio_frame
    capture.source_handle = source._ffi_handle.handle
    capture.request_async_id = _NOBODY
    capture.buffer.data_ptr = ctypes.cast(ctypes.c_char_p(pcm), ctypes.c_void_p).value or 0
    capture.buffer.num_channels = 1
    capture.buffer.sample_rate = SAMPLE_RATE
    capture.buffer.samples_per_channel = len(pcm) // BYTES_PER_SAMPLE
    _ask(request)  # the library has its own copy of the sound when this returns


def _ask(request: ffi_pb2.FfiRequest) -> None:
    """Make a request whose answer says nothing that is wanted."""
    library, data = FfiClient.instance._ffi_lib, request.SerializeToString()
    answer, size = ctypes.POINTER(ctypes.c_ubyte)(), ctypes.c_size_t()
    there = ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_ubyte))
    _drop(library.livekit_ffi_request(there, len(data), ctypes.byref(answer), ctypes.byref(size)))


def _drop(handle: int) -> None:
    FfiClient.instance._ffi_lib.livekit_ffi_drop_handle(handle)


class _Stream:
    """A stream of the native library.

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
        self._handle = _exchange().open(request, self._on_event)

    def _on_event(self, event: Any) -> None:
        if event.HasField("frame_received"):
            self._on_frame(event.frame_received)
            return
        _exchange().forget(event.stream_handle)
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.ended.set()
        self._on_end()

    async def aclose(self) -> None:
        """Idempotent. To be awaited before the room is left: the library still holds the track
        until it tells of the stream's end."""
        self._handle.dispose()
        await self.ended.wait()


class VoiceTap:
    """Gives what comes out of a track's jitter buffer, as it comes, in a thread of the SDK.

    Args:
        on_sound: called with `PACKET` samples of int16 mono PCM at 48 kHz; must not block, wait or
            raise. It holds up all events of the SDK.
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
        """Until the track has ended."""
        await self._stream.ended.wait()

    async def aclose(self) -> None:
        """Nothing is given any more once this has returned. Idempotent; as `_Stream.aclose`."""
        self._closed = True
        await self._stream.aclose()


class Picture(rtc.VideoFrame):
    """A picture where the native library keeps it: nothing is copied. Valid as long as it is held.

    Of any buffer type; `timestamp_us` is its capture time in microseconds of the SDK's clock.
    """

    def __init__(self, received: video_frame_pb2.VideoFrameReceived) -> None:
        info = received.buffer.info
        self.timestamp_us = received.timestamp_us
        self._owner = FfiHandle(received.buffer.handle.id)  # frees it when it is collected
        size = sum(component.size for component in info.components)
        there = (ctypes.c_uint8 * size).from_address(info.data_ptr)
        super().__init__(info.width, info.height, info.type, memoryview(there).cast("B"))


class PictureTap:
    """The pictures of a track, as an asynchronous iterator of `Picture`; it ends with the track.

    Args:
        capacity: so many are kept until they are taken; then the oldest is dropped.
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
        self._pictures.append(Picture(received))
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
        """Idempotent; as `_Stream.aclose`."""
        await self._stream.aclose()
