"""Another persona as LiveKit's own example does it: the avatar is closed, and a new one started."""

from __future__ import annotations

from typing import Any

import pytest

from livekit_plugins_runway import AvatarSession, AvatarState, RunwayException
from livekit_plugins_runway.testing import CallFault, Faults
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript, in_order
from tests.support.call import ONE_FACE, TRANSPORTS, WORKERS, Call, calling, now

UTTERANCE = ToneScript(5)
SWITCHES = 10
AVATAR = "runway-avatar-agent"
ALL_OF_THEM: dict[str, Any] = {"listen_to": ["agent", AVATAR, *WORKERS]}
NO_CREDITS = CallFault(status=400, error="You do not have enough credits to run this task.")


def another(call: Call, **options: Any) -> AvatarSession:
    return AvatarSession(
        preset_id="influencer",
        api_url=call.simulator.url,
        api_key=call.simulator.api_secret,
        recovery=ONE_FACE,
        **options,
    )


async def start_another(call: Call, **options: Any) -> None:
    """In the place of the one that was closed."""
    call.avatar = another(call, **options)
    call.stack.push_async_callback(call.avatar.aclose)
    await call.start_avatar()
    await call.until(AvatarState.LIVE)


async def speaks(call: Call) -> None:
    """The agent is heard whole, and once."""
    began = now()
    handle = call.say(UTTERANCE)
    await handle
    assert not handle.interrupted
    heard = await call.hears(UTTERANCE, since=began)
    assert in_order(UTTERANCE, heard)


@pytest.mark.heavy
@pytest.mark.timeout(120)
@TRANSPORTS
async def test_personas_in_a_row_have_each_a_face_and_speak(
    livekit_server: LiveKitServer, options: dict[str, Any]
) -> None:
    async with calling(livekit_server, user=ALL_OF_THEM, **options) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        for _ in range(SWITCHES):
            await call.avatar.aclose()
            await start_another(call, **options)
            await call.user.wait_for_video(5.0)  # subscribed to the new tracks
            await speaks(call)
            assert call.avatar.state is AvatarState.LIVE
            assert call.runway.speech_received
        assert len(call.simulator.sessions) == SWITCHES + 1
        assert call.history() == [(UTTERANCE.text, False)] * SWITCHES
        await call.avatar.aclose()


@TRANSPORTS
async def test_a_persona_that_is_refused_leaves_the_agent_its_voice_and_the_next_one_its_place(
    livekit_server: LiveKitServer, options: dict[str, Any]
) -> None:
    async with calling(livekit_server, user=ALL_OF_THEM, **options) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        await speaks(call)
        await call.avatar.aclose()
        await speaks(call)
        call.simulator.faults.for_next_session(Faults(create=[NO_CREDITS]))
        refused = another(call, **options)
        call.stack.push_async_callback(refused.aclose)
        with pytest.raises(RunwayException):
            await refused.start(call.session, call.room, **call.livekit)
        await speaks(call)
        voices = [t for t in call.user.tracks if t.identity == "agent" and not t.unpublished_at]
        assert len(voices) == 1
        if not options:  # its track has stayed; with "direct" the avatar itself has had one
            assert [t for t in call.user.tracks if t.identity == "agent"] == voices
        await start_another(call, **options)
        await speaks(call)
        assert call.runway.speech_received
        assert call.history() == [(UTTERANCE.text, False)] * 4
        await call.avatar.aclose()
