"""The demo's simulated Runway, in a process of its own: its media must not wait for the demo's.

As a program it prints one line of JSON, {url, api_secret}, serves until its standard input is
closed, waits until every session has ended, and prints the sessions as a line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

from livekit_plugins_runway.testing import RunwaySimulator, SimulatorOptions, Speech
from livekit_plugins_runway.testing.livekit_server import LiveKitServer

SETTLE = 15.0
"""Seconds that sessions have to end after the call."""


@dataclass(frozen=True)
class RunwaySession:
    """A Runway session after the call."""

    status: str
    ended: bool
    billed_seconds: float
    credits: int


class SimulatedRunway:
    """The running program."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, api_secret: str) -> None:
        self._process = process
        self.url = url
        self.api_secret = api_secret

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, server: LiveKitServer, speech: Speech) -> AsyncIterator[SimulatedRunway]:
        """Start it on a LiveKit server; at the end it is terminated, if it has not ended before."""
        environment = {
            "LIVEKIT_URL": server.url,
            "LIVEKIT_API_KEY": server.api_key,
            "LIVEKIT_API_SECRET": server.api_secret,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__)), speech.value,
            env=os.environ | environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the demo's: it ends things in order
        )  # fmt: skip
        try:
            assert process.stdout is not None
            ready = json.loads(await process.stdout.readline() or b"{}")
            if not ready:
                raise RuntimeError("the simulated Runway did not start: see demo.log")
            yield cls(process, ready["url"], ready["api_secret"])
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    async def sessions(self) -> list[RunwaySession]:
        """Let the sessions end, and return them all; nothing is served any more afterwards."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        async with asyncio.timeout(SETTLE + 10):
            answer = await self._process.stdout.readline()
        return [RunwaySession(**session) for session in json.loads(answer)]


async def serve(speech: Speech) -> None:
    async with RunwaySimulator(
        livekit_url=os.environ["LIVEKIT_URL"],
        livekit_api_key=os.environ["LIVEKIT_API_KEY"],
        livekit_api_secret=os.environ["LIVEKIT_API_SECRET"],
        options=SimulatorOptions(speech=speech),
    ) as simulator:
        print(json.dumps({"url": simulator.url, "api_secret": simulator.api_secret}), flush=True)
        await asyncio.to_thread(sys.stdin.read)  # ends with the demo, however that ends
        with contextlib.suppress(TimeoutError):
            await simulator.wait_until(lambda: not simulator.leaked(), SETTLE)
        sessions = [
            RunwaySession(
                status=session.status.value,
                ended=session.status.is_terminal,
                billed_seconds=round(session.billed_seconds, 1),
                credits=session.credits,
            )
            for session in simulator.sessions.values()
        ]
        print(json.dumps([asdict(session) for session in sessions]), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(Speech(sys.argv[1])))
