"""`runway-avatar serve` that is killed: the next one ends what nobody had got yet."""

from __future__ import annotations

import asyncio
from pathlib import Path

from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import CreateRealtimeSession, PresetAvatar
from livekit_plugins_runway.serve.options import ServeOptions
from livekit_plugins_runway.serve.server import run
from livekit_plugins_runway.testing import RunwaySimulator, SessionStatus
from tests.support.journals import contents, files, leave, until
from tests.support.serving import NEVER, SESSIONS, quick, served

REQUEST = CreateRealtimeSession(avatar=PresetAvatar(preset_id="influencer"))


async def test_what_a_killed_server_was_making_is_ended_by_the_next_one(journals: Path) -> None:
    async with RunwaySimulator(options=quick(provisioning_delay=NEVER)) as runway:
        client = RunwayClient(runway.api_secret, base_url=runway.url)
        session_id = await client.create(REQUEST)
        await client.aclose()
        leave(journals, session_id, key=runway.api_secret, url=runway.url)
        stop = asyncio.Event()
        serving = asyncio.create_task(
            run(
                ServeOptions(port=0, mcp_port=None),
                runway.api_secret,
                base_url=runway.url,
                stop=stop,
                ready=lambda *_: None,
            )
        )
        try:
            await runway.wait_for(runway.sessions[session_id], SessionStatus.CANCELLED)
            await until(lambda: files(journals) == [])
        finally:
            stop.set()
            await serving


async def test_a_session_stands_in_the_journal_until_its_caller_has_got_it(journals: Path) -> None:
    async with served(quick(provisioning_delay=NEVER)) as server:
        joining = asyncio.create_task(server.join())
        await until(lambda: contents(journals).alive)
        assert list(contents(journals).alive) == list(server.runway.sessions)
        await server.end()
        assert (await joining).status == 503
    assert files(journals) == []


async def test_what_was_handed_over_is_its_callers_to_end_whatever_becomes_of_the_server(
    journals: Path,
) -> None:
    async with served() as server:
        assert (await server.join()).status == 200
        made = await server.post(
            SESSIONS, {"avatar": {"type": "runway-preset", "presetId": "influencer"}}
        )
        assert made.status in (200, 201)
        await until(lambda: not contents(journals).alive)
