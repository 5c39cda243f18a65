"""A Runway that answers exactly what a test tells it to, and writes down what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web


@dataclass(frozen=True)
class Reply:
    """`payload`: JSON value, or str for a raw body. `cut`: drop the connection instead."""

    status: int = 200
    payload: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: Literal["", "request read", "half an answer"] = ""


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    caller: object
    """The other end of the connection."""


class ScriptedRunway:
    """Takes replies in order from `script`; without one, acts as a Runway with no trouble."""

    def __init__(self) -> None:
        self.url = ""
        self.script: list[Reply] = []
        self.delete_script: list[Reply] = []
        self.seen: list[Seen] = []
        self.created: list[str] = []
        self.deleted: list[str] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedRunway]:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        try:
            yield self
        finally:
            await runner.cleanup()

    def asked(self, method: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == method]

    @property
    def times(self) -> list[float]:
        return [round(seen.at, 3) for seen in self.seen]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        at = asyncio.get_running_loop().time()
        assert request.transport is not None
        caller = request.transport.get_extra_info("peername")
        self.seen.append(
            Seen(request.method, request.path, dict(request.headers), body, at, caller)
        )
        script = self.delete_script if request.method == "DELETE" else self.script
        reply = script.pop(0) if script else self._untroubled(request)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.cut == "request read":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        text = reply.payload if isinstance(reply.payload, str) else json.dumps(reply.payload)
        if reply.cut == "half an answer":
            response = web.StreamResponse(headers={"Content-Length": str(len(text) + 9)})
            await response.prepare(request)
            await response.write(text.encode())
            assert request.transport is not None
            request.transport.close()
            return response
        return web.Response(
            status=reply.status,
            text=None if reply.status == 204 else text,
            headers=reply.headers,
            content_type=None if reply.status == 204 else "application/json",
        )

    def _untroubled(self, request: web.Request) -> Reply:
        if request.method == "DELETE":
            self.deleted.append(request.path.rpartition("/")[2])
            return Reply(204)
        if request.method == "HEAD":
            return Reply(404)
        if request.method == "GET":
            return Reply(payload=state("READY"))
        if request.path.endswith("/consume"):
            return Reply(payload={"url": "wss://r.test", "token": "room-token", "roomName": "r"})
        self.created.append(str(uuid.uuid4()))
        return Reply(payload={"id": self.created[-1]})


def state(status: str, **fields: Any) -> dict[str, Any]:
    if status == "READY":
        fields = {"expiresAt": "2026-01-01T00:05:00Z", "sessionKey": "stk_session-key", **fields}
    return {"id": "the-id", "createdAt": "2026-01-01T00:00:00Z", "status": status, **fields}
