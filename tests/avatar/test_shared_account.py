"""Several calls at once with one Runway account, on a real server; many of them are in
`tests/lifecycle/test_crowd.py`.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from livekit_plugins_runway import AvatarState
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript
from tests.support.call import FEW_PICTURES, Call, calling, nothing_is_left, now, simulating

CALLS = 3


@pytest.mark.heavy
@pytest.mark.timeout(120)
async def test_three_calls_on_one_place_are_all_heard_and_seen_one_after_the_other(
    livekit_server: LiveKitServer,
) -> None:
    async with simulating(livekit_server, concurrency=1, **FEW_PICTURES) as simulator:
        stacks = [AsyncExitStack() for _ in range(CALLS)]
        calls: list[Call] = []
        for stack in stacks:
            one = calling(livekit_server, simulator=simulator, wait_for_avatar=2.0)
            calls.append(await stack.enter_async_context(one))
            await calls[-1].start()
        for number, (call, stack) in enumerate(zip(calls, stacks, strict=True)):
            await call.until(AvatarState.LIVE, 30.0)
            waiting = [other.avatar.state for other in calls[number + 1 :]]
            assert set(waiting) <= {AvatarState.VOICE_ONLY, AvatarState.STARTING}
            assert call.avatar.session_id == list(simulator.sessions)[number]
            for other in calls[number:]:
                script, began = ToneScript(6), now()
                await other.say(script)
                await other.hears(script, since=began)
            await stack.aclose()
        assert len(simulator.sessions) == CALLS
        assert [call.avatar.usage.sessions for call in calls] == [1] * CALLS
        await nothing_is_left(simulator)
