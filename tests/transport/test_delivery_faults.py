"""Speech as byte streams where the room does not take them: who is told, and what stays open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from livekit import rtc

from livekit_plugins_runway.playout.audio import SAMPLE_RATE
from livekit_plugins_runway.transport.delivery import DataStreamDelivery, TrackDelivery
from tests.support.scripted_room import settle
from tests.support.virtual_clock import timers_only

SAID = b"\1\0" * (SAMPLE_RATE // 10)


class Stream:
    """In place of `rtc.ByteStreamWriter`."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.written = b""
        self.ends = 0

    async def write(self, data: bytes) -> None:
        await self.room.answer("write")
        self.written += data

    async def aclose(self) -> None:
        self.ends += 1
        await self.room.answer("close")


class Room:
    """Opens a stream in 0.1 s, and does the rest at once; but for what `fails` or `hangs`."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.fails: dict[str, Exception] = {}
        self.hangs: set[str] = set()

    @property
    def local_participant(self) -> Room:
        return self

    async def answer(self, what: str) -> None:
        if what in self.hangs:
            await asyncio.Event().wait()
        if what in self.fails:
            raise self.fails[what]

    async def stream_bytes(self, **_: object) -> Stream:
        # The worker is told at once; whoever is cancelled later does not take that back.
        self.streams.append(Stream(self))
        await asyncio.sleep(0.1)
        await self.answer("open")
        return self.streams[-1]

    async def publish_track(self, _track: object, _options: object) -> None:
        await self.answer("publish")


def delivery_in(room: Any, failures: list[bool]) -> DataStreamDelivery:
    return DataStreamDelivery(room, "worker", lambda: failures.append(True))


@pytest.mark.parametrize("error", [rtc.StreamError("refused"), RuntimeError("no room"), OSError()])
@pytest.mark.parametrize("what", ["open", "write", "close"])
@timers_only
async def test_whatever_keeps_speech_from_going_out_is_told_once(
    what: str, error: Exception
) -> None:
    room, failures = Room(), list[bool]()
    delivery = delivery_in(room, failures)
    room.fails[what] = error
    for _ in range(2):
        delivery.send(SAID)
        delivery.finish()
        await asyncio.sleep(1.0)
    assert failures == [True]
    await delivery.aclose()
    assert failures == [True]


@timers_only
async def _fail() -> None:
    room = Room()
    room.fails["write"] = RuntimeError("no room")
    delivery = delivery_in(room, [])
    delivery.send(SAID)
    await asyncio.sleep(1.0)
    await delivery.aclose()


def test_it_is_logged_with_its_type(caplog: pytest.LogCaptureFixture) -> None:
    _fail()
    told = [vars(record)["error"] for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["RuntimeError"]


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.5])
@timers_only
async def test_closed_it_ends_the_stream_that_is_open_or_being_opened(moment: float) -> None:
    room, failures = Room(), list[bool]()
    delivery = delivery_in(room, failures)
    delivery.send(SAID)
    await (asyncio.sleep(moment) if moment else settle())
    async with asyncio.timeout(0.5):
        await delivery.aclose()
        await delivery.aclose()
    assert [stream.ends for stream in room.streams] == [1]
    assert failures == []


@timers_only
async def test_closed_between_two_segments_it_has_nothing_to_end() -> None:
    room = Room()
    delivery = delivery_in(room, [])
    delivery.send(SAID)
    delivery.finish()
    await asyncio.sleep(0.5)
    await delivery.aclose()
    assert [stream.ends for stream in room.streams] == [1]


@pytest.mark.parametrize("what", ["open", "write", "close"])
@pytest.mark.parametrize("moment", [0.05, 0.5])
@timers_only
async def test_closing_does_not_wait_for_an_answer_that_does_not_come(
    moment: float, what: str
) -> None:
    room = Room()
    delivery = delivery_in(room, [])
    room.hangs.add(what)
    delivery.send(SAID)
    delivery.finish()
    await asyncio.sleep(moment)
    before = asyncio.get_running_loop().time()
    await delivery.aclose()
    assert asyncio.get_running_loop().time() - before <= 1.0
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


@timers_only
async def test_a_track_whose_publication_is_not_answered_is_given_up() -> None:
    room = Room()
    room.hangs.add("publish")
    as_room: Any = room
    delivery = TrackDelivery(as_room)
    async with asyncio.timeout(11.0):
        with pytest.raises(TimeoutError):
            await delivery.publish()
    await delivery.aclose()
