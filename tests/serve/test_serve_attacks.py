"""What a caller sends cannot stall `serve`, flood its log, or shut others out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from livekit_plugins_runway.runway.models import CreateRealtimeSession, ObjectParameter
from livekit_plugins_runway.serve.bodies import Bodies, parse_json
from livekit_plugins_runway.serve.guard import MAX_BODY, Guard
from livekit_plugins_runway.serve.http.connections import Connections, most_connections
from livekit_plugins_runway.serve.options import ServeOptions
from livekit_plugins_runway.serve.refusals import Refused
from tests.support.serving import FRONT_END, SESSIONS, TOKEN, Served, served

CREATE = {"model": "gwm1_avatars", "avatar": {"type": "runway-preset", "presetId": "influencer"}}
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def nested(depth: int, width: int, **more: Any) -> dict[str, Any]:
    """A body with parameters in one another around many small values."""
    inner: Any = {"w": [{"k": 1}] * width}
    for _ in range(depth):
        inner = {"type": "object", "name": "p", "properties": [inner], **more}
    tool = {"type": "client_event", "name": "t", "description": "d", "parameters": [inner]}
    return {**CREATE, "tools": [tool]}


# -- bodies


@pytest.mark.parametrize(("depth", "width"), [(12, 300), (12, 6000), (5, 6000)])
def test_what_is_wrong_in_a_nested_body_is_said_in_a_few_words(depth: int, width: int) -> None:
    body = parse_json(json.dumps(nested(depth, width), separators=(",", ":")).encode())
    with pytest.raises(Refused) as refused:
        Bodies([], 300).as_for_runway(body)
    assert refused.value.status == 400
    assert len(refused.value.body["error"]) < 1200


def test_a_body_that_is_nested_too_deep_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(Refused, match="deeper than 32"):
        Bodies([], 300).as_for_runway(nested(40, 3))
    with pytest.raises(Refused, match="not valid JSON"):
        parse_json(b"[" * 100_000)


@pytest.mark.parametrize("wrong", [1, {}, {"a": 1}, {f"{i:x}": 1 for i in range(9000)}])
def test_a_body_with_very_many_values_is_refused_before_it_is_looked_at(wrong: Any) -> None:
    bodies = Bodies(["influencer"], 300)
    tools = [wrong] * (1 if isinstance(wrong, dict) and len(wrong) > 1 else 9000)
    for refuse in (bodies.as_for_runway, bodies.for_front_end):
        with pytest.raises(Refused, match="more than 4000 values"):
            refuse({"tools": tools})


def test_as_many_tools_and_parameters_as_runway_takes_are_not_too_many() -> None:
    parameters = [
        {"type": "string", "name": f"p{number}", "description": "d", "enum": ["a", "b"]}
        for number in range(20)
    ]
    tools = [
        {"type": "client_event", "name": f"t{number}", "description": "d", "parameters": parameters}
        for number in range(20)
    ]
    request = Bodies([], 300).as_for_runway({**CREATE, "tools": tools})
    assert request.tools is not None
    assert len(request.tools) == 20


def test_a_number_that_is_none_is_the_callers_fault() -> None:
    with pytest.raises(Refused, match="not valid JSON") as refused:
        parse_json(b'{"tools": [1e400]}')
    assert refused.value.status == 400


def test_a_right_nested_parameter_stays_one_and_other_json_stays_as_it_is() -> None:
    body = nested(3, 2, description="d")
    request = CreateRealtimeSession.model_validate(body)
    assert request.tools is not None
    assert request.tools[0].parameters is not None
    first = request.tools[0].parameters[0]
    assert isinstance(first, ObjectParameter)
    assert isinstance(first.properties[0], ObjectParameter)
    assert request.wire()["tools"] == body["tools"]


@pytest.mark.parametrize("fields", [6000, 3])
async def test_names_of_fields_forge_no_line_of_the_log_and_make_no_long_one(
    fields: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    name = "x\n2026-01-01 INFO a session was cancelled\x1b[2J"
    async with served() as server:
        answer = await server.post(SESSIONS, {**CREATE, **{f"{name}{n}": 1 for n in range(fields)}})
        assert answer.status in (400, 413)
        assert len(answer.body["error"]) < 1200
    messages = [record.getMessage() for record in caplog.records if "answered" in record.msg]
    assert messages
    assert all(message.isprintable() and len(message) < 700 for message in messages)


def test_what_runway_says_is_one_short_line_in_the_log_too() -> None:
    refused = Refused(502, "gone\n2026-01-01 INFO all is well\x1b[2J" + "x" * 10_000)
    assert refused.for_log.isprintable()
    assert len(refused.for_log) == 500


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livekit_plugins_runway.serve.rest.BODY_SECONDS", 0.3)
    monkeypatch.setattr("livekit_plugins_runway.serve.mcp_server.BODY_SECONDS", 0.3)
    async with served(mcp=True) as server:
        for path, address in ((FRONT_END, server.rest), ("/mcp", server.mcp)):
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            reader, writer = await connect(address, f"{head}Content-Length: 100\r\n\r\n{{".encode())
            async with asyncio.timeout(5.0):
                assert b" 408 " in await reader.readline()
            writer.close()


# -- who calls


def test_of_two_lines_of_forwarded_for_the_proxys_own_last_one_counts() -> None:
    guard = Guard(ServeOptions(trust_proxy=True, token=TOKEN))
    assert guard.client({"X-Forwarded-For": "spoof, 10.0.0.1, 192.0.2.7"}, "proxy") == "192.0.2.7"


async def test_each_line_of_forwarded_for_is_read() -> None:
    lines = [("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "192.0.2.7")]
    async with served(token=TOKEN, trust_proxy=True, rate=2) as server:
        statuses = []
        for n in range(4):
            spoofed = [("X-Forwarded-For", f"198.51.100.{n}"), lines[1], *BEARER.items()]
            answer = await server.call("POST", SESSIONS, CREATE, headers=spoofed)
            statuses.append(answer.status)
        assert statuses == [200, 200, 429, 429]


async def test_who_has_no_token_uses_up_nobodys_calls() -> None:
    async with served(token=TOKEN, rate=1) as server:
        statuses = {(await server.post(SESSIONS, CREATE)).status for _ in range(40)}
        assert statuses == {401, 429}
        assert (await server.post(SESSIONS, CREATE, headers=BEARER)).status == 200


async def test_a_token_of_any_bytes_is_just_wrong(caplog: pytest.LogCaptureFixture) -> None:
    async with served(token=TOKEN, mcp=True) as server:
        for path, address in ((SESSIONS, server.rest), ("/mcp", server.mcp)):
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ".encode()
            reader, writer = await connect(address, head + b"\xff\xfe\r\nContent-Length: 0\r\n\r\n")
            assert b" 401 " in await reader.readline()
            writer.close()
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_session_without_an_id_is_none(method: str) -> None:
    async with served() as server:
        making = asyncio.create_task(server.join())
        while not server.runway.requests:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0)
        assert (await server.call(method, f"{SESSIONS}/")).status == 404
        assert (await making).status == 200
        assert not [call for call in server.runway.requests if call.path.endswith("sessions/")]


# -- connections


async def connect(
    address: str, first: bytes = b""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.removeprefix("http://").partition("/")[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(first)
    return reader, writer


@contextlib.asynccontextmanager
async def silent(address: str, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections that say nothing."""
    held = [await connect(address) for _ in range(count)]
    try:
        yield [reader for reader, _ in held]
    finally:
        for _, writer in held:
            writer.close()


@pytest.mark.parametrize("which", ["rest", "mcp"])
async def test_connections_that_say_nothing_shut_nobody_out(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livekit_plugins_runway.serve.server.most_connections", lambda _: 20)
    async with served(token=TOKEN, mcp=True) as server, silent(getattr(server, which), 60):
        async with asyncio.timeout(3.0):
            assert (await server.post(SESSIONS, CREATE, headers=BEARER)).status == 200
            assert await lists_tools(server) == 200


async def lists_tools(server: Served) -> int:
    """The status of a call of the MCP server."""
    headers = {**BEARER, "Accept": "application/json, text/event-stream"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    async with server.http.post(server.mcp, json=body, headers=headers) as answer:
        return 200 if answer.status in (200, 400) else answer.status


class Inner(asyncio.Protocol):
    """What is behind the limit, and what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.told.append(data.decode())

    def eof_received(self) -> None:
        self.told.append("eof")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")


class Wire(asyncio.Transport):
    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.aborted = False
        protocol.connection_made(self)

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


def opened(connections: Connections) -> tuple[Inner, Wire]:
    inner = Inner()
    return inner, Wire(connections.guarded(inner))


async def test_the_oldest_silent_connection_gives_way_and_none_that_asks() -> None:
    connections = Connections(2)
    asking, first = opened(connections)
    first.protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r")
    first.protocol.data_received(b"\n\r\n")
    silent_one, second = opened(connections)
    third_inner, third = opened(connections)
    await asyncio.sleep(0)
    assert (first.aborted, second.aborted, third.aborted) == (False, True, False)
    assert silent_one.told == ["made", "lost"]
    third.protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
    turned_away, fourth = opened(connections)
    await asyncio.sleep(0)
    assert fourth.aborted
    assert turned_away.told == []
    first.protocol.pause_writing()
    first.protocol.resume_writing()
    first.protocol.eof_received()
    first.protocol.connection_lost(None)
    assert asking.told[-4:] == ["pause", "resume", "eof", "lost"]
    _, fifth = opened(connections)
    assert not fifth.aborted
    assert third_inner.told[0] == "made"
    for wire in (third, fifth):
        wire.abort()
    await asyncio.sleep(0)


async def test_a_head_that_does_not_come_closes_its_connection() -> None:
    connections = Connections(2, head_seconds=0.05)
    inner, slow = opened(connections)
    slow.protocol.data_received(b"GET / HT")
    _, quick = opened(connections)
    quick.protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
    await asyncio.sleep(0.2)
    assert (slow.aborted, quick.aborted) == (True, False)
    assert inner.told == ["made", "GET / HT", "lost"]
    quick.abort()
    await asyncio.sleep(0)


def test_files_are_kept_for_runway() -> None:
    assert 8 <= most_connections(2) <= most_connections(1) <= 200


async def test_the_largest_body_is_named() -> None:
    async with served() as server:
        answer = await server.join(personality="x" * (MAX_BODY + 1))
        assert (answer.status, str(MAX_BODY) in answer.body["error"]) == (413, True)


# -- what others find there


async def test_the_path_of_runways_readmes_is_served() -> None:
    async with served() as server:
        answer = await server.post("/api/avatar/connect", {"avatarId": "influencer"})
        assert (answer.status, "sessionId" in answer.body) == (200, True)


@pytest.mark.parametrize("field", ["avatarId", "personality", "tools"])
async def test_null_is_refused_as_runway_does(field: str) -> None:
    async with served(avatars=("influencer",)) as server:
        answer = await server.post(FRONT_END, {field: None})
        assert (answer.status, f"{field} is null" in answer.body["error"]) == (400, True)
        assert not server.runway.requests


async def test_who_watches_a_container_needs_no_token_and_learns_nothing() -> None:
    async with served(token=TOKEN, max_sessions=1) as server:
        alive = await server.call("GET", "/healthz")
        assert (alive.status, alive.body) == (200, {"status": "ok"})
        assert (await server.call("GET", "/readyz")).status == 401
        ready = await server.call("GET", "/readyz", headers=BEARER)
        assert (ready.status, ready.body["sessions"]) == (200, 0)
        assert (await server.post(SESSIONS, CREATE, headers=BEARER)).status == 200
        full = await server.call("GET", "/readyz", headers=BEARER)
        assert (full.status, full.headers["Retry-After"]) == (503, "10")
