"""Face off, face on, in a call on a real server: the voice goes on, and nothing is paid for."""

from __future__ import annotations

from typing import Any

from livekit_plugins_runway import AvatarState
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript, in_order
from tests.support.call import TRANSPORTS, calling, now

LONG = ToneScript(24)
SHORT = ToneScript(6, offset=30)


@TRANSPORTS
async def test_switched_off_in_mid_call_the_voice_goes_on_and_on_again_the_face_speaks(
    livekit_server: LiveKitServer, options: dict[str, Any]
) -> None:
    async with calling(livekit_server, **options) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        began = now()
        handle = call.say(LONG)
        await call.until_heard(8)
        await call.avatar.pause()
        assert call.avatar.state is AvatarState.PAUSED
        await call.simulator.wait_until(lambda: not call.simulator.leaked(), 8.0)
        await handle
        await call.say(SHORT)
        heard = await call.hears(LONG, SHORT, since=began)
        assert in_order(SHORT, heard)
        assert call.history() == [(LONG.text, False), (SHORT.text, False)]

        await call.avatar.resume()
        await call.until(AvatarState.LIVE)
        began = now()
        await call.user.wait_for_video(5.0)
        await call.say(SHORT)
        await call.hears(SHORT, since=began)
        assert sum(call.runway.speech_received) > 0
        assert [replaced.cause for replaced in call.replaced] == ["resume"]
        assert call.errors == []


async def test_in_text_only_mode_nothing_is_said_or_paid_for_and_then_it_speaks_again(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        await call.avatar.pause()
        call.session.output.set_audio_enabled(False)
        began = now()
        await call.say(LONG)
        assert now() - began < 0.5 * LONG.duration_s
        assert call.heard(began) == []
        await call.until_told("session_ended", lambda: len(call.ends) == 1)
        call.session.output.set_audio_enabled(True)
        await call.avatar.resume()
        began = now()
        await call.say(SHORT)
        await call.hears(SHORT, since=began)
        assert sum(call.runway.speech_received) > 0
        assert call.history() == [(LONG.text, False), (SHORT.text, False)]
        assert call.errors == []
