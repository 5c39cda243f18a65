"""Sound and pictures to and from the SDK past its queues: what a busy agent does not delay."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import threading
import time
from collections.abc import AsyncIterator
from typing import TypeVar

import numpy as np
import pytest
from livekit import rtc
from livekit.rtc._ffi_client import FfiClient
from livekit.rtc._proto import ffi_pb2

from livekit_plugins_runway.media import microphone as microphones
from livekit_plugins_runway.media.microphone import LiveMicrophone
from livekit_plugins_runway.media.native import Picture, PictureTap, VoiceTap, send
from livekit_plugins_runway.playout.audio import BYTES_PER_SAMPLE, HOP, PACKET, SAMPLE_RATE, SILENCE
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript, hear, missing

BLOCKED = 0.7
"""Seconds for which a test blocks its event loop, as careless code in an agent does."""
Item = TypeVar("Item")

SIDE = 128
"""Of the pictures, in pixels."""


@pytest.fixture
async def microphone() -> AsyncIterator[LiveMicrophone]:
    microphone = LiveMicrophone()
    yield microphone
    await microphone.aclose()


@contextlib.asynccontextmanager
async def received(
    server: LiveKitServer, track: rtc.LocalAudioTrack | rtc.LocalVideoTrack
) -> AsyncIterator[rtc.Track]:
    """The track as somebody in the same room receives it."""
    room = f"sdk-media-{secrets.token_hex(4)}"
    speaker, listener = rtc.Room(), rtc.Room()
    arrived: asyncio.Future[rtc.Track] = asyncio.get_running_loop().create_future()
    listener.on("track_subscribed", lambda track, *_: arrived.set_result(track))
    try:
        await listener.connect(server.url, server.token(room, "listener"))
        await speaker.connect(server.url, server.token(room, "speaker"))
        options = rtc.TrackPublishOptions(dtx=False, simulcast=False)  # silence is sent, too
        await speaker.local_participant.publish_track(track, options)
        async with asyncio.timeout(10.0):
            yield await arrived
    finally:
        await speaker.disconnect()
        await listener.disconnect()


@contextlib.asynccontextmanager
async def heard_at_the_other_end(
    server: LiveKitServer, source: rtc.AudioSource
) -> AsyncIterator[rtc.RemoteAudioTrack]:
    track = rtc.LocalAudioTrack.create_audio_track("voice", source)
    async with received(server, track) as remote:
        assert isinstance(remote, rtc.RemoteAudioTrack)
        yield remote


@contextlib.asynccontextmanager
async def seen_at_the_other_end(
    server: LiveKitServer, source: rtc.VideoSource, pace: float
) -> AsyncIterator[rtc.RemoteVideoTrack]:
    """A camera whose pictures are counted in their brightness, `pace` of them a second."""

    async def film() -> None:
        for number in itertools.count():
            luma = np.full((SIDE, SIDE), 40 + number % 20 * 10, np.uint8)
            luma[::2] = 20  # not of one colour
            colour = np.full(SIDE * SIDE // 2, 128, np.uint8)
            data = luma.tobytes() + colour.tobytes()
            source.capture_frame(rtc.VideoFrame(SIDE, SIDE, rtc.VideoBufferType.I420, data))
            await asyncio.sleep(1 / pace)

    track = rtc.LocalVideoTrack.create_video_track("camera", source)
    filming = asyncio.create_task(film())
    try:
        async with received(server, track) as remote:
            assert isinstance(remote, rtc.RemoteVideoTrack)
            yield remote
    finally:
        filming.cancel()
        await asyncio.gather(filming, return_exceptions=True)


class Given:
    """The sound that was given by a thread."""

    def __init__(self) -> None:
        self.pcm: list[bytes] = []
        self._more = threading.Condition()

    def __call__(self, pcm: bytes) -> None:
        with self._more:
            self.pcm.append(pcm)
            self._more.notify_all()

    async def more(self, count: int) -> None:
        """Wait until there are `count` more pieces of it than now."""
        enough = len(self.pcm) + count

        def wait() -> bool:
            with self._more:
                return self._more.wait_for(lambda: len(self.pcm) >= enough, 5.0)

        assert await asyncio.to_thread(wait)


def block_the_loop() -> None:
    time.sleep(BLOCKED)


async def test_what_is_passed_on_is_heard_whole_while_the_event_loop_is_blocked(
    livekit_server: LiveKitServer, microphone: LiveMicrophone
) -> None:
    script = ToneScript(10)
    worker = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=10_000)  # the SDK keeps its pace
    heard: list[tuple[float, bytes]] = []
    async with (
        heard_at_the_other_end(livekit_server, worker) as from_worker,
        heard_at_the_other_end(livekit_server, microphone.source) as from_relay,
    ):
        relay = VoiceTap(from_worker, microphone.write)
        user = VoiceTap(from_relay, lambda pcm: heard.append((time.monotonic(), pcm)))
        await asyncio.sleep(1.0)  # receivers begin with a jitter buffer that is too long
        for frame in script.frames(SAMPLE_RATE, 100):
            await worker.capture_frame(frame)
        await asyncio.sleep(0.5)
        began = time.monotonic()
        block_the_loop()
        meanwhile = [pcm for at, pcm in heard if began < at < began + BLOCKED]
        await asyncio.sleep(script.duration_s)
        await relay.aclose()
        await user.aclose()
        loud = [np.abs(np.frombuffer(pcm, np.int16)).max() > 300 for pcm in meanwhile]
        assert sum(loud) > BLOCKED / (PACKET / SAMPLE_RATE) * 0.5
        sound = np.frombuffer(b"".join(pcm for _, pcm in heard), np.int16)
        assert missing(script, hear(sound, SAMPLE_RATE)) == []
    await worker.aclose()


async def test_a_microphone_is_silent_at_its_pace_while_the_event_loop_is_blocked(
    livekit_server: LiveKitServer, microphone: LiveMicrophone
) -> None:
    microphone.keep_alive()
    async with heard_at_the_other_end(livekit_server, microphone.source) as track:
        await asyncio.sleep(1.0)  # until the receiver counts
        before = await _packets(track)
        microphone.keep_alive()
        block_the_loop()
        arrived = await _packets(track) - before
        assert arrived >= BLOCKED / 0.02 * 0.8


async def _packets(track: rtc.RemoteAudioTrack) -> int:
    (inbound,) = [s.inbound_rtp for s in await track.get_stats() if s.HasField("inbound_rtp")]
    return int(inbound.received.packets_received)


async def test_a_closed_tap_gives_nothing_more_and_an_ended_track_ends_it(
    livekit_server: LiveKitServer,
) -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=100)
    taken = Given()
    async with heard_at_the_other_end(livekit_server, source) as track:
        closed, open_ = VoiceTap(track, taken), VoiceTap(track, lambda _: None)
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


async def test_a_stream_that_ends_while_it_is_opened_is_seen_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, source = FfiClient.instance, rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=100)
    request, told = client.request, []

    def tell(stream: int) -> None:
        event = ffi_pb2.FfiEvent()
        event.audio_stream_event.stream_handle = stream
        event.audio_stream_event.eos.SetInParent()
        client.queue.put(event)

    def answer_late(question: ffi_pb2.FfiRequest) -> ffi_pb2.FfiResponse:
        answer = request(question)
        told.append(threading.Thread(target=tell, args=[answer.new_audio_stream.stream.handle.id]))
        told[0].start()
        told[0].join(0.2)
        return answer

    track = rtc.LocalAudioTrack.create_audio_track("voice", source)
    with monkeypatch.context() as patch:
        patch.setattr(client, "request", answer_late)
        tap = VoiceTap(track, lambda _: None)
    async with asyncio.timeout(5.0):
        await tap.wait_until_ended()
    await asyncio.to_thread(told[0].join)
    await tap.aclose()
    await source.aclose()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Given:
    """What a microphone has sent."""
    given = Given()
    monkeypatch.setattr(microphones, "send", lambda _source, pcm: given(pcm))
    return given


async def test_two_times_10_ms_that_come_together_fill_one_packet(
    sent: Given, microphone: LiveMicrophone
) -> None:
    word = bytes([1]) * len(SILENCE)
    microphone.write(word)
    microphone.write(word + word)
    microphone.write(word + word)
    assert sent.pcm == [word, SILENCE, word, word, word, word]


async def test_a_word_ends_the_silence_until_it_is_asked_for_again(
    sent: Given, microphone: LiveMicrophone
) -> None:
    word = bytes([1]) * len(SILENCE)
    microphone.keep_alive()
    await sent.more(5)
    microphone.write(word)
    await asyncio.sleep(0.05)
    assert sent.pcm[-2:] in ([word, SILENCE], [SILENCE, word])  # one 10 ms may have been under way
    count = len(sent.pcm)
    microphone.keep_alive()
    await sent.more(5)
    assert set(sent.pcm[count:]) == {SILENCE}


async def test_silence_ends_by_itself_if_nobody_asks_for_it_again(
    sent: Given, microphone: LiveMicrophone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphones, "SILENT_FOR", 0.1)
    microphone.keep_alive()
    await sent.more(5)
    await asyncio.sleep(0.3)
    count = len(sent.pcm)
    await asyncio.sleep(0.1)
    assert len(sent.pcm) == count <= 15


async def test_a_closed_microphone_has_no_thread_and_sends_nothing(
    sent: Given, microphone: LiveMicrophone
) -> None:
    microphone.keep_alive()
    await sent.more(1)
    await microphone.aclose()
    await microphone.aclose()
    count = len(sent.pcm)
    microphone.write(SILENCE)
    microphone.keep_alive()
    await asyncio.sleep(0.05)
    assert len(sent.pcm) == count
    assert "runway_microphone" not in {thread.name for thread in threading.enumerate()}


async def test_a_source_that_was_closed_takes_nothing_and_raises_nothing() -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=0)
    send(source, bytes(2 * HOP))
    await source.aclose()
    send(source, bytes(2 * HOP))


async def test_of_what_was_sent_no_room_is_told_and_who_waits_for_an_answer_still_gets_it() -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=100)
    told = FfiClient.instance.queue.subscribe()
    for _ in range(5):
        send(source, SILENCE)
    async with asyncio.timeout(5.0):
        await source.capture_frame(rtc.AudioFrame(SILENCE, SAMPLE_RATE, 1, HOP))
    answers = [told.get_nowait().WhichOneof("message") for _ in range(told.qsize())]
    FfiClient.instance.queue.unsubscribe(told)
    assert answers == ["capture_audio_frame"]
    await source.aclose()


async def test_python_keeps_its_record_of_the_threads_that_bring_sound(
    livekit_server: LiveKitServer,
) -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=100)
    taken, known, calls = Given(), threading.local(), []

    def hear(pcm: bytes) -> None:
        calls.append((threading.get_native_id(), hasattr(known, "before")))
        known.before = True
        taken(pcm)

    async with heard_at_the_other_end(livekit_server, source) as track:
        tap = VoiceTap(track, hear)
        await taken.more(20)
        await tap.aclose()
    later = [call for number, call in enumerate(calls) if call[0] in {c[0] for c in calls[:number]}]
    assert later
    assert all(was_known for _, was_known in later)
    await source.aclose()


async def test_pictures_are_seen_where_the_library_keeps_them(
    livekit_server: LiveKitServer,
) -> None:
    source = rtc.VideoSource(SIDE, SIDE)
    async with seen_at_the_other_end(livekit_server, source, 25.0) as track:
        tap = PictureTap(track, 2)
        copies = rtc.VideoStream(track)
        picture = await _first_of_full_size(tap)
        assert picture.type == rtc.VideoBufferType.I420
        assert len(picture.data) == SIDE * SIDE * 3 // 2
        luma = np.frombuffer(picture.data, np.uint8, SIDE * SIDE).reshape(SIDE, SIDE)
        assert float(luma[1::2].mean()) - float(luma[::2].mean()) > 10
        async with asyncio.timeout(5.0):
            pictures, events = await asyncio.gather(_some(tap), _some(copies))
        seen = {picture.timestamp_us: bytes(picture.data) for picture in pictures}
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
            luma = np.frombuffer(picture.data, np.uint8, picture.width * picture.height)
            if picture.width == SIDE and int(luma.max()) - int(luma.min()) > 8:
                return picture
    raise AssertionError("the track has ended")


async def test_of_pictures_that_nobody_takes_the_newest_are_kept_and_the_end_is_told(
    livekit_server: LiveKitServer,
) -> None:
    source = rtc.VideoSource(SIDE, SIDE)
    async with seen_at_the_other_end(livekit_server, source, 50.0) as track:
        tap = PictureTap(track, 2)
        first = await _first_of_full_size(tap)
        await asyncio.sleep(1.0)
        meanwhile = [await anext(tap), await anext(tap)]
        late = [(picture.timestamp_us - first.timestamp_us) / 1e6 for picture in meanwhile]
        assert 0.5 < late[0] < late[1]
    async with asyncio.timeout(5.0):
        rest = [picture async for picture in tap]
    assert len(rest) <= 2
    await tap.aclose()
    await source.aclose()
