"""A call whose agent speaks by a realtime model, in the place of STT, LLM and TTS."""

from __future__ import annotations

import asyncio
from typing import Any

from livekit.agents import Agent

from livekit_plugins_runway import AvatarState
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript, foreign
from tests.support.call import TRANSPORTS, calling, now
from tests.support.scripted_realtime import Pacing, ScriptedRealtime

SPEECH = ToneScript(16)
OTHER = ToneScript(6, offset=40)


@TRANSPORTS
async def test_what_a_realtime_model_says_is_heard_and_it_is_told_where_it_was_cut(
    livekit_server: LiveKitServer, options: dict[str, Any]
) -> None:
    model = ScriptedRealtime(Pacing(chunk=0.04, speed=1.5, late_end=2.0))
    async with calling(livekit_server, **options) as call:
        await call.start_avatar()
        await call.start_session(Agent(instructions="", llm=model))
        await call.until(AvatarState.LIVE)
        began, model.script = now(), OTHER
        await call.session.generate_reply()
        await call.hears(OTHER, since=began)
        assert call.history() == [(OTHER.text, False)]

        model.script = SPEECH
        model.answer()
        await call.until_heard(SPEECH.indices[5])
        model.hear_the_user()
        await call.user.wait_for_silence(0.5, 5.0)
        (truncation,) = model.truncations
        assert 5 * SPEECH.slot_s <= truncation.audio_end_ms / 1000 <= 8 * SPEECH.slot_s
        began, model.script = now(), OTHER
        model.answer()
        await call.until_heard(OTHER.indices[-1])
        assert foreign(OTHER, await call.hears(OTHER, since=began)) == []
        await asyncio.sleep(2.5)  # the model's stream ends late
        assert call.avatar.state is AvatarState.LIVE
        (_, cut, _) = call.history()
        assert cut[1]
        assert call.errors == []
