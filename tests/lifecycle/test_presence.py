"""Who counts as a user of the call, and from when on there is nobody any more."""

from __future__ import annotations

import asyncio

import pytest
from livekit import rtc

from livekit_plugins_runway.lifecycle.agent.presence import UserPresence
from tests.support.scripted_room import ScriptedRoom, settle
from tests.support.virtual_clock import timers_only

Kind = rtc.ParticipantKind
GRACE = 10.0


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        (Kind.PARTICIPANT_KIND_STANDARD, True),
        (Kind.PARTICIPANT_KIND_SIP, True),
        (Kind.PARTICIPANT_KIND_CONNECTOR, True),
        (Kind.PARTICIPANT_KIND_AGENT, False),
        (Kind.PARTICIPANT_KIND_EGRESS, False),
        (Kind.PARTICIPANT_KIND_INGRESS, False),
    ],
)
def test_people_count_and_machines_do_not(
    kind: rtc.ParticipantKind.ValueType, counts: bool
) -> None:
    room = ScriptedRoom()
    presence = UserPresence(room.as_room)
    assert not presence.present
    room.join("somebody", kind=kind)
    assert presence.present is counts


def test_who_may_not_see_the_avatar_is_no_reason_for_a_face() -> None:
    room = ScriptedRoom()
    presence = UserPresence(room.as_room, ["patient"])
    room.join("visitor")
    assert not presence.present
    room.join("patient")
    assert presence.present


@timers_only
async def test_nobody_has_left_before_somebody_was_there() -> None:
    room = ScriptedRoom()
    presence = UserPresence(room.as_room)
    left = asyncio.create_task(presence.wait_until_left(GRACE))
    room.leave(room.join("recorder", kind=Kind.PARTICIPANT_KIND_EGRESS))
    await asyncio.sleep(10 * GRACE)
    assert not left.done()
    user = room.join("user")
    await asyncio.sleep(10 * GRACE)
    assert not left.done()
    began = now()
    room.leave(user)
    await left
    assert now() - began == pytest.approx(GRACE)


@timers_only
async def test_who_was_there_before_counts_as_having_been_there() -> None:
    room = ScriptedRoom()
    user = room.join("user")
    presence = UserPresence(room.as_room)
    room.leave(user, told=False)
    await presence.wait_until_left(GRACE)
    assert now() == pytest.approx(GRACE)


@timers_only
async def test_who_is_only_known_from_leaving_was_there_too() -> None:
    room = ScriptedRoom()
    user = room.join("user", told=False)
    room.remote_participants.clear()
    presence = UserPresence(room.as_room)
    room.emit("participant_disconnected", user)
    await presence.wait_until_left(GRACE)
    assert now() == pytest.approx(GRACE)


@timers_only
async def test_who_is_back_within_the_grace_was_not_away() -> None:
    room = ScriptedRoom()
    presence = UserPresence(room.as_room)
    left = asyncio.create_task(presence.wait_until_left(GRACE))
    room.leave(room.join("user"))
    await asyncio.sleep(GRACE - 0.1)
    user = room.join("user")
    await asyncio.sleep(10 * GRACE)
    assert not left.done()
    began = now()
    room.leave(user)
    await left
    assert now() - began == pytest.approx(GRACE)


@timers_only
async def test_with_one_of_two_users_gone_there_is_still_a_user() -> None:
    room = ScriptedRoom()
    presence = UserPresence(room.as_room)
    left = asyncio.create_task(presence.wait_until_left(GRACE))
    first, second = room.join("first"), room.join("second")
    room.leave(first)
    await asyncio.sleep(10 * GRACE)
    assert not left.done()
    room.leave(second)
    await left


@timers_only
async def test_a_reconnect_that_swallowed_the_events_is_seen_through() -> None:
    room = ScriptedRoom()
    presence = UserPresence(room.as_room)
    back = asyncio.create_task(presence.wait_until_back())
    await settle()
    user = room.join("user", told=False)
    await settle()
    assert not back.done()
    room.emit("reconnected")
    await back
    left = asyncio.create_task(presence.wait_until_left(GRACE))
    await settle()
    room.leave(user, told=False)
    room.emit("reconnected")
    await left


@timers_only
async def test_who_is_there_already_is_not_waited_for() -> None:
    room = ScriptedRoom()
    presence = UserPresence(room.as_room)
    room.join("user")
    await presence.wait_until_back()
    assert now() == 0.0


def test_closed_it_leaves_nothing_in_the_room() -> None:
    room = ScriptedRoom()
    presence = UserPresence(room.as_room)
    assert room.listeners > 0
    presence.close()
    assert room.listeners == 0
