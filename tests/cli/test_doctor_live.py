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
from livekit_plugins_runway.cli.doctor.places import InvitedPlace
from livekit_plugins_runway.cli.doctor.verdict import judge
from livekit_plugins_runway.cli.doctor.witness import Heard
from livekit_plugins_runway.cli.exits import ExitCode
from livekit_plugins_runway.errors import (
    AvatarJoinError,
    AvatarLostError,
    RequestRejectedError,
    RunwayException,
    SessionFailedError,
)
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import CreateRealtimeSession, PresetAvatar
from livekit_plugins_runway.testing import (
    Faults,
    RunwaySimulator,
    SessionStatus,
    SimulatorOptions,
    Speech,
    WorkerManners,
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


def own_room(server: LiveKitServer) -> Any:
    return partial(InvitedPlace, server.url, server.api_key, server.api_secret)


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
        session, beside = simulator.sessions.values()
        assert session.status is SessionStatus.COMPLETED
        assert beside.credits == 0
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


INVITED: dict[str, tuple[WorkerManners, str]] = {
    "says it": (WorkerManners(), "speaks"),
    "says it in another voice": (WorkerManners(pace=1.12), "answers"),
    "keeps it back": (WorkerManners(keeps_back=0.5), "speaks"),
    "is silent": (WorkerManners(speech=Speech.SILENT), "silent"),
    "answers calls with errors": (WorkerManners(rpc_error=True), "speaks"),
}


@pytest.mark.parametrize("manner", INVITED)
async def test_an_invited_worker_is_examined_in_a_room_of_ones_own(
    livekit_server: LiveKitServer, short_phrase: bytes, manner: str
) -> None:
    manners, reaction = INVITED[manner]
    async with runway(livekit_server, invited=manners) as (simulator, client):
        findings = await examine(
            client, REQUEST, short_phrase, place=own_room(livekit_server), patience=PATIENCE
        )
        heard = findings.deliveries["datastream"]
        assert isinstance(heard, Heard)
        assert heard.reaction == reaction, findings
        assert findings.answers_rpc is (manner not in ("is silent", "answers calls with errors"))
        assert findings.worker_identity == "runway-avatar-doctor"
        assert findings.statuses[0] in ("READY", "RUNNING")
        assert findings.end_call_obeyed
        await simulator.wait_until(lambda: not simulator.leaked(), 3.0)


@pytest.mark.parametrize(
    ("manners", "faults", "error"),
    [
        (WorkerManners(stays_away=True), Faults(), AvatarJoinError),
        (WorkerManners(refused=True), Faults(), SessionFailedError),
        (WorkerManners(publish_audio=False), Faults(), AvatarJoinError),
        (WorkerManners(leaves_after=0.5), Faults(), RunwayException),
        (WorkerManners(), Faults(create=[400]), RequestRejectedError),
    ],
    ids=["stays away", "is refused", "has no voice", "leaves at once", "is not invited"],
)
async def test_what_keeps_an_invited_worker_from_it_is_reported(
    livekit_server: LiveKitServer,
    short_phrase: bytes,
    manners: WorkerManners,
    faults: Faults,
    error: type[RunwayException],
) -> None:
    async with runway(livekit_server, invited=manners, faults=faults) as (simulator, client):
        findings = await examine(
            client,
            REQUEST,
            short_phrase,
            place=own_room(livekit_server),
            patience=replace(HASTE, join=1.5),
        )
        assert isinstance(findings.error, error), findings.error
        await simulator.wait_until(lambda: not simulator.leaked(), 5.0)


async def test_a_worker_under_another_identity_is_found_and_a_greeting_is_told(
    livekit_server: LiveKitServer, short_phrase: bytes
) -> None:
    manners = WorkerManners(identity="somebody", greeting=short_phrase)
    async with runway(livekit_server, hosted=manners) as (simulator, client):
        findings = await examine(client, REQUEST, short_phrase, patience=HASTE)
        assert findings.worker_identity == "somebody"
        assert findings.spoke_unasked > 0.3
        assert judge(findings).kind == "datastream", findings
        await simulator.wait_until(lambda: not simulator.leaked(), 3.0)


@pytest.mark.parametrize(("concurrency", "told"), [(2, "ready"), (1, "queued")])
async def test_a_second_session_is_tried_beside_the_first_and_ended(
    livekit_server: LiveKitServer, short_phrase: bytes, concurrency: int, told: str
) -> None:
    options = {"concurrency": concurrency, "cancelled_slot_hold": 0.1}
    async with runway(livekit_server, **options) as (simulator, client):
        findings = await examine(client, REQUEST, short_phrase, patience=HASTE, beside=True)
        assert findings.second_session == told
        assert len(simulator.sessions) == 2
        await simulator.wait_until(lambda: not simulator.leaked(), 3.0)


async def test_where_only_an_invited_worker_does_the_report_has_both_rooms(
    livekit_server: LiveKitServer,
    short_phrase: bytes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(live, "examine", partial(examine, patience=HASTE))
    monkeypatch.setattr(phrase, "built_in", lambda: short_phrase)
    options = {**QUICK, "hosted": WorkerManners(speech=Speech.CONVERSATION)}
    report = tmp_path / "report.json"
    arguments = ["doctor", "--live", "--yes", "--allow-private-livekit-url"]
    async with command_line(options, **livekit(livekit_server)) as (run, simulator):
        own = {name.upper(): value for name, value in livekit(livekit_server).items()}
        run.secrets.append(livekit_server.api_secret)
        told = await run(*arguments, "--report", str(report), env=own)
        assert told.code == 0, told.err
        assert "AvatarSession(preset_id='influencer', transport='direct')" in told.out
        assert "at most 24 ($0.24)" in told.err
        found = json.loads(report.read_text())
        assert found["verdict"]["kind"] == "direct"
        assert found["worker_identity"] == "worker:<session id>"
        assert found["direct"]["deliveries"]["datastream"]["reaction"] == "speaks"
        for session in simulator.sessions.values():
            assert session.id not in report.read_text()
        assert sum(session.credits for session in simulator.sessions.values()) <= 24


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
