"""What every demo call needs: LiveKit server, simulated Runway, and the agent's worker."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import offline_agent
from livekit import api

from demo.runway import SimulatedRunway
from demo.worker import Worker
from livekit_plugins_runway.testing import Speech
from livekit_plugins_runway.testing.livekit_server import LiveKitServer

ROOT = Path(__file__).resolve().parent.parent
AGENT = ROOT / "examples" / "offline_agent.py"
LOGS = ("worker.log", "runway.log")


@dataclass(frozen=True)
class Stage:
    """All of it, running."""

    server: LiveKitServer
    runway: SimulatedRunway
    worker: Worker

    async def dispatch(self, room: str, metadata: str = "") -> None:
        """Ask the server for the agent, as an app's backend does."""
        async with self.livekit_api() as livekit:
            request = api.CreateAgentDispatchRequest(
                agent_name=offline_agent.AGENT_NAME, room=room, metadata=metadata
            )
            await livekit.agent_dispatch.create_dispatch(request)

    def livekit_api(self) -> api.LiveKitAPI:
        """The server's API; to be closed by the caller."""
        server = self.server
        return api.LiveKitAPI(server.http_url, api_key=server.api_key, api_secret=server.api_secret)


@contextlib.asynccontextmanager
async def setting_up(
    speech: Speech, folder: Path, note: Callable[[str], None]
) -> AsyncIterator[Stage]:
    """Start everything, and end it in order; `note` gets a line per thing to show.

    Args:
        speech: how the simulated Runway takes speech.
        folder: for `LOGS`.
    """
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(LiveKitServer())
        note("LiveKit server is up")
        runway = await stack.enter_async_context(
            SimulatedRunway.running(server, speech, folder / "runway.log")
        )
        note("simulated Runway is up")
        environment = {
            "LIVEKIT_URL": server.url,
            "LIVEKIT_API_KEY": server.api_key,
            "LIVEKIT_API_SECRET": server.api_secret,
            "RUNWAYML_BASE_URL": runway.url,
            "RUNWAYML_API_SECRET": runway.api_secret,
        }
        worker = await stack.enter_async_context(
            Worker.running(AGENT, environment, folder / "worker.log", note)
        )
        await worker.wait_for(lambda w: w.registered, 60)
        note("agent worker is registered")
        yield Stage(server, runway, worker)
