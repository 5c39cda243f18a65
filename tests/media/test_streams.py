"""Sound and pictures of a real server, on both ways to the media."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import TypeVar

import numpy as np
import pytest
from livekit import rtc

from livekit_plugins_runway.media.microphone import LiveMicrophone
from livekit_plugins_runway.media.ways import MediaWay, Picture, PictureTap, WayName, choose, decide
from livekit_plugins_runway.playout.audio import BYTES_PER_SAMPLE, PACKET, SAMPLE_RATE, SILENCE
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript, hear, missing
from tests.support.media import SIDE, Given, heard_at_the_other_end, seen_at_the_other_end

BLOCKED = 0.7
"""Seconds for which a test blocks its event loop, as careless code in an agent does."""
Item = TypeVar("Item")


@pytest.fixture(params=["native", "public"])
def way(request: pytest.FixtureRequest) -> MediaWay:
    name: WayName = request.param
    return choose(name)


def block_the_loop() -> None:
    time.sleep(BLOCKED)


async def test_what_is_passed_on_is_heard_whole(
    livekit_server: LiveKitServer, way: MediaWay
) -> None:
    """While the event loop is blocked, too."""
    script, microphone = ToneScript(10), LiveMicrophone(way)
    worker = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=10_000)  # the SDK keeps its pace
    heard: list[tuple[float, bytes]] = []
    async with (
        heard_at_the_other_end(livekit_server, worker) as from_worker,
        heard_at_the_other_end(livekit_server, microphone.source) as from_relay,
    ):
        relay = way.voice_tap(from_worker, microphone.write)
        user = way.voice_tap(from_relay, lambda pcm: heard.append((time.monotonic(), pcm)))
        await asyncio.sleep(1.0)  # receivers begin with a jitter buffer that is too long
        for frame in script.frames(SAMPLE_RATE, 100):
            await worker.capture_frame(frame)
        await asyncio.sleep(0.5)
        began = time.monotonic()
        block_the_loop()
        meanwhile = [pcm for at, pcm in heard if began < at < began + BLOCKED]
        loud = [np.abs(np.frombuffer(pcm, np.int16)).max() > 300 for pcm in meanwhile]
        assert sum(loud) > BLOCKED / (PACKET / SAMPLE_RATE) * 0.5
        await asyncio.sleep(script.duration_s)
        await relay.aclose()
        await user.aclose()
        sound = np.frombuffer(b"".join(pcm for _, pcm in heard), np.int16)
        assert missing(script, hear(sound, SAMPLE_RATE)) == []
    await worker.aclose()
    await microphone.aclose()


async def test_silence_keeps_its_pace(livekit_server: LiveKitServer, way: MediaWay) -> None:
    """While the event loop is blocked, too."""
    microphone = LiveMicrophone(way)
    microphone.keep_alive()
    async with heard_at_the_other_end(livekit_server, microphone.source) as track:
        await asyncio.sleep(1.0)  # until the receiver counts
        before = await _packets(track)
        microphone.keep_alive()
        block_the_loop()
        arrived = await _packets(track) - before
        assert arrived >= BLOCKED / 0.02 * 0.8
    await microphone.aclose()


async def _packets(track: rtc.RemoteAudioTrack) -> int:
    (inbound,) = [s.inbound_rtp for s in await track.get_stats() if s.HasField("inbound_rtp")]
    return int(inbound.received.packets_received)


async def test_a_closed_tap_gives_nothing_more_and_an_ended_track_ends_it(
    livekit_server: LiveKitServer, way: MediaWay
) -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=100)
    taken = Given()
    async with heard_at_the_other_end(livekit_server, source) as track:
        closed, open_ = way.voice_tap(track, taken), way.voice_tap(track, lambda _: None)
        await taken.more(10)
        await closed.aclose()
        count = len(taken.pcm)
        await closed.aclose()
        await asyncio.sleep(0.2)
        assert len(taken.pcm) == count
        assert {len(pcm) for pcm in taken.pcm} == {BYTES_PER_SAMPLE * PACKET}
    async with asyncio.timeout(5.0):
        await open_.wait_until_ended()
    await open_.aclose()
    await source.aclose()


async def test_a_callback_that_raises_is_called_again_and_disturbs_nobody(
    livekit_server: LiveKitServer, way: MediaWay, caplog: pytest.LogCaptureFixture
) -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=100)
    asked, taken = Given(), Given()

    def refuse(pcm: bytes) -> None:
        asked(pcm)
        raise ValueError("no")

    async with heard_at_the_other_end(livekit_server, source) as track:
        refused, other = way.voice_tap(track, refuse), way.voice_tap(track, taken)
        await asked.more(10)
        await taken.more(10)
        await refused.aclose()
        await other.aclose()
    await source.aclose()
    assert [r.exc_info[0] for r in caplog.records if r.exc_info] == [ValueError]


async def test_who_sends_to_a_source_is_heard_from_any_thread(
    livekit_server: LiveKitServer, way: MediaWay
) -> None:
    source = way.source(3000)
    sender, script = way.sender(source), ToneScript(3)
    heard: list[bytes] = []

    def send() -> None:
        for frame in script.frames(SAMPLE_RATE, 100):
            sender.send(bytes(frame.data))

    async with heard_at_the_other_end(livekit_server, source) as track:
        tap = way.voice_tap(track, heard.append)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(send)
        await asyncio.sleep(script.duration_s + 1.0)
        await tap.aclose()
    await sender.aclose()
    await source.aclose()
    sound = np.frombuffer(b"".join(heard), np.int16)
    assert missing(script, hear(sound, SAMPLE_RATE)) == []


async def test_a_source_or_a_sender_that_was_closed_takes_nothing_and_raises_nothing(
    way: MediaWay,
) -> None:
    source = way.source(0)
    sender = way.sender(source)
    sender.send(SILENCE)
    await source.aclose()
    sender.send(SILENCE)
    await sender.aclose()
    await sender.aclose()
    sender.send(SILENCE)


async def test_pictures_come_with_their_capture_times(
    livekit_server: LiveKitServer, way: MediaWay
) -> None:
    source = rtc.VideoSource(SIDE, SIDE)
    async with seen_at_the_other_end(livekit_server, source, 25.0) as track:
        tap = way.picture_tap(track, 2)
        copies = rtc.VideoStream(track)
        frame = (await _first_of_full_size(tap)).frame
        assert frame.type == rtc.VideoBufferType.I420
        assert len(frame.data) == SIDE * SIDE * 3 // 2
        luma = np.frombuffer(frame.data, np.uint8, SIDE * SIDE).reshape(SIDE, SIDE)
        assert float(luma[1::2].mean()) - float(luma[::2].mean()) > 10
        async with asyncio.timeout(5.0):
            pictures, events = await asyncio.gather(_some(tap), _some(copies))
        seen = {picture.timestamp_us: bytes(picture.frame.data) for picture in pictures}
        copied = {event.timestamp_us: bytes(event.frame.data) for event in events}
        both = seen.keys() & copied.keys()
        assert len(both) > 5
        assert all(seen[when] == copied[when] for when in both)
        await copies.aclose()
        await tap.aclose()
        await tap.aclose()
    await source.aclose()


async def _some(stream: AsyncIterator[Item]) -> list[Item]:
    return [await anext(stream) for _ in range(20)]


async def _first_of_full_size(tap: PictureTap) -> Picture:
    async with asyncio.timeout(10.0):
        async for picture in tap:
            frame = picture.frame
            luma = np.frombuffer(frame.data, np.uint8, frame.width * frame.height)
            if frame.width == SIDE and int(luma.max()) - int(luma.min()) > 8:
                return picture
    raise AssertionError("the track has ended")


async def test_of_pictures_that_nobody_takes_the_newest_are_kept_and_the_end_is_told(
    livekit_server: LiveKitServer, way: MediaWay
) -> None:
    source = rtc.VideoSource(SIDE, SIDE)
    async with seen_at_the_other_end(livekit_server, source, 50.0) as track:
        tap = way.picture_tap(track, 2)
        first = await _first_of_full_size(tap)
        await asyncio.sleep(1.0)
        meanwhile = [await anext(tap), await anext(tap)]
        late = [(picture.timestamp_us - first.timestamp_us) / 1e6 for picture in meanwhile]
        assert 0.5 < late[0] < late[1]
        waiting = asyncio.create_task(_all(tap))
    async with asyncio.timeout(5.0):  # who waits for one is told, too
        await waiting
    assert await _all(tap) == []
    await tap.aclose()
    await source.aclose()


async def _all(tap: PictureTap) -> list[Picture]:
    return [picture async for picture in tap]


async def test_python_keeps_its_state_of_the_threads_that_bring_sound(
    livekit_server: LiveKitServer,
) -> None:
    """A new one in each call costs as much as the rest of it."""
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=10_000)
    native, _ = decide("native", rtc.__version__)
    seen, calls, enough = threading.local(), [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def take(_: bytes) -> None:
        calls.append((threading.get_native_id(), hasattr(seen, "before")))
        seen.before = True
        if len(calls) >= 20:
            loop.call_soon_threadsafe(enough.set)

    async with heard_at_the_other_end(livekit_server, source) as track:
        tap = native.voice_tap(track, take)
        async with asyncio.timeout(10.0):
            await enough.wait()
        await tap.aclose()
    later = [known for at, (thread, known) in enumerate(calls) if thread in dict(calls[:at])]
    assert later
    assert all(later)
    await source.aclose()
