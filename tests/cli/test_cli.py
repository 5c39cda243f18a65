"""`runway-avatar` against the simulated Runway: what each command does, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import typer

from livekit_plugins_runway.cli.app import app
from livekit_plugins_runway.cli.commands import auth as auth_commands
from livekit_plugins_runway.cli.commands import sessions as session_commands
from livekit_plugins_runway.cli.exits import ExitCode
from livekit_plugins_runway.cli.output import HIDDEN, Output, masked, printable
from livekit_plugins_runway.cli.settings import Settings
from livekit_plugins_runway.runway.requests import realtime_request
from livekit_plugins_runway.testing import Faults, RunwaySimulator, SessionStatus
from livekit_plugins_runway.testing.simulator.account import RECORDING, avatar, document, voice
from tests.support.command_line import command_line
from tests.support.journals import contents, leave
from tests.support.published import VALIDATOR
from tests.support.scripted_runway import Reply, ScriptedRunway

pytestmark = pytest.mark.sampled

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = "/v1/realtime_sessions"
UNKNOWN = "3b1f9f0e-8a57-4a1d-9d0e-0a2b7c9d1e2f"
KEY = "key_" + "0123456789abcdef" * 8


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .env of a developer is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNWAY_API_KEY", raising=False)


def fill(simulator: RunwaySimulator) -> None:
    simulator.account.avatars[:] = [avatar(f"Ada {n}") for n in range(5)]
    simulator.account.voices[:] = [voice("Warm"), voice("Odd", status="FAILED")]
    simulator.account.documents[:] = [document("Manual"), document("Prices")]


async def talked(simulator: RunwaySimulator, run: Any) -> str:
    """A session that was consumed and ended in good order."""
    made = await run("sessions", "create", "--preset", "influencer", "--consume")
    session = simulator.sessions[made.json["id"]]
    await simulator.wait_for(session, SessionStatus.RUNNING)
    session.hit_cap()
    return session.id


# -- looking at an account --


async def test_auth_status_says_what_the_organization_has_left() -> None:
    async with command_line({"credits": 321, "daily_quota": 50}) as (run, simulator):
        told = await run("auth", "status")
        assert told.code == 0
        assert "321 ($3.21)" in told.out
        assert "RUNWAYML_API_SECRET from environment" in told.out
        assert (await run("--json", "auth", "status")).json["creditBalance"] == 321
        assert {r.path for r in simulator.requests} == {"/v1/organization"}


async def test_lists_show_every_page_of_what_there_is() -> None:
    async with command_line() as (run, simulator):
        fill(simulator)
        simulator.account.page = 2
        told = await run("--json", "avatars", "list")
        assert [a["name"] for a in told.json] == [f"Ada {n}" for n in range(5)]
        assert len(simulator.requests) == 3
        assert len((await run("--json", "avatars", "list", "--limit", "3")).json) == 3
        for kind, names in {"voices": ["Warm", "Odd"], "documents": ["Manual", "Prices"]}.items():
            listed = await run(kind, "list")
            assert listed.code == 0
            assert all(name in listed.out for name in names)
        empty = await run("conversations", "list")
        assert (empty.code, empty.out, empty.err) == (0, "", "There are none.\n")


async def test_a_list_that_never_ends_is_given_up() -> None:
    async with ScriptedRunway().running() as server:
        page = Reply(payload={"data": [], "hasMore": True, "nextCursor": "the same"})
        server.script += [page] * 5
        async with command_line() as (run, _):
            told = await run("--base-url", server.url, "--json", "avatars", "list")
        assert told.code == ExitCode.SERVER
        assert len(server.seen) == 2


async def test_one_avatar_is_shown_and_an_unknown_one_is_not_found() -> None:
    async with command_line() as (run, simulator):
        fill(simulator)
        known = simulator.account.avatars[0]
        assert (await run("--json", "avatars", "get", known["id"])).json == known
        assert "Clara" in (await run("avatars", "get", known["id"])).out
        missing = await run("avatars", "get", UNKNOWN)
        assert missing.code == ExitCode.NOT_FOUND
        assert "Could not find Avatar" in missing.err
        assert missing.out == ""


async def test_presets_need_no_network_and_each_can_be_asked_for() -> None:
    async with command_line() as (run, simulator):
        for name in (await run("presets")).lines:
            body = (await run("--dry-run", "--json", "sessions", "create", "--preset", name)).json
            assert body["body"]["avatar"]["presetId"] == name
        assert {"presetId": "influencer"} in (await run("--json", "presets")).json
        assert simulator.requests == []


async def test_usage_is_asked_for_by_whole_days() -> None:
    async with command_line() as (run, simulator):
        told = await run("usage", "--since", "2026-08-01", "--until", "2026-08-31")
        assert told.code == 0
        assert "total" in told.out
        shown = await run(
            "--dry-run", "--json", "usage", "--since", "2026-08-01", "--until", "2026-08-31"
        )
        assert "startDate=2026-08-01T00%3A00%3A00Z" in shown.json["url"]
        assert "endDate=2026-09-01T00%3A00%3A00Z" in shown.json["url"]
        wrong = await run("usage", "--since", "2026-01-01", "--until", "2026-08-31")
        assert (wrong.code, len(simulator.requests)) == (ExitCode.USAGE, 1)


# -- sessions --


async def test_a_session_is_made_waited_for_and_ended() -> None:
    async with command_line() as (run, simulator):
        made = await run("sessions", "create", "--preset", "influencer", "--max-duration", "60")
        session_id = made.json["id"]
        assert list(made.json) == ["id"]
        assert simulator.sessions[session_id].create_body["maxDuration"] == 60
        ready = await run("sessions", "wait", session_id, "--json")
        assert (ready.json["status"], ready.json["sessionKey"] != "") == ("READY", True)
        got = await run("--json", "sessions", "get", session_id)
        assert (got.json["status"], got.json["sessionKey"]) == ("READY", HIDDEN)
        assert "READY" in (await run("sessions", "get", session_id)).out
        ended = await run("sessions", "cancel", session_id)
        assert (ended.code, ended.out) == (0, f"{session_id}  ended\n")
        again = await run("--json", "sessions", "wait", session_id, "--for", "ended")
        assert (again.code, again.json["status"]) == (0, "CANCELLED")


async def test_create_can_wait_and_consume_and_then_prints_the_credentials() -> None:
    async with command_line() as (run, simulator):
        waited = await run("sessions", "create", "--preset", "influencer", "--wait")
        assert (waited.json["status"], "sessionKey" in waited.json) == ("READY", False)
        consumed = await run("sessions", "create", "--preset", "influencer", "--consume")
        assert set(consumed.json) == {"id", "url", "token", "roomName"}
        assert consumed.json["token"].count(".") == 2
        assert simulator.sessions[consumed.json["id"]].consumed_at is not None


async def test_a_session_that_cannot_be_waited_for_is_ended() -> None:
    faults = Faults(consume=[404])
    async with command_line({"faults": faults}) as (run, simulator):
        told = await run("sessions", "create", "--preset", "influencer", "--consume")
        assert (told.code, told.out) == (ExitCode.NOT_FOUND, "")
        assert "The session was ended." in told.err
        assert simulator.leaked() == []
    async with command_line({"provisioning_delay": 30.0}) as (run, simulator):
        late = await run(
            "sessions", "create", "--preset", "influencer", "--wait", "--timeout", "0.3"
        )
        assert late.code == ExitCode.TIMEOUT
        assert simulator.leaked() == []


async def test_cancelled_at_any_moment_create_leaves_no_session() -> None:
    async with command_line({"create_delay": 0.05}) as (run, simulator):
        for delay in (0.01, 0.03, 0.1, 0.3):
            settings = Settings(Output(False), False, simulator.url, dict(run.env))
            request = realtime_request(None, "influencer", None, None, None, None)
            task = asyncio.create_task(
                session_commands._create(settings, request, True, False, 30.0)
            )
            await asyncio.wait({task}, timeout=delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled():  # it was quicker
                await run("sessions", "cancel", task.result()["id"])
            assert simulator.leaked() == []


async def test_many_sessions_are_ended_from_a_file(tmp_path: Path) -> None:
    listed = tmp_path / "ids"
    async with command_line({"concurrency": 5}) as (run, simulator):
        made = [await run("sessions", "create", "--preset", "influencer") for _ in range(3)]
        ids = [m.json["id"] for m in made]
        listed.write_text(f"# of today\n{ids[0]}\n\n{json.dumps({'id': ids[1]})}\n{UNKNOWN}\n")
        told = await run("--json", "sessions", "cancel", ids[2], "--all-from", str(listed))
        assert {row["id"]: row["ended"] for row in told.json} == {
            **dict.fromkeys(ids, True),
            UNKNOWN: False,
        }
        assert told.code == ExitCode.NOT_FOUND
        assert simulator.leaked() == []
        piped = await run("sessions", "cancel", "--all-from", "-", stdin=made[0].out)
        assert piped.code == 0
        before = len(simulator.requests)
        listed.write_text(f"{ids[0]}\nINFO ended {ids[1]}\n")
        assert (await run("sessions", "cancel", "--all-from", str(listed))).code == ExitCode.USAGE
        assert (await run("sessions", "cancel")).code == ExitCode.USAGE
        assert len(simulator.requests) == before


# -- sessions of killed processes --


async def test_sweep_ends_what_killed_processes_have_left_and_says_so(journals: Path) -> None:
    async with command_line({"concurrency": 5}) as (run, simulator):
        made = [await run("sessions", "create", "--preset", "influencer") for _ in range(2)]
        ids = [m.json["id"] for m in made]
        here: dict[str, Any] = {"key": simulator.api_secret, "url": simulator.url}
        leave(journals, *ids, **here)
        leave(journals, "another's", key=KEY, url=simulator.url)
        leave(journals, "old", age=9_999.0, **here)

        before = len(simulator.requests)
        planned = await run("--dry-run", "--json", "sessions", "sweep")
        assert [json.loads(line)["url"].rpartition("/")[2] for line in planned.lines] == ids
        assert len(simulator.requests) == before

        told = await run("--json", "sessions", "sweep")
        assert told.code == 0
        outcomes = {row["id"]: row["outcome"] for row in told.json}
        assert outcomes == {
            **dict.fromkeys(ids, "ended"),
            "another's": "other key",
            "old": "expired",
        }
        assert set(told.json[0]) == {"id", "outcome", "error", "madeAt"}
        assert simulator.leaked() == []

        again = await run("sessions", "sweep")
        assert (again.code, again.lines) == (
            0,
            ["another's  left: made with another key, or at another address"],
        )
        run.secrets.append(KEY)


@pytest.mark.slow
async def test_sweep_says_what_could_not_be_ended_and_leaves_it(journals: Path) -> None:
    async with command_line({"faults": Faults(delete=[503] * 9)}) as (run, simulator):
        session_id = (await run("sessions", "create", "--preset", "influencer")).json["id"]
        leave(journals, session_id, key=simulator.api_secret, url=simulator.url)
        told = await run("sessions", "sweep")
        assert told.code == ExitCode.SERVER
        assert told.out.startswith(session_id)
        assert list(contents(journals).alive) == [session_id]


async def test_sweep_without_leavings_key_or_journal_says_so(journals: Path) -> None:
    async with command_line() as (run, simulator):
        none = await run("sessions", "sweep")
        assert (none.code, none.out, none.err) == (0, "", "There are none.\n")
        assert (await run("--json", "sessions", "sweep")).json == []
        keyless = await run("sessions", "sweep", env={"RUNWAYML_API_SECRET": None})
        assert keyless.code == ExitCode.AUTH
        off = await run("sessions", "sweep", env={"RUNWAY_AVATAR_JOURNAL": "off"})
        assert off.code == ExitCode.USAGE
        assert "RUNWAY_AVATAR_JOURNAL" in off.err
        assert simulator.requests == []


# -- conversations --


async def test_a_conversation_is_shown_and_downloaded(tmp_path: Path) -> None:
    async with command_line() as (run, simulator):
        session_id = await talked(simulator, run)
        assert session_id in (await run("conversations", "list")).out
        shown = await run("conversations", "get", session_id)
        assert "assistant: Hello." in shown.out
        assert "signature" not in shown.out
        target = tmp_path / "kept"
        told = await run("--json", "conversations", "download", session_id, "--dir", str(target))
        assert told.json == [
            str(target / f"{session_id}.{kind}") for kind in ("json", "txt", "mp4")
        ]
        assert (target / f"{session_id}.mp4").read_bytes() == RECORDING
        described = json.loads((target / f"{session_id}.json").read_text())
        assert described["transcript"][0]["content"] == "Hello."
        assert "recordingUrl" not in described
        again = await run("conversations", "download", session_id, "--dir", str(target))
        assert (again.code, "--force" in again.err) == (ExitCode.USAGE, True)
        forced = await run("conversations", "download", session_id, "--dir", str(target), "--force")
        assert forced.code == 0
        assert not (target / f"{session_id}.part").exists()


async def test_a_session_ended_by_delete_has_no_recording_and_that_is_said() -> None:
    async with command_line() as (run, _):
        made = await run("sessions", "create", "--preset", "influencer", "--consume")
        await run("sessions", "cancel", made.json["id"])
        told = await run("conversations", "download", made.json["id"])
        assert told.code == 0
        assert "No recording: the conversation is failed." in told.err
        assert [line.rpartition(".")[2] for line in told.lines] == ["json", "txt"]


# -- any request --


async def test_request_sends_what_it_is_told_and_masks_what_comes_back() -> None:
    async with command_line() as (run, simulator):
        body = json.dumps(
            {"model": "gwm1_avatars", "avatar": {"type": "runway-preset", "presetId": "influencer"}}
        )
        made = await run("request", "POST", SESSIONS, "--data", body)
        await simulator.wait_for(made.json["id"], SessionStatus.READY)
        state = await run("request", "get", f"{SESSIONS}/{made.json['id']}")
        assert (state.json["status"], state.json["sessionKey"]) == ("READY", HIDDEN)
        deleted = await run("request", "DELETE", f"{SESSIONS}/{made.json['id']}")
        assert (deleted.code, deleted.out) == (0, "")
        piped = await run("request", "POST", SESSIONS, "--stdin", stdin=body)
        assert piped.code == 0
        refused = await run("request", "POST", SESSIONS)
        assert (refused.code, "avatar" in refused.err) == (ExitCode.REFUSED, True)


@pytest.mark.parametrize("path", ["https://evil.example/v1/", "@evil.example/v1", "v1/avatars"])
async def test_the_key_goes_nowhere_else(path: str) -> None:
    async with command_line() as (run, simulator):
        assert (await run("request", "GET", path)).code == ExitCode.USAGE
        assert (await run("request", "POST", SESSIONS, "--data", "{")).code == ExitCode.USAGE
        assert simulator.requests == []


# -- dry-run --

CREATES = [
    ["--preset", "influencer"],
    ["--avatar", UNKNOWN, "--max-duration", "10", "--personality", "Kind.", "--start-script", "Hi"],
    ["--preset", "cooking-teacher", "--consume", "--timeout", "5", "--tools", "tools.json"],
]
DRY = [
    *(["sessions", "create", *arguments] for arguments in CREATES),
    ["auth", "status"],
    ["avatars", "list"],
    ["avatars", "get", UNKNOWN],
    ["voices", "list", "--limit", "3"],
    ["documents", "list"],
    ["sessions", "get", UNKNOWN],
    ["sessions", "wait", UNKNOWN],
    ["sessions", "cancel", UNKNOWN],
    ["conversations", "list", "--since", "2026-08-01", "--avatar", UNKNOWN],
    ["conversations", "get", UNKNOWN],
    ["usage", "--since", "2026-08-01", "--until", "2026-08-02"],
    ["request", "POST", SESSIONS, "--data", '{"a": [1, "ä"]}'],
]
TOOLS = [{"type": "client_event", "name": "wave", "description": "Waves."}]


@pytest.mark.parametrize("arguments", DRY, ids=" ".join)
async def test_dry_run_prints_exactly_the_request_that_would_be_sent(
    arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    async with command_line() as (run, simulator):
        shown = await run("--dry-run", "--json", *arguments)
        assert shown.code == 0
        assert set(shown.json) == {"method", "url", "headers", "body"}
        assert simulator.requests == []
        keyless = {"RUNWAYML_API_SECRET": None}
        assert (await run("--dry-run", "--json", *arguments, env=keyless)).out == shown.out
        await run(*arguments)
        sent = simulator.requests[0]
        assert (sent.method, sent.path) == (
            shown.json["method"],
            shown.json["url"].removeprefix(simulator.url).partition("?")[0],
        )
        assert sent.body == shown.json["body"]
        for name, value in shown.json["headers"].items():
            if name == "Authorization":
                assert value == f"Bearer {HIDDEN}"
            else:
                assert sent.headers[name] == value
        plain = await run("--dry-run", *arguments)
        assert plain.lines[0] == f"{shown.json['method']} {shown.json['url']}"


@pytest.mark.parametrize("arguments", CREATES, ids=" ".join)
async def test_the_body_of_a_create_is_as_published(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    async with command_line() as (run, _):
        shown = await run("--dry-run", "--json", "sessions", "create", *arguments)
        VALIDATOR.validate(shown.json["body"])


async def test_a_dry_run_of_several_requests_is_a_line_each(tmp_path: Path) -> None:
    async with command_line() as (run, _):
        told = await run("--dry-run", "--json", "sessions", "cancel", "a", "b", "a")
        assert [json.loads(line)["url"][-2:] for line in told.lines] == ["/a", "/b"]


async def test_secrets_in_a_body_are_masked() -> None:
    body = {"integration": {"type": "livekit", "token": "eyJ-room", "url": "wss://h"}}
    async with command_line() as (run, _):
        run.secrets.append("eyJ-room")
        told = await run("--dry-run", "request", "POST", SESSIONS, "--data", json.dumps(body))
        assert f'"token": "{HIDDEN}"' in told.out


# -- settings --


async def test_the_key_comes_from_the_environment_then_from_the_env_file(tmp_path: Path) -> None:
    async with command_line() as (run, simulator):
        nothing = {"RUNWAYML_API_SECRET": None, "RUNWAYML_BASE_URL": None}
        run.secrets.append("key_wrong")
        (tmp_path / ".env").write_text(
            f"RUNWAYML_API_SECRET='{simulator.api_secret}'\nRUNWAYML_BASE_URL={simulator.url}\n"
        )
        told = await run("auth", "status", env=nothing)
        assert (told.code, "from .env" in told.out) == (0, True)
        wrong = await run("auth", "status", env={"RUNWAYML_API_SECRET": "key_wrong"})
        assert wrong.code == ExitCode.AUTH
        (tmp_path / ".env").rename(tmp_path / "other")
        assert (await run("auth", "status", env=nothing)).code == ExitCode.AUTH
        assert (await run("auth", "status", "--env-file", "other", env=nothing)).code == 0
        assert (await run("--env-file", "none", "presets")).code == ExitCode.USAGE
        second = {**nothing, "RUNWAY_API_KEY": simulator.api_secret}
        assert (await run("--base-url", simulator.url, "auth", "status", env=second)).code == 0


async def test_a_key_of_the_environment_does_not_go_to_a_host_from_an_env_file(
    tmp_path: Path,
) -> None:
    async with command_line() as (run, simulator):
        (tmp_path / ".env").write_text(f"RUNWAYML_BASE_URL={simulator.url}\n")
        told = await run("auth", "status", env={"RUNWAYML_BASE_URL": None})
        assert (told.code, "a key belongs to one host" in told.err) == (ExitCode.USAGE, True)
        assert simulator.requests == []


async def test_stage_and_base_url_choose_where_runway_is() -> None:
    async with command_line() as (run, _):
        stage = await run("--stage", "--dry-run", "--json", "auth", "status")
        assert stage.json["url"] == "https://api.dev-stage.runwayml.com/v1/organization"
        both = await run("--stage", "--base-url", "https://h.example", "auth", "status")
        assert both.code == ExitCode.USAGE
        none = {"RUNWAYML_BASE_URL": None}
        usual = await run("--dry-run", "--json", "auth", "status", env=none)
        assert usual.json["url"] == "https://api.dev.runwayml.com/v1/organization"


async def test_global_options_may_follow_the_command() -> None:
    async with command_line() as (run, simulator):
        before = await run("--json", "--base-url", simulator.url, "auth", "status")
        after = await run("auth", "status", "--json", f"--base-url={simulator.url}")
        assert (before.code, after.code) == (0, 0)
        assert before.json.keys() == after.json.keys()


# -- errors --


PRESET = ["sessions", "create", "--preset", "influencer"]


@pytest.mark.parametrize(
    ("arguments", "options", "code"),
    [
        (["sessions", "create"], {}, ExitCode.USAGE),
        (["sessions", "create", "--preset", "nobody"], {}, ExitCode.USAGE),
        ([*PRESET, "--max-duration", "5"], {}, ExitCode.USAGE),
        ([*PRESET, "--tools", "none.json"], {}, ExitCode.USAGE),
        (["sessions", "fly"], {}, ExitCode.USAGE),
        (["conversations", "list", "--limit", "0"], {}, ExitCode.USAGE),
        (["sessions", "get", UNKNOWN], {}, ExitCode.NOT_FOUND),
        (PRESET, {"credits": 1}, ExitCode.LIMIT),
        (PRESET, {"daily_quota": 0}, ExitCode.LIMIT),
        (PRESET, {"faults": Faults(create=[500])}, ExitCode.SERVER),
        (PRESET, {"faults": Faults(create=[403])}, ExitCode.REFUSED),
    ],
)
async def test_each_kind_of_failure_has_its_exit_code(
    arguments: list[str], options: dict[str, Any], code: ExitCode
) -> None:
    async with command_line(options) as (run, _):
        told = await run(*arguments)
        assert (told.code, told.out) == (code, "")
        assert told.err.strip()


async def test_a_bad_key_and_an_unreachable_runway_are_told_apart(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livekit_plugins_runway.runway.http._LONGEST_BACKOFF", 0.01)
    async with command_line() as (run, _):
        run.secrets.append(KEY)
        bad = await run("auth", "status", env={"RUNWAYML_API_SECRET": KEY})
        assert bad.code == ExitCode.AUTH
        address = f"http://127.0.0.1:{unused_tcp_port}"
        away = await run("--base-url", address, "auth", "status")
        assert away.code == ExitCode.NETWORK


async def test_errors_are_one_line_or_with_json_an_object() -> None:
    async with command_line() as (run, _):
        told = await run("sessions", "get", UNKNOWN)
        assert told.err.count("\n") == 1
        assert told.err.startswith("Error: ")
        told = await run("--json", "sessions", "get", UNKNOWN)
        error = json.loads(told.err)["error"]
        assert (error["kind"], error["exit_code"]) == ("not_found", ExitCode.NOT_FOUND)
        assert told.out == ""


async def test_a_server_that_repeats_the_key_is_not_believed_to_keep_it() -> None:
    async with ScriptedRunway().running() as server, command_line() as (run, simulator):
        key = simulator.api_secret
        server.script.append(Reply(status=400, payload={"error": f"Bad key {key}"}))
        told = await run("--base-url", server.url, "auth", "status")
        assert (told.code, "Bad key" in told.err) == (ExitCode.REFUSED, True)
        server.script.append(Reply(payload={"echo": f"Bearer {key}"}))
        told = await run("--base-url", server.url, "request", "GET", "/v1/echo")
        assert told.json == {"echo": f"Bearer {HIDDEN}"}


async def test_a_fault_of_ours_shows_no_key_in_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: object) -> dict[str, object]:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(auth_commands, "summary", broken)
    async with command_line() as (run, _):
        with pytest.raises(ZeroDivisionError) as caught:
            await run("auth", "status")
        run.told.append("".join(traceback.format_exception(caught.value)))


def test_what_is_masked_stays_masked_at_any_depth() -> None:
    value = {"a": [{"sessionKey": "x", "Token": "y", "tokens": 3}], "b": "Bearer s3cret!"}
    assert masked(value, ["s3cret", ""]) == {
        "a": [{"sessionKey": HIDDEN, "Token": HIDDEN, "tokens": 3}],
        "b": f"Bearer {HIDDEN}!",
    }


def test_a_name_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2J\nb") == "a [2J b"
    assert printable(None) == "-"


# -- the app itself --


def test_only_the_command_line_imports_typer_and_rich() -> None:
    package = ROOT / "livekit_plugins_runway"
    own = [package / "cli", package / "serve"]
    imports = re.compile(r"^\s*(?:from|import) \.*(typer|rich|dotenv|cli)\b", re.MULTILINE)
    for path in package.rglob("*.py"):
        if not set(own) & set(path.parents):
            assert not imports.search(path.read_text()), path


def commands(group: Any, prefix: str = "") -> list[str]:
    found = []
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        below = hasattr(command, "list_commands")
        found += commands(command, f"{prefix}{name} ") if below else [f"{prefix}{name}"]
    return found


def test_every_command_option_and_exit_code_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    examples = {row[1].strip("`"): row[3] for row in rows if len(row) == 5}
    for name in commands(typer.main.get_command(app)):
        assert examples[name].startswith("`runway-avatar "), name
        assert set(name.split()) <= set(examples[name].strip("`").split()), name
    for code in ExitCode:
        assert f"| {code.value} | `{code.name.lower()}` |" in text
    for option in ("--json", "--dry-run", "--stage", "--base-url", "--env-file", "--version"):
        assert f"`{option}" in text


@pytest.mark.parametrize("command", [[], ["sessions"], ["sessions", "create"], ["token"]])
async def test_help_says_what_prints_a_secret(command: list[str]) -> None:
    async with command_line() as (run, _):
        told = await run(*command, "--help", env={"RUNWAYML_API_SECRET": None})
        assert told.code == 0
        if command in (["sessions", "create"], ["token"]):
            assert "PRINT" in told.out
