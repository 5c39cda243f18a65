"""A call as `make bench-speech` holds it: the agent in its process, the user's ear in this one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.lines import Child
from bench.report import Figures
from livekit_plugins_runway.testing.livekit_server import LiveKitServer, LiveKitServerError
from livekit_plugins_runway.testing.tones import ToneScript
from livekit_plugins_runway.testing.user import SimulatedUser

Results = list[dict[str, Any]]

SETTLE = 0.8
"""Seconds of silence at the start of a call, in which jitter buffers find their size."""
HOLD = 0.2
"""Seconds without a sound that count as silence."""


@dataclass
class Line:
    """A call as the bench holds it: the agent's process, and the user."""

    agent: Child
    room: str
    user: SimulatedUser
    session: str = ""
    number: int = 0

    def do(self, command: str, **arguments: Any) -> None:
        self.agent.do(command, room=self.room, **arguments)

    async def told(self, event: str, **values: Any) -> float:
        """When it happened, `time.monotonic()`."""
        return float((await self.agent.told(event, room=self.room, **values))["at"])

    async def say(self, script: ToneScript) -> float:
        self.number += 1
        self.do("say", number=self.number, script=asdict(script))
        return await self.told("saying", number=self.number)

    async def say_sample(self, name: str, stops: Sequence[tuple[float, float]] = ()) -> float:
        """One of `bench/ear/samples.py`; its TTS stops after so many seconds of it, for so many."""
        self.number += 1
        self.do("say_sample", number=self.number, name=name, stops=list(stops))
        return await self.told("saying", number=self.number)

    async def speak_for(self, seconds: float, since: float) -> None:
        """Let the user hear so many seconds of what is said since `since`."""
        began = await self.user.wait_for_audio(5.0, since=since)
        await asyncio.sleep(began + seconds - time.monotonic())

    async def over(self) -> float:
        """When `say()` returned; the user has heard the silence after it when this returns."""
        returned = await self.told("said", number=self.number)
        await self.user.wait_for_silence(HOLD + 0.1, 5.0)
        return returned


@contextlib.asynccontextmanager
async def staged(
    delivery: str, log: Path, **more: str
) -> AsyncIterator[tuple[LiveKitServer, Child, dict[str, Any]]]:
    """A server, an agent's process, and where the simulated Runway is, in a process of its own.

    Args:
        delivery: how its worker takes the agent's speech.
        more: environment of both.
    """
    async with LiveKitServer() as server:
        environment = {
            "LIVEKIT_URL": server.url,
            "LIVEKIT_API_KEY": server.api_key,
            "LIVEKIT_API_SECRET": server.api_secret,
            "BENCH_DELIVERY": delivery,
            **more,
        }
        async with (
            Child.running("bench.runway", environment, log) as runway,
            Child.running("bench.agent", environment, log) as agent,
        ):
            yield server, agent, await runway.told("ready")


def run_short(
    name: str,
    measure: Callable[[Results, Path], Coroutine[Any, Any, int]],
    report: Callable[[Results], str],
    is_right: Callable[[dict[str, Any]], bool],
) -> int:
    """The `main()` of a short bench: prints the report, and writes the results to `NAME.json`.

    Args:
        measure: fills the results; logs to the path; returns how many calls have failed.

    Returns:
        The exit code: 1 if a call has failed, a result is not right, or there is none.
    """
    folder = Path(os.environ.get("BENCH_OUT", "bench-out"))
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    logging.basicConfig(filename=log)
    results: Results = []
    try:
        failures = asyncio.run(measure(results, log))
    except KeyboardInterrupt:
        return 130
    except LiveKitServerError as error:
        print(error, file=sys.stderr)
        return 1
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1))
    print(report(results))
    return int(bool(failures) or not results or not all(map(is_right, results)))


@dataclass
class Bench:
    server: LiveKitServer
    runway: Child
    runway_at: dict[str, Any]
    agents: list[Child]
    delivery: str
    figures: Figures
    environment: dict[str, str]
    """Of the programs."""
    log: Path

    @contextlib.asynccontextmanager
    async def call(
        self, agent: Child, runway_at: dict[str, Any] | None = None, **options: Any
    ) -> AsyncIterator[Line]:
        """A call with an avatar that shows its face, and a user who listens.

        Args:
            runway_at: another simulated Runway than the usual one.
        """
        room = f"bench-{secrets.token_hex(4)}"
        async with SimulatedUser(
            self.server.url,
            room,
            api_key=self.server.api_key,
            api_secret=self.server.api_secret,
            max_seconds=60,
        ) as user:
            line = Line(agent, room, user)
            at = runway_at or self.runway_at
            line.do("call", runway=at, options={"delivery": self.delivery} | options)
            try:
                line.session = (await agent.told("live", room=room))["session"]
                await user.wait_for_video(10.0)
                await asyncio.sleep(SETTLE)
                yield line
            finally:
                line.do("hang_up")

    async def repeat(
        self, name: str, numbers: Iterator[int], measure: Callable[[int], Awaitable[None]]
    ) -> None:
        """Measure once for each number. What times out is noted, and the rest goes on."""
        for n in numbers:
            try:
                await measure(n)
            except TimeoutError as error:
                self.figures.failures.append(f"{name} {n}: {error or 'timeout'}")
