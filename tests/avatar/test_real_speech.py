"""Real speech, of a TTS that is as fast as it sounds and stops in mid-sentence, is heard whole."""

from __future__ import annotations

import asyncio

import pytest

from bench.agent import sound
from bench.ear.samples import sample
from bench.unheard import compare
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from tests.support.call import ONE_FACE, calling, now

REPEATED = 0.3
"""Seconds that a change of speakers may repeat."""


@pytest.mark.parametrize("delivery", ["datastream", "track"])
async def test_no_word_is_lost_where_the_tts_stops_in_mid_sentence(
    livekit_server: LiveKitServer, delivery: str
) -> None:
    said = sample("sentences")
    async with calling(
        livekit_server, simulated={"speech": delivery}, delivery=delivery, recovery=ONE_FACE
    ) as call:
        await call.start()
        await call.user.wait_for_video(10.0)
        began = now()
        handle = call.session.say("sentences", audio=sound(said, [(1.3, 0.5), (3.1, 3.0)]))
        await handle
        await call.user.wait_for_silence(0.4, 5.0)
        found = await asyncio.to_thread(compare, said, call.user.heard(began))
        assert found.found > 0.5, found
        assert (found.missing, found.extra < REPEATED) == (0.0, True), found
        assert not call.errors
