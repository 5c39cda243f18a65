"""Real worker processes: jobs dispatched through the server, several in one worker, and killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from livekit import api

from demo.worker import Worker
from livekit_plugins_runway.testing import RunwaySimulator, SimulatorOptions
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.user import SimulatedUser
from tests.support.call import SMALL_PICTURE
from tests.support.journals import files

ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "examples" / "offline_agent.py"
THREADED_AGENT = ROOT / "tests/support/threaded_agent.py"
HANGING_UP_AGENT = ROOT / "tests/support/hanging_up_agent.py"
FAREWELL = "It was good to talk to you. Goodbye, and take care."
_SEEDED = random.Random(5)
MOMENTS = [round(_SEEDED.uniform(0.0, 8.0), 2) for _ in range(int(os.environ.get("MOMENTS", "1")))]
"""Seconds after the create at which a worker is terminated; 10 of them for a release."""


@dataclass
class Office:
    """A registered worker, the Runway that its jobs use, and users that call."""

    server: LiveKitServer
    simulator: RunwaySimulator
    worker: Any
    stack: AsyncExitStack

    async def call(self, agent_name: str = "offline-agent") -> SimulatedUser:
        """A new user in a new room, and the agent dispatched to it."""
        room = f"office-{secrets.token_hex(4)}"
        user = SimulatedUser(
            self.server.url,
            room,
            api_key=self.server.api_key,
            api_secret=self.server.api_secret,
        )
        await self.stack.enter_async_context(user)
        async with api.LiveKitAPI(
            self.server.http_url, self.server.api_key, self.server.api_secret
        ) as livekit:
            # With both cores busy the server may find no worker free, and the dispatch is lost.
            for _ in range(4):
                jobs = [
                    job
                    for dispatch in await livekit.agent_dispatch.list_dispatch(room)
                    for job in dispatch.state.jobs
                ]
                if not jobs:
                    await livekit.agent_dispatch.create_dispatch(
                        api.CreateAgentDispatchRequest(agent_name=agent_name, room=room)
                    )
                with contextlib.suppress(TimeoutError):
                    await user.wait_until(lambda: bool(user.participants), 10.0)
                    break
        return user


@asynccontextmanager
async def office(server: LiveKitServer, folder: Path, agent: Path = AGENT) -> AsyncIterator[Office]:
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(
            RunwaySimulator(
                livekit_url=server.url,
                livekit_api_key=server.api_key,
                livekit_api_secret=server.api_secret,
                options=SimulatorOptions(**SMALL_PICTURE),
            )
        )
        environment = {
            "LIVEKIT_URL": server.url,
            "LIVEKIT_API_KEY": server.api_key,
            "LIVEKIT_API_SECRET": server.api_secret,
            "RUNWAYML_BASE_URL": simulator.url,
            "RUNWAYML_API_SECRET": simulator.api_secret,
        }
        worker = await stack.enter_async_context(
            Worker.running(agent, environment, folder / "worker.log", lambda _: None)
        )
        await worker.wait_for(lambda w: w.registered, 40)
        yield Office(server, simulator, worker, stack)


async def has_a_face_and_a_voice(user: SimulatedUser) -> None:
    await asyncio.gather(user.wait_for_audio(30.0, since=0.0), user.wait_for_video(30.0, since=0.0))
    assert {t.identity for t in user.tracks if t.source == "camera"} == {"runway-avatar-agent"}


@pytest.mark.heavy
@pytest.mark.timeout(120)
@pytest.mark.parametrize("agent", [AGENT, THREADED_AGENT], ids=["processes", "threads"])
async def test_two_jobs_in_one_worker_have_each_a_face_and_end_their_sessions(
    livekit_server: LiveKitServer, tmp_path: Path, agent: Path
) -> None:
    async with office(livekit_server, tmp_path, agent) as there:
        users = await asyncio.gather(there.call(), there.call())
        await asyncio.gather(*map(has_a_face_and_a_voice, users))
        assert len(there.simulator.sessions) == 2
        # One hangs up; the other's call is none of its business.
        first, second = users
        await first.aclose()
        await there.simulator.wait_until(lambda: len(there.simulator.leaked()) == 1, 15.0)
        since = second.frames[-1].at
        await second.wait_for_video(10.0, since=since)
        await second.aclose()
        await there.simulator.wait_until(lambda: not there.simulator.leaked(), 15.0)
        statuses = {s.status.value for s in there.simulator.sessions.values()}
        assert statuses == {"COMPLETED"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("stage", ["ready", "first_speech"])
async def test_a_worker_that_is_terminated_in_mid_call_leaves_no_session(
    livekit_server: LiveKitServer, tmp_path: Path, stage: str
) -> None:
    async with office(livekit_server, tmp_path) as there:
        await there.call()
        await there.worker.wait_for(
            lambda w: any(e["event"] == "stage" and e["stage"] == stage for e in w.events), 30
        )
        there.worker.terminate()
        await there.simulator.wait_until(lambda: not there.simulator.leaked(), 12.0)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("after", MOMENTS)
async def test_a_worker_that_is_terminated_at_any_moment_leaves_no_session(
    livekit_server: LiveKitServer, tmp_path: Path, after: float
) -> None:
    async with office(livekit_server, tmp_path) as there:
        calling = asyncio.create_task(there.call())
        await there.simulator.wait_until(lambda: bool(there.simulator.sessions), 60.0)
        await asyncio.sleep(after)
        there.worker.terminate()
        await there.simulator.wait_until(lambda: not there.simulator.leaked(), 12.0)
        await calling


@pytest.mark.timeout(120)
async def test_the_session_of_a_job_that_is_killed_ends_at_once(
    livekit_server: LiveKitServer, tmp_path: Path, journals: Path
) -> None:
    async with office(livekit_server, tmp_path) as there:
        await has_a_face_and_a_voice(await there.call())
        [session] = there.simulator.sessions.values()
        [journal] = files(journals)
        job = int(journal.partition("-")[0])  # the process that has made it
        os.kill(job, signal.SIGKILL)
        # Long before the simulated Runway gives up a session that nobody is in.
        await there.simulator.wait_until(lambda: session.status.is_terminal, 5.0)
        assert session.status.value == "CANCELLED", "not by DELETE"


@pytest.mark.timeout(120)
async def test_an_agent_that_hangs_up_says_its_farewell_whole_and_logs_no_error(
    livekit_server: LiveKitServer, tmp_path: Path
) -> None:
    """By the framework's `EndCallTool`, which deletes the room."""
    async with office(livekit_server, tmp_path, HANGING_UP_AGENT) as there:
        user = await there.call("hanging-up-agent")
        await has_a_face_and_a_voice(user)
        await user.say("Goodbye!")
        await there.worker.wait_for(lambda w: "closed" in [e["event"] for e in w.events], 30.0)
        await there.simulator.wait_until(lambda: not there.simulator.leaked(), 15.0)
        [session] = there.simulator.sessions.values()
        assert session.status.value == "COMPLETED"
        last = there.worker.said("assistant")[-1]
        assert (last["text"].strip(), last["interrupted"]) == (FAREWELL, False)
        await user.wait_until(lambda: not user.room.isconnected(), 10.0)  # the room is deleted
    assert errors(tmp_path / "worker.log") == []


def errors(log: Path) -> list[str]:
    """What it says at level ERROR, but for the SDK, which calls it an error that the connections of
    a deleted room close."""
    records = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    wrong = [r for r in records if r["level"] in ("ERROR", "CRITICAL") and r["name"] != "livekit"]
    return [record["message"] for record in wrong]
