"""The command line of the MCP inspector walks through `runway-avatar serve`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from livekit_plugins_runway.testing import SessionStatus
from tests.support import npm
from tests.support.serving import TOKEN, served

pytestmark = pytest.mark.real_clients

CREATE = "create-new-realtime-session"


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = npm.installed(Path(__file__).parent / "inspector", tmp_path_factory.mktemp("npm"))
    return folder / "node_modules/.bin/mcp-inspector-cli"


async def asked(inspector: Path, url: str, *arguments: str, token: str = TOKEN) -> Any:
    """What it prints: JSON, or the text of its error."""
    process = await asyncio.create_subprocess_exec(
        inspector,
        *("--cli", url, "--transport", "http", "--header", f"Authorization: Bearer {token}"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complaint = await process.communicate()
    return json.loads(printed) if process.returncode == 0 else complaint.decode()


async def test_the_tools_are_listed_and_called(inspector: Path) -> None:
    async with served(mcp=True, token=TOKEN) as server:

        async def call(name: str, *arguments: str) -> Any:
            given = [word for argument in arguments for word in ("--tool-arg", argument)]
            called = ("--method", "tools/call", "--tool-name", name)
            return await asked(inspector, server.mcp, *called, *given)

        listed = await asked(inspector, server.mcp, "--method", "tools/list")
        assert CREATE in {tool["name"] for tool in listed["tools"]}
        made = await call(CREATE, "avatar_id=influencer", "max_duration=30")
        [session] = server.runway.sessions.values()
        assert made["structuredContent"]["sessionId"] == session.id
        assert session.create_body["maxDuration"] == 30
        wrong = await call(CREATE, "avatarId=influencer")
        assert wrong["isError"]
        await call("cancel-realtime-session", f"session_id={session.id}")
        assert session.status is SessionStatus.CANCELLED
        refused = await asked(inspector, server.mcp, "--method", "tools/list", token="wrong")
        assert "token" in refused
