"""A worker whose session nobody knows is sent away; of the others each is heard as itself."""

from __future__ import annotations

import asyncio
import json

import pytest
from livekit import rtc
from livekit.rtc.participant import PublishDataError

from livekit_plugins_runway._common.tasks import BackgroundTasks
from livekit_plugins_runway.transport.tokens import ATTRIBUTE_INVITATION
from livekit_plugins_runway.transport.worker_protocol import (
    END_CALL,
    PATIENCE,
    RPC_PLAYBACK_FINISHED,
    RPC_PLAYBACK_STARTED,
)
from livekit_plugins_runway.transport.worker_registry import WorkerRegistry
from tests.support.scripted_room import AUDIO, ScriptedRoom, SentData, settle
from tests.support.virtual_clock import timers_only


class Setup:
    """A registry in a room, and whom it had put out, and when."""

    def __init__(self) -> None:
        self.room = ScriptedRoom()
        self.removed: list[tuple[str, float]] = []
        self.background = BackgroundTasks()
        self.registry = WorkerRegistry(self.room.as_room, self._remove, self.background)
        self.registry.open()

    async def _remove(self, identity: str) -> None:
        self.removed.append((identity, asyncio.get_running_loop().time()))

    def finished(self, interrupted: object, sender: str) -> str:
        payload = json.dumps({"interrupted": interrupted, "playback_position": 1.0})
        return self.room.local_participant.call(RPC_PLAYBACK_FINISHED, payload, sender=sender)


class Reports:
    """What a worker has said of its playing."""

    def __init__(self) -> None:
        self.finished: list[bool] = []
        self.started = 0

    def worker_started(self) -> None:
        self.started += 1

    def worker_finished(self, *, interrupted: bool) -> None:
        self.finished.append(interrupted)


def test_what_a_worker_plays_is_told_to_whoever_listens_to_that_worker() -> None:
    setup, first, second = Setup(), Reports(), Reports()
    setup.registry.listen("first", first)
    setup.registry.listen("second", second)
    local = setup.room.local_participant
    assert local.call(RPC_PLAYBACK_STARTED, sender="first") == "ok"
    assert setup.finished(False, "first") == "ok"
    assert setup.finished(True, "second") == "ok"
    assert (first.started, first.finished) == (1, [False])
    assert (second.started, second.finished) == (0, [True])


def test_a_worker_nobody_listens_to_any_more_is_rejected_and_changes_nothing() -> None:
    setup = Setup()
    told = Reports()
    setup.registry.listen("worker", told)
    assert setup.finished(False, "user") == "reject"
    setup.registry.forget("worker")
    setup.registry.forget("worker")
    assert setup.finished(False, "worker") == "reject"
    assert told.finished == []


@pytest.mark.parametrize("payload", ["", "no json", "[]", "{}", '{"interrupted": null}'])
def test_a_report_that_does_not_say_otherwise_counts_as_interrupted(payload: str) -> None:
    setup = Setup()
    told = Reports()
    setup.registry.listen("worker", told)
    local = setup.room.local_participant
    assert local.call(RPC_PLAYBACK_FINISHED, payload, sender="worker") == "ok"
    assert told.finished == [True]


def test_that_a_worker_has_started_is_answered_whoever_says_it() -> None:
    setup = Setup()
    assert setup.room.local_participant.call(RPC_PLAYBACK_STARTED, sender="anybody") == "ok"


@pytest.mark.parametrize("there_before", [True, False])
@timers_only
async def test_an_unwanted_worker_is_told_that_the_call_is_over(there_before: bool) -> None:
    setup = Setup()
    if not there_before:
        setup.registry.evict("orphan")
    other = setup.room.join("worker", AUDIO)
    orphan = setup.room.join("orphan", AUDIO)
    if there_before:
        setup.registry.evict("orphan")
    await settle()
    assert setup.room.local_participant.sent == [SentData(END_CALL, True, ("orphan",))]
    setup.room.leave(orphan)
    await setup.registry.aclose()
    assert setup.removed == []
    assert list(setup.room.remote_participants.values()) == [other]


@timers_only
async def test_one_that_is_still_joining_is_told_only_once_it_can_hear_it() -> None:
    setup = Setup()
    setup.registry.evict("orphan")
    orphan = setup.room.join("orphan")
    await asyncio.sleep(5.0)
    assert setup.room.local_participant.sent == []
    setup.room.publish(orphan, AUDIO)
    await settle()
    assert len(setup.room.local_participant.sent) == 1
    setup.room.leave(orphan)
    await setup.registry.aclose()


@pytest.mark.parametrize(
    "refusal", [None, PublishDataError("no")], ids=["told", "could not be told"]
)
@timers_only
async def test_one_that_does_not_go_by_itself_is_put_out_once(refusal: Exception | None) -> None:
    setup = Setup()
    setup.room.local_participant.refuses = refusal
    setup.registry.evict("orphan")
    orphan = setup.room.join("orphan", AUDIO)
    setup.room.publish(orphan, AUDIO)
    setup.room.leave(setup.room.join("user"))  # that somebody else leaves says nothing about it
    await asyncio.sleep(PATIENCE * 3)
    assert setup.removed == [("orphan", PATIENCE)]
    assert len(setup.room.local_participant.sent) == (0 if refusal else 1)
    await setup.registry.aclose()


@timers_only
async def test_one_that_is_out_of_sight_in_a_reconnect_has_not_gone() -> None:
    setup = Setup()
    setup.registry.evict("orphan")
    orphan = setup.room.join("orphan", AUDIO)
    await settle()
    setup.room.leave(orphan, None)
    await setup.registry.aclose()
    assert setup.removed == [("orphan", PATIENCE)]


@timers_only
async def test_closing_waits_for_one_that_is_being_sent_away() -> None:
    setup = Setup()
    setup.room.join("orphan", AUDIO)
    setup.registry.evict("orphan")
    await settle()
    await setup.registry.aclose()
    assert setup.removed == [("orphan", PATIENCE)]


@timers_only
async def test_closed_it_leaves_nothing_in_the_room_and_may_be_closed_again() -> None:
    setup = Setup()
    await setup.registry.aclose()
    assert setup.room.listeners == 0
    assert setup.room.local_participant.methods == {}


@timers_only
async def test_closed_after_the_room_was_lost_it_asks_nothing_of_it() -> None:
    setup = Setup()
    setup.room.lose_connection()
    await setup.registry.aclose()
    await setup.registry.aclose()
    assert setup.room.listeners == 0
    assert sorted(setup.room.local_participant.methods) == sorted(
        [RPC_PLAYBACK_FINISHED, RPC_PLAYBACK_STARTED]
    )


# -- after the close


@timers_only
async def test_one_that_comes_after_the_close_is_sent_away_while_its_token_lives() -> None:
    setup = Setup()
    setup.registry.evict("orphan", until=150.0)
    await setup.registry.aclose()
    assert setup.room.local_participant.methods == {}
    await asyncio.sleep(140.0)
    orphan = setup.room.join("orphan", AUDIO)
    setup.room.publish(orphan, AUDIO)
    await settle()
    assert setup.room.local_participant.sent == [SentData(END_CALL, True, ("orphan",))]
    setup.room.leave(orphan)
    assert await setup.background.settle(150.0)
    assert setup.room.listeners == 0


@timers_only
async def test_nobody_is_waited_for_longer_than_a_token_lives() -> None:
    setup = Setup()
    setup.registry.evict("orphan", until=150.0)
    setup.registry.evict("other", until=20.0)
    await setup.registry.aclose()
    await setup.registry.aclose()
    assert setup.background.pending == 1
    assert not await setup.background.settle(149.0)
    assert await setup.background.settle(151.0)
    assert setup.room.listeners == 0


@timers_only
async def test_one_that_becomes_unwanted_after_the_close_is_waited_for_too() -> None:
    setup = Setup()
    await setup.registry.aclose()
    setup.registry.evict("orphan", until=30.0)
    setup.registry.evict("late", until=40.0)
    assert not await setup.background.settle(39.0)
    assert await setup.background.settle(41.0)
    assert setup.room.listeners == 0


@timers_only
async def test_a_room_that_is_lost_brings_nobody_any_more() -> None:
    setup = Setup()
    setup.registry.evict("orphan", until=150.0)
    await setup.registry.aclose()
    await asyncio.sleep(1.0)
    setup.room.lose_connection()
    assert await setup.background.settle(2.0)
    assert setup.room.listeners == 0


@timers_only
async def test_a_worker_that_a_later_avatar_has_invited_under_the_same_name_may_stay() -> None:
    setup = Setup()
    setup.registry.evict("face", "first", until=150.0)
    await setup.registry.aclose()
    wanted = setup.room.join("face", AUDIO)
    wanted.told_attributes = {ATTRIBUTE_INVITATION: "second"}
    setup.room.publish(wanted, AUDIO)
    await settle()
    assert setup.room.local_participant.sent == []
    setup.room.leave(wanted)
    orphan = setup.room.join("face")
    orphan.told_attributes = {ATTRIBUTE_INVITATION: "first"}
    setup.room.publish(orphan, AUDIO)
    await settle()
    assert len(setup.room.local_participant.sent) == 1
    assert await setup.background.settle(160.0)


@timers_only
async def test_one_that_is_there_when_the_room_is_connected_is_seen() -> None:
    room = ScriptedRoom()
    removed: list[str] = []

    async def remove(identity: str) -> None:
        removed.append(identity)

    registry = WorkerRegistry(room.as_room, remove, BackgroundTasks())
    registry.evict("orphan")  # before `open()`: the room is not connected yet
    room.join("orphan", AUDIO, told=False)
    room.emit("connection_state_changed", rtc.ConnectionState.CONN_CONNECTED)
    await settle()
    assert len(room.local_participant.sent) == 1
    await registry.aclose()
    assert removed == ["orphan"]
    assert room.listeners == 0
