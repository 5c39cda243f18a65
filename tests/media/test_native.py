"""The native way: the SDK's queue is exchanged while it is used, and nothing of others is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from livekit import rtc

from livekit_plugins_runway.media import native, ways
from livekit_plugins_runway.playout.audio import HOP, SAMPLE_RATE, SILENCE

OTHERS = 1 << 40
"""Ids of answers that nobody of the SDK waits for."""


def present() -> Any:
    """The queue to which the SDK gives its events now."""
    return native.FfiClient.instance.queue


def answer(number: int) -> Any:
    """An event that does not concern the native way."""
    event = native.ffi_pb2.FfiEvent()
    event.capture_audio_frame.async_id = OTHERS + number
    return event


def number_of(event: Any) -> int:
    return int(event.capture_audio_frame.async_id) - OTHERS


def concerns_a_test(event: Any) -> bool:
    return event.WhichOneof("message") == "capture_audio_frame" and number_of(event) >= 0


def frame_event(stream: int) -> Any:
    event = native.ffi_pb2.FfiEvent()
    event.audio_stream_event.stream_handle = stream
    event.audio_stream_event.frame_received.SetInParent()
    return event


def end_event(stream: int) -> Any:
    event = native.ffi_pb2.FfiEvent()
    event.audio_stream_event.stream_handle = stream
    event.audio_stream_event.eos.SetInParent()
    return event


class Library:
    """Answers requests for audio streams in the native library's place, with handles of nothing,
    and tells of their end when they are closed."""

    def __init__(self, handle: int = 1 << 50) -> None:
        self._handle = handle

    def request(self, _: Any) -> Any:
        self._handle += 1
        opened = native.ffi_pb2.FfiResponse()
        opened.new_audio_stream.stream.handle.id = self._handle
        return opened


class Handle:
    """Of a stream that does not exist: nothing is freed."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def dispose(self) -> None: ...


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(native.FfiClient.instance, "request", library.request)
    monkeypatch.setattr(native, "FfiHandle", Handle)
    return library


@pytest.fixture(autouse=True)
def the_sdks_own_queue() -> Iterator[Any]:
    """What is in place before a test and has to be in place after it."""
    before = present()
    assert type(before) is native.FfiQueue
    yield before
    assert present() is before


def a_stream(on_frame: Any = lambda _: None) -> native._Stream:
    request = native.ffi_pb2.FfiRequest()
    request.new_audio_stream.SetInParent()
    return native._Stream(request, on_frame)


def handle_of(stream: native._Stream) -> int:
    return int(stream._handle.handle)


# -- in its place, and back


async def test_the_sdks_queue_is_back_when_the_last_user_is_gone(
    library: Library, the_sdks_own_queue: Any
) -> None:
    first, second = a_stream(), a_stream()
    source: Any = None
    sender = native.Sender(source)
    exchange = present()
    assert exchange is not the_sdks_own_queue
    exchange.put(end_event(handle_of(first)))
    await sender.aclose()
    await sender.aclose()
    assert present() is exchange
    exchange.put(end_event(handle_of(second)))
    exchange.put(end_event(handle_of(second)))  # told twice, counted once
    assert present() is the_sdks_own_queue
    async with asyncio.timeout(1.0):
        await first.aclose()
        await second.aclose()
    again = native.Sender(source)
    assert present() is not the_sdks_own_queue
    await again.aclose()


async def test_a_stream_that_is_refused_leaves_nothing(
    the_sdks_own_queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(native.FfiClient.instance, "request", refuse)
    with pytest.raises(RuntimeError, match="no"):
        a_stream()
    assert present() is the_sdks_own_queue


async def test_who_has_exchanged_the_queue_meanwhile_keeps_the_place(
    the_sdks_own_queue: Any,
) -> None:
    source: Any = None
    sender = native.Sender(source)
    exchange = present()
    somebody_elses = native._Exchange(exchange)
    native.FfiClient.instance._queue = somebody_elses
    await sender.aclose()
    assert present() is somebody_elses
    native.FfiClient.instance._queue = the_sdks_own_queue


async def test_subscriptions_outlive_both_exchanges(the_sdks_own_queue: Any) -> None:
    source: Any = None
    before = present().subscribe(filter_fn=concerns_a_test)
    unsubscribed = present().subscribe(filter_fn=concerns_a_test)
    sender = native.Sender(source)
    during = present().subscribe(filter_fn=concerns_a_test)
    present().unsubscribe(unsubscribed)
    exchange = present()
    exchange.put(answer(1))
    await sender.aclose()
    present().put(answer(2))
    exchange.put(answer(3))  # by a thread that had it in its hands
    await asyncio.sleep(0)
    for queue in (before, during):
        assert [number_of(queue.get_nowait()) for _ in range(queue.qsize())] == [1, 2, 3]
        present().unsubscribe(queue)
    assert unsubscribed.qsize() == 0


async def test_no_event_of_others_is_lost_while_the_queue_is_exchanged_again_and_again() -> None:
    events = 4000
    got: list[int] = []
    queue = present().subscribe(filter_fn=concerns_a_test)
    done = threading.Event()

    def tell() -> None:  # as the SDK's threads do
        for number in range(events):
            present().put(answer(number))
        done.set()

    def come_and_go() -> None:
        while not done.is_set():
            exchange = native._Exchange.enter()
            mine = present().subscribe(loop, filter_fn=lambda _: False)
            exchange.leave()
            present().unsubscribe(mine)

    loop = asyncio.get_running_loop()
    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    threads.append(threading.Thread(target=tell))
    for thread in threads:
        thread.start()
    async with asyncio.timeout(30.0):
        while len(got) < events:
            got.append(number_of(await queue.get()))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    present().unsubscribe(queue)
    assert got == list(range(events))


# -- events


async def test_a_stream_that_ends_while_it_is_opened_is_seen_to_end(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[threading.Thread] = []

    def answer_late(question: Any) -> Any:
        opened = library.request(question)
        event = end_event(opened.new_audio_stream.stream.handle.id)
        told.append(threading.Thread(target=present().put, args=[event]))
        told[0].start()
        told[0].join(0.2)
        return opened

    with monkeypatch.context() as patch:
        patch.setattr(native.FfiClient.instance, "request", answer_late)
        stream = a_stream()
    async with asyncio.timeout(5.0):
        await stream.ended.wait()
    await asyncio.to_thread(told[0].join)


async def test_an_end_that_is_not_told_is_not_waited_for_and_may_still_come(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "END_TIMEOUT", 0.05)
    stream = a_stream()
    async with asyncio.timeout(5.0):
        await stream.aclose()
    assert not stream.ended.is_set()
    present().put(end_event(handle_of(stream)))
    async with asyncio.timeout(5.0):
        await stream.ended.wait()


async def test_a_callback_that_raises_is_told_of_the_next_event_and_others_of_theirs(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[Any] = []

    def refuse(received: Any) -> None:
        asked.append(received)
        raise ValueError("no")

    heard: list[Any] = []
    refused = a_stream(refuse)
    other = a_stream(heard.append)
    rest = present().subscribe(filter_fn=concerns_a_test)
    exchange = present()
    for number in range(3):
        exchange.put(frame_event(handle_of(refused)))
        exchange.put(frame_event(handle_of(other)))
        exchange.put(answer(number))
    assert (len(asked), len(heard)) == (3, 3)
    assert [r.exc_info[0] for r in caplog.records if r.exc_info] == [ValueError]
    exchange.put(end_event(handle_of(refused)))
    exchange.put(end_event(handle_of(other)))
    async with asyncio.timeout(1.0):
        await refused.ended.wait()
        await other.ended.wait()
    assert [number_of(rest.get_nowait()) for _ in range(rest.qsize())] == [0, 1, 2]
    present().unsubscribe(rest)


def test_events_for_an_event_loop_that_is_closed_raise_nothing(
    library: Library, the_sdks_own_queue: Any
) -> None:
    async def make() -> int:
        return handle_of(a_stream())

    stream = asyncio.run(make())
    present().put(end_event(stream))
    assert present() is the_sdks_own_queue


async def test_of_what_was_sent_no_room_is_told_and_who_waits_for_an_answer_still_gets_it() -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=100)
    sender = native.Sender(source)
    told = present().subscribe()
    for _ in range(5):
        sender.send(SILENCE)
    async with asyncio.timeout(5.0):
        await source.capture_frame(rtc.AudioFrame(SILENCE, SAMPLE_RATE, 1, HOP))
    answers = [told.get_nowait().WhichOneof("message") for _ in range(told.qsize())]
    present().unsubscribe(told)
    assert answers == ["capture_audio_frame"]
    await sender.aclose()
    await source.aclose()


async def test_sound_is_sent_from_a_thread_without_an_event_loop() -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=100)
    made: list[native.Sender] = []

    def make_and_send() -> None:
        made.append(native.Sender(source))
        made[0].send(SILENCE)

    thread = threading.Thread(target=make_and_send)
    thread.start()
    await asyncio.to_thread(thread.join)
    await made[0].aclose()
    await source.aclose()
