"""The user's track is never without sound: a receiver that gets none for a while plays what comes
next later, by as much, and for many seconds. `world()` looks for it in each test of the sink."""

from __future__ import annotations

import asyncio

import pytest

from livekit_plugins_runway.testing.tones import ToneScript
from tests.support.speech_world import world
from tests.support.virtual_clock import timers_only

SHORT = ToneScript(6)
"""Too short for an avatar to go on within."""


@pytest.mark.parametrize("interrupted", [False, True])
@timers_only
async def test_an_avatar_that_comes_while_the_voice_speaks_is_silent_after_it(
    interrupted: bool,
) -> None:
    async with world(wait_for_avatar=0.0) as w:
        await w.say(SHORT)
        await asyncio.sleep(0.5)
        w.attach()
        if interrupted:
            await asyncio.sleep(0.5)
            w.output.clear_buffer()
        await w.spoken()
        await asyncio.sleep(3.0)
        await w.say(SHORT)
        await w.spoken()
        assert w.worker.sent > 0
        assert w.holes() == []
