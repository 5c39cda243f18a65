"""What strangers have written (answers, a folder's `.env`, links) gets no secret and no file."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from aiohttp import web

from livekit_plugins_runway.cli import download, files
from livekit_plugins_runway.cli.commands import conversations
from livekit_plugins_runway.cli.exits import ExitCode
from livekit_plugins_runway.cli.output import Output, json_text, masked
from livekit_plugins_runway.cli.settings import Settings
from livekit_plugins_runway.errors import ConfigurationError
from tests.support.command_line import command_line, serving

SECRET = "secret-of-livekit-0123456789abcdef"
ENVIRONMENT = {"LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": SECRET}


@pytest.fixture(autouse=True)
def _no_livekit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        monkeypatch.delenv(name, raising=False)


def settings(env_file: dict[str, str]) -> Settings:
    return Settings(Output(False), False, "https://api.test", env_file)


# -- LiveKit's secret


def test_an_address_of_a_folders_env_gets_no_token_of_the_environments_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    of_a_stranger = settings({"LIVEKIT_URL": "wss://stranger.example"})
    with pytest.raises(ConfigurationError, match=r"\.env") as refused:
        of_a_stranger.livekit_project()
    assert SECRET not in str(refused.value)
    assert of_a_stranger.livekit_project("wss://mine.example").url == "wss://mine.example"
    monkeypatch.setenv("LIVEKIT_URL", "wss://mine.example")
    assert of_a_stranger.livekit_project().url == "wss://mine.example"


def test_all_from_one_env_file_go_together() -> None:
    project = settings({"LIVEKIT_URL": "wss://mine.example", **ENVIRONMENT}).livekit_project()
    assert (project.url, project.secret) == ("wss://mine.example", SECRET)
    assert SECRET not in repr(project)


@pytest.mark.parametrize("url", ["ws://mine.example", "http://10.0.0.5:7880"])
def test_a_token_goes_over_plain_http_to_this_machine_alone(url: str) -> None:
    with pytest.raises(ConfigurationError, match="wss://"):
        settings({**ENVIRONMENT, "LIVEKIT_URL": url}).livekit_project()
    local = settings({**ENVIRONMENT, "LIVEKIT_URL": "ws://127.0.0.1:7880"})
    assert local.livekit_project().url == "ws://127.0.0.1:7880"


async def test_doctor_and_dispatch_send_it_nothing(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    seen: list[str] = []

    async def notice(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization", ""))
        return web.Response()

    async with serving(notice) as address, command_line() as (run, _):
        env_file.write_text(f"LIVEKIT_URL={address}\n")
        chosen = ["--env-file", str(env_file)]
        told = await run(*chosen, "--json", "doctor", env=ENVIRONMENT)
        (check,) = [one for one in told.json["checks"] if one["name"] == "livekit key"]
        assert (check["status"], check["detail"]) == ("fail", "not sent")
        sent = await run(*chosen, "dispatch", "--room", "r", "--agent", "a", env=ENVIRONMENT)
        assert sent.code == ExitCode.USAGE
    assert not any(seen)


# -- what Runway answers


def test_json_holds_nothing_that_a_terminal_obeys() -> None:
    value = {"na\x1bme": "\x9b2J\u202e\x07", "ok": "ümlaut 字", "more": [1, None]}
    text = json_text(value, 2)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert json.loads(text) == value
    assert "ümlaut 字" in text


@pytest.mark.parametrize(
    "name", ["token", "access_token", "Authorization", "password", "api-key", "sessionKey"]
)
def test_what_is_secret_by_its_name_is_hidden(name: str) -> None:
    assert "hush" not in str(masked({"a": [{name: "hush"}]}))
    assert masked({"Authorization": "Bearer hush"}) == {"Authorization": "Bearer ***"}


@pytest.mark.parametrize(
    "command", [["avatars", "wait"], ["sessions", "wait", "--for", "ended"], ["wait"]], ids=" ".join
)
async def test_the_state_that_is_waited_through_commands_no_terminal(command: list[str]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"id": "x", "status": "ODD\x1b]0;owned\x07"})

    async with serving(answer) as address, command_line() as (run, _):
        terminal = {"FORCE_COLOR": "1", "COLUMNS": "120"}
        arguments = [*command, "x", "--timeout", "0.3"]
        told = await run("--base-url", address, *arguments, env=terminal)
        assert told.code == ExitCode.TIMEOUT
        assert "ODD" in told.err
        assert "\x1b]" not in told.err
        assert "\x07" not in told.err


def test_names_of_fields_are_cleaned_as_values_are(capsys: pytest.CaptureFixture[str]) -> None:
    Output(False).fields({"na\x1b]0;owned\x07me": "x\x1b[2J"})
    assert all(c.isprintable() or c == "\n" for c in capsys.readouterr().out)


def test_a_transcript_has_one_line_for_each_entry() -> None:
    said = [
        {"role": "user", "content": "hello\nassistant: forged\x1b[2J"},
        "no entry",
        {"role": "assistant", "content": None, "toolCalls": "none"},
    ]
    assert conversations._transcript({"transcript": said}) == [
        "user: hello",
        "    assistant: forged [2J",
        "assistant: (no text)",
    ]
    assert conversations._transcript({"transcript": "x"}) == []


# -- files


@pytest.mark.parametrize("name", [".", "..", "../x", "a/b", "a\x00b", "\x1b[2J", "x" * 300, ""])
async def test_an_id_that_is_no_name_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    async with command_line() as (run, _):
        told = await run("conversations", "download", name, "--dir", str(tmp_path))
        assert told.code == ExitCode.USAGE
        assert "\x1b" not in told.err
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links and modes are POSIX's")
def test_files_are_their_owners_alone_and_go_through_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    link = tmp_path / "id.txt"
    link.symlink_to(precious)
    with pytest.raises(ConfigurationError, match="--force"):
        files.write(link, "theirs", False)
    link.unlink()
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="--force"):
        files.write(link, "theirs", False)
    written = files.write(link, "theirs", True)
    assert precious.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert stat.S_IMODE(os.lstat(written).st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["id.txt", "precious"]


@pytest.mark.parametrize(
    ("leads_to", "kept"),
    [("/there", True), ("http://127.0.0.2:9/there", False), ("file:///etc/passwd", False)],
)
async def test_each_address_on_the_way_to_a_recording_is_looked_at(
    tmp_path: Path, leads_to: str, kept: bool
) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/there":
            return web.Response(body=b"film", content_type="video/mp4")
        return web.Response(status=302, headers={"Location": leads_to})

    async with serving(answer) as address:
        saving = download.save(f"{address}/here", tmp_path / "id", False)
        if kept:
            assert (await saving).read_bytes() == b"film"
        else:
            with pytest.raises(Exception, match="not https"):
                await saving
    assert len(os.listdir(tmp_path)) == kept


@pytest.mark.parametrize("kind", ["video/py", "text/html", "video/json", "application/x-sh"])
def test_the_type_of_a_recording_names_no_program(kind: str) -> None:
    assert download.suffix(kind) == ".bin"
