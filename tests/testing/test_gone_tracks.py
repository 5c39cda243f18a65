"""Of a track that has gone nothing is heard or seen, though its stream may go on with another's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from livekit import rtc

from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.user import SimulatedUser
from livekit_plugins_runway.testing.worker.hearing import Microphone
from livekit_plugins_runway.testing.worker.performance import Performance
from tests.support.scripted_room import (
    AGENT,
    AUDIO,
    VIDEO,
    ScriptedParticipant,
    ScriptedRoom,
    settle,
)

SIDE = 64
SOUND = SimpleNamespace(data=np.full(SAMPLE_RATE // 50, 8000, np.int16).tobytes())
PICTURE = rtc.VideoFrame(SIDE, SIDE, rtc.VideoBufferType.I420, bytes(SIDE * SIDE * 3 // 2))


class Stream:
    """In place of the SDK's streams; it does not end with its track."""

    made: ClassVar[list[Stream]] = []

    def __init__(self, *_: object, **__: object) -> None:
        self.frames: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = False
        Stream.made.append(self)

    def comes(self, kind: rtc.TrackKind.ValueType) -> None:
        """Something of it, or of the track that has its place now."""
        frame = PICTURE if kind == VIDEO else SOUND
        self.frames.put_nowait(SimpleNamespace(frame=frame))

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> object:
        return await self.frames.get()

    async def aclose(self) -> None:
        self.closed = True


class Room(ScriptedRoom):
    """As much of a room as a user asks for."""

    async def connect(self, *_: object) -> None: ...

    async def disconnect(self) -> None: ...

    def register_text_stream_handler(self, *_: object) -> None: ...


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    room = Room()
    monkeypatch.setattr(Stream, "made", [])
    for name in ("AudioStream", "VideoStream"):
        monkeypatch.setattr(rtc, name, Stream)
    monkeypatch.setattr(rtc, "Room", lambda: room)
    return room


HOW_IT_GOES: list[Callable[[Room, ScriptedParticipant, rtc.TrackKind.ValueType], None]] = [
    Room.unsubscribe,
    Room.unpublish,
]


@pytest.mark.parametrize("goes", HOW_IT_GOES)
@pytest.mark.parametrize("kind", [AUDIO, VIDEO])
async def test_a_user_reads_no_more_of_a_track_that_has_gone(
    room: Room,
    kind: rtc.TrackKind.ValueType,
    goes: Callable[[Room, ScriptedParticipant, rtc.TrackKind.ValueType], None],
) -> None:
    async with user() as listener:
        worker = room.join("worker", kind, kind=AGENT)
        room.deliver(worker, kind)
        await settle()
        (stream,) = Stream.made
        stream.comes(kind)
        await settle()
        assert taken(listener) == 1
        goes(room, worker, kind)
        stream.comes(kind)
        await settle()
        assert taken(listener) == 1
        assert stream.closed


@pytest.mark.parametrize("kind", [AUDIO, VIDEO])
async def test_a_user_reads_the_new_track_of_a_publication_and_not_the_old_one(
    room: Room, kind: rtc.TrackKind.ValueType
) -> None:
    """Also where nobody has told that the old one is gone, and where it comes twice at once."""
    async with user() as listener:
        worker = room.join("worker", kind, kind=AGENT)
        for _ in range(3):
            room.deliver(worker, kind)
        await settle()
        for stream in Stream.made:
            stream.comes(kind)
        await settle()
        assert taken(listener) == 1
        assert [stream.closed for stream in Stream.made[:-1]] == [True] * (len(Stream.made) - 1)
        room.unsubscribe(worker, kind)
        Stream.made[-1].comes(kind)
        await settle()
        assert taken(listener) == 1


async def test_a_simulated_worker_hears_no_more_of_a_track_that_has_gone(room: Room) -> None:
    heard: list[int] = []
    echo: Any = SimpleNamespace(
        feed=lambda samples, _now: heard.append(len(samples)), clear=lambda: None
    )
    ear = Microphone(
        0.7,
        Performance(time.monotonic, lambda: None),
        lambda _: True,
        echo=echo,
    )
    ear.attend(room.as_room)
    running = asyncio.create_task(ear.run())
    agent = room.join("agent", AUDIO, kind=AGENT)
    room.deliver(agent, AUDIO)
    await settle()
    Stream.made[0].comes(AUDIO)
    await settle()
    room.unsubscribe(agent, AUDIO)
    room.deliver(agent, AUDIO)
    Stream.made[0].comes(AUDIO)
    await settle()
    assert len(heard) == 1
    Stream.made[1].comes(AUDIO)
    await settle()
    assert len(heard) == 2
    assert Stream.made[0].closed
    running.cancel()
    await asyncio.wait([running])


def user() -> SimulatedUser:
    return SimulatedUser(
        "ws://h", "r", api_key="key", api_secret="s" * 32, hidden=True, listen_to="worker"
    )


def taken(user: SimulatedUser) -> int:
    """Pieces of sound and pictures."""
    sounds = sum(len(ears.timeline._frames) for ears in user._ears.values())
    return len(user.frames) + sounds
