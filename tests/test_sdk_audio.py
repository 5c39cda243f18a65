"""Sound to and from the SDK past the event loop: what a busy agent does not delay."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
from livekit import rtc

from livekit_plugins_runway import microphone as microphones
from livekit_plugins_runway.microphone import LiveMicrophone
from livekit_plugins_runway.playout import HOP, SAMPLE_RATE, SILENCE
from livekit_plugins_runway.sdk_audio import Tap, send
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript, hear, missing

BLOCKED = 0.7
"""Seconds for which a test blocks its event loop, as careless code in an agent does."""


@pytest.fixture
async def microphone() -> AsyncIterator[LiveMicrophone]:
    microphone = LiveMicrophone()
    yield microphone
    await microphone.aclose()


@contextlib.asynccontextmanager
async def heard_at_the_other_end(
    server: LiveKitServer, source: rtc.AudioSource
) -> AsyncIterator[rtc.RemoteAudioTrack]:
    """The source's track as somebody in the same room receives it."""
    room = f"sdk-audio-{secrets.token_hex(4)}"
    speaker, listener = rtc.Room(), rtc.Room()
    arrived: asyncio.Future[rtc.RemoteAudioTrack] = asyncio.get_running_loop().create_future()
    listener.on("track_subscribed", lambda track, *_: arrived.set_result(track))
    try:
        await listener.connect(server.url, server.token(room, "listener"))
        await speaker.connect(server.url, server.token(room, "speaker"))
        track = rtc.LocalAudioTrack.create_audio_track("voice", source)
        options = rtc.TrackPublishOptions(dtx=False)  # silence is sent, too
        await speaker.local_participant.publish_track(track, options)
        async with asyncio.timeout(10.0):
            yield await arrived
    finally:
        await speaker.disconnect()
        await listener.disconnect()


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
        relay = Tap(from_worker, microphone.write)
        user = Tap(from_relay, lambda pcm: heard.append((time.monotonic(), pcm)))
        await asyncio.sleep(1.0)  # receivers begin with a jitter buffer that is too long
        for frame in script.frames(SAMPLE_RATE, 100):
            await worker.capture_frame(frame)
        await asyncio.sleep(0.5)
        began = time.monotonic()
        block_the_loop()
        meanwhile = [pcm for at, pcm in heard if began < at < began + BLOCKED]
        await asyncio.sleep(script.duration_s)
        relay.close()
        user.close()
        loud = [np.abs(np.frombuffer(pcm, np.int16)).max() > 300 for pcm in meanwhile]
        assert sum(loud) > BLOCKED / 0.01 * 0.5
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
        block_the_loop()
        arrived = await _packets(track) - before
        assert arrived >= BLOCKED / 0.02 * 0.6


async def _packets(track: rtc.RemoteAudioTrack) -> int:
    (inbound,) = [s.inbound_rtp for s in await track.get_stats() if s.HasField("inbound_rtp")]
    return int(inbound.received.packets_received)


async def test_a_closed_tap_gives_nothing_more_and_an_ended_track_ends_it(
    livekit_server: LiveKitServer,
) -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=100)
    taken = Given()
    async with heard_at_the_other_end(livekit_server, source) as track:
        closed, open_ = Tap(track, taken), Tap(track, lambda _: None)
        await taken.more(10)
        closed.close()
        count = len(taken.pcm)
        closed.close()
        await asyncio.sleep(0.2)
        assert len(taken.pcm) == count
        assert {len(pcm) for pcm in taken.pcm} == {len(SILENCE)}
    async with asyncio.timeout(5.0):
        await open_.wait_until_ended()
    open_.close()
    await source.aclose()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Given:
    """What a microphone has sent."""
    given = Given()
    monkeypatch.setattr(microphones, "send", lambda _source, pcm: given(pcm))
    return given


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
