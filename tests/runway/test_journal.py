"""The journal: what may bill stands in it before it can, and no longer than it does."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livekit_plugins_runway.errors import RunwayException
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.http import ConnectOptions
from livekit_plugins_runway.runway.journal import records
from livekit_plugins_runway.runway.journal.records import Held, made_with, parse
from livekit_plugins_runway.runway.journal.writer import journal_folder
from livekit_plugins_runway.runway.models import CreateRealtimeSession, PresetAvatar
from livekit_plugins_runway.runway.session import RealtimeSession
from tests.support.journals import KEY, URL, contents, files, journal, leave, until
from tests.support.scripted_runway import Reply, ScriptedRunway, state
from tests.support.virtual_clock import virtual_clock

REQUEST = CreateRealtimeSession(avatar=PresetAvatar(preset_id="influencer"), max_duration=120)
ID = "6a3e5d0c-3f4b-4b83-8a8e-0d7a2f2f5b11"


@asynccontextmanager
async def journalled(folder: Path | None) -> AsyncIterator[tuple[RunwayClient, ScriptedRunway]]:
    async with ScriptedRunway().running() as runway:
        kept = journal(folder, url=runway.url)
        client = RunwayClient(
            KEY, base_url=runway.url, conn_options=ConnectOptions(max_retry=0), journal=kept
        )
        try:
            yield client, runway
        finally:
            await client.aclose()
            kept.close()


# -- what stands in it --


async def test_an_id_stands_there_from_the_answer_to_create_until_the_session_has_ended(
    journals: Path,
) -> None:
    async with journalled(journals) as (client, runway):
        session = RealtimeSession(client, REQUEST)
        await session.create()
        (entry,) = contents(journals).alive.values()
        assert (entry.session_id, entry.api, entry.cap) == (session.id, runway.url, 120)
        await session.consume(await session.wait_until_ready(5.0))
        assert list(contents(journals).alive) == [session.id]
        await session.end()
        assert contents(journals).alive == {}
    assert files(journals) == []


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "CANCELLED"])
async def test_it_goes_when_runway_says_that_the_session_is_over(
    journals: Path, status: str
) -> None:
    fields: dict[str, Any] = {
        "COMPLETED": {"duration": 4},
        "FAILED": {"failure": "x", "failureCode": "Y"},
    }
    async with journalled(journals) as (client, runway):
        await client.create(REQUEST)
        runway.script = [Reply(payload=state(status, **fields.get(status, {})))]
        await client.get("another")
        assert contents(journals).alive
        session_id = next(iter(contents(journals).alive))
        runway.script = [Reply(payload=state(status, **fields.get(status, {})))]
        await client.get(session_id)
        assert contents(journals).alive == {}


async def test_it_goes_when_runway_does_not_know_it_or_the_worker_has_left(journals: Path) -> None:
    async with journalled(journals) as (client, runway):
        runway.delete_script = [Reply(status=404, payload={"error": "none"})]
        await client.delete(await client.create(REQUEST))
        assert contents(journals).alive == {}

        session, gone = RealtimeSession(client, REQUEST), asyncio.Event()
        await session.create()

        async def goodbye() -> bool:
            gone.set()
            return True

        assert (await session.end(say_goodbye=goodbye, worker_gone=gone)).how == "worker left"
        assert contents(journals).alive == {}


@virtual_clock
async def _an_unconfirmed_end(folder: Path) -> None:
    async with journalled(folder) as (client, runway):
        session = RealtimeSession(client, REQUEST)
        await session.create()
        runway.delete_script = [Reply(status=500, payload={"error": "broken"})] * 30
        assert not (await session.end()).confirmed


def test_what_could_not_be_ended_is_left_to_whoever_comes_next(journals: Path) -> None:
    _an_unconfirmed_end(journals)
    assert len(contents(journals).alive) == 1


@virtual_clock
async def _a_create_that_nobody_waits_for(folder: Path) -> None:
    async with journalled(folder) as (client, runway):
        runway.script = [Reply(payload={"id": ID}, delay=1.0)]
        runway.delete_script = [Reply(status=500, payload={"error": "broken"})] * 9
        creating = asyncio.create_task(client.create(REQUEST))
        await until(lambda: runway.seen)
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert await client.aclose() == [ID]


def test_the_session_of_a_create_that_nobody_waited_for_stands_there_too(journals: Path) -> None:
    _a_create_that_nobody_waits_for(journals)
    assert list(contents(journals).alive) == [ID]


async def test_sessions_of_several_at_once_are_told_apart(journals: Path) -> None:
    async with journalled(journals) as (client, _):
        ids = [await client.create(REQUEST) for _ in range(3)]
        await client.delete(ids[1])
        assert list(contents(journals).alive) == [ids[0], ids[2]]


def test_a_session_that_comes_after_the_close_stands_there_until_it_has_ended(
    journals: Path,
) -> None:
    kept = journal(journals)
    kept.close()
    kept.made("late", None)
    kept.made("later", None)
    kept.ended("later")
    assert list(contents(journals).alive) == ["late"]
    (name,) = files(journals)
    assert records.take_over(journals / name) is None, "its process lives"
    kept.ended("late")
    assert files(journals) == []


# -- who may read it, and what it tells --


def test_only_its_user_can_read_it_and_it_tells_no_key(journals: Path) -> None:
    first, second = journal(journals), journal(journals)
    for kept in (first, second):
        kept.made(ID, None)
    assert stat.S_IMODE(journals.stat().st_mode) == 0o700
    texts = []
    for path in journals.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        texts.append(path.read_text())
    told = [next(iter(parse(text.encode()).alive.values())) for text in texts]
    assert not any(KEY[i : i + 8] in text for text in texts for i in range(len(KEY) - 8))
    assert told[0].key != told[1].key, "two files of one key can be told to be of one key"
    assert len(told[0].key) == 16, "64 bits: countless keys have the same"
    for entry in told:
        assert made_with(entry, KEY, URL)
        assert made_with(entry, f" {KEY}\n", f"{URL}/ ")
        assert not made_with(entry, KEY + "0", URL)
        assert not made_with(entry, KEY, URL + "/v2")
    first.close()
    second.close()


# -- without one --


async def test_it_can_be_switched_off(journals: Path) -> None:
    assert journal_folder({"RUNWAY_AVATAR_JOURNAL": " OFF "}) is None
    async with journalled(None) as (client, _):
        await client.delete(await client.create(REQUEST))
    assert files(journals) == []


def test_the_folder_is_the_users_own_for_states(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = Path("livekit-plugins-runway/journal")
    monkeypatch.setattr("sys.platform", "linux")
    assert journal_folder({}) == tmp_path / ".local/state" / usual
    assert journal_folder({"XDG_STATE_HOME": "/states"}) == "/states" / usual
    assert journal_folder({"XDG_STATE_HOME": "not/absolute"}) == tmp_path / ".local/state" / usual
    assert journal_folder({"RUNWAY_AVATAR_JOURNAL": "~/mine"}) == tmp_path / "mine"
    monkeypatch.setattr("sys.platform", "darwin")
    assert journal_folder({}) == tmp_path / "Library/Application Support" / usual
    monkeypatch.setattr("sys.platform", "win32")
    assert journal_folder({"LOCALAPPDATA": str(tmp_path)}) == tmp_path / usual


async def test_a_folder_that_cannot_be_written_costs_one_warning_and_no_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    async with journalled(tmp_path / "file" / "journal") as (client, runway):
        for _ in range(3):
            await client.delete(await client.create(REQUEST))
        assert len(runway.deleted) == 3
    (line,) = [r for r in caplog.records if "journal" in r.getMessage()]
    assert "RUNWAY_AVATAR_JOURNAL" in line.getMessage()


async def test_a_full_disk_costs_one_warning_and_keeps_the_lock_on_what_stands_there(
    journals: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with journalled(journals) as (client, _):
        first = await client.create(REQUEST)
        with monkeypatch.context() as patch:
            patch.setattr(Held, "write", full)
            later = [await client.create(REQUEST), await client.create(REQUEST)]
        assert list(contents(journals).alive) == [first]
        (name,) = files(journals)
        assert records.take_over(journals / name) is None
        for session_id in (first, *later):
            await client.delete(session_id)
    assert len([r for r in caplog.records if "journal" in r.getMessage()]) == 1
    assert files(journals) == []


async def test_without_a_lock_on_this_file_system_there_is_no_journal(
    journals: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> bool:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(records, "_lock", no_locks)
    async with journalled(journals) as (client, _):
        await client.delete(await client.create(REQUEST))
    assert files(journals) == []
    assert any("journal" in r.getMessage() for r in caplog.records)


def test_a_sweep_that_takes_a_file_in_the_moment_it_is_made_does_not_get_it(
    journals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making and locking, a sweep may take it for an empty one, and remove it."""
    lock = records._lock
    taken: list[Path] = []

    def late(fd: int) -> bool:
        if not taken:
            (path,) = journals.iterdir()
            taken.append(path)
            path.unlink()
        return lock(fd)

    monkeypatch.setattr(records, "_lock", late)
    kept = journal(journals)
    kept.made(ID, None)
    assert kept.path != taken[0]
    assert list(contents(journals).alive) == [ID]
    kept.close()


# -- what others may have written --


@given(st.binary(max_size=300) | st.text(alphabet='{}[]":,0v1madeended \n', max_size=200))
def test_no_file_can_make_reading_it_fail(data: bytes | str) -> None:
    parse(data.encode() if isinstance(data, str) else data)


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[1]",
        b"null",
        b"[" * 50_000,
        b'{"v": 1}',
        b'{"v": 1, "made": 5, "at": 0, "cap": 1, "api": "", "salt": "", "key": ""}',
        b'{"v": 1, "made": "a\\u0000b", "at": 0, "cap": 1, "api": "", "salt": "", "key": ""}',
        b'{"v": 1, "made": "a", "at": NaN, "cap": 1, "api": "", "salt": "", "key": ""}',
        b'{"v": 1, "made": "a", "at": "now", "cap": 1, "api": "", "salt": "", "key": ""}',
    ],
)
def test_a_damaged_line_is_skipped_and_the_others_are_read(journals: Path, line: bytes) -> None:
    before, after = leave(journals, "one").read_bytes(), leave(journals, "two").read_bytes()
    found = parse(before + line + after)
    assert (list(found.alive), found.damaged) == (["one", "two"], 1)


def test_half_a_line_does_not_spoil_the_one_that_is_written_after_it(journals: Path) -> None:
    path = leave(journals, "one", "two")
    whole = path.read_bytes()
    cut = whole[: -len(whole) // 4]
    path.write_bytes(cut)
    held = records.take_over(path)
    assert held is not None
    held.write(records.ended_line("one", 0.0, "sweep"))
    found = parse(held.read())
    held.close()
    assert (found.alive, found.damaged) == ({}, 1)


# -- processes --


def test_a_forked_child_has_no_part_in_its_parents_journal(journals: Path) -> None:
    parents = journal(journals)
    parents.made("the parent's", None)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            # It makes a session of its own, ends nothing of its parent's, and lets go of nothing.
            parents.ended("the parent's")
            parents.made("the child's", None)
            os.write(writing, b"".join(p.read_bytes() for p in sorted(journals.iterdir())))
            parents.close()
        finally:
            os._exit(0)
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(reading, "rb") as pipe:
        seen = parse(pipe.read())
    assert set(seen.alive) == {"the parent's", "the child's"}
    assert set(contents(journals).alive) == {"the parent's", "the child's"}
    (parents_path,) = [p for p in journals.iterdir() if p == parents.path]
    assert records.take_over(parents_path) is None, "the parent lives"
    parents.close()


async def test_calls_that_runway_refuses_leave_no_entry(journals: Path) -> None:
    async with journalled(journals) as (client, runway):
        runway.script = [Reply(status=401, payload={"error": "no"})]
        with pytest.raises(RunwayException):
            await client.create(REQUEST)
        assert contents(journals).alive == {}
