"""Which key goes to which address, and keys that are kept on this machine."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from livekit_plugins_runway.cli import settings as cli_settings
from livekit_plugins_runway.cli.exits import ExitCode
from livekit_plugins_runway.cli.output import Output
from livekit_plugins_runway.cli.settings import STAGE_BASE_URL, Settings, load_env_file
from livekit_plugins_runway.testing import CallFault, Faults
from tests.support.command_line import command_line
from tests.support.scripted_runway import Reply, ScriptedRunway

PRODUCTION = "https://api.dev.runwayml.com"
USUAL, SKILL = "RUNWAYML_API_SECRET", "RUNWAY_SKILLS_API_SECRET"
STAGE, SKILL_STAGE = "RUNWAYML_API_SECRET_STAGE", "RUNWAY_SKILLS_API_SECRET_STAGE"
NO_KEY = {USUAL: None}


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of kept keys; not made yet."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("RUNWAY_API_KEY", raising=False)
    path = tmp_path / "config" / "credentials.json"
    monkeypatch.setenv("RUNWAY_AVATAR_CREDENTIALS", str(path))
    return path


def keep(path: Path, **keys: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"keys": keys}))
    path.chmod(0o600)


def kept_keys(path: Path) -> dict[str, str] | None:
    return json.loads(path.read_text())["keys"] if path.exists() else None


def spoil(path: Path, text: str | None = None, mode: int = 0o600) -> None:
    if text is not None:
        path.write_text(text)
    path.chmod(mode)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def chosen(base_url: str, env_file: dict[str, str] | None = None) -> str | None:
    found = Settings(Output(False), False, base_url, env_file or {}).key()
    return None if found is None else found.value


# -- which key


def test_the_first_that_is_set_counts_in_the_documented_order(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(PRODUCTION) is None
    keep(kept, **{PRODUCTION: "kept", STAGE_BASE_URL: "kept for stage"})
    assert chosen(PRODUCTION) == "kept"
    in_file: dict[str, str] = {}
    for name in (SKILL, "RUNWAY_API_KEY", USUAL):
        in_file[name] = f"{name} of .env"
        assert chosen(PRODUCTION, in_file) == in_file[name]
    for name in (SKILL, "RUNWAY_API_KEY", USUAL):
        monkeypatch.setenv(name, name)
        assert chosen(PRODUCTION, in_file) == name


def test_staging_takes_its_own_key_first_and_falls_back(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(USUAL, "usual")
    assert chosen(STAGE_BASE_URL) == "usual"
    keep(kept, **{STAGE_BASE_URL: "kept for stage"})
    assert chosen(STAGE_BASE_URL) == "kept for stage"
    assert chosen(STAGE_BASE_URL, {SKILL_STAGE: "of .env"}) == "of .env"
    monkeypatch.setenv(SKILL_STAGE, "skill's")
    assert chosen(STAGE_BASE_URL) == "skill's"
    monkeypatch.setenv(STAGE, "stage")
    assert chosen(STAGE_BASE_URL) == "stage"
    assert chosen(PRODUCTION) == "usual"


async def test_the_names_of_runways_skills_are_taken() -> None:
    async with command_line() as (run, simulator):
        env = {
            **NO_KEY,
            "RUNWAYML_BASE_URL": None,
            SKILL: simulator.api_secret,
            "RUNWAY_SKILLS_BASE_URL": simulator.url,
        }
        told = await run("--json", "auth", "status", env=env)
        assert told.json["key"] == {"name": SKILL, "from": "environment"}
        sent = await run("request", "POST", "/v1/x", "--body", '{"a": 1}', "--dry-run", "--json")
        assert sent.json["body"] == {"a": 1}


async def test_auth_status_says_in_json_whether_the_key_is_accepted() -> None:
    async with command_line() as (run, _):
        good = await run("--json", "auth", "status")
        assert (good.json["authenticated"], good.json["creditBalance"] > 0) == (True, True)
        run.secrets.append("key_wrong")
        for env in (NO_KEY, {USUAL: "key_wrong"}):
            bad = await run("--json", "auth", "status", env=env)
            assert (bad.code, bad.json["authenticated"]) == (ExitCode.AUTH, False)
            assert "example" in json.loads(bad.err)["error"]


# -- keeping one


async def test_a_key_is_kept_for_its_address_alone_and_shown_by_its_end(kept: Path) -> None:
    async with command_line() as (run, simulator):
        key = simulator.api_secret
        told = await run("auth", "set", stdin=f" {key}\n", env=NO_KEY)
        assert (told.code, told.err) == (0, "")
        assert kept_keys(kept) == {simulator.url: key}
        if sys.platform != "win32":
            assert mode_of(kept) == 0o600
            assert mode_of(kept.parent) == 0o700
        assert (await run("auth", "status", env=NO_KEY)).code == 0
        shown = await run("--json", "auth", "show", env=NO_KEY)
        assert shown.json["key"] == f"***{key[-4:]}"
        assert shown.json["kept"] == [{"address": simulator.url, "key": f"***{key[-4:]}"}]

    async with ScriptedRunway().running() as other, command_line() as (run, _):
        elsewhere = await run("--base-url", other.url, "auth", "status", env=NO_KEY)
        assert (elsewhere.code, other.seen) == (ExitCode.AUTH, [])


async def test_a_key_that_is_refused_is_not_kept(kept: Path) -> None:
    async with command_line() as (run, _):
        run.secrets.append("key_wrong")
        assert (await run("auth", "set", stdin="key_wrong")).code == ExitCode.AUTH
        assert (await run("auth", "set", stdin="two words")).code == ExitCode.USAGE
        assert (await run("auth", "set", stdin="")).code == ExitCode.USAGE
        assert kept_keys(kept) is None
        assert (await run("auth", "set", "--no-check", stdin="key_wrong")).code == 0
        assert kept_keys(kept)


async def test_clear_forgets_the_key_of_this_address_or_all(kept: Path) -> None:
    async with command_line() as (run, simulator):
        keep(kept, **{simulator.url: "key_here", PRODUCTION: "key_there"})
        run.secrets += ["key_here", "key_there"]
        assert (await run("--json", "auth", "clear")).json["cleared"] is True
        assert (await run("--json", "auth", "clear")).json["cleared"] is False
        assert kept_keys(kept) == {PRODUCTION: "key_there"}
        assert (await run("auth", "clear", "--all")).code == 0
        assert kept_keys(kept) is None


async def test_no_key_is_kept_for_an_address_that_a_folders_env_names(kept: Path) -> None:
    async with command_line() as (run, simulator):
        spoil(Path(".env"), f"RUNWAYML_BASE_URL={simulator.url}\n")
        env = {**NO_KEY, "RUNWAYML_BASE_URL": None}
        told = await run("auth", "set", stdin=simulator.api_secret, env=env)
        assert (told.code, "--base-url" in told.err) == (ExitCode.USAGE, True)
        assert (simulator.requests, kept_keys(kept)) == ([], None)


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
async def test_kept_keys_that_others_can_read_are_not_used(kept: Path) -> None:
    async with command_line() as (run, simulator):
        keep(kept, **{simulator.url: simulator.api_secret})
        spoil(kept, mode=0o644)
        told = await run("auth", "status", env=NO_KEY)
        assert (told.code, "chmod 600" in told.err) == (ExitCode.USAGE, True)
        assert (await run("auth", "status")).code == 0  # another key goes before them
        spoil(kept, "{")
        assert "auth clear --all" in (await run("auth", "show", env=NO_KEY)).err
        assert (await run("auth", "clear", "--all", env=NO_KEY)).code == 0


async def test_dry_run_keeps_and_clears_nothing(kept: Path) -> None:
    async with command_line() as (run, simulator):
        assert (await run("--dry-run", "auth", "set")).code == 0
        keep(kept, **{simulator.url: "key_here"})
        await run("--dry-run", "auth", "clear")
        assert (kept_keys(kept), simulator.requests) == ({simulator.url: "key_here"}, [])


# -- .env


def test_the_nearest_env_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("A=above\n")
    assert load_env_file(None) == {"A": "above"}
    below = tmp_path / "here" / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert load_env_file(None) == {"A": "above"}
    (tmp_path / "here" / ".env").write_text("B=nearer\n")
    assert load_env_file(None) == {"B": "nearer"}


def test_an_env_file_above_that_is_somebody_elses_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("A=above\n")
    monkeypatch.setattr(cli_settings, "_is_trusted", lambda _: False)
    assert load_env_file(None) == {}
    Path(".env").write_text("A=here\n")
    assert load_env_file(None) == {"A": "here"}


# -- account, --check, --retry-on-internal-error


async def test_account_shows_the_limits_of_every_model() -> None:
    async with command_line({"credits": 321}) as (run, _):
        told = await run("account")
        assert ("321 ($3.21)" in told.out, "gwm1_avatars" in told.out) == (True, True)
        assert (await run("--json", "account")).json["creditBalance"] == 321


AVATAR = {"type": "runway-preset", "presetId": "influencer"}


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("POST", "/v1/realtime_sessions", {"model": "gwm1_avatars", "avatar": AVATAR}, ""),
        ("POST", "/v1/realtime_sessions", {"avatar": AVATAR}, "model"),
        (
            "POST",
            "/v1/realtime_sessions",
            {"model": "gwm1_avatars", "avatar": AVATAR, "maxDuration": "20"},
            "maxDuration",
        ),
        (
            "POST",
            "/v1/realtime_sessions",
            {"model": "gwm1_avatars", "avatar": AVATAR, "max_duration": 20},
            "maxDuration",
        ),
        ("POST", "/v1/documents", {"name": "a", "content": "b", "more": 1}, "more"),
        ("PATCH", "/v1/avatars/x", {"startScript": None}, ""),
        ("PATCH", "/v1/avatars/x", {"voice": "clara"}, "voice"),
        ("PATCH", "/v1/avatars/x", {}, "at least one"),
        ("POST", "/v1/text_to_image", {}, "/v1/avatars"),
    ],
)
async def test_check_sends_a_body_only_as_runway_takes_it(
    method: str, path: str, body: object, named: str
) -> None:
    async with command_line() as (run, simulator):
        told = await run("request", method, path, "--data", json.dumps(body), "--check")
        assert (told.code == ExitCode.USAGE) == bool(named), told.err
        assert named in told.err
        assert bool(simulator.requests) != bool(named)


@pytest.mark.parametrize(
    ("code", "again", "made"),
    [("INTERNAL.BAD_OUTPUT.CODE01", 2, 2), ("INTERNAL.BAD_OUTPUT.CODE01", 0, 1), ("SAFETY", 2, 1)],
)
async def test_a_session_that_fails_by_runways_own_fault_is_made_again_if_asked_for(
    code: str, again: int, made: int
) -> None:
    failed = {"status": "FAILED", "failure": "Oh.", "failureCode": code}
    async with command_line() as (run, simulator):
        simulator.faults.for_next_session(Faults(get=[CallFault(changes=failed)]))
        create = ["sessions", "create", "--preset", "influencer", "--wait"]
        told = await run(*create, "--retry-on-internal-error", str(again))
        assert told.code == (ExitCode.OK if made == 2 else ExitCode.REFUSED)
        assert len(simulator.sessions) == made
        assert len(simulator.leaked()) == made - 1  # the one that was asked for


async def test_a_message_that_quotes_a_kept_key_hides_it(kept: Path) -> None:
    async with ScriptedRunway().running() as server, command_line() as (run, _):
        keep(kept, **{server.url: "key_0123456789"})
        run.secrets.append("key_0123456789")
        server.script.append(Reply(payload={"echo": "key_0123456789"}))
        told = await run("--base-url", server.url, "request", "GET", "/v1/x", env=NO_KEY)
        assert told.json == {"echo": "***"}
