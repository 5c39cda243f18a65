"""The avatar participant's microphone: what it sends and when it is silent, whatever the way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from livekit_plugins_runway.media import microphone as microphones
from livekit_plugins_runway.media.microphone import LiveMicrophone
from livekit_plugins_runway.media.ways import MediaWay
from livekit_plugins_runway.playout.audio import SILENCE
from tests.support.media import Given


class Sent:
    """A `ways.Sender` that sends to nobody."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self.closed = 0

    def send(self, pcm: bytes) -> None:
        assert not self.closed
        self._given(pcm)

    def clear(self) -> None: ...

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def sent() -> Given:
    """What a microphone has sent."""
    return Given()


@pytest.fixture
async def microphone(sent: Given) -> AsyncIterator[LiveMicrophone]:
    no_tap: Any = None
    microphone = LiveMicrophone(MediaWay("public", lambda _: Sent(sent), no_tap, no_tap))
    yield microphone
    await microphone.aclose()


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


async def test_a_silence_that_failed_begins_anew_when_it_is_asked_for_again(
    sent: Given, microphone: LiveMicrophone, caplog: pytest.LogCaptureFixture
) -> None:
    sender: Any = microphone._sender
    send, failures = sender.send, [ValueError("not taken")]

    def fail_once(pcm: bytes) -> None:
        if failures:
            raise failures.pop()
        send(pcm)

    sender.send = fail_once
    microphone.keep_alive()
    assert microphone._pacer is not None
    await asyncio.to_thread(microphone._pacer.join, 5.0)
    assert "could not be kept alive" in caplog.text
    microphone.keep_alive()
    await sent.more(3)
