"""10 ms of sound to and from the LiveKit SDK without an event loop in between.

What blocks the agent's event loop for 50 ms delays all that passes it by as much, and the user's
receiver keeps a longer jitter buffer for ten seconds and more (docs/relay.md). The SDK's own
`AudioStream` and `AudioSource.capture_frame` need the loop for each frame. The functions here ask
the native library as those do (livekit 1.1.21 `audio_stream.py`, `audio_source.py`), by parts of
the SDK that are not public. They are used nowhere else; tests/test_sdk_audio.py holds the SDK to
them.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable

from livekit import rtc
from livekit.rtc._ffi_client import FfiClient, FfiHandle
from livekit.rtc._proto import audio_frame_pb2, ffi_pb2

from .playout import BYTES_PER_SAMPLE, HOP, HOP_SECONDS, SAMPLE_RATE


def send(source: rtc.AudioSource, pcm: bytes) -> None:
    """Give a source int16 mono PCM at 48 kHz, from any thread, and do not wait until it was sent.

    Args:
        source: of `SAMPLE_RATE` and one channel. One without a queue takes 10 ms exactly; to one
            with a queue no more may be given than there is room for. Without effect once it was
            closed.
    """
    if source._ffi_handle.disposed:
        return
    request = ffi_pb2.FfiRequest()
    capture = request.capture_audio_frame
    capture.source_handle = source._ffi_handle.handle
    capture.buffer.data_ptr = ctypes.cast(ctypes.c_char_p(pcm), ctypes.c_void_p).value or 0
    capture.buffer.num_channels = 1
    capture.buffer.sample_rate = SAMPLE_RATE
    capture.buffer.samples_per_channel = len(pcm) // BYTES_PER_SAMPLE
    # The library has its own copy when this returns; whether the frame was sent is told later, to
    # nobody here.
    FfiClient.instance.request(request)


class Tap:
    """Gives what comes out of a track's jitter buffer, as it comes, in a thread of the SDK.

    Args:
        on_hop: called with 10 ms of int16 mono PCM at 48 kHz; must not block, wait or raise. It
            holds up all events of the SDK.
    """

    def __init__(self, track: rtc.RemoteAudioTrack, on_hop: Callable[[bytes], None]) -> None:
        self._on_hop = on_hop
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._handle: FfiHandle | None = None
        # In place of a loop that is told of each event: it is handled where it arrives.
        self._subscription = FfiClient.instance.queue.subscribe(self, self._is_mine)
        request = ffi_pb2.FfiRequest()
        stream = request.new_audio_stream
        stream.track_handle = track._ffi_handle.handle
        stream.type = audio_frame_pb2.AudioStreamType.AUDIO_STREAM_NATIVE
        stream.sample_rate = SAMPLE_RATE
        stream.num_channels = 1
        stream.queue_size_frames = 0
        stream.frame_size_ms = round(HOP_SECONDS * 1000)
        opened = FfiClient.instance.request(request)
        self._handle = FfiHandle(opened.new_audio_stream.stream.handle.id)

    def _is_mine(self, event: ffi_pb2.FfiEvent) -> bool:
        return (
            event.WhichOneof("message") == "audio_stream_event"
            and self._handle is not None
            and event.audio_stream_event.stream_handle == self._handle.handle
        )

    def call_soon_threadsafe(self, _put: object, event: ffi_pb2.FfiEvent) -> None:
        """What the SDK's queue asks of a loop; called in a thread of the SDK."""
        audio = event.audio_stream_event
        if not audio.HasField("frame_received"):
            self._loop.call_soon_threadsafe(self._ended.set)
            return
        frame = audio.frame_received.frame
        size = frame.info.samples_per_channel * BYTES_PER_SAMPLE
        pcm = ctypes.string_at(frame.info.data_ptr, size)
        FfiHandle(frame.handle.id).dispose()
        if size == HOP * BYTES_PER_SAMPLE:
            self._on_hop(pcm)

    async def wait_until_ended(self) -> None:
        """Until the track has ended."""
        await self._ended.wait()

    def close(self) -> None:
        """Nothing is given any more once this has returned. Idempotent."""
        if self._handle is not None:
            self._handle.dispose()
        FfiClient.instance.queue.unsubscribe(self._subscription)
