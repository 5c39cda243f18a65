"""What `AvatarSession` does about killed processes: their sessions, and its own."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import AgentSession, APIConnectOptions

from livekit_plugins_runway import AvatarSession, CallUsage, SessionEnd
from tests.avatar.test_abandoned import Nowhere, Room
from tests.support.journals import KEY, contents, files, leave, until
from tests.support.scripted_room import start_in
from tests.support.scripted_runway import Reply, ScriptedRunway

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livekit_plugins_runway.avatar.make_transport", lambda *_, **__: Nowhere())


def avatar_at(runway: ScriptedRunway, **options: Any) -> tuple[AvatarSession, list[SessionEnd]]:
    avatar = AvatarSession(
        preset_id="influencer",
        api_key=KEY,
        api_url=runway.url,
        conn_options=APIConnectOptions(max_retry=0),
        **options,
    )
    ends: list[SessionEnd] = []
    avatar.on("session_ended", ends.append)
    return avatar, ends


@asynccontextmanager
async def starting(avatar: AvatarSession) -> AsyncIterator[asyncio.Task[None]]:
    """Within it `start()` waits for Runway's answer; after it the avatar is closed."""
    session: AgentSession[Any] = AgentSession()
    task = asyncio.create_task(start_in(Room(), avatar, session))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
        await avatar.aclose()
        await session.aclose()


async def test_start_ends_what_a_killed_process_has_left_without_waiting_for_it(
    journals: Path,
) -> None:
    async with ScriptedRunway().running() as runway:
        leave(journals, "left", key=KEY, url=runway.url)
        runway.script = [Reply(payload={"id": "mine"}, delay=2.0)]
        runway.delete_script = [Reply(status=204, delay=0.3)]
        avatar, ends = avatar_at(runway)
        async with starting(avatar):
            await until(lambda: runway.asked("POST"))
            assert ends == [], "the create has waited for it"
            await until(lambda: ends)
            assert [(end.session_id, end.how) for end in ends] == [("left", "swept")]
            assert avatar.usage == CallUsage(), "it was another call's"
        assert files(journals) == []


async def test_prewarm_does_so_too_and_an_avatar_that_is_never_started_leaves_nothing(
    journals: Path,
) -> None:
    async with ScriptedRunway().running() as runway:
        leave(journals, "left", key=KEY, url=runway.url)
        avatar, ends = avatar_at(runway)
        avatar.prewarm()
        await until(lambda: ends)
        await avatar.aclose()
        assert runway.asked("POST") == []
        assert files(journals) == []


async def test_its_own_sessions_stand_in_a_journal_while_they_may_bill(journals: Path) -> None:
    async with ScriptedRunway().running() as runway:
        runway.script = [Reply(payload={"id": "mine"}, delay=0.5)]
        runway.delete_script = [Reply(status=204, delay=1.0)]
        avatar, _ = avatar_at(runway, guardian=False)
        async with starting(avatar) as task:
            await until(lambda: runway.asked("POST"))
            task.cancel()
            await until(lambda: runway.asked("DELETE"))
            assert list(contents(journals).alive) == ["mine"]
        assert files(journals) == []


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_guardian_is_there_while_a_session_may_bill_if_it_is_wanted(
    journals: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    started: list[Any] = []
    popen = subprocess.Popen

    def start(*args: Any, **options: Any) -> Any:
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    async with ScriptedRunway().running() as runway:
        runway.script = [Reply(payload={"id": "mine"}, delay=0.5)]
        runway.delete_script = [Reply(status=204, delay=1.0)]
        avatar, _ = avatar_at(runway, guardian=wanted)
        async with starting(avatar) as task:
            await until(lambda: runway.asked("POST"))
            assert started == []
            task.cancel()
            await until(lambda: runway.asked("DELETE"))
            assert [process.poll() for process in started] == [None] * wanted
        assert [process.poll() for process in started] == [0] * wanted
