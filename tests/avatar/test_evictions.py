"""The avatar participant is put out of the room: no word is lost, no session is left."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from livekit import api, rtc
from livekit.agents import AgentSession

from livekit_plugins_runway import AvatarSession, AvatarState, RecoveryOptions
from livekit_plugins_runway._common.tasks import BackgroundTasks
from livekit_plugins_runway.errors import AvatarEvictedError, ConfigurationError
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript, in_order, missing
from livekit_plugins_runway.transport.bridge import Bridge
from tests.support.call import (
    FEW_PICTURES,
    Call,
    calling,
    close_for_good,
    credentials_for,
    now,
    settled,
)

LONG = ToneScript(24)
SHORT = ToneScript(6, offset=30)
AVATAR = "runway-avatar-agent"


async def remove(call: Call, identity: str) -> None:
    async with call.api() as livekit:
        await livekit.room.remove_participant(
            api.RoomParticipantIdentity(room=call.room.name, identity=identity)
        )


def evictions(call: Call) -> list[str]:
    return [error.reason for error in call.errors if isinstance(error, AvatarEvictedError)]


@asynccontextmanager
async def in_the_room(call: Call, identity: str) -> AsyncIterator[rtc.Room]:
    """Somebody else, as an agent."""
    room = rtc.Room()
    token = call.server.token(call.room.name, identity, kind="agent")
    await room.connect(call.server.url, token, rtc.RoomOptions(auto_subscribe=False))
    try:
        yield room
    finally:
        await room.disconnect()


async def seen(room: rtc.Room, identity: str) -> None:
    """The server shows somebody who publishes nothing 3 s after the join."""
    async with asyncio.timeout(10.0):
        while identity not in room.remote_participants:  # noqa: ASYNC110  it may be there already
            await asyncio.sleep(0.05)


async def hears(call: Call, since: float, *scripts: ToneScript) -> None:
    heard = await call.hears(*scripts, since=since)
    # What was on its way to the user when the room was lost is said again.
    assert all(in_order(script, heard, again=2) for script in scripts), heard


@pytest.mark.parametrize("speaking", [True, False], ids=["in mid-utterance", "between utterances"])
async def test_removed_from_the_room_the_agent_goes_on_by_its_own_participant(
    livekit_server: LiveKitServer, speaking: bool
) -> None:
    user = {"listen_to": ["agent", AVATAR]}
    async with calling(livekit_server, user=user, recovery=RecoveryOptions()) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        began = now()
        handle = call.say(LONG)
        if speaking:
            await call.until_heard(8)
        else:
            await handle
            await hears(call, began, LONG)
        await remove(call, AVATAR)
        await handle
        await call.say(SHORT)
        await hears(call, began, LONG, SHORT)
        assert call.history() == [(LONG.text, False), (SHORT.text, False)]
        assert evictions(call) == ["removed"]
        assert [type(error) for error in call.gave_up] == [AvatarEvictedError]
        assert call.avatar.state is AvatarState.VOICE_ONLY
        await call.simulator.wait_until(lambda: not call.simulator.leaked(), 8.0)
        assert len(call.simulator.sessions) == 1


async def test_replaced_by_its_own_name_it_joins_again_under_another(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        began = now()
        handle = call.say(LONG)
        await call.until_heard(8)
        async with in_the_room(call, AVATAR):
            await handle
            await hears(call, began, LONG)
            assert call.history() == [(LONG.text, False)]
            assert evictions(call) == ["replaced"]
            assert call.avatar.state is AvatarState.LIVE
            assert call.avatar.avatar_identity.startswith(f"{AVATAR}-")
            await call.user.wait_for_video(5.0)
        assert len(call.simulator.sessions) == 1


@pytest.mark.heavy
@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
async def test_two_agents_in_one_room_have_each_a_face_and_a_voice(
    livekit_server: LiveKitServer, at_once: bool
) -> None:
    async with (
        calling(livekit_server, simulated=FEW_PICTURES) as call,
        in_the_room(call, "agent-2") as room,
    ):
        session: AgentSession[Any] = AgentSession(turn_handling={"turn_detection": None}, vad=None)
        second = AvatarSession(
            preset_id="influencer",
            api_url=call.simulator.url,
            api_key=call.simulator.api_secret,
        )
        other = Call(
            call.server, call.simulator, room, call.user, session, second, stack=call.stack
        )
        second.on("error", other.errors.append)
        try:
            if at_once:
                await asyncio.gather(call.start(), other.start())
            else:
                await call.start()
                await call.until(AvatarState.LIVE)
                await other.start()
            await asyncio.gather(call.until(AvatarState.LIVE), other.until(AvatarState.LIVE))
            assert call.avatar.avatar_identity != second.avatar_identity
            began = now()
            await call.say(SHORT)
            await other.say(LONG)
            await call.user.wait_for_silence(0.8, 8.0)
            # Two calls, their user and Runway are more than one process takes without a hole.
            heard = call.heard(began)
            for script in (SHORT, LONG):
                assert len(missing(script, heard)) <= len(script.indices) // 5
            cameras = {t.identity for t in call.user.tracks if t.source == "camera"}
            assert {call.avatar.avatar_identity, second.avatar_identity} <= cameras
            # The SDK tries once more for the one that has given way, after 15 s.
            await asyncio.gather(settled(call.avatar), settled(second))
            assert len(evictions(call) + evictions(other)) == at_once
            assert {call.avatar.state, second.state} == {AvatarState.LIVE}
        finally:
            await close_for_good(second)
            await session.aclose()


async def test_two_avatars_that_come_before_their_agents_do_not_put_each_other_out(
    livekit_server: LiveKitServer,
) -> None:
    """As in a job whose room the agent session connects: nobody sees the other one come."""
    name, background, put_out = f"room-{secrets.token_hex(4)}", BackgroundTasks(), list[str]()
    rooms = {"agent": rtc.Room(), "agent-2": rtc.Room()}
    bridges = [
        Bridge(
            room,
            credentials_for(livekit_server, name, agent),
            identity=AVATAR,
            name="Face",
            stall_timeout=1.5,
            background=background,
        )
        for agent, room in rooms.items()
    ]
    try:
        async with asyncio.timeout(10.0):
            await asyncio.gather(
                *(bridge.join(lambda _, identity: put_out.append(identity)) for bridge in bridges)
            )
        for agent, room in rooms.items():
            token = livekit_server.token(name, agent, kind="agent")
            await room.connect(livekit_server.url, token)
        # The SDK tries once more for the one that has given way, after 15 s.
        assert await background.settle(asyncio.get_running_loop().time() + 40.0)
        assert put_out == [AVATAR]
        identities = {bridge.identity for bridge in bridges}
        assert len(identities - {AVATAR}) == 2
        for room in rooms.values():
            assert identities <= set(room.remote_participants)
    finally:
        for bridge in bridges:
            await bridge.aclose()
        for room in rooms.values():
            await room.disconnect()


async def test_what_a_killed_job_has_left_in_the_room_is_replaced(
    livekit_server: LiveKitServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with calling(livekit_server) as call:
        ghost = rtc.Room()
        token = (
            api.AccessToken(call.server.api_key, call.server.api_secret)
            .with_kind("agent")
            .with_identity(AVATAR)
            .with_attributes({"lk.publish_on_behalf": "agent-of-a-killed-job"})
            .with_grants(api.VideoGrants(room_join=True, room=call.room.name))
        )
        await ghost.connect(call.server.url, token.to_jwt(), rtc.RoomOptions(auto_subscribe=False))
        await seen(call.room, AVATAR)
        began = now()
        await call.start()
        assert call.avatar.avatar_identity == AVATAR
        await call.say(SHORT)
        await hears(call, began, SHORT)
        assert "is replaced" in caplog.text
        await ghost.disconnect()


@pytest.mark.parametrize("identity", ["agent", "somebody"])
async def test_an_identity_that_somebody_has_is_refused_before_anything_is_made(
    livekit_server: LiveKitServer, identity: str
) -> None:
    async with (
        calling(livekit_server, avatar_participant_identity=identity) as call,
        in_the_room(call, "somebody"),
    ):
        await seen(call.room, "somebody")
        with pytest.raises(ConfigurationError, match=repr(identity)):
            await call.start_avatar()
        assert call.simulator.sessions == {}
        assert call.room.isconnected()
