"""Runs `runway-avatar` in this process, beside the servers that a test runs in its event loop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from typer.testing import CliRunner

from livekit_plugins_runway.cli.app import app
from livekit_plugins_runway.runway.journal.writer import VARIABLE
from livekit_plugins_runway.testing import RunwaySimulator, SimulatorOptions

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str
    exception: BaseException | None

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass
class CommandLine:
    """`secrets` must be in nothing that is printed; `told` keeps all of it."""

    env: Mapping[str, str]
    secrets: list[str]
    told: list[str] = field(default_factory=list)

    async def __call__(
        self, *args: str, stdin: str | None = None, env: Mapping[str, str | None] | None = None
    ) -> Outcome:
        """Run a command to its end. `env`: beside its own; None takes a variable away."""
        merged: dict[str, str | None] = {**self.env, **(env or {})}
        result = await asyncio.to_thread(
            CliRunner().invoke, app, list(args), input=stdin, env=merged
        )
        self.told += [result.stdout, result.stderr]
        exception = result.exception
        if exception is not None and not isinstance(exception, SystemExit):
            raise exception
        return Outcome(result.exit_code, result.stdout, result.stderr, exception)

    async def process(self, *args: str) -> asyncio.subprocess.Process:
        """The same in a process of its own, whose output is piped."""
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "livekit_plugins_runway.cli", *args),
            env={**self.env, "PYTHONPATH": path, VARIABLE: os.environ[VARIABLE]},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    def check_secrets(self) -> None:
        text = "\n".join(self.told)
        assert not [secret for secret in self.secrets if secret in text]


@asynccontextmanager
async def command_line(
    options: Mapping[str, Any] | None = None, **livekit: Any
) -> AsyncIterator[tuple[CommandLine, RunwaySimulator]]:
    """The command with the key of a simulator. At the end, none of its secrets was printed."""
    quick = {"queue_delay": 0.0, "provisioning_delay": 0.02, "consumed_running_delay": 0.0}
    settings = SimulatorOptions(**{**quick, **(options or {})})
    async with RunwaySimulator(options=settings, **livekit) as simulator:
        env = {
            "RUNWAYML_API_SECRET": simulator.api_secret,
            "RUNWAYML_BASE_URL": simulator.url,
            "TERMINAL_WIDTH": "200",
            "NO_COLOR": "1",
        }
        run = CommandLine(env, [simulator.api_secret])
        yield run, simulator
        run.secrets += [session.session_key for session in simulator.sessions.values()]
        run.check_secrets()


@asynccontextmanager
async def serving(answer: Any) -> AsyncIterator[str]:
    """A server of this machine that answers everything in this way; yields its address."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
