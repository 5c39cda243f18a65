"""`runway-avatar serve` as an MCP server, with the official client over streamable HTTP."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from livekit_plugins_runway.errors import ConfigurationError
from livekit_plugins_runway.testing import Faults
from livekit_plugins_runway.testing.simulator.session import SessionStatus
from tests.support.serving import NEVER, TOKEN, Served, quick, served

pytestmark = pytest.mark.slow

CREATE = "create-new-realtime-session"
GET = "get-realtime-session"
CANCEL = "cancel-realtime-session"
PAGE = "https://app.example.com"
each_protocol = pytest.mark.parametrize("mode", ["auto", "legacy"])


@asynccontextmanager
async def client(
    server: Served, mode: str = "auto", headers: dict[str, str] | None = None
) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=headers, timeout=10) as http,
        Client(streamable_http_client(server.mcp, http_client=http), mode=mode) as connected,
    ):
        yield connected


async def call(tools: Client, name: str, **arguments: Any) -> Any:
    """A tool's result, which must be no error."""
    result = await tools.call_tool(name, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def refusal(tools: Client, name: str, **arguments: Any) -> str:
    """The text of a tool's error."""
    result = await tools.call_tool(name, arguments)
    assert result.is_error
    [content] = result.content
    assert isinstance(content, TextContent)
    return content.text


def post_body(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


ACCEPT = {"Accept": "application/json, text/event-stream"}


@each_protocol
async def test_a_client_finds_the_tools_with_their_arguments(mode: str) -> None:
    async with served(mcp=True) as server, client(server, mode) as tools:
        listed = {tool.name: tool for tool in (await tools.list_tools()).tools}
        assert set(listed) == {CREATE, GET, CANCEL}
        arguments = listed[CREATE].input_schema["properties"]
        assert set(arguments) == {
            "avatar_id",
            "max_duration",
            "personality",
            "start_script",
            "response",
            "body",
        }
        assert "costs money" in (listed[CREATE].description or "")
        assert all(argument["description"] for argument in arguments.values())


@each_protocol
async def test_a_client_makes_sees_and_cancels_a_session(mode: str) -> None:
    async with served(mcp=True) as server, client(server, mode) as tools:
        made = await call(
            tools, CREATE, avatar_id="influencer", max_duration=60, response="credentials"
        )
        (session,) = server.runway.sessions.values()
        assert made.keys() == {"sessionId", "serverUrl", "token", "roomName"}
        assert made["sessionId"] == session.id
        assert session.create_body["maxDuration"] == 60
        assert not session.status.is_terminal
        seen = await call(tools, GET, session_id=session.id)
        assert (seen["id"], seen["status"]) == (session.id, session.status.value)
        await call(tools, CANCEL, session_id=session.id)
        assert session.status is SessionStatus.CANCELLED


async def test_a_client_gets_the_key_once_and_never_when_it_only_looks() -> None:
    async with served(mcp=True) as server, client(server) as tools:
        made = await call(tools, CREATE, avatar_id="influencer")
        (session,) = server.runway.sessions.values()
        assert made["sessionKey"] == session.session_key
        seen = await call(tools, GET, session_id=session.id)
        assert seen["status"] == "READY"
        assert "sessionKey" not in seen


@each_protocol
async def test_the_body_of_runways_own_call_is_taken_and_answered_as_runway_does(
    mode: str,
) -> None:
    avatar = {"type": "runway-preset", "presetId": "cooking-teacher"}
    body = {"model": "gwm1_avatars", "avatar": avatar, "maxDuration": 30}
    async with (
        served(mcp=True, avatars=("influencer", "cooking-teacher")) as server,
        client(server, mode) as tools,
    ):
        made = await call(tools, CREATE, body=body)
        (session,) = server.runway.sessions.values()
        assert made == {"id": session.id}
        assert session.create_body == body
        assert "maxDuration" in await refusal(tools, CREATE, body={**body, "maxDuration": 5})
        assert "no other argument" in await refusal(tools, CREATE, body=body, max_duration=30)
        await call(tools, CANCEL, session_id=session.id)


@each_protocol
async def test_a_client_that_asks_is_told_each_second_how_long_it_has_waited(mode: str) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    slow = quick(provisioning_delay=1.5, queue_delay=0.7)
    async with served(slow, mcp=True, ready_timeout=20) as server, client(server, mode) as tools:
        arguments = {"avatar_id": "influencer"}
        made = await tools.call_tool(CREATE, arguments, progress_callback=on_progress)
        assert not made.is_error
        (session,) = server.runway.sessions.values()
        assert made.structured_content is not None
        assert made.structured_content["sessionId"] == session.id
        assert len(told) >= 3
        assert [seconds for seconds, _, _ in told] == sorted(seconds for seconds, _, _ in told)
        assert 1.9 < told[2][0] < 3
        assert {total for _, total, _ in told} == {20}
        assert all(message for _, _, message in told)
        refused = await tools.call_tool(CREATE, {"x": 1}, progress_callback=on_progress)
        assert refused.is_error


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/event-stream"])
async def test_who_does_not_ask_for_progress_is_answered_with_json(accept: str) -> None:
    meta: dict[str, Any] = {"progressToken": 1} if accept == "application/json" else {}
    async with served(mcp=True) as server:
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}}
        hello["clientInfo"] = {"name": "test", "version": "1"}
        headers = {"Accept": accept, "Mcp-Protocol-Version": "2025-06-18"}
        async with server.http.post(
            server.mcp, json=post_body("initialize", hello), headers=headers
        ) as opened:
            headers["Mcp-Session-Id"] = opened.headers["Mcp-Session-Id"]
        params = {"name": CREATE, "arguments": {"avatar_id": "influencer"}, "_meta": meta}
        async with server.http.post(
            server.mcp, json=post_body("tools/call", params), headers=headers
        ) as answer:
            assert answer.content_type == "application/json"
            assert "sessionKey" in (await answer.json())["result"]["structuredContent"]


@pytest.mark.parametrize("body", [b"{", b"{}", b"[]", b'{"jsonrpc": "2.0", "id": {}}', b"\xff"])
async def test_what_is_no_message_is_refused_without_a_library_s_links(body: bytes) -> None:
    async with served(mcp=True) as server:
        headers = {"Content-Type": "application/json", **ACCEPT}
        async with server.http.post(server.mcp, data=body, headers=headers) as answer:
            assert answer.status == 400
            told = await answer.json()
            assert told["error"]["message"].startswith("The body is not ")
            assert "pydantic" not in json.dumps(told)


@each_protocol
async def test_an_argument_of_a_wrong_type_is_named_without_a_library_s_links(mode: str) -> None:
    async with served(mcp=True) as server, client(server, mode) as tools:
        for arguments in ({"avatar_id": 7}, {"response": "all"}, {"max_duration": "long"}):
            text = await refusal(tools, CREATE, **arguments)
            assert next(iter(arguments)) in text
            assert "http" not in text
        assert not server.runway.sessions


@each_protocol
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"avatarId": "cooking-teacher"}, "avatarId"),
        ({"avatar_id": "influencer", "maxDuration": 30}, "maxDuration"),
        ({"avatar_id": None}, "avatar_id is null"),
    ],
)
async def test_an_argument_that_is_not_known_makes_no_other_session(
    mode: str, arguments: dict[str, Any], names: str
) -> None:
    async with served(mcp=True, avatars=("influencer",)) as server, client(server, mode) as tools:
        assert names in await refusal(tools, CREATE, **arguments)
        assert "extra" in await refusal(tools, CANCEL, session_id="x", extra=1)
        assert not server.runway.sessions


async def test_a_path_that_is_not_there_is_a_404() -> None:
    async with served(mcp=True) as server:
        for path in ("/.well-known/oauth-protected-resource", "/"):
            url = server.mcp.removesuffix("/mcp") + path
            async with server.http.get(url) as answer:
                assert answer.status == 404
                assert "/mcp" in (await answer.json())["error"]


async def test_refusals_say_what_to_do() -> None:
    async with (
        served(mcp=True, rate=2, faults=Faults(fail_while_provisioning="INTERNAL")) as server,
        client(server) as tools,
    ):
        assert "avatarId is missing" in await refusal(tools, CREATE)
        assert "FAILED" in await refusal(tools, CREATE, avatar_id="influencer")
        text = await refusal(tools, CREATE, avatar_id="influencer", max_duration=1000)
        assert "more than this server allows: 300" in text
        assert "has not made that session" in await refusal(tools, GET, session_id="x")
        assert "has not made that session" in await refusal(tools, CANCEL, session_id="x")
        await call(tools, CREATE, avatar_id="influencer")
        text = await refusal(tools, CREATE, avatar_id="influencer")
        assert "try again in" in text


async def test_not_ready_in_time_is_an_error_and_the_session_is_ended() -> None:
    async with served(quick(provisioning_delay=NEVER), mcp=True, ready_timeout=0.3) as server:
        async with client(server) as tools:
            text = await refusal(tools, CREATE, avatar_id="influencer")
            assert "not READY after 0.3 s" in text
        await server.runway.wait_until(lambda: server.runway.leaked() == [])


@each_protocol
async def test_a_client_that_gives_up_its_call_leaves_no_session(mode: str) -> None:
    async with (
        served(quick(provisioning_delay=NEVER), mcp=True) as server,
        client(server, mode) as tools,
    ):
        making = asyncio.create_task(call(tools, CREATE, avatar_id="influencer"))
        await server.runway.wait_for(None, SessionStatus.NOT_READY)
        making.cancel()
        await asyncio.wait({making})
        await server.runway.wait_until(lambda: server.runway.leaked() == [])
        # The SDK's client fails if it is left while an answer to it is still on its way.
        await tools.list_tools()


@pytest.mark.parametrize("version", ["2026-07-28", "2025-06-18"])
async def test_a_connection_that_is_cut_leaves_no_session(version: str) -> None:
    async with served(quick(provisioning_delay=NEVER), mcp=True) as server:
        headers = {**ACCEPT, "Mcp-Protocol-Version": version}
        meta: dict[str, Any] = {}
        if version == "2025-06-18":
            hello = {"protocolVersion": version, "capabilities": {}}
            hello["clientInfo"] = {"name": "test", "version": "1"}
            async with server.http.post(
                server.mcp, json=post_body("initialize", hello), headers=headers
            ) as opened:
                headers["Mcp-Session-Id"] = opened.headers["Mcp-Session-Id"]
        else:
            meta = {
                "io.modelcontextprotocol/protocolVersion": version,
                "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            headers |= {"Mcp-Method": "tools/call", "Mcp-Name": CREATE}
        params = {"name": CREATE, "arguments": {"avatar_id": "influencer"}, "_meta": meta}
        making = asyncio.create_task(
            server.http.post(server.mcp, json=post_body("tools/call", params), headers=headers)
        )
        waiting = asyncio.create_task(server.runway.wait_for(None, SessionStatus.NOT_READY))
        await asyncio.wait({making, waiting}, return_when=asyncio.FIRST_COMPLETED)
        assert not making.done(), await making.result().text()
        await waiting
        making.cancel()
        await asyncio.wait({making})
        await server.runway.wait_until(lambda: server.runway.leaked() == [])


@each_protocol
async def test_at_shutdown_a_call_is_answered_and_its_session_ended(mode: str) -> None:
    async with served(quick(provisioning_delay=NEVER), mcp=True) as server:
        async with client(server, mode) as tools:
            making = asyncio.create_task(refusal(tools, CREATE, avatar_id="influencer"))
            await server.runway.wait_for(None, SessionStatus.NOT_READY)
            server.stop.set()
            assert "shutting down" in await making
            await server.running
        assert server.runway.leaked() == []


async def test_the_signals_of_the_process_are_left_to_whoever_runs_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with served(mcp=True) as server, client(server):
        assert signal.getsignal(signal.SIGTERM) is before


async def test_the_token_is_needed_here_too() -> None:
    async with served(mcp=True, token=TOKEN) as server:
        async with server.http.post(
            server.mcp, json=post_body("tools/list", {}), headers=ACCEPT
        ) as refused:
            assert refused.status == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            assert "token is needed" in (await refused.json())["error"]
        async with client(server, headers={"Authorization": f"Bearer {TOKEN}"}) as tools:
            assert len((await tools.list_tools()).tools) == 3


async def test_pages_hosts_methods_and_sizes_are_checked_here_too() -> None:
    async with served(mcp=True, allowed_origins=(PAGE,)) as server:

        async def status(method: str, body: str = "{}", **headers: str) -> int:
            json_type = {"Content-Type": "application/json", **ACCEPT}
            async with server.http.request(
                method, server.mcp, data=body, headers={**json_type, **headers}
            ) as answer:
                text = await answer.text()
                if answer.status in (403, 405, 413):
                    assert json.loads(text)["error"]
                return answer.status

        assert await status("POST", Origin="https://evil.example") == 403
        assert await status("POST", Host="rebound.example") == 403
        assert await status("POST", body="x" * 300_000) == 413
        assert await status("GET") == 405
        asking = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        asking["Access-Control-Request-Headers"] = "authorization,mcp-protocol-version"
        async with server.http.options(server.mcp, headers=asking) as preflight:
            assert preflight.status == 200
            assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
        assert not server.runway.requests


async def test_where_the_sdk_is_missing_the_extra_is_named_and_rest_works_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mcp"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "livekit_plugins_runway.serve.mcp_server", raising=False)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ConfigurationError) as failed:
        async with served(mcp=True):
            pass
    assert ".[serve]" in str(failed.value)
    assert "--no-mcp" in str(failed.value)
    async with served() as server:
        assert (await server.join()).status == 200
