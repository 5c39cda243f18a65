"""The command `runway-avatar serve` as a process."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from livekit_plugins_runway.cli.app import app
from livekit_plugins_runway.cli.exits import ExitCode
from livekit_plugins_runway.testing import RunwaySimulator
from livekit_plugins_runway.testing.simulator.session import SessionStatus
from tests.support.serving import FRONT_END, NEVER, quick

ROOT = Path(__file__).resolve().parents[2]


def test_a_public_address_without_a_token_is_refused() -> None:
    result = CliRunner().invoke(
        app, ["serve", "--host", "0.0.0.0"], env={"RUNWAYML_API_SECRET": "key_x"}
    )
    assert result.exit_code == 2
    assert "RUNWAY_AVATAR_TOKEN" in result.stderr
    assert "Traceback" not in result.output


def test_a_missing_key_is_named() -> None:
    result = CliRunner().invoke(app, ["serve"], env={"RUNWAYML_API_SECRET": ""})
    assert result.exit_code == ExitCode.AUTH
    assert "set RUNWAYML_API_SECRET" in result.stderr


@pytest.mark.slow
async def test_sigterm_ends_it_in_good_order_and_leaves_no_session(journals: Path) -> None:
    pytest.importorskip("mcp", reason="the extra serve is not installed")
    async with (
        RunwaySimulator(options=quick(provisioning_delay=NEVER)) as runway,
        aiohttp.ClientSession() as http,
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "livekit_plugins_runway.cli", "serve"),
            *("--port", "0", "--mcp-port", "0", "--avatar", "influencer"),
            cwd=ROOT,
            env={
                "RUNWAYML_API_SECRET": runway.api_secret,
                "RUNWAYML_BASE_URL": runway.url,
                "RUNWAY_AVATAR_JOURNAL": str(journals),
                "PATH": "",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            rest = (await process.stdout.readline()).decode().removeprefix("REST on ").strip()
            mcp = (await process.stdout.readline()).decode().removeprefix("MCP on ").strip()
            assert rest.startswith("http://127.0.0.1:")
            assert mcp.endswith("/mcp")
            joining = asyncio.create_task(http.post(rest + FRONT_END, json={}))
            session = await runway.wait_for(None, SessionStatus.NOT_READY, 20)
            await runway.wait_until(lambda: any(r.method == "GET" for r in runway.requests))
            process.send_signal(signal.SIGTERM)
            async with await joining as answer:
                assert answer.status == 503
            out, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0
        assert session.status is SessionStatus.CANCELLED
        output = (out + errors).decode()
        assert session.id in output  # of the line that says that it was ended
        assert runway.api_secret not in output
        assert "Traceback" not in output


@pytest.mark.slow
def test_the_package_itself_loads_neither_the_sdk_nor_the_command_line() -> None:
    code = (
        "import sys, livekit_plugins_runway;"
        "print({'mcp', 'typer', 'uvicorn', 'starlette'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"
