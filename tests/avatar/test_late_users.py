"""The agent greets, and its user is not there yet: nothing is said to an empty room."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from livekit import rtc

from livekit_plugins_runway import AvatarState
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript, hear, missing
from livekit_plugins_runway.testing.user import SimulatedUser
from tests.support.call import DIRECT, RATE, TRANSPORTS, Call, calling, now

GREETING = ToneScript(12)
PATIENCE: dict[str, Any] = {"wait_for_avatar": 2.0}
TOO_LATE = 4.0
"""Seconds: nothing waits for the face any more."""
BOTH: dict[str, Any] = {"listen_to": ["agent", "runway-avatar-agent"]}
"""Hears the agent's own participant as well as the avatar's."""


async def greeted(call: Call, handle: Any) -> None:
    """The user has heard the greeting whole, and the history says no more than that."""
    await asyncio.wait_for(handle, 20.0)
    await call.hears(GREETING, since=call.user.joined_at)
    assert call.history() == [(GREETING.text, False)]


@pytest.mark.parametrize(
    ("options", "avatar_first", "after"),
    [
        ({}, True, 1.0),
        (DIRECT, False, 1.0),
        ({}, True, TOO_LATE),
        ({}, False, TOO_LATE),
        (DIRECT, True, TOO_LATE),
        (DIRECT, False, TOO_LATE),
    ],
)
async def test_the_greeting_waits_for_a_user_who_comes_late(
    livekit_server: LiveKitServer, options: dict[str, Any], avatar_first: bool, after: float
) -> None:
    async with calling(livekit_server, late=True, **PATIENCE, **options) as call:
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
    user = {"auto_subscribe": False}
    async with calling(livekit_server, room=room, user=user, **PATIENCE) as call:
        await call.start()
        handle = call.say(GREETING)
        await asyncio.sleep(TOO_LATE)
        assert call.avatar.playout.heard == 0
        avatar = call.user.room.remote_participants[call.avatar.avatar_identity]
        for publication in avatar.track_publications.values():
            publication.set_subscribed(True)
        await greeted(call, handle)


@pytest.mark.parametrize("face", [False, True], ids=["plain agent", "avatar"])
async def test_what_is_said_while_the_user_is_away_is_said_as_by_an_agent_without_an_avatar(
    livekit_server: LiveKitServer, face: bool
) -> None:
    """Nobody is waited for who has left, nothing is said again, and who is back hears the next."""
    away, back = ToneScript(8, offset=20), ToneScript(8, offset=40)
    async with calling(livekit_server, user=BOTH) as call:
        call.close_on_disconnect = False
        if face:
            await call.start()
            await call.until(AvatarState.LIVE)
        else:
            await call.start_session()
        began = now()
        await call.say(GREETING)
        await call.hears(GREETING, since=began)
        await call.user.aclose()
        began = now()
        await call.say(away)
        assert 0.7 * away.duration_s < now() - began < away.duration_s + 3.0
        async with SimulatedUser(
            call.server.url,
            call.room.name,
            api_key=call.server.api_key,
            api_secret=call.server.api_secret,
            **BOTH,
        ) as user:
            await asyncio.sleep(2.0)  # for anything that had waited
            began = now()
            await call.say(back)
            await user.wait_for_silence(0.4, 5.0)
            heard = hear(user.heard(user.joined_at), RATE)
            assert missing(back, heard) == []
            assert {tone.index for tone in heard} <= set(back.indices)
        assert call.history() == [(script.text, False) for script in (GREETING, away, back)]
