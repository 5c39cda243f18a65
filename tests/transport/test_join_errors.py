"""What is said of a worker that does not come: what happened, and after how long."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from livekit_plugins_runway.errors import AvatarJoinError
from livekit_plugins_runway.transport.worker_watch import WorkerWatch
from tests.support.scripted_room import AGENT, ScriptedRoom
from tests.support.virtual_clock import timers_only

WORKER = "worker:s"
LIMIT = 30.0


class Waiting:
    """A watch in a room in which the worker comes and goes, and the connection is lost."""

    def __init__(self) -> None:
        self.room = ScriptedRoom()
        self.watch = WorkerWatch(
            self.room.as_room, is_worker=WORKER.__eq__, on_lost=lambda _reason: None
        )
        self.watch.open()

    def comes(self) -> None:
        self.room.join(WORKER, kind=AGENT)

    def leaves(self) -> None:
        self.room.leave(self.room.remote_participants[WORKER])

    def is_lost(self) -> None:
        self.room.lose_connection()


async def failure(waiting: Any) -> AvatarJoinError:
    with pytest.raises(AvatarJoinError) as raised:
        await waiting
    return raised.value


@timers_only
async def test_a_worker_that_does_not_come_is_told_with_the_whole_wait() -> None:
    error = await failure(Waiting().watch.wait_for_worker("s", LIMIT))
    assert (error.reason, error.missing, error.waited) == ("timed_out", "participant", LIMIT)
    assert str(error) == "The Runway avatar worker did not join the room within 30 s."


@timers_only
async def test_a_worker_that_leaves_is_told_as_such_with_the_time_it_took() -> None:
    room = Waiting()
    room.comes()
    asyncio.get_running_loop().call_later(0.2, room.leaves)
    error = await failure(room.watch.wait_for_media("s", LIMIT))
    assert (error.reason, error.missing) == ("worker_left", "video")
    assert error.waited == pytest.approx(0.2)
    assert str(error) == "The Runway avatar worker left after 0.2 s, and had sent no video."


@timers_only
async def test_a_worker_that_had_left_before_is_not_waited_for() -> None:
    room = Waiting()
    room.comes()
    room.leaves()
    error = await failure(room.watch.wait_for_media("s", LIMIT))
    assert (error.reason, error.waited) == ("worker_left", 0.0)


@timers_only
async def test_a_lost_connection_is_not_blamed_on_the_worker() -> None:
    room = Waiting()
    asyncio.get_running_loop().call_later(1.5, room.is_lost)
    error = await failure(room.watch.wait_for_worker("s", LIMIT))
    assert (error.reason, error.missing, error.waited) == ("room_lost", "participant", 1.5)
    assert str(error) == (
        "The connection to the room was lost after 1.5 s; the Runway avatar worker had not joined."
    )


@timers_only
async def test_the_error_keeps_what_it_says_when_it_is_pickled() -> None:
    room = Waiting()
    room.comes()
    asyncio.get_running_loop().call_later(0.2, room.is_lost)
    error = await failure(room.watch.wait_for_media("s", LIMIT))
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), vars(twin)) == (str(error), vars(error))
    assert twin.reason == "room_lost"


@timers_only
async def test_the_time_limit_counts_from_the_call_and_not_from_the_last_event() -> None:
    room = Waiting()
    asyncio.get_running_loop().call_later(20.0, lambda: room.room.emit("reconnected"))
    error = await failure(room.watch.wait_for_worker("s", LIMIT))
    assert (error.reason, error.waited) == ("timed_out", LIMIT)
