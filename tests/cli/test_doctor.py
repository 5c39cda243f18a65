"""`doctor` without a session: each check says what is wrong; and what each finding means."""

from __future__ import annotations

import json
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from aiohttp import web
from livekit import api

from livekit_plugins_runway.cli.doctor import command as doctor
from livekit_plugins_runway.cli.doctor import encoder, live, offline, phrase
from livekit_plugins_runway.cli.doctor.live import Findings
from livekit_plugins_runway.cli.doctor.verdict import MOUTHPIECE, judge
from livekit_plugins_runway.cli.doctor.witness import Heard
from livekit_plugins_runway.cli.exits import ExitCode
from livekit_plugins_runway.cli.output import Output
from livekit_plugins_runway.cli.settings import Settings
from livekit_plugins_runway.errors import (
    AvatarLostError,
    ConfigurationError,
    CreditsError,
    RequestRejectedError,
    RoomTokenError,
    RunwayException,
    SessionNotReadyError,
)
from livekit_plugins_runway.events import SessionEnd
from livekit_plugins_runway.playout.audio import SAMPLE_RATE
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import CreateRealtimeSession
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.transport.worker_protocol import DeliveryKind
from tests.support.command_line import command_line
from tests.support.journals import contents, files

pytestmark = pytest.mark.sampled

SPEAKS = Heard("speaks", 0.3, 2.4)
ANSWERS = Heard("answers", 3.0, 1.2)
SILENT = Heard("silent", None, 0.0)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNWAY_API_KEY", raising=False)


def statuses(report: Any) -> dict[str, str]:
    return {check["name"]: check["status"] for check in report["checks"]}


def advice(report: Any, name: str) -> str:
    (found,) = [check for check in report["checks"] if check["name"] == name]
    return f"{found['detail']} {found['advice']}"


# -- the checks --


async def test_all_is_well_with_a_key_credits_and_a_server(livekit_server: LiveKitServer) -> None:
    livekit = {
        "LIVEKIT_URL": livekit_server.url,
        "LIVEKIT_API_KEY": livekit_server.api_key,
        "LIVEKIT_API_SECRET": livekit_server.api_secret,
    }
    async with command_line() as (run, simulator):
        run.secrets.append(livekit_server.api_secret)
        told = await run("--json", "doctor", env=livekit)
        assert (told.code, told.json["ok"]) == (0, True)
        assert set(statuses(told.json).values()) == {"ok"}, told.out
        assert "encoded by OpenH264" in advice(told.json, "livekit media")
        assert not [r for r in simulator.requests if r.method != "GET"]
        wrong = await run("--json", "doctor", env={**livekit, "LIVEKIT_API_SECRET": "x" * 32})
        assert (wrong.code, statuses(wrong.json)["livekit key"]) == (ExitCode.REFUSED, "fail")


async def test_without_anything_it_says_what_to_set(unused_tcp_port: int) -> None:
    async with command_line() as (run, _):
        away = f"http://127.0.0.1:{unused_tcp_port}"
        nothing = {"RUNWAYML_API_SECRET": None, "RUNWAYML_BASE_URL": away}
        told = await run("--json", "doctor", env=nothing)
        assert told.code == ExitCode.REFUSED
        found = statuses(told.json)
        assert (found["runway key"], found["runway reachable"]) == ("fail", "fail")
        assert found["livekit settings"] == "warn"
        assert "RUNWAYML_API_SECRET" in advice(told.json, "runway key")
        plain = await run("doctor", env=nothing)
        assert "fail  runway key: not set" in plain.out


@pytest.mark.parametrize(
    ("name", "status"), [("RUNWAY_API_KEY", "ok"), ("RUNWAY_SKILLS_API_SECRET", "warn")]
)
async def test_it_warns_of_a_key_that_an_avatar_session_does_not_read(
    name: str, status: str
) -> None:
    async with command_line() as (run, simulator):
        env = {"RUNWAYML_API_SECRET": None, name: simulator.api_secret}
        told = await run("--base-url", simulator.url, "--json", "doctor", env=env)
        assert statuses(told.json)["runway key"] == status


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ({"credits": 5}, "fail", "Buy credits"),
        ({"daily_quota": 0}, "fail", "limit is used up"),
        ({"concurrency": 1}, "warn", "One session at a time"),
        ({}, "ok", "600"),
    ],
)
async def test_it_knows_what_the_account_lacks(
    options: dict[str, Any], status: str, text: str
) -> None:
    async with command_line(options) as (run, _):
        told = await run("--json", "doctor")
        assert statuses(told.json)["runway account"] == status
        assert text in advice(told.json, "runway account")


async def test_a_wrong_key_and_an_odd_one_are_noticed() -> None:
    async with command_line() as (run, _):
        run.secrets.append("key_odd-and-wrong")
        told = await run("--json", "doctor", env={"RUNWAYML_API_SECRET": "key_odd-and-wrong"})
        found = statuses(told.json)
        assert (found["runway key"], found["runway account"]) == ("warn", "fail")
        assert "did not accept the key" in advice(told.json, "runway account")


@pytest.mark.parametrize(
    ("found", "status", "text"),
    [
        ("OpenH264", "ok", "encoded by OpenH264"),
        ("NvEnc", "ok", "in hardware by NvEnc"),
        (encoder.NotPublished("joining a room: ConnectError"), "fail", "joining a room"),
    ],
)
async def test_it_says_who_encodes_the_picture(
    monkeypatch: pytest.MonkeyPatch, found: str | Exception, status: str, text: str
) -> None:
    answer = mock.AsyncMock(side_effect=[found])
    monkeypatch.setattr(encoder, "encoder_in_use", answer)
    check = await offline._media("ws://h", "k", "s" * 32)
    assert check.status == status
    assert text in check.detail
    assert ('encoder="software"' in check.advice) is ("hardware" in text)


@asynccontextmanager
async def server_of_another_time(off: timedelta) -> AsyncIterator[str]:
    async def answer(_: web.Request) -> web.Response:
        date = format_datetime(datetime.now(UTC) + off, usegmt=True)
        return web.Response(text="OK", headers={"Date": date})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "ws://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("off", "status"), [(0, "ok"), (20, "warn"), (-300, "fail")])
async def test_a_clock_that_is_off_is_noticed(off: int, status: str) -> None:
    async with server_of_another_time(timedelta(seconds=off)) as url, command_line() as (run, _):
        told = await run("--json", "doctor", env={"LIVEKIT_URL": url})
        assert statuses(told.json)["clock against livekit"] == status


# -- before money is spent --


async def test_live_asks_first_and_does_nothing_without_consent() -> None:
    async with command_line() as (run, simulator):
        told = await run("doctor", "--live", stdin="n\n")
        assert "about 10 credits ($0.10)" in told.err
        assert (told.code, "Nothing was done." in told.err) == (ExitCode.REFUSED, True)
        nobody = await run("doctor", "--live", stdin="")
        assert (nobody.code, "--yes" in nobody.err) == (ExitCode.USAGE, True)
        assert (await run("doctor", "--mouthpiece")).code == ExitCode.USAGE
        keyless = await run("doctor", "--live", stdin="", env={"RUNWAYML_API_SECRET": None})
        assert keyless.code == ExitCode.AUTH
        lost = await run("doctor", "--live", "--yes", "--report", "no/such/folder/report.json")
        assert lost.code == ExitCode.USAGE
        assert simulator.sessions == {}


async def test_a_dry_run_of_live_shows_both_requests() -> None:
    async with command_line() as (run, simulator):
        told = await run("--dry-run", "--json", "doctor", "--live", "--mouthpiece")
        look, create = map(json.loads, told.lines)
        assert look["url"].endswith("/v1/organization")
        assert create["body"]["personality"] == MOUTHPIECE
        assert create["body"]["maxDuration"] == 36
        assert simulator.requests == []


async def test_the_session_of_a_doctor_that_is_killed_is_found_by_the_next_sweep(
    journals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stood: list[str] = []

    async def examine(
        client: RunwayClient, request: CreateRealtimeSession, *_: Any, **__: Any
    ) -> None:
        session_id = await client.create(request)
        stood.extend(contents(journals).alive)
        await client.delete(session_id)
        raise ConfigurationError("Enough was seen.")

    monkeypatch.setattr(live, "examine", examine)
    async with command_line() as (run, simulator):
        assert (await run("doctor", "--live", "--yes")).code == ExitCode.USAGE
        assert stood == list(simulator.sessions)
    assert files(journals) == []


async def test_a_refused_session_is_a_report_too(tmp_path: Path) -> None:
    async with command_line({"credits": 1}) as (run, _):
        told = await run("doctor", "--live", "--yes", "--report", "report.json")
        assert told.code == ExitCode.REFUSED
        report = json.loads((tmp_path / "report.json").read_text())
        assert (report["verdict"]["kind"], report["error"]["kind"]) == ("failed", "CreditsError")
        assert "It went wrong at the create call" in told.out


# -- what findings mean --


def findings(
    track: Heard | RoomTokenError | None,
    stream: Heard | RoomTokenError | None,
    *,
    rpc: bool = True,
    how: Any = "worker left",
    error: RunwayException | None = None,
    **stages: float,
) -> Findings:
    now = time.time()
    end = SessionEnd("id", None, how, how != "unconfirmed", now, now, now, now, 12.0, True)
    tried: dict[DeliveryKind, Heard | RoomTokenError | None] = {
        "track": track,
        "datastream": stream,
    }
    return Findings(
        stages={"created": 0.1, "first_frame": 5.0, **stages},
        answers_rpc=rpc,
        deliveries={kind: heard for kind, heard in tried.items() if heard is not None},
        end=end,
        error=error,
    )


def test_a_data_stream_that_works_is_preferred() -> None:
    verdict = judge(findings(SPEAKS, SPEAKS))
    assert (verdict.kind, verdict.options["delivery"]) == ("datastream", "datastream")
    assert "also speaks what it hears" in verdict.summary
    assert verdict.advice == ()


def test_a_stream_without_clear_buffer_must_be_set_by_hand() -> None:
    verdict = judge(findings(SILENT, SPEAKS, rpc=False))
    assert verdict.options["delivery"] == "datastream"
    assert "by hand" in " ".join(verdict.advice)


def test_a_worker_that_hears_the_microphone_gets_the_track() -> None:
    no_data = RoomTokenError(missing=["canPublishData"], needed_for="delivery 'datastream'")
    for stream in (SILENT, ANSWERS, no_data):
        assert judge(findings(SPEAKS, stream, rpc=False)).options["delivery"] == "track"


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        (None, {"transport": "direct"}, "must be able to reach your LiveKit server"),
        ("wss://mine.livekit.cloud", {"transport": "direct"}, "LIVEKIT_URL would do"),
        ("ws://localhost:7880", {}, "cannot reach this"),
    ],
)
def test_a_conversation_names_the_other_transport_and_whether_the_server_would_do(
    url: str | None, options: dict[str, Any], told: str
) -> None:
    verdict = judge(findings(ANSWERS, SILENT), livekit_url=url)
    assert (verdict.kind, verdict.options) == ("conversation", options)
    (about,) = [advice for advice in verdict.advice if 'transport="direct"' in advice]
    assert told in about


def test_where_only_an_invited_worker_says_what_it_is_sent_direct_is_the_way() -> None:
    invited = findings(None, SPEAKS, first_frame=18.0)
    for hosted in (findings(ANSWERS, SILENT), findings(SILENT, SILENT)):
        verdict = judge(hosted, invited)
        assert verdict.kind == "direct"
        assert verdict.options["transport"] == "direct"
        assert verdict.options["wait_for_avatar"] == 22.0
        assert judge(hosted).summary in " ".join(verdict.advice)


@pytest.mark.parametrize(
    ("stream", "error", "why"),
    [
        (ANSWERS, None, "it answers"),
        (SILENT, None, "nothing came back"),
        (None, RequestRejectedError(status_code=400, runway_message="no such key"), "no such key"),
    ],
)
def test_where_no_worker_says_it_both_rooms_are_told_of(
    stream: Heard | None, error: RunwayException | None, why: str
) -> None:
    verdict = judge(findings(ANSWERS, SILENT), findings(None, stream, error=error))
    assert (verdict.kind, verdict.options) == ("conversation", {})
    assert why in verdict.advice[0]


def test_where_both_rooms_do_the_bridge_is_taken_and_direct_named() -> None:
    for stream, also in ((SPEAKS, "says"), (SILENT, "does not say")):
        verdict = judge(findings(SILENT, SPEAKS), findings(None, stream))
        assert (verdict.kind, verdict.options["transport"]) == ("datastream", "bridge")
        assert also in verdict.advice[-1]


def test_a_conversation_has_an_experiment() -> None:
    verdict = judge(findings(ANSWERS, SILENT))
    assert "Experiment" in verdict.advice[-1]
    tried = judge(findings(ANSWERS, SILENT), mouthpiece=True)
    assert "cannot use that yet" in tried.advice[-1]


def test_silence_asks_for_words() -> None:
    verdict = judge(findings(SILENT, SILENT))
    assert (verdict.kind, "--speech" in " ".join(verdict.advice)) == ("silent", True)


def test_slow_stages_lengthen_the_options_that_wait() -> None:
    slow = Heard("speaks", 2.0, 2.4)
    options = judge(findings(SILENT, slow, first_frame=18.0)).options
    assert (options["wait_for_avatar"], options["join_timeout"]) == (22.0, 36.0)
    assert options["allow_pause"] is False


def test_a_session_that_only_delete_ended_has_no_transcripts() -> None:
    assert "END_CALL" in " ".join(judge(findings(SPEAKS, SILENT, how="deleted")).advice)
    unsure = judge(findings(SPEAKS, SILENT, how="unconfirmed"))
    assert "could not be confirmed" in " ".join(unsure.advice)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CreditsError(status_code=400), "Nothing was spent"),
        (SessionNotReadyError(queued=True, waited=60.0), "Another session"),
        (AvatarLostError(reason="worker_left"), "'first_frame'"),
    ],
)
def test_what_cut_it_short_is_said(error: RunwayException, text: str) -> None:
    verdict = judge(findings(SILENT, SILENT, error=error, ended=9.0))
    assert verdict.kind == "failed"
    assert text in verdict.summary + " ".join(verdict.advice)


def test_the_report_holds_no_id_and_no_key_whatever_an_error_says() -> None:
    found = findings(SPEAKS, SILENT, error=RunwayException("session the-id broke with key_x"))
    found.session_id = "the-id"
    settings = Settings(Output(False, ("key_x",)), False, "https://h.example", {})
    direct = findings(SILENT, SPEAKS)
    direct.session_id = "another-id"
    direct.worker_identity = "worker of another-id"
    text = json.dumps(doctor._report(settings, [], found, direct, judge(found), b"", False))
    assert "the-id" not in text
    assert "another-id" not in text
    assert "key_x" not in text
    assert "h.example" not in text


# -- the phrase --


def test_the_built_in_phrase_is_loud_enough_to_be_followed() -> None:
    samples = np.frombuffer(phrase.built_in(), np.int16)
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.5)
    assert 10_000 < np.abs(samples).max() < 16_000


def test_a_wav_file_of_any_rate_is_taken_and_what_is_none_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.full((16_000, 2), 1000, np.int16).tobytes())
    samples = np.frombuffer(phrase.from_wav(path), np.int16)
    assert (len(samples), set(samples)) == (SAMPLE_RATE, {1000})
    for broken in (b"no sound", path.read_bytes()[:2000]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="--speech"):
            phrase.from_wav(path)


# -- a LiveKit project --


async def test_a_token_opens_the_room_and_names_the_agent() -> None:
    keys = {"LIVEKIT_API_KEY": "APIkey", "LIVEKIT_API_SECRET": "s" * 32}
    async with command_line() as (run, _):
        run.secrets.append(keys["LIVEKIT_API_SECRET"])
        arguments = ["token", "--room", "lobby", "--identity", "ann", "--agent", "face"]
        told = await run(*arguments, "--metadata", "{}", env=keys)
        claims = api.TokenVerifier("APIkey", "s" * 32).verify(told.out.strip())
        assert claims.video is not None
        assert (claims.identity, claims.video.room, claims.video.room_join) == (
            "ann",
            "lobby",
            True,
        )
        assert claims.room_config is not None
        assert [a.agent_name for a in claims.room_config.agents] == ["face"]
        with_url = await run("--json", *arguments, env={**keys, "LIVEKIT_URL": "wss://h"})
        assert (with_url.json["url"], with_url.json["identity"]) == ("wss://h", "ann")
        shown = await run("--dry-run", *arguments)
        assert (shown.json["grants"]["room"], "token" in shown.json) == ("lobby", False)
        assert (await run(*arguments)).code == ExitCode.USAGE
        assert (await run("token", "--room", "r", "--metadata", "m")).code == ExitCode.USAGE


async def test_an_agent_is_dispatched(livekit_server: LiveKitServer) -> None:
    keys = {
        "LIVEKIT_URL": livekit_server.url,
        "LIVEKIT_API_KEY": livekit_server.api_key,
        "LIVEKIT_API_SECRET": livekit_server.api_secret,
    }
    arguments = ["dispatch", "--room", "cli-lobby", "--agent", "face", "--metadata", "m"]
    async with command_line() as (run, _):
        run.secrets.append(livekit_server.api_secret)
        shown = await run("--dry-run", "--json", *arguments, env=keys)
        assert shown.json["url"].startswith(livekit_server.http_url)
        made = await run("--json", *arguments, env=keys)
        assert (made.json["agentName"], made.json["room"]) == ("face", "cli-lobby")
        wrong = await run(*arguments, env={**keys, "LIVEKIT_API_SECRET": "x" * 32})
        assert wrong.code == ExitCode.AUTH
        away = {**keys, "LIVEKIT_URL": "ws://127.0.0.1:9"}
        assert (await run(*arguments, env=away)).code == ExitCode.NETWORK
    async with api.LiveKitAPI(
        livekit_server.http_url, livekit_server.api_key, livekit_server.api_secret
    ) as livekit:
        made_here = await livekit.agent_dispatch.list_dispatch("cli-lobby")
        # The server also dispatches to whichever agent has no name.
        assert [(d.agent_name, d.metadata) for d in made_here if d.agent_name] == [("face", "m")]
