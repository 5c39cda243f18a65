"""`runway-avatar` as people at a terminal and programs behind a pipe meet it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from aiohttp import web

from livekit_plugins_runway.cli import calls
from livekit_plugins_runway.cli.app import app
from livekit_plugins_runway.cli.exits import ExitCode
from livekit_plugins_runway.testing import Faults, RunwaySimulator
from livekit_plugins_runway.testing.simulator.account import avatar
from tests.support.command_line import command_line, serving

UNKNOWN = "3b1f9f0e-8a57-4a1d-9d0e-0a2b7c9d1e2f"
PRESET = ["sessions", "create", "--preset", "influencer"]
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def terminal(columns: int) -> dict[str, str]:
    """Rich takes what it writes to for a terminal, and for one of this width."""
    return {"FORCE_COLOR": "1", "COLUMNS": str(columns)}


def shown(text: str) -> list[str]:
    return _CONTROL.sub("", text).splitlines()


def fill(simulator: RunwaySimulator) -> list[str]:
    simulator.account.avatars[:] = [avatar(f"Ada, a name of several words {n}") for n in range(3)]
    return [str(one["id"]) for one in simulator.account.avatars]


# -- errors


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sessions"],
        ["nosuch"],
        ["--nosuch"],
        ["sessions", "get"],
        ["sessions", "get", "--nosuch", "x"],
        ["sessions", "create", "--max-duration", "abc"],
        ["sessions", "create", "--preset", "nobody"],
        ["sessions", "wait", UNKNOWN, "--for", "never"],
        ["usage", "--since", "yesterday"],
        ["--base-url"],
        ["--base-url", "not an address", "auth", "status"],
        ["doctor", "--yes", "--report", "x"],
    ],
    ids=" ".join,
)
async def test_every_misuse_is_one_object_in_json(arguments: list[str]) -> None:
    async with command_line() as (run, simulator):
        for told in (await run("--json", *arguments), await run(*arguments, "--json")):
            error = json.loads(told.err)["error"]
            assert (told.code, error["exit_code"], error["kind"]) == (2, 2, "usage")
            assert error["message"]
            assert told.out == ""
        assert simulator.requests == []


async def test_a_misuse_in_json_shows_how_it_is_done() -> None:
    async with command_line() as (run, _):
        told = await run("--json", "sessions", "wait")
        assert json.loads(told.err)["error"]["example"].startswith("runway-avatar sessions wait ")


async def test_what_was_said_beside_the_result_is_in_the_json_error() -> None:
    async with command_line({"provisioning_delay": 30.0}) as (run, simulator):
        told = await run("--json", *PRESET, "--wait", "--timeout", "0.2")
        notes = json.loads(told.err)["error"]["notes"]
        (session_id,) = simulator.sessions
        assert session_id in notes[0]
        assert "ended" in notes[1]


async def test_doctor_asks_nobody_in_json() -> None:
    async with command_line() as (run, simulator):
        told = await run("--json", "doctor", "--live", stdin="y\n")
        assert "--yes" in json.loads(told.err)["error"]["message"]
        assert simulator.sessions == {}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["sessions", "create"], "--avatar or --preset"),
        (["sessions", "create", "--avatar", "123"], "--avatar"),
        ([*PRESET, "--max-duration", "5"], "--max-duration"),
        ([*PRESET, "--personality", ""], "--personality"),
        ([*PRESET, "--tools", "tools.json"], "--tools tools.json"),
        (["serve", "--host", "0.0.0.0"], "--host"),
        (["serve", "--rate", "0"], "--rate"),
        (["serve", "--port", "9", "--mcp-port", "9"], "--port and --mcp-port"),
        (["serve", "--allow-origin", "here"], "--allow-origin"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_a_refusal_names_the_option_that_was_typed(
    arguments: list[str], named: str, tmp_path: Path
) -> None:
    (tmp_path / "tools.json").write_text('[{"type": "client_event", "name": "wave"}]')
    async with command_line() as (run, _):
        told = await run(*arguments)
        assert (told.code, named in told.err) == (ExitCode.USAGE, True), told.err
        assert not re.search(
            r"\b(avatar_id|preset_id|max_duration|pattern|Value error)\b", told.err
        )


async def test_choices_are_taken_in_any_case() -> None:
    async with command_line() as (run, _):
        made = await run("sessions", "create", "--preset", "Influencer")
        waited = await run("sessions", "wait", made.json["id"], "--for", "READY")
        assert waited.code == 0
        serves = await run("serve", "--response", "Session-Key", "--host", "")
        assert "--host is empty" in serves.err


async def test_a_day_that_is_later_than_the_last_one_is_refused() -> None:
    async with command_line() as (run, simulator):
        told = await run(
            "conversations", "list", "--since", "2026-09-01", "--until", "2026-08-01T10:00:00"
        )
        assert (told.code, "--until" in told.err) == (ExitCode.USAGE, True)
        assert simulator.requests == []


# -- tables


@pytest.mark.parametrize("columns", [60, 80, 120])
async def test_ids_are_whole_on_a_terminal_of_any_width(columns: int) -> None:
    async with command_line() as (run, simulator):
        ids = fill(simulator)
        lines = shown((await run("avatars", "list", env=terminal(columns))).out)
        assert all(len(line) <= columns for line in lines)
        found = [part for line in lines for part in line.split() if part in ids]
        assert found == ids
        one = shown((await run("avatars", "get", ids[0], env=terminal(columns))).out)
        assert ["id", ids[0]] in [line.split() for line in one]


async def test_a_piped_table_is_a_line_for_each_row() -> None:
    async with command_line() as (run, simulator):
        ids = fill(simulator)
        simulator.account.avatars[0]["name"] = "long " * 200
        lines = (await run("avatars", "list", env={"COLUMNS": "40"})).lines
        assert [line.split()[0] for line in lines] == ["id", *ids]


# -- help


def commands() -> Iterator[tuple[str, Any]]:
    def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        yield name, command
        for inner in getattr(command, "list_commands", lambda _: [])(None):
            yield from below(command.get_command(None, inner), f"{name} {inner}".strip())

    yield from below(typer.main.get_command(app), "")


@pytest.mark.parametrize("columns", [60, 80])
def test_help_shows_every_option_whole(columns: int) -> None:
    for name, command in commands():
        context = command.context_class(command, info_name=name, terminal_width=columns)
        text = command.get_help(context)
        assert "…" not in text, name
        for option in command.params:
            for spelt in option.opts if option.param_type_name == "option" else []:
                assert re.search(rf"(?<![\w-]){re.escape(spelt)}(?![\w-])", text), (name, spelt)


def test_help_loads_neither_http_nor_the_framework() -> None:
    """They take longer than all else; a terminal should not wait for them."""
    arguments = [["--help"], ["avatars", "create", "--help"], ["sessions", "--help"], ["nosuch"]]
    script = f"""
import sys
from livekit_plugins_runway.cli.app import app
for arguments in {arguments!r}:
    try:
        app(arguments)
    except SystemExit:
        pass
sys.exit(str({{"aiohttp", "livekit.agents", "livekit.rtc", "numpy"}} & set(sys.modules)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stderr.splitlines()[-1] == "set()"


# -- waiting


@pytest.mark.slow
async def test_a_wait_on_a_terminal_says_for_how_long_and_in_which_state() -> None:
    slow = {"queue_delay": 1.2, "provisioning_delay": 0.1}
    async with command_line(slow) as (run, _):
        told = await run(*PRESET, "--wait", env=terminal(100))
        assert re.search(r"NOT_READY, queued.* 0:00:01", " ".join(shown(told.err)))
    async with command_line() as (run, _):
        piped = await run(*PRESET, "--wait")
        assert [line.split()[0] for line in piped.err.splitlines()] == ["session"]


@pytest.mark.slow
async def test_a_runway_that_hangs_is_told_with_how_long_and_how_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "_PATIENCE", 0.3)
    monkeypatch.setattr(calls, "_LONGEST", 0.6)

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    async with serving(hang) as address, command_line() as (run, _):
        told = await run("--base-url", address, "auth", "status")
        assert told.code == ExitCode.TIMEOUT
        assert "tried once in 0.3 s" in told.err
        assert told.err.count("\n") == 1
        changes = await run("--base-url", address, "request", "POST", "/v1/x")
        first, last = changes.err.splitlines()
        assert "not answered" in first
        assert last.startswith("Error: ")


async def test_runways_address_may_end_in_v1() -> None:
    async with command_line() as (run, simulator):
        told = await run("auth", "status", env={"RUNWAYML_BASE_URL": f"{simulator.url}/v1/"})
        assert told.code == 0
        assert simulator.requests[0].path == "/v1/organization"


@pytest.mark.parametrize("status", [200, 403, 404, 405, 501])
async def test_a_host_that_is_not_runway_is_said_to_be_none(status: int) -> None:
    async def page(_: web.Request) -> web.Response:
        text = "<html><title>It works</title><p>Here is nothing</p></html>"
        return web.Response(status=status, text=text, content_type="text/html")

    async with serving(page) as address, command_line() as (run, _):
        told = await run("--base-url", address, "auth", "status")
        assert "RUNWAYML_BASE_URL" in told.err
        assert "another project" not in told.err
        assert "<p>" not in told.err


async def test_a_host_that_is_not_livekit_is_said_to_be_none() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(status=404, text="nothing here")

    keys = {"LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "s" * 32}
    async with serving(page) as address, command_line() as (run, _):
        told = await run(
            "dispatch", "--room", "r", "--agent", "a", "--livekit-url", address, env=keys
        )
        assert (told.code, "LIVEKIT_URL" in told.err) == (ExitCode.NETWORK, True)
        assert "not as a LiveKit server" in told.err


# -- Ctrl-C


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a process there cannot be sent SIGINT")
async def test_ctrl_c_shows_no_traceback_while_modules_are_imported() -> None:
    async with command_line() as (run, _):
        for delay in (0.15, 0.3, 0.6):
            process = await run.process("doctor")
            await asyncio.sleep(delay)
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
            # Python's own start-up, on a busy machine, may show one: without a line of ours.
            assert b"livekit" not in err
            assert process.returncode in (-signal.SIGINT, ExitCode.INTERRUPTED)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a process there cannot be sent SIGINT")
async def test_ctrl_c_while_waiting_ends_the_session_and_says_so_in_json() -> None:
    async with command_line({"provisioning_delay": 30.0, "faults": Faults()}) as (run, simulator):
        process = await run.process("--json", *PRESET, "--wait")
        await simulator.wait_until(lambda: len(simulator.requests) > 2, timeout=20.0)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        error = json.loads(err)["error"]
        assert (process.returncode, error["kind"], out) == (130, "interrupted", b"")
        assert "ended" in error["notes"][-1]
        assert simulator.leaked() == []
