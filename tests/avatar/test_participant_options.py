"""The participant that the user sees: what it says of itself, who may see and hear it, and who
makes its token."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from livekit import api, rtc

from livekit_plugins_runway import AvatarState, ParticipantOptions, TokenRequest
from livekit_plugins_runway.errors import UnavailableError
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript
from livekit_plugins_runway.testing.user import SimulatedUser
from tests.support.call import TRANSPORTS, Call, calling, now

SCRIPT = ToneScript(6)
AVATAR = "runway-avatar-agent"
FULL_RECONNECT = rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT


def somebody_else(call: Call) -> SimulatedUser:
    return SimulatedUser(
        call.server.url,
        call.room.name,
        api_key=call.server.api_key,
        api_secret=call.server.api_secret,
        identity="somebody-else",
    )


async def reconnected(call: Call) -> None:
    """The avatar participant's connection was made anew by the SDK, and its face is seen again."""
    began = now()
    await call.bridge.participant._room.simulate_scenario(FULL_RECONNECT)
    await call.user.wait_for_video(10.0, since=began + 1.0)


@TRANSPORTS
async def test_the_avatar_says_of_itself_what_it_was_given(
    livekit_server: LiveKitServer, options: dict[str, Any]
) -> None:
    own = ParticipantOptions(attributes={"persona": "nurse"}, metadata="ward 3")
    async with calling(livekit_server, participant=own, **options) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        seen = call.user.room.remote_participants[AVATAR]
        assert seen.metadata == "ward 3"
        assert seen.attributes["persona"] == "nurse"
        assert seen.attributes["lk.publish_on_behalf"] == "agent"


async def test_who_is_not_in_the_audience_neither_hears_nor_sees_nor_is_waited_for(
    livekit_server: LiveKitServer,
) -> None:
    own = ParticipantOptions(audience=["user"])
    async with (
        calling(livekit_server, late=True, participant=own) as call,
        somebody_else(call) as other,
    ):
        await call.start()
        began = now()
        call.say(SCRIPT)
        await call.until(AvatarState.LIVE)
        await asyncio.sleep(2.0)  # a listener would be spoken to by now
        assert call.runway.speech_received == []
        await call.join_user()
        await call.until_heard(SCRIPT.indices[-1])
        await call.hears(SCRIPT, since=began)
        assert call.user.frames
        await reconnected(call)
        await call.say(SCRIPT)
        assert AVATAR in {one.identity for one in other.participants}
        assert other.frames == []
        assert not other.heard(began).any()


async def test_a_token_that_is_made_elsewhere_admits_it_without_any_secret(
    livekit_server: LiveKitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.delenv(name, raising=False)
    asked: list[TokenRequest] = []

    async def source(request: TokenRequest) -> str:
        asked.append(request)
        token = api.AccessToken(livekit_server.api_key, livekit_server.api_secret)
        grants = api.VideoGrants(room_join=True, room=request.room, can_subscribe=False)
        token = token.with_identity(request.identity).with_name(request.name).with_grants(grants)
        return token.with_kind("agent").with_attributes(dict(request.attributes)).to_jwt()

    own = ParticipantOptions(token=source)
    async with calling(livekit_server, participant=own) as call:
        await call.avatar.start(call.session, call.room, livekit_url=call.server.url)
        await call.start_session()
        began = now()
        await call.say(SCRIPT)
        await call.hears(SCRIPT, since=began)
        assert [(one.room, one.identity) for one in asked] == [(call.room.name, AVATAR)]


async def test_without_a_token_the_start_is_refused_and_nothing_bills(
    livekit_server: LiveKitServer,
) -> None:
    async def source(_: TokenRequest) -> str:
        raise ConnectionError("the token service is down")

    own = ParticipantOptions(token=source)
    async with calling(livekit_server, participant=own) as call:
        with pytest.raises(UnavailableError, match="ConnectionError"):
            await call.start_avatar()
        await call.simulator.wait_until(lambda: not call.simulator.leaked(), 5.0)
