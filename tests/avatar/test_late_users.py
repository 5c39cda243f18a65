"""The agent greets, and its user is not there yet: nothing is said to an empty room."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from livekit import rtc

from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript
from tests.support.call import TRANSPORTS, Call, calling, now

GREETING = ToneScript(12)


async def greeted(call: Call, handle: Any) -> None:
    """The user has heard the greeting whole, and the history says no more than that."""
    await asyncio.wait_for(handle, 20.0)
    await call.hears(GREETING, since=call.user.joined_at)
    assert call.history() == [(GREETING.text, False)]


@TRANSPORTS
@pytest.mark.parametrize("avatar_first", [True, False], ids=["avatar first", "session first"])
@pytest.mark.parametrize("after", [2.0, 12.0])
async def test_the_greeting_waits_for_a_user_who_comes_late(
    livekit_server: LiveKitServer, options: dict[str, Any], avatar_first: bool, after: float
) -> None:
    async with calling(livekit_server, late=True, **options) as call:
        await call.start(avatar_first=avatar_first)
        handle = call.say(GREETING)
        await asyncio.sleep(after)
        assert call.avatar.playout.heard == 0
        assert sum(call.runway.speech_received) == 0
        await call.join_user()
        await greeted(call, handle)


@TRANSPORTS
async def test_the_greeting_waits_for_a_caller_to_pick_up(
    livekit_server: LiveKitServer, options: dict[str, Any]
) -> None:
    phone = {"kind": "sip", "attributes": {"sip.callStatus": "ringing"}}
    async with calling(livekit_server, user=phone, **options) as call:
        await call.start()
        handle = call.say(GREETING)
        await asyncio.sleep(4.0)
        assert call.avatar.playout.heard == 0
        call.user.joined_at = now()
        await call.user.room.local_participant.set_attributes({"sip.callStatus": "active"})
        await greeted(call, handle)


async def test_the_greeting_waits_for_a_user_who_subscribes_late(
    livekit_server: LiveKitServer,
) -> None:
    """Of an agent that does not subscribe to its own avatar: else nobody can tell."""
    room = rtc.RoomOptions(auto_subscribe=False)
    async with calling(livekit_server, room=room, user={"auto_subscribe": False}) as call:
        await call.start()
        handle = call.say(GREETING)
        await asyncio.sleep(12.0)
        assert call.avatar.playout.heard == 0
        avatar = call.user.room.remote_participants[call.avatar.avatar_identity]
        for publication in avatar.track_publications.values():
            publication.set_subscribed(True)
        await greeted(call, handle)
