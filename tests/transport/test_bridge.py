"""What the bridge makes of who comes into the agent's room."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import pytest
from livekit import rtc

from livekit_plugins_runway.errors import LossReason
from livekit_plugins_runway.transport.bridge import Bridge
from livekit_plugins_runway.transport.tokens import RoomCredentials
from tests.support.scripted_room import AGENT, USER, ScriptedParticipant, ScriptedRoom

CREDENTIALS = RoomCredentials("ws://h", "k", "s" * 32, "r", "agent")


@asynccontextmanager
async def joined(method: str) -> AsyncIterator[tuple[ScriptedRoom, Bridge, mock.Mock]]:
    """A bridge as "face", with this method of its participant replaced by a mock. When it is closed
    nothing listens to the room any more."""
    room = ScriptedRoom()
    bridge = Bridge(room.as_room, CREDENTIALS, identity="face", name="Face", stall_timeout=1.5)
    with (
        mock.patch.object(bridge.participant, "join"),
        mock.patch.object(bridge.participant, method) as replaced,
    ):
        await bridge.join(lambda *_: None)
        yield room, bridge, replaced
    await bridge.aclose()
    assert room.listeners == 0


@pytest.mark.parametrize(
    ("kind", "left", "moves"),
    [(AGENT, "face", True), (AGENT, "somebody", False), (USER, "face", False)],
)
async def test_it_leaves_an_identity_to_which_the_sdk_will_come_back_for_another_one(
    kind: rtc.ParticipantKind.ValueType, left: str, moves: bool
) -> None:
    async with joined("enter_anew") as (room, bridge, enter_anew):
        other = ScriptedParticipant("face-2", kind)
        other.told_attributes = {"lk.publish_on_behalf": "other", "runway.gave_way": left}
        room.emit("participant_connected", other)
        assert enter_anew.called is moves
        assert (bridge.identity != "face") is moves


@pytest.mark.parametrize("reason", list(LossReason))
@pytest.mark.parametrize(
    ("url", "told"),
    [("wss://mine.livekit.cloud", "LIVEKIT_URL would do"), ("ws://127.0.0.1", "cannot reach this")],
)
async def test_a_worker_that_does_not_say_the_agents_words_has_a_way_out(
    reason: LossReason, url: str, told: str
) -> None:
    credentials = dataclasses.replace(CREDENTIALS, url=url)
    room = ScriptedRoom().as_room
    bridge = Bridge(room, credentials, identity="face", name="Face", stall_timeout=1.5)
    listener: Any = mock.Mock()
    way_out = bridge.connection(listener).way_out(reason)
    if reason in (LossReason.SPEECH_FOREIGN, LossReason.SPEECH_STALLED):
        assert 'transport="direct"' in way_out
        assert told in way_out
    else:
        assert way_out == ""
    bridge._encrypted.set()  # the worker gets no keys
    assert bridge.connection(listener).way_out(reason) == ""
    await bridge.aclose()


@pytest.mark.parametrize(
    ("identity", "speaks_for", "gives_way"),
    [
        ("face", "another agent", True),
        ("face", None, True),
        ("face", "agent", False),  # itself
        ("somebody", "another agent", False),
    ],
)
async def test_it_gives_way_to_whoever_comes_first_with_its_identity(
    identity: str, speaks_for: str | None, gives_way: bool
) -> None:
    async with joined("give_way") as (room, _, give_way):
        other = ScriptedParticipant(identity, AGENT)
        if speaks_for is not None:
            other.told_attributes = {"lk.publish_on_behalf": speaks_for}
        room.emit("participant_connected", other)
        assert give_way.called is gives_way


async def test_a_session_that_is_ready_is_consumed_once_the_participant_has_joined() -> None:
    bridge = Bridge(
        ScriptedRoom().as_room, CREDENTIALS, identity="face", name="Face", stall_timeout=1.5
    )
    ready, consumed = asyncio.Event(), asyncio.Event()
    session = mock.Mock()
    session.wait_until_ready = mock.AsyncMock(side_effect=lambda *_, **__: ready.set())
    session.consume = mock.AsyncMock(side_effect=lambda _: consumed.set())
    ignore = mock.Mock()
    callbacks: Any = {"on_queued": ignore, "on_stage": ignore, "on_lost": ignore}
    with (
        mock.patch.object(bridge.participant, "join"),
        mock.patch("livekit_plugins_runway.transport.bridge.RunwayRoom.join"),
    ):
        opening = asyncio.create_task(
            bridge.connection(mock.Mock()).open(session, 5.0, queue_timeout=60.0, **callbacks)
        )
        await ready.wait()
        await asyncio.sleep(0)
        assert not consumed.is_set()
        await bridge.join(lambda *_: None)
        await opening
        assert consumed.is_set()
    await bridge.aclose()
