"""What the SDK does with sound and pictures that this package works around, each shown by the SDK
alone. A test that fails on a new version says that its quirk is gone, or has become another: see
docs/sdk-quirks.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import numpy as np
import pytest
from livekit import rtc

from livekit_plugins_runway.media.video import MIN_FRAME_SIDE, is_blank
from livekit_plugins_runway.playout.audio import HOP, SAMPLE_RATE
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from tests.support.two_rooms import TwoRooms, two_rooms

SIDE = 128
"""Of the pictures, in pixels."""


@pytest.mark.parametrize(("given", "wanted"), [(24_000, 48_000), (48_000, 16_000)])
def test_the_resampler_of_the_sdk_keeps_the_first_words_back(given: int, wanted: int) -> None:
    resampler = rtc.AudioResampler(given, wanted)
    frame = rtc.AudioFrame(bytes(2 * given // 100), given, 1, given // 100)
    pushed = 0
    while not resampler.push(frame):
        pushed += 1
    assert 1 <= pushed <= 4  # times 10 ms


@pytest.mark.parametrize(("queue_ms", "sends"), [(50, True), (0, False)])
async def test_a_source_with_a_queue_sends_silence_by_itself(
    livekit_server: LiveKitServer, queue_ms: int, sends: bool
) -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=queue_ms)
    async with two_rooms(livekit_server) as rooms:
        track = await rooms.receive(rtc.LocalAudioTrack.create_audio_track("voice", source))
        await asyncio.sleep(1.0)  # until the receiver counts
        before = await _packets(track)
        await asyncio.sleep(1.0)
        packets = await _packets(track) - before
        assert packets > 40 if sends else packets == 0
    await source.aclose()


async def _packets(track: rtc.RemoteTrack) -> int:
    inbound = [s.inbound_rtp for s in await track.get_stats() if s.HasField("inbound_rtp")]
    return sum(int(stats.received.packets_received) for stats in inbound)


async def test_a_receiver_that_gets_nothing_more_holds_the_last_sound_and_fades_it(
    livekit_server: LiveKitServer,
) -> None:
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(HOP) / SAMPLE_RATE)).astype(np.int16)
    frame = rtc.AudioFrame(tone.tobytes(), SAMPLE_RATE, 1, HOP)  # 4.4 periods: a buzz, not a tone
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=0)
    levels: list[float] = []
    async with two_rooms(livekit_server) as rooms:
        track = await rooms.receive(rtc.LocalAudioTrack.create_audio_track("voice", source))
        stream = rtc.AudioStream(track, sample_rate=SAMPLE_RATE, num_channels=1)

        async def listen() -> None:
            async for event in stream:
                levels.append(float(np.abs(np.frombuffer(event.frame.data, np.int16)).mean()))

        listening = asyncio.create_task(listen())
        began = time.monotonic()
        for number in range(1, 201):
            await source.capture_frame(frame)
            await asyncio.sleep(max(0.0, began + number * 0.01 - time.monotonic()))
        await asyncio.sleep(1.0)
        await stream.aclose()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    await source.aclose()
    usual = float(np.median([level for level in levels if level > 300]))
    full = max(n for n, level in enumerate(levels) if level > 0.8 * usual)
    after = levels[full + 1 :]
    made_up = [level for level in after if level > 0.01 * usual]
    assert 0.05 <= len(made_up) * HOP / SAMPLE_RATE <= 0.6
    assert made_up == sorted(made_up, reverse=True) == after[: len(made_up)]


async def test_a_camera_without_a_picture_is_black_ten_times_a_second(
    livekit_server: LiveKitServer,
) -> None:
    source = rtc.VideoSource(SIDE, SIDE)
    seen: list[rtc.VideoFrame] = []
    async with two_rooms(livekit_server) as rooms:
        track = await rooms.receive(rtc.LocalVideoTrack.create_video_track("camera", source))
        stream = rtc.VideoStream(track, format=rtc.VideoBufferType.I420)
        await _collect(stream, seen, 2.0)
        await stream.aclose()
    await source.aclose()
    assert 10 <= len(seen) <= 30
    assert all(is_blank(frame) for frame in seen)


async def test_the_last_picture_of_a_publisher_who_leaves_is_tiny(
    livekit_server: LiveKitServer,
) -> None:
    source = rtc.VideoSource(SIDE, SIDE)
    seen: list[rtc.VideoFrame] = []
    async with two_rooms(livekit_server) as rooms:
        track = await rooms.receive(rtc.LocalVideoTrack.create_video_track("camera", source))
        stream = rtc.VideoStream(track, format=rtc.VideoBufferType.I420)
        filming = asyncio.create_task(_film(source))
        await _collect(stream, seen, 1.0)
        filming.cancel()
        await asyncio.gather(filming, return_exceptions=True)
        assert min(seen[-1].width, seen[-1].height) >= MIN_FRAME_SIDE
        await rooms.speaker.disconnect()
        await _collect(stream, seen, 1.5)
        await stream.aclose()
    await source.aclose()
    assert max(seen[-1].width, seen[-1].height) < MIN_FRAME_SIDE


async def test_a_video_stream_does_not_end_with_its_track(livekit_server: LiveKitServer) -> None:
    source = rtc.VideoSource(SIDE, SIDE)
    async with two_rooms(livekit_server) as rooms:
        track = await rooms.receive(rtc.LocalVideoTrack.create_video_track("camera", source))
        stream = rtc.VideoStream(track, format=rtc.VideoBufferType.I420)
        await _gone(rooms)
        seen: list[rtc.VideoFrame] = []
        assert not await _collect(stream, seen, 2.0)
        await stream.aclose()
    await source.aclose()


async def _gone(rooms: TwoRooms) -> None:
    """The speaker takes the track off, and the listener has been told."""
    told = asyncio.Event()
    rooms.listener.on("track_unsubscribed", lambda *_: told.set())
    (sid,) = rooms.speaker.local_participant.track_publications
    await rooms.speaker.local_participant.unpublish_track(sid)
    async with asyncio.timeout(5.0):
        await told.wait()


async def _collect(stream: rtc.VideoStream, seen: list[rtc.VideoFrame], seconds: float) -> bool:
    """Whether the stream ended within so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for event in stream:
                seen.append(event.frame)
            return True
    return False


async def _film(source: rtc.VideoSource) -> None:
    luma = np.full((SIDE, SIDE), 200, np.uint8)
    luma[::2] = 20  # not of one colour
    data = luma.tobytes() + bytes([128]) * (SIDE * SIDE // 2)
    while True:
        source.capture_frame(rtc.VideoFrame(SIDE, SIDE, rtc.VideoBufferType.I420, data))
        await asyncio.sleep(0.04)
