"""`runway-avatar serve` ends what it handed over and nobody uses, as far as the status tells."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

import aiohttp
import pytest

from livekit_plugins_runway.serve import sessions as sessions_module
from livekit_plugins_runway.testing import CallFault, Faults, SessionStatus
from tests.support.serving import SESSIONS, Served, quick, served

pytestmark = pytest.mark.slow  # each waits for a second or more

PRESET = {"type": "runway-preset", "presetId": "influencer"}
SOON = 0.4
MUCH_LATER = 1.0


def only(server: Served) -> Any:
    (session,) = server.runway.sessions.values()
    return session


async def consume(server: Served) -> None:
    session = only(server)
    url = f"{server.runway.url}/v1/realtime_sessions/{session.id}/consume"
    headers = {"Authorization": f"Bearer {session.session_key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession() as http, http.post(url, headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["front end", "pass-through"])
async def test_a_session_whose_user_never_comes_is_ended_and_makes_room(path: str) -> None:
    async with served(join_timeout=SOON, max_sessions=1) as server:
        if path == "front end":
            answer = await server.join()
        else:
            answer = await server.post(SESSIONS, {"avatar": PRESET})
        assert answer.status == 200
        await server.runway.wait_for(only(server), SessionStatus.CANCELLED, 5)
        assert only(server).credits == 0
        assert (await server.join()).status == 200


async def test_that_runway_does_not_answer_meanwhile_changes_nothing() -> None:
    faults = Faults(get=[*[CallFault()] * 2, 503, CallFault(cut="before_effect"), 500, 500, 500])
    async with served(faults=faults, join_timeout=SOON) as server:
        assert (await server.join()).status == 200
        await server.runway.wait_for(only(server), SessionStatus.CANCELLED, 10)


async def test_a_session_that_somebody_has_joined_goes_on() -> None:
    async with served(quick(consumed_running_delay=0.1), join_timeout=SOON) as server:
        assert (await server.join()).status == 200
        await consume(server)
        await asyncio.sleep(MUCH_LATER)
        assert only(server).status is SessionStatus.RUNNING


async def test_a_session_that_needs_nobody_to_join_it_goes_on() -> None:
    invited = {
        "type": "livekit",
        "url": "wss://example.com",
        "token": "t",
        "roomName": "r",
        "agentIdentity": "agent",
    }
    never = Faults(worker_never_joins=True)
    async with served(faults=never, join_timeout=SOON) as server:
        answer = await server.post(SESSIONS, {"avatar": PRESET, "integration": invited})
        assert answer.status == 200, answer.body
        await server.runway.wait_for(only(server), SessionStatus.READY)
        await asyncio.sleep(MUCH_LATER)
        assert only(server).status is SessionStatus.READY


async def test_a_session_that_outlives_its_time_is_ended() -> None:
    slow = quick(consumed_running_delay=0.0)
    with mock.patch.object(sessions_module, "STARTUP_MARGIN", SOON - 10):
        async with served(slow, join_timeout=SOON) as server:
            assert (await server.join(maxDuration=10)).status == 200
            await consume(server)
            await server.runway.wait_for(only(server), SessionStatus.CANCELLED, 5)


async def test_nothing_is_asked_of_runway_about_a_session_that_has_ended() -> None:
    async with served(join_timeout=SOON) as server:
        answer = await server.join()
        await server.call("DELETE", f"{SESSIONS}/{answer.body['sessionId']}")
        before = len(server.runway.requests)
        await asyncio.sleep(MUCH_LATER)
        assert len(server.runway.requests) == before
