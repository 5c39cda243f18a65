"""The simulator as a program is told over HTTP, or by its commands, what a test in Python says."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from livekit_plugins_runway.testing import RunwaySimulator, SimulatedSession, SimulatorOptions
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.program.command import main
from livekit_plugins_runway.testing.program.control import PATH, ControlApi

SESSIONS = "/v1/realtime_sessions"
FACE = {
    "name": "Ada",
    "referenceImage": "https://example.com/face.png",
    "personality": "Kind.",
    "voice": {"type": "runway-live-preset", "presetId": "luna"},
}
BODY = {"model": "gwm1_avatars", "avatar": {"type": "runway-preset", "presetId": "influencer"}}
TOKEN = "a-token-of-the-control-api"


class Program:
    """What the program runs, in this process."""

    def __init__(self, simulator: RunwaySimulator, http: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.http = http

    async def control(
        self, method: str, path: str, body: Any = None, **options: Any
    ) -> tuple[int, Any]:
        url = self.simulator.url + PATH + path
        async with self.http.request(method, url, json=body, **options) as answer:
            return answer.status, await answer.json()

    async def runway(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {
            "Authorization": f"Bearer {self.simulator.api_secret}",
            "X-Runway-Version": "2024-11-06",
        }
        url = self.simulator.url + path
        async with self.http.request(method, url, json=body, headers=headers) as answer:
            return answer.status, json.loads(await answer.text() or "null")

    async def create(self, **fields: Any) -> SimulatedSession:
        status, made = await self.runway("POST", SESSIONS, {**BODY, **fields})
        assert status == 200
        return self.simulator.sessions[made["id"]]

    async def command(self, *arguments: str) -> None:
        await asyncio.to_thread(main, [*arguments, "--simulator", self.simulator.url])


@asynccontextmanager
async def program(
    token: str | None = None, livekit: LiveKitServer | None = None, **options: Any
) -> AsyncIterator[Program]:
    quick = {"queue_delay": 0.0, "provisioning_delay": 0.0, "crash_settle": 0.1, **options}
    keys: dict[str, Any] = {}
    if livekit is not None:
        keys = {
            "livekit_url": livekit.url,
            "livekit_api_key": livekit.api_key,
            "livekit_api_secret": livekit.api_secret,
        }
    simulator = RunwaySimulator(options=SimulatorOptions(**quick), **keys)
    simulator.unrecorded.extend(ControlApi(simulator, token).routes())
    async with simulator, aiohttp.ClientSession() as http:
        yield Program(simulator, http)


async def test_what_was_asked_is_shown_without_secrets_and_without_what_controls_it() -> None:
    async with program() as it:
        invited = {
            "type": "livekit",
            "url": "ws://127.0.0.1:9",
            "token": "eyJ.secret.token",
            "roomName": "call",
        }
        await it.create(integration=invited)
        await it.runway("GET", f"{SESSIONS}/nobody")
        status, answer = await it.control("GET", "/requests")
        assert status == 200
        told = [(one["number"], one["method"], one["status"]) for one in answer["requests"]]
        assert told == [(1, "POST", 200), (2, "GET", 404)]
        assert answer["requests"][0]["body"]["integration"] == {**invited, "token": "***"}
        assert it.simulator.api_secret not in json.dumps(answer)
        _, later = await it.control("GET", "/requests?after=1")
        assert [one["number"] for one in later["requests"]] == [2]
        _, summary = await it.control("GET", "")
        assert (summary["requests"], summary["sessions"]) == (2, 1)
        await it.control("DELETE", "/requests")
        assert it.simulator.requests == []


async def test_the_account_is_filled_by_names_and_shown_whole() -> None:
    async with program() as it:
        wanted = {"avatars": [{"name": "Ada", "status": "PROCESSING"}], "documents": []}
        assert (await it.control("PUT", "/account", wanted))[0] == 200
        _, listed = await it.runway("GET", "/v1/avatars")
        assert [(one["name"], one["status"]) for one in listed["data"]] == [("Ada", "PROCESSING")]
        _, shown = await it.control("GET", "/account")
        assert shown["avatars"] == listed["data"]
        await it.control("PUT", "/account", {"voices": [{"name": "Deep"}]})
        assert [one["name"] for one in it.simulator.account.avatars] == ["Ada"]
        assert [one["name"] for one in it.simulator.account.voices] == ["Deep"]


async def test_faults_meet_the_next_session_every_one_or_one_that_runs() -> None:
    async with program() as it:
        await it.control("PUT", "/faults", {"create": [{"status": 503, "retry_after": "1"}, 429]})
        statuses = [(await it.runway("POST", SESSIONS, BODY))[0] for _ in range(3)]
        assert statuses == [503, 429, 200]
        path = f"{SESSIONS}/{next(iter(it.simulator.sessions))}"
        await it.control("PUT", "/faults?session=last", {"get": [500]})
        assert [(await it.runway("GET", path))[0] for _ in range(2)] == [500, 200]
        await it.control("PUT", "/faults?session=every", {"fail_while_provisioning": "INTERNAL"})
        for _ in range(2):
            await it.create()
            status, seen = await it.control("GET", "/sessions/last?status=FAILED&timeout=5")
            assert (status, seen["failureCode"]) == (200, "INTERNAL")


async def test_faults_of_the_account_meet_its_next_call_and_the_next_avatar() -> None:
    async with program() as it:
        orders = {"avatar": "No face was found", "calls": [503]}
        assert (await it.control("PUT", "/account/faults", orders))[0] == 200
        statuses = [(await it.runway("GET", "/v1/avatars"))[0] for _ in range(2)]
        assert statuses == [503, 200]
        assert (await it.runway("POST", "/v1/avatars", FACE))[0] == 200
        avatars = it.simulator.account.avatars
        await it.simulator.wait_until(lambda: avatars[0]["status"] == "FAILED")
        assert avatars[0]["failureReason"] == "No face was found"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "names"),
    [
        ("PUT", "/account/faults", {"avatars": "x"}, 400, "avatars"),
        ("PUT", "/account/faults", {"calls": [{"stats": 1}]}, 400, "stats"),
        ("PUT", "/faults", {"creat": [503]}, 400, "creat"),
        ("PUT", "/faults", {"create": [{"stats": 1}]}, 400, "stats"),
        ("PUT", "/faults", {"rpc_delay": "long"}, 400, "rpc_delay"),
        ("PUT", "/faults?session=x", {}, 404, "'x'"),
        ("PUT", "/account", {"avatar": []}, 400, "avatar"),
        ("PUT", "/account", {"avatars": [{"id": "1"}]}, 400, "name"),
        ("PUT", "/account", [], 400, "object"),
        ("GET", "/sessions/nobody", None, 404, "nobody"),
        ("GET", "/sessions/last?status=DONE", None, 400, "COMPLETED"),
        ("GET", "/sessions/last?status=READY&timeout=x", None, 400, "timeout"),
        ("GET", "/sessions/last?status=READY&timeout=0", None, 504, "READY"),
        ("GET", "/requests?after=-1", None, 400, "after"),
    ],
)
async def test_what_cannot_be_meant_is_refused_by_name(
    method: str, path: str, body: Any, status: int, names: str
) -> None:
    async with program() as it:
        found, answer = await it.control(method, path, body)
        assert (found, names in answer["error"]) == (status, True), answer
        assert "pydantic" not in answer["error"]


async def test_a_session_is_ended_and_one_without_a_worker_cannot_crash() -> None:
    async with program(consumed_running_delay=0.0) as it:
        session = await it.create()
        status, refused = await it.control("POST", "/sessions/last/crash")
        assert (status, "not in the room" in refused["error"]) == (409, True)
        status, refused = await it.control("POST", "/sessions/last/explode")
        assert (status, "crash" in refused["error"]) == (404, True)
        status, seen = await it.control("POST", f"/sessions/{session.id}/cancel")
        assert (status, seen["session"]["status"]) == (200, "CANCELLED")


@pytest.mark.server
async def test_a_worker_is_frozen_and_crashed(livekit_server: LiveKitServer) -> None:
    async with program(livekit=livekit_server) as it:
        invited = {
            "type": "livekit",
            "url": livekit_server.url,
            "token": livekit_server.token("control", "avatar", kind="agent"),
            "roomName": "control",
            "agentIdentity": "agent",
        }
        await it.create(integration=invited)
        _, seen = await it.control("GET", "/sessions/last?status=RUNNING&timeout=15")
        assert seen["worker"] == "in the room"
        for action, body in (("freeze", None), ("thaw", None), ("stall_video", {"stalled": True})):
            assert (await it.control("POST", f"/sessions/last/{action}", body))[0] == 200
        await it.command("do", "crash")
        _, seen = await it.control("GET", "/sessions/last?status=FAILED&timeout=10")
        assert (seen["worker"], seen["failureCode"]) == ("gone", "INTERNAL")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:3000"},
        {"Host": "rebound.example"},
        {"Origin": "null"},
    ],
)
async def test_without_a_token_no_page_controls_it(headers: dict[str, str]) -> None:
    async with program() as it:
        status, answer = await it.control("PUT", "/faults", {"create": [503]}, headers=headers)
        assert (status, "token" in answer["error"]) == (403, True)
        assert (await it.runway("POST", SESSIONS, BODY))[0] == 200


async def test_with_a_token_it_is_needed_and_enough() -> None:
    async with program(TOKEN) as it:
        for given in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer \xe4"}):
            assert (await it.control("GET", "", headers=given))[0] == 401
        good = {"Authorization": f"Bearer {TOKEN}", "Host": "simulator.ci"}
        assert (await it.control("GET", "", headers=good))[0] == 200


async def test_without_being_asked_for_there_is_no_control_api() -> None:
    async with (
        RunwaySimulator() as simulator,
        aiohttp.ClientSession() as http,
        http.get(simulator.url + PATH) as answer,
    ):
        assert answer.status == 404


async def test_each_thing_has_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with program() as it:
        file = tmp_path / "account.json"
        file.write_text('{"avatars": [{"name": "Ada"}]}')
        await it.command("fill", str(file))
        await it.command("fault", '{"get": [500]}')
        await it.command("fault", "--account", '{"voice": "Too short"}')
        assert it.simulator.account.next_failure("voice") is not None
        session = await it.create()
        assert (await it.runway("GET", f"{SESSIONS}/{session.id}"))[0] == 500
        await it.command("wait", "READY")
        await it.command("do", "cancel", "--session", session.id)
        assert session.status == "CANCELLED"
        for what in ("summary", "requests", "sessions", "account"):
            capsys.readouterr()
            await it.command("show", what)
            assert json.loads(capsys.readouterr().out)
        monkeypatch.setenv("RUNWAYML_BASE_URL", it.simulator.url)
        await asyncio.to_thread(main, ["show", "sessions"])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--time-scale", "0"], "--time-scale"),
        (["--time-scale", "fast"], "'fast'"),
        (["--port", "70000"], "--port"),
        (["--livekit-url", "ws://127.0.0.1:1"], "--livekit-api-key"),
        (["--nothing"], "--nothing"),
        (["--set", "credit=0"], "credits"),
        (["--set", "concurrency=0"], "concurrency"),
        (["--set", "custom_avatars=7"], "custom_avatars"),
        (["--set", 'hosted={"pace": 0}'], "pace"),
        (["--set", 'faults={"creat": []}'], "creat"),
        (["show"], "what"),
        (["explode"], "explode"),
        (["do", "explode"], "explode"),
        (["wait", "DONE"], "DONE"),
    ],
)
def test_a_wrong_argument_is_said_on_one_line(
    arguments: list[str],
    names: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SystemExit) as left:
        main(arguments)
    told = capsys.readouterr()
    assert left.value.code == 2
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert names in told.err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["show", "requests", "--simulator", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["fault", "{", "--simulator", "http://127.0.0.1:9"], "not valid JSON"),
        (["fill", "/nothing/here", "--simulator", "http://127.0.0.1:9"], "/nothing/here"),
    ],
)
def test_what_cannot_be_done_is_said_on_one_line(
    arguments: list[str], names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    told = capsys.readouterr()
    assert (left.value.code, told.out, told.err.count("\n")) == (1, "", 1)
    assert names in told.err


def test_a_port_in_use_is_said_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit) as left:
            main(["run", "--port", port])
    told = capsys.readouterr()
    assert (left.value.code, told.err.count("\n")) == (1, 1)
    assert port in told.err
