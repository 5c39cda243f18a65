"""What a participant hears and sees, kept on the clock of `time.monotonic()` and within bounds.

`AudioTimeline` places audio frames by their arrival, so that a missing stretch stays missing and
does not make the record shorter. `VideoRecorder` compresses pictures as they come; `write_mp4`
joins both on their common clock. Needs PyAV, which livekit-agents depends on.
"""

from __future__ import annotations

import asyncio
import io
import itertools
from collections import deque
from fractions import Fraction
from pathlib import Path

import av
import av.audio.stream
import av.codec.codec
import av.container
import av.video.stream
import numpy as np
from livekit import rtc

from .tones import Pcm

SAMPLE_RATE = 48_000
"""Sample rate of every recording here, in Hz."""

_FRAME_BYTES_PER_SECOND = SAMPLE_RATE * 2
_STEP_S = 0.020  # lateness that grows by more than this is a hole; less is jitter of arrival
_PICTURE_CLOCK = Fraction(1, 1000)
_AAC_FRAME = 1024
_VIDEO_CODECS = ("libx264", "libopenh264", "mpeg4")


class AudioTimeline:
    """The audio of one track, 48 kHz int16 mono, placed by arrival.

    Keeps the last `max_seconds` seconds.
    """

    def __init__(self, max_seconds: float) -> None:
        self._max_bytes = round(max_seconds * _FRAME_BYTES_PER_SECOND)
        self._frames: deque[tuple[float, bytes]] = deque()
        self._bytes = 0

    def add(self, arrival: float, samples: bytes) -> None:
        """Keep a frame of int16 samples that has arrived at `arrival` (`time.monotonic()`)."""
        self._frames.append((arrival, samples))
        self._bytes += len(samples)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._frames.popleft()[1])

    def mix_into(self, out: np.ndarray[tuple[int], np.dtype[np.int32]], since: float) -> None:
        """Add what was heard from `since` (`time.monotonic()`) on to `out`, sample by sample."""
        # What arrived a second before `since` was heard before it.
        early = since - 1.0
        chosen = list(itertools.takewhile(lambda f: f[0] >= early, reversed(self._frames)))[::-1]
        if not chosen:
            return
        sizes = np.array([len(samples) // 2 for _, samples in chosen])
        ends = np.cumsum(sizes)
        arrivals = np.array([arrival for arrival, _ in chosen])
        # Frames of a stream follow one another without a pause, and none arrives before it has been
        # heard. So the clock of a frame is the earliest one that any later frame allows: a stalled
        # reader that catches up leaves no hole, a stream that stood still does.
        clock = np.minimum.accumulate((arrivals - ends / SAMPLE_RATE)[::-1])[::-1]
        first = 0
        while first < len(ends):
            last = int(np.searchsorted(clock, clock[first] + _STEP_S, side="right"))
            at = np.round((clock[first] - since) * SAMPLE_RATE).astype(int) + ends - sizes
            _place(out, at[first:last], [samples for _, samples in chosen[first:last]])
            first = last


def _place(
    out: np.ndarray[tuple[int], np.dtype[np.int32]],
    at: np.ndarray[tuple[int], np.dtype[np.int64]],
    frames: list[bytes],
) -> None:
    """Add frames that follow one another to `out`, at the samples `at`."""
    low = max(0, int(np.searchsorted(at, 0, side="right")) - 1)
    high = int(np.searchsorted(at, len(out)))
    if low >= high:
        return
    run = np.frombuffer(b"".join(frames[low:high]), np.int16)
    start = int(at[low])
    begin, end = max(0, start), min(len(out), start + len(run))
    if begin < end:
        out[begin:end] += run[begin - start : end - start]


class VideoRecorder:
    """Compresses pictures to H.264 as they arrive, scaled to one size; keeps only the packets.

    Args:
        origin: the `time.monotonic()` that is second 0 of the film.
        size: width and height in pixels, both even.
        max_seconds: pictures later than this many seconds after `origin` are not recorded.
    """

    def __init__(self, *, origin: float, size: tuple[int, int], max_seconds: float) -> None:
        self._origin = origin
        self._size = size
        self._max_seconds = max_seconds
        self._queue: asyncio.Queue[tuple[int, rtc.VideoFrame] | None] = asyncio.Queue(maxsize=16)
        self._file = io.BytesIO()
        self._finished = False
        self.dropped = 0
        """Pictures that were not recorded because the encoder was behind."""

    def offer(self, arrival: float, frame: rtc.VideoFrame) -> None:
        """Record an I420 picture that has arrived at `arrival`, unless the encoder is behind."""
        at = arrival - self._origin
        odd = frame.width % 2 or frame.height % 2
        if self._finished or odd or not 0 <= at <= self._max_seconds:
            return
        try:
            self._queue.put_nowait((round(at / _PICTURE_CLOCK), frame))
        except asyncio.QueueFull:
            self.dropped += 1

    def finish(self) -> None:
        """Take no more pictures; `run()` returns once those in hand are done."""
        if self._finished:
            return
        self._finished = True
        if self._queue.full():
            self._queue.get_nowait()
            self.dropped += 1
        self._queue.put_nowait(None)

    async def run(self) -> None:
        """Encode until `finish()`. In a thread, because a picture takes milliseconds."""
        encoder = await asyncio.to_thread(_Encoder, self._file, self._size)
        while (item := await self._queue.get()) is not None:
            await asyncio.to_thread(encoder.encode, *item)
        await asyncio.to_thread(encoder.close)

    def packed(self) -> bytes:
        """The film without sound (Matroska), once `run()` has returned."""
        return self._file.getvalue()


class _Encoder:
    """Writes pictures with their time in milliseconds to a Matroska file, beginning with black:
    the film starts with the call and not with the first face."""

    def __init__(self, file: io.BytesIO, size: tuple[int, int]) -> None:
        self._size = size
        width, height = size
        self._container = av.open(file, "w", format="matroska")
        stream = self._container.add_stream(_video_codec(), rate=25)
        assert isinstance(stream, av.video.stream.VideoStream)
        self._stream = stream
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = _PICTURE_CLOCK
        context.thread_count = 1
        context.max_b_frames = 0
        context.bit_rate = 800_000
        if context.name == "libx264":
            context.options = {"preset": "superfast", "tune": "zerolatency"}
        black = np.zeros((height * 3 // 2, width), np.uint8)
        black[height:] = 128
        self._last_pts = -1
        self._write(0, av.VideoFrame.from_ndarray(black, format="yuv420p"))

    def encode(self, pts: int, frame: rtc.VideoFrame) -> None:
        planes = np.frombuffer(frame.data, np.uint8)[: frame.width * frame.height * 3 // 2]
        picture = av.VideoFrame.from_ndarray(planes.reshape(-1, frame.width), format="yuv420p")
        self._write(pts, picture.reformat(*self._size))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def _write(self, pts: int, picture: av.VideoFrame) -> None:
        self._last_pts = max(self._last_pts + 1, pts)
        picture.pts, picture.time_base = self._last_pts, _PICTURE_CLOCK
        self._container.mux(self._stream.encode(picture))


def _video_codec() -> str:
    for name in _VIDEO_CODECS:
        try:
            av.codec.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        return name
    raise RuntimeError(f"this build of PyAV has none of the video encoders {_VIDEO_CODECS}")


def write_mp4(path: Path, film: bytes, sound: Pcm) -> None:
    """Write `film` (from `VideoRecorder.packed`) with `sound` (48 kHz) as MP4: H.264 and AAC.

    Both begin at second 0. Blocks; call it in a thread.
    """
    with (
        av.open(io.BytesIO(film), "r") as source,
        av.open(str(path), "w", options={"movflags": "faststart"}) as target,
    ):
        pictures = source.streams.video[0]
        video = target.add_stream_from_template(pictures)
        audio = target.add_stream("aac", rate=SAMPLE_RATE)
        assert isinstance(audio, av.audio.stream.AudioStream)
        audio.layout, audio.bit_rate = "mono", 96_000
        sent = 0
        for packet in source.demux(pictures):
            if packet.pts is None or packet.time_base is None:
                continue
            # Sound goes in beside the pictures it belongs to, so that a player need not seek.
            until = min(len(sound), int(packet.pts * packet.time_base * SAMPLE_RATE))
            sent = _mux_sound(target, audio, sound, sent, until)
            packet.stream = video
            target.mux(packet)
        _mux_sound(target, audio, sound, sent, len(sound) + _AAC_FRAME)
        target.mux(audio.encode(None))


def _mux_sound(
    target: av.container.OutputContainer,
    audio: av.audio.stream.AudioStream,
    sound: Pcm,
    sent: int,
    until: int,
) -> int:
    """Encode whole AAC frames from sample `sent` up to `until`; returns where it stopped."""
    while sent < len(sound) and sent + _AAC_FRAME <= until:
        piece = np.ascontiguousarray(sound[None, sent : sent + _AAC_FRAME])
        frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, sent
        frame.time_base = Fraction(1, SAMPLE_RATE)
        target.mux(audio.encode(frame))
        sent += _AAC_FRAME
    return sent
