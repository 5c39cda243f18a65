"""`runway-avatar serve` in this event loop, against the Runway simulator (REST only)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from livekit_plugins_runway.serve.options import ServeOptions
from livekit_plugins_runway.serve.server import run
from livekit_plugins_runway.testing import Faults, RunwaySimulator, SimulatorOptions
from livekit_plugins_runway.testing.livekit_server import LiveKitServer

TOKEN = "a-token-for-callers-0123456789"
FRONT_END = "/api/avatar/session"
SESSIONS = "/v1/realtime-sessions"
NEVER = 1000.0


def quick(**changes: Any) -> SimulatorOptions:
    """READY at the first poll."""
    return SimulatorOptions(
        **{"queue_delay": 0.0, "provisioning_delay": 0.0, "concurrency": 20, **changes}
    )


@dataclass
class Answer:
    status: int
    body: Any
    headers: Any


@dataclass
class Served:
    runway: RunwaySimulator
    rest: str
    mcp: str
    metrics: str
    http: aiohttp.ClientSession
    stop: asyncio.Event
    running: asyncio.Task[None]

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        if body is not None:
            options["json"] = body
        async with self.http.request(method, self.rest + path, **options) as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            return Answer(
                response.status, await response.json() if is_json else text, response.headers
            )

    async def post(self, path: str, body: Any, **options: Any) -> Answer:
        return await self.call("POST", path, body, **options)

    async def join(self, **fields: Any) -> Answer:
        """As a front end does."""
        return await self.post(FRONT_END, {"avatarId": "influencer", **fields})

    async def end(self) -> None:
        """Stop it, and see it end."""
        self.stop.set()
        await self.running


@asynccontextmanager
async def served(
    simulator: SimulatorOptions | None = None,
    *,
    faults: Faults | None = None,
    mcp: bool = False,
    livekit: LiveKitServer | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    """A running server; at the end nothing of what nobody got may be left at Runway.

    Args:
        livekit: where Runway's rooms and workers are; None: nowhere.
    """
    rooms: dict[str, Any] = (
        {}
        if livekit is None
        else {
            "livekit_url": livekit.url,
            "livekit_api_key": livekit.api_key,
            "livekit_api_secret": livekit.api_secret,
        }
    )
    stop = asyncio.Event()
    ready: asyncio.Future[tuple[str | None, ...]] = asyncio.get_running_loop().create_future()
    settings = ServeOptions(port=0, mcp_port=0 if mcp else None, **options)
    async with (
        RunwaySimulator(options=simulator or quick(), **rooms) as runway,
        aiohttp.ClientSession() as http,
    ):
        if faults is not None:
            runway.faults.for_next_session(faults)
        running = asyncio.create_task(
            run(
                settings,
                runway.api_secret,
                base_url=runway.url,
                stop=stop,
                ready=lambda *urls: ready.set_result(urls),
            )
        )
        either: set[asyncio.Future[Any]] = {ready, running}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
            rest, mcp_url, metrics = (url or "" for url in ready.result())
            yield Served(runway, rest, mcp_url, metrics, http, stop, running)
        finally:
            stop.set()
            await running
