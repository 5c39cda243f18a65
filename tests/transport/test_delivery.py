"""Speech as byte streams: when it leaves, and what of it arrives."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from livekit import rtc

from livekit_plugins_runway.playout.audio import SAMPLE_RATE
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.transport.delivery import DataStreamDelivery
from livekit_plugins_runway.transport.worker_protocol import AUDIO_STREAM_TOPIC, RPC_CLEAR_BUFFER

pytestmark = pytest.mark.server

WORKER = "worker"
SAID = b"\1\0" * (SAMPLE_RATE // 10)
"""0.1 s."""
SAID_BYTES = len(SAID) // 3
"""On the wire, at 16 kHz."""


@dataclass
class Worker:
    """Who takes the speech: the streams that came, each with what it held when it was closed."""

    room: rtc.Room
    streams: list[bytes] = field(default_factory=list)
    opened: int = 0
    begun: list[bytes] = field(default_factory=list)
    """The pieces that came, of streams that may still be open."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def take(self, reader: rtc.ByteStreamReader, _: str) -> None:
        self.opened += 1
        self.tasks.add(asyncio.create_task(self._read(reader)))

    async def _read(self, reader: rtc.ByteStreamReader) -> None:
        data = b""
        async for chunk in reader:
            data += chunk
            self.begun.append(chunk)
            self.changed.set()
        self.streams.append(data)
        self.changed.set()

    async def first_piece(self) -> bytes:
        async with asyncio.timeout(5.0):
            while not self.begun:
                self.changed.clear()
                await self.changed.wait()
        return self.begun[0]

    async def until_closed(self, count: int) -> list[bytes]:
        async with asyncio.timeout(5.0):
            while len(self.streams) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.streams


@contextlib.asynccontextmanager
async def delivering(server: LiveKitServer) -> AsyncIterator[tuple[DataStreamDelivery, Worker]]:
    room, worker = rtc.Room(), Worker(rtc.Room())
    name = f"delivery-{secrets.token_hex(4)}"
    failures: list[bool] = []
    try:
        await worker.room.connect(server.url, server.token(name, WORKER))
        worker.room.register_byte_stream_handler(AUDIO_STREAM_TOPIC, worker.take)
        worker.room.local_participant.register_rpc_method(RPC_CLEAR_BUFFER, lambda _: "ok")
        await room.connect(server.url, server.token(name, "agent"))
        # The first stream may come before its receiver knows the sender.
        first = DataStreamDelivery(room, WORKER, lambda: failures.append(True))
        first.send(SAID)
        first.finish()
        await worker.until_closed(1)
        await first.aclose()
        worker.streams.clear()
        worker.begun.clear()
        worker.opened = 0
        delivery = DataStreamDelivery(room, WORKER, lambda: failures.append(True))
        try:
            yield delivery, worker
        finally:
            await delivery.aclose()
        assert not failures
    finally:
        await room.disconnect()
        await worker.room.disconnect()
        for task in worker.tasks:
            task.cancel()
        await asyncio.gather(*worker.tasks, return_exceptions=True)


async def test_a_segment_is_a_stream_of_its_own(livekit_server: LiveKitServer) -> None:
    async with delivering(livekit_server) as (delivery, worker):
        for _ in range(2):
            delivery.send(SAID)
            delivery.send(SAID)
            delivery.finish()
        streams = await worker.until_closed(2)
        assert [len(stream) for stream in streams] == [2 * SAID_BYTES] * 2


async def test_the_first_words_do_not_wait_for_more(livekit_server: LiveKitServer) -> None:
    async with delivering(livekit_server) as (delivery, worker):
        delivery.send(SAID)
        assert await worker.first_piece()
        assert worker.streams == []
        delivery.finish()
        assert [len(stream) for stream in await worker.until_closed(1)] == [SAID_BYTES]


async def test_what_is_cleared_before_it_left_is_not_said_and_leaves_no_stream_open(
    livekit_server: LiveKitServer,
) -> None:
    async with delivering(livekit_server) as (delivery, worker):
        delivery.send(SAID)
        assert await delivery.clear()
        delivery.send(SAID)
        delivery.finish()
        assert [len(stream) for stream in await worker.until_closed(1)] == [SAID_BYTES]
        assert worker.opened == 1


async def test_what_is_cleared_while_its_stream_is_opened_leaves_no_stream_open(
    livekit_server: LiveKitServer,
) -> None:
    async with delivering(livekit_server) as (delivery, worker):
        delivery.send(SAID)
        await asyncio.sleep(0)  # the stream is asked for
        assert await delivery.clear()
        delivery.send(SAID)
        delivery.finish()
        assert [len(stream) for stream in await worker.until_closed(2)] == [0, SAID_BYTES]
        assert worker.opened == 2


async def test_closed_while_a_stream_is_being_opened_it_ends_and_the_next_one_speaks(
    livekit_server: LiveKitServer,
) -> None:
    async with delivering(livekit_server) as (delivery, worker):
        delivery.send(SAID)
        await asyncio.sleep(0)  # the stream is asked for
        async with asyncio.timeout(1.0):
            await delivery.aclose()
            await delivery.aclose()
        following = DataStreamDelivery(delivery._room, WORKER, lambda: None)
        following.send(SAID)
        following.finish()
        assert [len(stream) for stream in await worker.until_closed(2)] == [0, SAID_BYTES]
        await following.aclose()
