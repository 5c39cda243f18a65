"""Which of the two ways to the media is taken, and what does without the SDK's private parts."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from livekit import rtc

from livekit_plugins_runway._common.versions import TESTED_LIVEKIT
from livekit_plugins_runway.errors import ConfigurationError
from livekit_plugins_runway.media import public, ways
from livekit_plugins_runway.media.monitor import AvatarMonitor
from livekit_plugins_runway.media.ways import VARIABLE, Guarded, choose, decide
from livekit_plugins_runway.playout.audio import HOP, SAMPLE_RATE, SILENCE
from tests.support.scripted_room import settle
from tests.support.virtual_clock import timers_only


@pytest.fixture(autouse=True)
def not_chosen_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    ways._chosen.cache_clear()


# -- the choice


def test_the_native_way_is_taken_with_each_livekit_that_the_suite_ran_with() -> None:
    assert rtc.__version__ in TESTED_LIVEKIT
    for version in TESTED_LIVEKIT:
        way, reason = decide(None, version)
        assert way.name == "native"
        assert version in reason


def test_another_livekit_is_taken_on_the_public_way_unless_native_is_asked_for() -> None:
    way, reason = decide(None, "1.9.0")
    assert (way.name, "1.9.0" in reason) == ("public", True)
    assert decide("native", "1.9.0")[0].name == "native"


@pytest.mark.parametrize("name", ["native", "public"])
def test_the_variable_and_the_argument_force_a_way(
    name: ways.WayName, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose(name).name == name
    monkeypatch.setenv(VARIABLE, name)
    assert choose().name == name
    assert choose("public").name == "public"


def test_a_way_that_does_not_exist_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "fast")
    with pytest.raises(ConfigurationError, match=r"RUNWAY_AVATAR_MEDIA must be one of.*'fast'"):
        choose()


def test_a_part_that_the_sdk_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from livekit_plugins_runway.media import native

    monkeypatch.setitem(native._EVENTS, "audio_stream_event", ("stream_handle", "sideways"))
    monkeypatch.setitem(native._REQUESTS, "ask_kindly", ("please",))
    assert native.missing() == ["ask_kindly.please", "audio_stream_event.sideways"]
    way, reason = decide(None, rtc.__version__)
    assert (way.name, "audio_stream_event.sideways" in reason) == ("public", True)
    with pytest.raises(ConfigurationError, match=r"lacks parts.*sideways.*Unset"):
        decide("native", rtc.__version__)


def test_it_is_chosen_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert choose() is choose()
    (record,) = [r for r in caplog.records if "way to the media" in r.message]
    assert record.levelno == logging.INFO
    assert vars(record)["way"] == "native"
    assert rtc.__version__ in vars(record)["reason"]


# -- without the private parts

WITHOUT = """
import importlib, pkgutil, sys
import livekit.rtc._ffi_client as private
for name in ("FfiClient", "FfiHandle", "FfiQueue"):
    delattr(private, name)
import livekit_plugins_runway as package
names = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if name.endswith(("media.native", "__main__")):
        continue
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # of the extra `serve`, which is not installed everywhere
        if error.name not in ("uvicorn", "mcp"):
            raise
assert "livekit_plugins_runway.errors" in sys.modules
assert "livekit_plugins_runway.cli.app" in sys.modules
assert "livekit_plugins_runway.media.native" not in sys.modules
from livekit_plugins_runway.media.ways import choose
print(choose().name, flush=True)
sys.argv = ["runway-avatar", "--help"]
from livekit_plugins_runway.cli.__main__ import main
main()
"""


@pytest.mark.slow
def test_all_but_the_native_way_runs_without_the_sdks_private_parts() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("public\n")
    assert "sessions" in done.stdout


# -- what a callback raises


def test_what_a_callback_raises_is_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_: int) -> None:
        raise ValueError("no")

    guarded = Guarded(refuse)
    for number in range(3):
        guarded(number)
    assert guarded.failures == 3
    (record,) = caplog.records
    assert record.exc_info is not None


# -- sending in turn, on the public way


class Source:
    """A source that has a frame as soon as it is asked and answers later; it refuses the `refused`
    ones."""

    def __init__(self, *refused: int) -> None:
        self.taken: list[bytes] = []
        self.waiting_for_answer = self.most_waiting = 0
        self._more = asyncio.Event()
        self._refused = refused
        self._count = 0

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        assert (frame.sample_rate, frame.num_channels) == (SAMPLE_RATE, 1)
        self._count += 1
        refused = self._count in self._refused
        if not refused:
            self.taken.append(bytes(frame.data))
            self._more.set()
        self.waiting_for_answer += 1
        self.most_waiting = max(self.most_waiting, self.waiting_for_answer)
        try:
            await asyncio.sleep(0.02)
        finally:
            self.waiting_for_answer -= 1
        if refused:
            raise Exception("no room")

    async def until(self, count: int) -> None:
        """Until it has taken so many."""
        async with asyncio.timeout(5.0):
            while len(self.taken) < count:
                self._more.clear()
                await self._more.wait()


def _word(number: int) -> bytes:
    return number.to_bytes(2, "little") * HOP


async def test_what_threads_send_arrives_in_order() -> None:
    source: Any = Source()
    sender = public.Sender(source)
    words = [_word(n) for n in range(1, 61)]

    def send_half() -> None:
        for word in words[:30]:
            sender.send(word)

    await asyncio.to_thread(send_half)
    for word in words[30:]:
        sender.send(word)
    await source.until(60)
    assert source.taken == words
    await sender.aclose()


async def test_an_answer_is_not_waited_for_but_only_some_are_open_at_once() -> None:
    source: Any = Source()
    sender = public.Sender(source)
    for number in range(1, 61):
        sender.send(_word(number))
    await source.until(60)
    assert source.most_waiting == 4
    await sender.aclose()
    assert source.waiting_for_answer == 0


async def test_what_a_source_refuses_stops_nothing() -> None:
    source: Any = Source(2)
    sender = public.Sender(source)
    for number in range(4):
        sender.send(_word(number))
    await source.until(3)
    assert source.taken == [_word(0), _word(2), _word(3)]
    sender.send(_word(4))
    await source.until(4)
    await sender.aclose()


async def test_a_second_of_sound_waits_and_what_is_older_is_dropped() -> None:
    source: Any = Source()
    sender = public.Sender(source)
    for number in range(1, 151):  # the event loop does not run meanwhile
        sender.send(_word(number))
    await source.until(100)
    assert source.taken == [_word(n) for n in range(51, 151)]
    assert sender.dropped == 50
    await sender.aclose()


async def test_a_tenth_of_a_second_of_silence_waits_and_words_come_behind_it() -> None:
    source: Any = Source()
    sender = public.Sender(source)
    for _ in range(50):  # the event loop does not run meanwhile
        sender.send(SILENCE)
    sender.send(_word(1))
    await source.until(11)
    await sender.aclose()
    assert source.taken == [SILENCE] * 10 + [_word(1)]


async def test_what_is_cleared_and_what_waits_at_the_end_is_not_sent() -> None:
    source: Any = Source()
    sender = public.Sender(source)
    sender.send(_word(1))
    await asyncio.sleep(0)  # it is about to be sent
    sender.send(_word(1))
    sender.clear()
    sender.send(_word(2))
    await source.until(1)
    for number in range(3, 20):
        sender.send(_word(number))
    await sender.aclose()
    await sender.aclose()
    sender.send(_word(20))
    await asyncio.sleep(0.02)
    assert source.taken == [_word(2)]
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_thread_that_outlives_the_event_loop_sends_to_nobody() -> None:
    async def make() -> public.Sender:
        source: Any = Source()
        return public.Sender(source)

    sender = asyncio.run(make())
    sender.send(SILENCE)


# -- a stream that fails


class Fails:
    """In place of `rtc.AudioStream`."""

    def __init__(self, *_: object, **__: object) -> None:
        self.closed = False

    def __aiter__(self) -> Fails:
        return self

    async def __anext__(self) -> object:
        raise ValueError("the SDK's stream has failed")

    async def aclose(self) -> None:
        self.closed = True


async def test_a_voice_whose_stream_fails_says_so_to_who_waits_for_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rtc, "AudioStream", Fails)
    track: Any = None
    voice = public.VoiceTap(track, lambda _: None)
    with pytest.raises(ValueError, match="has failed"):
        await voice.wait_until_ended()
    await voice.aclose()
    stream: Any = voice._stream
    assert stream.closed


class Endless:
    """In place of the SDK's streams: what ends it is never answered."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __aiter__(self) -> Endless:
        return self

    async def __anext__(self) -> object:
        return await asyncio.Event().wait()

    async def aclose(self) -> None:
        await asyncio.Event().wait()


async def _end_a_voice(track: Any) -> None:
    await public.VoiceTap(track, lambda _: None).aclose()


async def _end_pictures(track: Any) -> None:
    await public.PictureTap(track, 2).aclose()


async def _end_a_sound(track: Any) -> None:
    listening = asyncio.create_task(anext(public.sound(track, 1)))
    await settle()
    listening.cancel()
    await asyncio.wait([listening])


async def _end_a_look(track: Any) -> None:
    monitor = AvatarMonitor(
        audio=track,
        video=track,
        listener=track,
        on_first_frame=lambda: None,
        on_active=lambda _: None,
    )
    running = asyncio.create_task(monitor.run())
    await settle()
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("end", [_end_a_voice, _end_pictures, _end_a_sound, _end_a_look])
@timers_only
async def test_a_stream_that_does_not_end_is_not_waited_for_without_limit(
    end: Callable[[Any], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AudioStream", "VideoStream"):
        monkeypatch.setattr(rtc, name, Endless)
    async with asyncio.timeout(ways.END_TIMEOUT + 0.5):
        await end(None)


# -- the loop of the public way's sound --


@pytest.fixture
def voice_loop() -> Iterator[public.VoiceLoop]:
    loop = public.VoiceLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_calls_of_many_threads_are_all_made_and_those_of_each_in_their_order(
    voice_loop: public.VoiceLoop,
) -> None:
    made: list[tuple[int, int]] = []

    def call(thread: int) -> None:
        for number in range(500):
            voice_loop.call_soon_threadsafe(made.append, (thread, number))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = threading.Event()
    voice_loop.call_soon_threadsafe(done.set)
    assert done.wait(10.0)
    for number in range(8):
        assert [nth for thread, nth in made if thread == number] == list(range(500))


def test_a_loop_that_is_busy_is_woken_once_for_all_calls(voice_loop: public.VoiceLoop) -> None:
    busy, free, done = threading.Event(), threading.Event(), threading.Event()

    def be_busy() -> None:
        busy.set()
        free.wait(10.0)

    voice_loop.call_soon_threadsafe(be_busy)
    assert busy.wait(10.0)
    made: list[int] = []
    with mock.patch.object(
        asyncio.SelectorEventLoop,
        "call_soon_threadsafe",
        autospec=True,
        side_effect=asyncio.SelectorEventLoop.call_soon_threadsafe,
    ) as woken:
        for number in range(20):
            handle = voice_loop.call_soon_threadsafe(made.append, number)
        handle.cancel()
        voice_loop.call_soon_threadsafe(done.set)
        free.set()
        assert done.wait(10.0)
    assert woken.call_count == 1
    assert made == list(range(19))
