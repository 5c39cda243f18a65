"""`doctor --live` finds out what a worker can do, on a real server, and always ends its session."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from livekit_plugins_runway.cli.doctor import live, phrase
from livekit_plugins_runway.cli.doctor.live import Patience, examine
from livekit_plugins_runway.cli.doctor.verdict import judge
from livekit_plugins_runway.cli.exits import ExitCode
from livekit_plugins_runway.errors import AvatarJoinError, AvatarLostError
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import CreateRealtimeSession, PresetAvatar
from livekit_plugins_runway.testing import (
    Faults,
    RunwaySimulator,
    SessionStatus,
    SimulatorOptions,
    Speech,
)
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from tests.support.command_line import command_line

pytestmark = pytest.mark.server

REQUEST = CreateRealtimeSession(avatar=PresetAvatar(preset_id="influencer"), max_duration=60)
QUICK: dict[str, Any] = {
    "queue_delay": 0.0,
    "provisioning_delay": 0.05,
    "worker_join_delay": 0.1,
    "first_frame_delay": 0.1,
    "upscale_after": 0.3,
    "end_call_settle": 0.2,
    "answer_after_silence": 0.3,
    "start_size": (160, 104),
    "full_size": (320, 208),
    "fps": 10.0,
}
PATIENCE = Patience(ready=5.0, join=8.0, quiet=3.0, reaction=0.8, settle=5.0)
HASTE = replace(PATIENCE, settle=0.0)
"""It does not wait for Runway's final status."""


@asynccontextmanager
async def runway(
    server: LiveKitServer, **options: Any
) -> AsyncIterator[tuple[RunwaySimulator, RunwayClient]]:
    settings = SimulatorOptions(**{**QUICK, **options})
    async with RunwaySimulator(options=settings, **livekit(server)) as simulator:
        client = RunwayClient(simulator.api_secret, base_url=simulator.url)
        try:
            yield simulator, client
        finally:
            await client.aclose()


def livekit(server: LiveKitServer) -> dict[str, Any]:
    return {
        "livekit_url": server.url,
        "livekit_api_key": server.api_key,
        "livekit_api_secret": server.api_secret,
    }


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .env of a developer is read."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def short_phrase() -> bytes:
    """1.3 s of it."""
    return phrase.built_in()[: 2 * 48 * 1300]


async def test_a_worker_that_takes_data_streams_gets_that_verdict_and_a_report(
    livekit_server: LiveKitServer,
    short_phrase: bytes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(live, "examine", partial(examine, patience=PATIENCE))
    monkeypatch.setattr(phrase, "built_in", lambda: short_phrase)
    report = tmp_path / "report.json"
    async with command_line(QUICK, **livekit(livekit_server)) as (run, simulator):
        # Its own project, and Runway's: here the same server.
        own = {name.upper(): value for name, value in livekit(livekit_server).items()}
        run.secrets.append(livekit_server.api_secret)
        told = await run("doctor", "--live", "--yes", "--json", "--report", str(report), env=own)
        assert told.code == 0, told.err
        found = told.json
        assert found == json.loads(report.read_text())
        assert found["verdict"]["kind"] == "datastream"
        assert found["verdict"]["options"] == {"transport": "bridge", "delivery": "datastream"}
        heard = found["deliveries"]
        assert (heard["track"]["reaction"], heard["datastream"]["reaction"]) == ("silent", "speaks")
        assert heard["datastream"]["latency"] == pytest.approx(0.3, abs=0.25)
        assert found["answers_clear_buffer"] is True
        stages = ["created", "ready", "consumed", "connected", "worker_joined", "tracks"]
        assert list(found["stages"])[:7] == [*stages, "first_frame"]
        assert found["picture_sizes"][-1] == [320, 208]
        assert {t["kind"]: t["codec"] for t in found["tracks"]} == {
            "video": "video/H264",
            "audio": "audio/red",
        }
        assert (found["end"]["status"], found["end"]["end_call_obeyed"]) == ("COMPLETED", True)
        assert all(check["status"] != "fail" for check in found["checks"])
        (session,) = simulator.sessions.values()
        assert session.status is SessionStatus.COMPLETED
        for private in (session.id, simulator.url, livekit_server.url, livekit_server.api_secret):
            assert private not in report.read_text()


async def test_a_worker_that_speaks_what_it_hears_is_recognised(
    livekit_server: LiveKitServer, short_phrase: bytes
) -> None:
    async with runway(livekit_server, speech=Speech.TRACK) as (simulator, client):
        findings = await examine(client, REQUEST, short_phrase, patience=HASTE)
        verdict = judge(findings)
        assert (verdict.kind, verdict.options["delivery"]) == ("track", "track"), findings
        assert not findings.answers_rpc
        await simulator.wait_until(lambda: not simulator.leaked(), 3.0)


async def test_a_worker_that_answers_on_its_own_is_recognised(
    livekit_server: LiveKitServer, short_phrase: bytes
) -> None:
    async with runway(livekit_server, speech=Speech.CONVERSATION) as (simulator, client):
        findings = await examine(client, REQUEST, short_phrase, patience=HASTE)
        verdict = judge(findings)
        assert verdict.kind == "conversation", findings
        assert verdict.options == {"transport": "direct"}
        assert any("--mouthpiece" in advice for advice in verdict.advice)
        await simulator.wait_until(lambda: not simulator.leaked(), 3.0)


async def test_a_worker_that_never_comes_is_reported_and_the_session_is_ended(
    livekit_server: LiveKitServer, short_phrase: bytes
) -> None:
    faults = Faults(worker_never_joins=True)
    async with runway(livekit_server, faults=faults) as (simulator, client):
        patience = replace(HASTE, join=0.5)
        findings = await examine(client, REQUEST, short_phrase, patience=patience)
        assert isinstance(findings.error, AvatarJoinError)
        verdict = judge(findings)
        assert (verdict.kind, "'connected'" in verdict.summary) == ("failed", True)
        await simulator.wait_until(lambda: not simulator.leaked(), 3.0)


async def test_a_worker_that_crashes_is_reported(
    livekit_server: LiveKitServer, short_phrase: bytes
) -> None:
    async with runway(livekit_server, crash_settle=0.1) as (simulator, client):

        def crash(stage: str) -> None:
            if stage == "first_frame":
                next(iter(simulator.sessions.values())).crash()

        findings = await examine(client, REQUEST, short_phrase, patience=HASTE, told=crash)
        assert isinstance(findings.error, AvatarLostError)
        assert findings.error.reason in ("worker_left", "tracks_unpublished")
        assert findings.end is not None
        assert findings.end.confirmed
        await simulator.wait_until(lambda: not simulator.leaked(), 3.0)


@pytest.mark.parametrize("stage", ["created", "consumed", "first_frame"])
async def test_cancelled_it_ends_the_session(
    livekit_server: LiveKitServer, short_phrase: bytes, stage: str
) -> None:
    async with runway(livekit_server) as (simulator, client):
        reached = asyncio.Event()

        def told(name: str) -> None:
            if name == stage:
                reached.set()

        task = asyncio.create_task(
            examine(client, REQUEST, short_phrase, patience=HASTE, told=told)
        )
        async with asyncio.timeout(10.0):
            await reached.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await simulator.wait_until(lambda: not simulator.leaked(), 3.0)


async def test_ctrl_c_ends_the_session_and_says_so(livekit_server: LiveKitServer) -> None:
    async with command_line(QUICK, **livekit(livekit_server)) as (run, simulator):
        process = await run.process("doctor", "--live", "--yes")
        await simulator.wait_for(None, SessionStatus.RUNNING, 20.0)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(15.0):
            out, err = await process.communicate()
        run.told += [out.decode(), err.decode()]
        assert process.returncode == ExitCode.INTERRUPTED, err
        assert b"Interrupted; the session was ended." in err
        assert b"Traceback" not in err
        await simulator.wait_until(lambda: not simulator.leaked(), 3.0)
