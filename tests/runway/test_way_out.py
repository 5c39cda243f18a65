"""The way to Runway out of companies and slim images: proxies, and where no authority is known."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import certifi
import pytest
import trustme
from livekit import rtc
from livekit.agents import AgentSession, APIConnectOptions
from livekit.agents.job import _JobContextVar
from livekit.agents.utils import http_context

from livekit_plugins_runway import AvatarSession
from livekit_plugins_runway._common import http
from livekit_plugins_runway.errors import LostAnswerError, NotFoundError, UnavailableError
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.testing import RunwaySimulator

KEY = "key_" + "0123456789abcdef" * 8
NOWHERE = "http://runway.invalid"
"""Nobody but a proxy knows it."""
ONCE = APIConnectOptions(max_retry=0, timeout=3.0)


class Proxy:
    """Answers each request that is sent through it by itself: 204."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen.append((await reader.readline()).decode().strip())
        while (await reader.readline()).strip():
            pass
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def proxy() -> AsyncIterator[Proxy]:
    it = Proxy()
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    async with server:
        it.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield it


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
async def test_outside_a_job_the_proxy_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    async with proxy() as way:
        monkeypatch.setenv(name, way.url)
        client = RunwayClient(KEY, base_url=NOWHERE, conn_options=ONCE)
        await client.delete("the-id")
        await client.aclose()
        assert way.seen == ["DELETE http://runway.invalid/v1/realtime_sessions/the-id HTTP/1.1"]


async def test_what_the_environment_excepts_is_reached_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with proxy() as way, RunwaySimulator() as simulator:
        monkeypatch.setenv("HTTP_PROXY", way.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        client = RunwayClient(simulator.api_secret, base_url=simulator.url, conn_options=ONCE)
        with pytest.raises(NotFoundError):
            await client.get("0b7c4e9a-0000-4000-8000-000000000000")
        await client.aclose()
        assert way.seen == []
        assert len(simulator.requests) == 1


@asynccontextmanager
async def job(proxy: str | None) -> AsyncIterator[None]:
    """As the framework prepares one, with the proxy that the worker was given."""
    context = SimpleNamespace(
        proc=SimpleNamespace(http_proxy=proxy),
        is_fake_job=lambda: False,
        job=SimpleNamespace(room=SimpleNamespace(name="r", sid="")),
        local_participant_identity="agent",
        add_shutdown_callback=lambda _: None,
    )
    token = _JobContextVar.set(cast(Any, context))
    http_context._new_session_ctx()
    try:
        yield
    finally:
        await http_context._close_http_ctx()
        _JobContextVar.reset(token)


async def test_in_a_job_the_frameworks_session_is_used_and_its_own_after_that() -> None:
    async with proxy() as way:
        async with job(way.url):
            avatar = AvatarSession(
                preset_id="influencer", api_key=KEY, api_url=NOWHERE, conn_options=ONCE
            )
            client = avatar._client
            await client.delete("in-the-job")
            assert len(way.seen) == 1
            assert client._http._own_http is None
        # The job has closed its session, and something is left to be ended.
        with pytest.raises((UnavailableError, LostAnswerError)):
            await client.delete("after-the-job")
        assert client._http._own_http is not None
        assert len(way.seen) == 1
        await avatar.aclose()


async def test_a_start_in_a_job_goes_through_the_workers_proxy() -> None:
    async with proxy() as way, job(way.url):
        avatar = AvatarSession(
            preset_id="influencer", api_key=KEY, api_url=NOWHERE, conn_options=ONCE
        )
        session: AgentSession[Any] = AgentSession()
        with pytest.raises(LostAnswerError):  # an empty answer has no session's id
            await avatar.start(
                session,
                rtc.Room(),
                livekit_url="wss://h.test",
                livekit_api_key="k",
                livekit_api_secret="s" * 32,
            )
        assert way.seen[0] == "POST http://runway.invalid/v1/realtime_sessions HTTP/1.1"
        await session.aclose()


async def test_without_a_store_of_authorities_certifi_is_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "certifi.pem")
    http._certifi.cache_clear()
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "certifi.pem"))
    nothing = SimpleNamespace(cafile=None, capath=None)
    async with RunwaySimulator(tls=tls) as simulator:
        client = RunwayClient(simulator.api_secret, base_url=simulator.url, conn_options=ONCE)
        with pytest.raises(UnavailableError):  # the system's store does not know it
            await client.get("0b7c4e9a-0000-4000-8000-000000000000")
        await client.aclose()
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
        client = RunwayClient(simulator.api_secret, base_url=simulator.url, conn_options=ONCE)
        with pytest.raises(NotFoundError):
            await client.get("0b7c4e9a-0000-4000-8000-000000000000")
        await client.aclose()
    http._certifi.cache_clear()
