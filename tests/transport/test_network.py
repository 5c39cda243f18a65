"""The network breaks: each of the three connections, and the server. The agent is heard again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from livekit import rtc

from livekit_plugins_runway import AvatarState, RecoveryOptions
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript, in_order, missing
from livekit_plugins_runway.transport.bridge import BridgeConnection
from tests.support.call import DIRECT, Call, calling, now

UTTERANCE = ToneScript(14)
OTHER = ToneScript(6, offset=40)
RESTART = RecoveryOptions(session_cap=None, backoff=0.2)
RESUME = rtc.SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT
FULL = rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT


def connection(call: Call, whose: str) -> rtc.Room:
    if whose == "agent":
        return call.room
    if whose == "participant":
        return call.bridge.participant._room
    assert call.avatar._instance is not None
    assert isinstance(call.avatar._instance.connection, BridgeConnection)
    return call.avatar._instance.connection.room


@pytest.mark.parametrize(("scenario", "faces"), [(RESUME, 1), (FULL, 2)], ids=["resume", "full"])
async def test_with_a_worker_in_the_agents_room_its_own_connection_costs_no_word(
    livekit_server: LiveKitServer, scenario: rtc.SimulateScenarioKind.ValueType, faces: int
) -> None:
    """A resume costs nothing, for the user hears the worker; a full reconnect costs the face."""
    async with calling(livekit_server, recovery=RESTART, **DIRECT) as call:
        await call.start()
        began = now()
        handle = call.say(UTTERANCE)
        await call.until_heard(3)
        await call.room.simulate_scenario(scenario)
        await handle
        heard = await call.hears(UTTERANCE, since=began)
        assert in_order(UTTERANCE, heard) or faces == 2
        assert not handle.interrupted
        await call.until(AvatarState.LIVE)
        await heard_again(call, OTHER)
        assert len(call.simulator.sessions) == faces


async def heard_whole(call: Call, script: ToneScript) -> None:
    began = now()
    await call.say(script)
    await call.hears(script, since=began)


async def heard_again(call: Call, script: ToneScript) -> None:
    """A receiver that got nothing and then much at once is late for some seconds (3 s measured
    after an outage of 4 s), and hurries: so it need not be the first utterance."""
    async with asyncio.timeout(20.0):
        while True:
            began = now()
            await call.say(script)
            until = now() + 4.0
            while now() < until:
                if not missing(script, call.heard(began)):
                    return
                await asyncio.sleep(0.2)


def one_of_each(call: Call) -> None:
    there = call.user.room.remote_participants["runway-avatar-agent"]
    sources = sorted(p.source for p in there.track_publications.values())
    assert sources == sorted([rtc.TrackSource.SOURCE_CAMERA, rtc.TrackSource.SOURCE_MICROPHONE])


@pytest.mark.heavy  # what is lost must be the connection's
@pytest.mark.parametrize("scenario", [RESUME, FULL], ids=["resume", "full"])
@pytest.mark.parametrize("whose", ["agent", "participant", "runway"])
async def test_a_connection_that_is_restored_in_mid_sentence_costs_no_word(
    livekit_server: LiveKitServer, whose: str, scenario: rtc.SimulateScenarioKind.ValueType
) -> None:
    async with calling(livekit_server, recovery=RESTART) as call:
        await call.start()
        began = now()
        handle = call.say(UTTERANCE)
        await call.until_heard(3)
        await connection(call, whose).simulate_scenario(scenario)
        await handle
        assert not handle.interrupted
        # What the Runway room sends while its connection is restored (0.15 s) is heard by nobody.
        fraction = 0.4 if whose == "runway" else 0.5
        await call.hears(UTTERANCE, since=began, fraction=fraction)
        assert call.history() == [(UTTERANCE.text, False)]
        await call.until(AvatarState.LIVE)
        await call.user.wait_for_video(5.0, since=now())
        one_of_each(call)
        await heard_whole(call, OTHER)


@asynccontextmanager
async def own_server() -> AsyncIterator[LiveKitServer]:
    """One that a test may stop without harm to others."""
    async with LiveKitServer() as server:
        yield server


@pytest.mark.timeout(90)
async def test_after_an_outage_of_the_server_the_agent_is_heard_and_seen_again(
    livekit_server: LiveKitServer,
) -> None:
    async with own_server() as server, calling(server, recovery=RESTART) as call:
        await call.start()
        handle = call.say(UTTERANCE)
        await call.until_heard(3)
        await asyncio.to_thread(server.pause)
        await asyncio.sleep(4.0)
        await asyncio.to_thread(server.resume)
        await handle
        assert call.history() == [(UTTERANCE.text, False)]
        await call.until(AvatarState.LIVE, 40.0)
        await call.user.wait_for_video(10.0, since=now())
        one_of_each(call)
        await heard_again(call, OTHER)


@pytest.mark.heavy
@pytest.mark.timeout(120)
async def test_after_a_crash_and_restart_of_the_server_the_agent_is_heard_and_seen_again(
    livekit_server: LiveKitServer,
) -> None:
    async with own_server() as server, calling(server, recovery=RESTART) as call:
        await call.start()
        handle = call.say(UTTERANCE)
        await call.until_heard(3)
        os.kill(server.pid, signal.SIGKILL)  # in good order it would send everybody away
        await asyncio.to_thread(server.restart)
        async with asyncio.timeout(60.0):
            await handle
        await call.until(AvatarState.LIVE, 60.0)
        await call.user.wait_for_video(20.0, since=now())
        await heard_again(call, OTHER)
