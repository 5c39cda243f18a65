"""`runway-avatar` makes, changes and deletes what avatars consist of, at the simulated Runway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from livekit_plugins_runway.cli.exits import ExitCode
from livekit_plugins_runway.cli.output import HIDDEN
from livekit_plugins_runway.testing import RunwaySimulator
from tests.cli.test_cli import talked
from tests.support.command_line import CommandLine, command_line

UNKNOWN = "3b1f9f0e-8a57-4a1d-9d0e-0a2b7c9d1e2f"
PROMPT = "A warm, low voice, in no hurry at all"
CREATE = ["avatars", "create", "--image", "face.png", "--name", "Ada"]
CREATE += ["--personality", "Kind.", "--voice", "clara"]


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNWAY_API_KEY", raising=False)
    Path("face.png").write_bytes(b"a picture")
    Path("sound.mp3").write_bytes(b"a sound")
    Path("manual.md").write_text("# Tea\n\nTwo minutes.\n")
    Path("who.md").write_text("A pirate.\n")


@asynccontextmanager
async def account(**options: Any) -> AsyncIterator[tuple[CommandLine, RunwaySimulator]]:
    at_once = {"avatar_processing_delay": 0.0, "voice_processing_delay": 0.0, "task_delay": 0.0}
    async with command_line({**at_once, **options}) as (run, simulator):
        yield run, simulator


# -- avatars


async def test_an_avatar_is_made_of_a_picture_changed_and_deleted() -> None:
    async with account() as (run, simulator):
        made = await run("--json", *CREATE, "--wait")
        assert (made.code, made.json["status"], made.err) == (0, "READY", "")
        avatar_id = made.json["id"]
        changed = await run(
            "avatars", "update", avatar_id, "--personality", "@who.md", "--voice", "luna"
        )
        assert changed.code == 0
        stored = simulator.account.avatars[0]
        assert (stored["personality"], stored["voice"]["presetId"]) == ("A pirate.", "luna")
        assert (await run("avatars", "wait", avatar_id)).code == 0
        gone = await run("--json", "avatars", "delete", avatar_id, UNKNOWN, "--yes")
        assert [row["deleted"] for row in gone.json] == [True, False]
        assert gone.code == ExitCode.NOT_FOUND
        assert simulator.account.avatars == []


async def test_an_avatar_that_fails_is_told_with_its_reason_and_id() -> None:
    async with account() as (run, simulator):
        simulator.account.fail_next("avatar", "No face was found")
        told = await run(*CREATE, "--wait")
        assert (told.code, told.out) == (ExitCode.REFUSED, "")
        assert "No face was found" in told.err
        assert simulator.account.avatars[0]["id"] in told.err


async def test_an_avatar_that_is_not_ready_in_time_is_a_timeout() -> None:
    async with account(avatar_processing_delay=30.0) as (run, _):
        told = await run(*CREATE, "--wait", "--timeout", "0.2")
        assert (told.code, "PROCESSING" in told.err) == (ExitCode.TIMEOUT, True)


async def test_a_wait_on_a_terminal_says_that_it_is_processing() -> None:
    async with account(avatar_processing_delay=30.0) as (run, _):
        env = {"FORCE_COLOR": "1", "COLUMNS": "100"}
        told = await run(*CREATE, "--wait", "--timeout", "0.3", env=env)
        assert "now it is PROCESSING" in told.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--image", "none.png"], "none.png"),
        (["--image", "manual.md"], "manual.md"),
        (["--image", "data:text/plain,x"], "--image"),
        (["--name", ""], "--name"),
        (["--voice", "nobody"], "--voice"),
        (["--personality", "@none.md"], "none.md"),
        (["--document", "x"], "--document"),
    ],
    ids=" ".join,
)
async def test_a_wrong_value_is_refused_before_anything_is_sent(
    arguments: list[str], named: str
) -> None:
    async with account() as (run, simulator):
        told = await run(*CREATE, *arguments)
        assert (told.code, named in told.err) == (ExitCode.USAGE, True), told.err
        assert "pathlib" not in told.err.replace("for a file pass a pathlib.Path", "")
        assert simulator.requests == []


async def test_a_change_of_nothing_is_refused() -> None:
    async with account() as (run, simulator):
        for what in ("avatars", "documents", "voices"):
            told = await run(what, "update", UNKNOWN)
            assert (told.code, "--name" in told.err) == (ExitCode.USAGE, True)
        assert simulator.requests == []


@pytest.mark.parametrize("what", ["avatars", "documents", "voices", "tasks", "conversations"])
async def test_deleting_asks_and_without_a_yes_does_nothing(what: str) -> None:
    async with account() as (run, simulator):
        no = await run(what, "delete", UNKNOWN, stdin="n\n")
        assert (no.code, UNKNOWN in no.err) == (ExitCode.REFUSED, True)
        for told in (
            await run(what, "delete", UNKNOWN),
            await run("--json", what, "delete", UNKNOWN),
        ):
            assert (told.code, "--yes" in told.err) == (ExitCode.USAGE, True)
        assert simulator.requests == []
        await run(what, "delete", UNKNOWN, stdin="y\n")
        assert [request.method for request in simulator.requests] == ["DELETE"]


# -- documents


async def test_a_file_becomes_what_an_avatar_knows() -> None:
    async with account() as (run, simulator):
        ada, bob = (simulator.account.add_avatar(name)["id"] for name in ("Ada", "Bob"))
        simulator.account.add_document("Another")
        made = await run("--json", "documents", "create", "manual.md", "--avatar", ada)
        assert (made.json["name"], made.json["usedBy"][0]["id"]) == ("manual.md", ada)
        document_id = made.json["id"]
        known = await run("--json", "documents", "list", "--avatar-id", ada)
        assert [one["id"] for one in known.json] == [document_id]
        assert (await run("--json", "documents", "list", "--avatar-id", bob)).json == []
        shown = await run("documents", "get", document_id)
        assert "Two minutes." in shown.lines
        Path("manual.md").write_text("Three minutes.")  # noqa: ASYNC240
        changed = await run("documents", "update", document_id, "--file", "manual.md")
        assert changed.code == 0
        assert "Three minutes." in (await run("documents", "get", document_id)).out
        assert (await run("documents", "delete", document_id, "-y")).code == 0
        assert simulator.account.avatars[0]["documentIds"] == []


async def test_a_document_that_an_avatar_could_not_be_given_is_named() -> None:
    async with account() as (run, simulator):
        told = await run("documents", "create", "manual.md", "--avatar", UNKNOWN)
        assert told.code == ExitCode.NOT_FOUND
        assert simulator.account.documents[0]["id"] in told.err


# -- voices


async def test_voices_are_listed_with_the_presets_and_where_they_can_be_heard() -> None:
    async with account() as (run, simulator):
        heard = "https://example.com/a/very/long/address/at/which/it/can/be/heard.mp3?x=1"
        own = simulator.account.add_voice("Warm", previewUrl=heard)
        told = await run("voices", "list")
        assert (told.out.count("preset"), "clara" in told.out, heard in told.out) == (
            30,
            True,
            True,
        )
        listed = (await run("--json", "voices", "list")).json
        assert (len(listed), listed[-1]["id"], listed[-1]["type"]) == (31, own["id"], "custom")
        assert len((await run("--json", "voices", "list", "--own")).json) == 1
        narrow = await run("voices", "list", "--own", env={"FORCE_COLOR": "1", "COLUMNS": "60"})
        assert heard in narrow.out


async def test_a_voice_is_heard_made_changed_and_deleted(tmp_path: Path) -> None:
    async with account() as (run, simulator):
        heard = await run("--json", "voices", "preview", PROMPT, "--download", "heard")
        assert heard.json["url"].startswith("http")
        (file,) = (tmp_path / "heard").iterdir()
        assert heard.json["files"] == [f"heard/{file.name}"]
        made = await run(
            "--json", "voices", "create", "--name", "Warm", "--prompt", PROMPT, "--wait"
        )
        assert made.json["status"] == "READY"
        cloned = await run("voices", "create", "--name", "Mine", "--audio", "sound.mp3")
        assert (cloned.code, len(simulator.account.voices)) == (0, 2)
        voice_id = made.json["id"]
        changed = await run("--json", "voices", "update", voice_id, "--description", "For Ada")
        assert changed.json["description"] == "For Ada"
        assert "For Ada" in (await run("voices", "get", voice_id)).out
        both = await run("voices", "create", "--name", "x", "--audio", "a.mp3", "--prompt", PROMPT)
        assert (both.code, "--prompt or --audio" in both.err) == (ExitCode.USAGE, True)
        assert (await run("voices", "delete", voice_id, "--yes")).code == 0


# -- tasks, uploads, videos


async def test_a_video_is_asked_for_waited_for_and_fetched(tmp_path: Path) -> None:
    async with account() as (run, simulator):
        create = ["avatar-videos", "create", "--preset", "influencer", "--text", "Hello."]
        task_id = (await run(*create)).out.strip()
        waited = await run("--json", "wait", task_id, "--download", "made")
        assert (waited.code, waited.json["status"]) == (0, "SUCCEEDED")
        (file,) = (tmp_path / "made").iterdir()
        assert (file.stem, file.suffix, waited.json["files"]) == (
            task_id,
            ".mp4",
            [f"made/{file.name}"],
        )
        again = await run("wait", task_id, "--download", "made")
        assert (again.code, "--force" in again.err) == (ExitCode.USAGE, True)
        assert "SUCCEEDED" in (await run("tasks", "get", task_id)).out
        assert "http" in (await run("wait", task_id)).lines[-1]
        simulator.account.fail_next("task", "Out of luck", code="INTERNAL")
        failed = await run(*create, "--wait")
        assert (failed.code, "Out of luck" in failed.err) == (ExitCode.REFUSED, True)
        neither = await run("avatar-videos", "create", "--preset", "influencer")
        assert "--text or --audio" in neither.err
        voiced = await run(*create[:4], "--audio", "sound.mp3", "--voice", "clara")
        assert (voiced.code, "--voice is for --text" in voiced.err) == (ExitCode.USAGE, True)


async def test_an_upload_is_an_address_for_other_commands() -> None:
    async with account() as (run, simulator):
        address = (await run("uploads", "create", "face.png")).out.strip()
        assert list(simulator.account.uploads) == [address]
        assert (await run(*CREATE, "--image", address)).code == 0


# -- credits, conversations, doctor


async def test_credits_are_shown_by_day_and_model() -> None:
    async with account() as (run, simulator):
        await talked(simulator, run)
        told = await run("credits")
        assert told.code == 0
        assert "gwm1_avatars" in told.out
        assert told.lines[-1].split()[0] == "total"
        assert (await run("--json", "credits")).json["results"]
        wrong = await run("credits", "--since", "2026-01-01", "--until", "2026-08-31")
        assert wrong.code == ExitCode.USAGE


async def test_a_conversation_is_deleted() -> None:
    async with account() as (run, simulator):
        session_id = await talked(simulator, run)
        assert (await run("conversations", "delete", session_id, stdin="y\n")).code == 0
        assert (await run("conversations", "get", session_id)).code == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({}, "ok", "READY"),
        ({"status": "PROCESSING"}, "fail", "PROCESSING"),
        ({"status": "FAILED", "failureReason": "No face"}, "fail", "No face"),
        (None, "fail", "none with this id"),
    ],
)
async def test_doctor_sees_for_nothing_whether_an_avatar_can_be_shown(
    changes: dict[str, str] | None, status: str, said: str
) -> None:
    async with account() as (run, simulator):
        avatar_id = UNKNOWN
        if changes is not None:
            avatar_id = simulator.account.add_avatar("Ada", **changes)["id"]
        told = await run("--json", "doctor", "--avatar", avatar_id)
        (check,) = [one for one in told.json["checks"] if one["name"] == "avatar"]
        assert (check["status"], said in check["detail"]) == (status, True)
        assert {request.method for request in simulator.requests} == {"GET"}


# -- dry-run

DRY = [
    [*CREATE, "--start-script", "Hi", "--document", UNKNOWN, "--wait"],
    ["avatars", "update", UNKNOWN, "--start-script", "", "--no-documents"],
    ["avatars", "wait", UNKNOWN],
    ["avatars", "delete", UNKNOWN],
    ["documents", "create", "manual.md", "--avatar", UNKNOWN],
    ["documents", "list", "--avatar-id", UNKNOWN],
    ["documents", "get", UNKNOWN],
    ["documents", "update", UNKNOWN, "--name", "Tea"],
    ["documents", "delete", UNKNOWN],
    ["voices", "get", UNKNOWN],
    ["voices", "create", "--name", "Warm", "--prompt", PROMPT],
    ["voices", "wait", UNKNOWN],
    ["voices", "update", UNKNOWN, "--name", "Tea"],
    ["voices", "preview", PROMPT],
    ["voices", "delete", UNKNOWN],
    ["credits", "--since", "2026-08-01", "--until", "2026-08-02"],
    ["conversations", "delete", UNKNOWN],
    ["wait", UNKNOWN],
    ["tasks", "get", UNKNOWN],
    ["tasks", "delete", UNKNOWN],
    ["uploads", "create", "face.png"],
    ["avatar-videos", "create", "--preset", "influencer", "--audio", "sound.mp3"],
]


@pytest.mark.parametrize("arguments", DRY, ids=" ".join)
async def test_dry_run_prints_the_first_request_that_would_be_sent(arguments: list[str]) -> None:
    async with account() as (run, simulator):
        keyless = {"RUNWAYML_API_SECRET": None}
        shown = await run("--dry-run", "--json", *arguments, env=keyless)
        assert (shown.code, simulator.requests) == (0, [])
        assert shown.json["headers"]["Authorization"] == f"Bearer {HIDDEN}"
        await run(*arguments, stdin="y\n")
        sent = simulator.requests[0]
        assert (sent.method, sent.path, sent.body) == (
            shown.json["method"],
            shown.json["url"].removeprefix(simulator.url).partition("?")[0],
            shown.json["body"],
        )
        plain = await run("--dry-run", *arguments, env=keyless)
        assert plain.lines[0] == f"{shown.json['method']} {shown.json['url']}"


async def test_a_dry_run_shows_people_of_a_file_only_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(b"x" * 10_000)
    async with account() as (run, _):
        assert len((await run("--dry-run", *CREATE)).out) < 2_000
        whole = json.loads((await run("--dry-run", "--json", *CREATE)).out)
        assert len(whole["body"]["referenceImage"]) > 10_000
