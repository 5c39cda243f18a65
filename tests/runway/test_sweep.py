"""What killed processes have left is ended by whoever comes next, once, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from livekit_plugins_runway.errors import RunwayException, UnavailableError
from livekit_plugins_runway.events import SessionEnd
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.journal import records
from livekit_plugins_runway.runway.journal.keeper import Keeper
from livekit_plugins_runway.runway.journal.sweep import Outcome, Sweep, Swept, look
from livekit_plugins_runway.testing import RunwaySimulator, SessionStatus, SimulatorOptions
from tests.support.journals import KEY, URL, files, journal, leave, until
from tests.support.mortal import Mortal, mortal

pytestmark = pytest.mark.slow

MOMENT = 20.0
"""Seconds within which a thing must happen; usually it takes a fraction of one."""


class Deleted:
    """Stands for the client: writes down what it was to end."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.failing: dict[str, RunwayException] = {}
        self.told: list[Swept] = []
        self.gate: asyncio.Event | None = None

    async def delete(self, session_id: str) -> None:
        self.ids.append(session_id)
        if self.gate is not None:
            await self.gate.wait()
        if error := self.failing.get(session_id):
            raise error

    def sweep(self, key: str = KEY, url: str = URL) -> Sweep:
        return Sweep(key, url, self.delete, self.told.append)

    async def run(self, folder: Path) -> dict[str, Outcome]:
        return {s.entry.session_id: s.outcome for s in await self.sweep().run(folder)}


@pytest.fixture
def runway() -> Deleted:
    return Deleted()


def quick() -> SimulatorOptions:
    return SimulatorOptions(queue_delay=0.0, provisioning_delay=0.0, consumed_running_delay=0.0)


# -- what is ended --


async def test_a_dead_process_s_sessions_are_ended_told_and_forgotten(
    journals: Path, runway: Deleted, caplog: pytest.LogCaptureFixture
) -> None:
    leave(journals, "one", "two", age=40.0)
    leave(journals, "three")
    assert await runway.run(journals) == {"one": "ended", "two": "ended", "three": "ended"}
    assert sorted(runway.ids) == ["one", "three", "two"]
    assert files(journals) == []
    ends = {swept.entry.session_id: swept.session_end() for swept in runway.told}
    assert set(ends) == {"one", "two", "three"}
    end = ends["one"]
    assert (end.how, end.confirmed, end.estimated, end.status) == ("swept", True, True, None)
    assert end.created_at is not None
    assert end.billed_seconds == pytest.approx(end.ended_at - end.created_at)
    assert end.billed_seconds >= 40.0
    lines = [r for r in caplog.records if "killed process had left" in r.getMessage()]
    assert len(lines) == 3
    assert all(vars(line)["how"] == "swept" for line in lines)


async def test_sessions_of_another_key_or_address_are_left_to_whoever_can_end_them(
    journals: Path, runway: Deleted
) -> None:
    mine = leave(journals, "mine")
    leave(journals, "another key", key=KEY + "0")
    leave(journals, "elsewhere", url="https://staging.runway.test")
    assert await runway.run(journals) == {
        "mine": "ended",
        "another key": "other key",
        "elsewhere": "other key",
    }
    assert runway.ids == ["mine"]
    assert len(files(journals)) == 2
    assert not mine.exists()
    other = Deleted()
    await other.sweep(key=KEY + "0").run(journals)
    await other.sweep(url="https://staging.runway.test/").run(journals)
    assert other.ids == ["another key", "elsewhere"]
    assert files(journals) == []


async def test_what_a_living_process_has_is_not_touched(journals: Path, runway: Deleted) -> None:
    living = journal(journals)
    living.made("alive", None)
    leave(journals, "dead")
    assert await runway.run(journals) == {"dead": "ended"}
    assert [entry.session_id for entry in look(journals)] == []
    living.close()
    assert await runway.run(journals) == {"alive": "ended"}


async def test_what_cannot_be_ended_is_left_to_the_next_sweep(
    journals: Path, runway: Deleted
) -> None:
    leave(journals, "one", "two", "three")
    runway.failing = {"two": UnavailableError("no way there")}
    found = await runway.run(journals)
    assert found == {"one": "ended", "two": "failed", "three": "ended"}
    assert [swept.entry.session_id for swept in runway.told] == ["one", "three"]
    runway.failing, runway.ids = {}, []
    assert await runway.run(journals) == {"two": "ended"}
    assert runway.ids == ["two"]
    assert files(journals) == []


async def test_what_runway_has_ended_long_ago_is_dropped(journals: Path, runway: Deleted) -> None:
    over = 300.0 + records.MARGIN
    leave(journals, "long ago", age=over + 1.0)
    leave(journals, "not for sure", age=over - 60.0)
    leave(journals, "long ago, another's", age=over + 1.0, key=KEY + "0")
    found = await runway.run(journals)
    assert found == {
        "long ago": "expired",
        "not for sure": "ended",
        "long ago, another's": "expired",
    }
    assert runway.ids == ["not for sure"]
    assert runway.told[0].session_end().billed_seconds == 300.0
    assert files(journals) == []


async def test_a_clock_that_was_set_back_drops_nothing(journals: Path, runway: Deleted) -> None:
    leave(journals, "from the future", age=-86_400.0)
    assert await runway.run(journals) == {"from the future": "ended"}
    assert runway.told[0].session_end().billed_seconds == 0.0


async def test_what_the_guardian_has_ended_is_told_and_not_ended_again(
    journals: Path, runway: Deleted
) -> None:
    leave(journals, "one", age=50.0, ended_by_guardian=True)
    leave(journals, "another's", key=KEY + "0", ended_by_guardian=True)
    assert await runway.run(journals) == {"one": "ended"}
    assert runway.ids == []
    (end,) = (swept.session_end() for swept in runway.told)
    assert end.how == "swept"
    assert end.billed_seconds == pytest.approx(1.0)
    assert len(files(journals)) == 1
    await runway.run(journals)
    assert len(runway.told) == 1, "told once"


# -- several at once, and in between --


async def test_of_two_sweeps_at_once_one_ends_each_session(journals: Path) -> None:
    for n in range(20):
        leave(journals, f"{n} a", f"{n} b")
    first, second = Deleted(), Deleted()
    first.gate = second.gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, first.gate.set)
    await asyncio.gather(first.sweep().run(journals), second.sweep().run(journals))
    together = first.ids + second.ids
    assert sorted(together) == sorted(f"{n} {part}" for n in range(20) for part in "ab")
    assert files(journals) == []


async def test_a_sweep_that_waited_for_the_file_of_another_finds_it_done(
    journals: Path, runway: Deleted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was opened before the other had removed it, and locked after that."""
    path = leave(journals, "one")
    lock = records._lock

    def late(fd: int) -> bool:
        path.unlink(missing_ok=True)
        return lock(fd)

    monkeypatch.setattr(records, "_lock", late)
    assert await runway.run(journals) == {}
    assert runway.ids == []


async def test_a_sweep_that_is_cut_short_leaves_what_it_has_not_done(
    journals: Path, runway: Deleted
) -> None:
    leave(journals, "one", "two")
    runway.gate = asyncio.Event()
    sweeping = asyncio.create_task(runway.sweep().run(journals))
    await until(lambda: len(runway.ids) == 2)
    sweeping.cancel()
    await asyncio.wait({sweeping})
    assert sweeping.cancelled()
    assert await Deleted().run(journals) == {"one": "ended", "two": "ended"}


async def test_a_keeper_sweeps_once_in_the_background_and_is_closed_at_any_time(
    journals: Path, runway: Deleted
) -> None:
    leave(journals, "one")
    runway.gate = asyncio.Event()
    keeper = Keeper(KEY, URL, journals)
    for _ in range(2):
        keeper.sweep(runway.delete)
    await until(lambda: runway.ids)
    await keeper.aclose()
    await keeper.aclose()
    assert runway.ids == ["one"]
    assert len(files(journals)) == 1


async def test_a_folder_that_does_not_exist_has_nothing_to_sweep(
    journals: Path, runway: Deleted
) -> None:
    assert await runway.run(journals) == {}
    assert files(journals) == []


# -- files of others --


def link(path: Path) -> None:
    path.symlink_to(leave(path.parent.parent, "linked", name="elsewhere.jsonl"))


def hard_link(path: Path) -> None:
    os.link(leave(path.parent.parent, "linked", name="elsewhere.jsonl"), path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def huge(path: Path) -> None:
    leave(path.parent, "huge", name=path.name)
    os.truncate(path, records.LARGEST + 1)


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def anothers(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    leave(path.parent, "another user's", name=path.name)
    os.chown(path, 65534, 65534)


@pytest.mark.parametrize("make", [link, hard_link, pipe, folder, huge, dangling, anothers])
async def test_a_file_that_no_journal_has_written_is_not_followed(
    journals: Path, runway: Deleted, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None]
) -> None:
    leave(journals, "mine", name="2-b.jsonl")
    make(journals / "1-a.jsonl")
    assert await runway.run(journals) == {"mine": "ended"}
    assert files(journals) == ["1-a.jsonl"]
    assert any("is ignored" in record.getMessage() for record in caplog.records)
    assert [entry.session_id for entry in look(journals)] == []


async def test_a_damaged_file_is_told_and_does_not_keep_the_rest_from_being_ended(
    journals: Path, runway: Deleted, caplog: pytest.LogCaptureFixture
) -> None:
    path = leave(journals, "one", "two")
    path.write_bytes(path.read_bytes() + b'{"v": 1, "made": "thr')
    assert await runway.run(journals) == {"one": "ended", "two": "ended"}
    assert any("damaged" in record.getMessage() for record in caplog.records)
    assert files(journals) == []


async def test_what_a_later_version_has_written_is_left_to_it_for_a_day(
    journals: Path, runway: Deleted
) -> None:
    path = leave(journals, "one")
    path.write_bytes(path.read_bytes() + b'{"v": 2, "begun": "x"}\n')
    assert await runway.run(journals) == {"one": "ended"}
    assert files(journals) == [path.name]
    old = time.time() - records.FORGOTTEN - 1.0
    os.utime(path, (old, old))
    assert await runway.run(journals) == {}
    assert files(journals) == []


# -- real processes --


def left_alone(
    simulator: RunwaySimulator, folder: Path, **options: Any
) -> AbstractAsyncContextManager[Mortal]:
    """A process without a guardian."""
    return mortal(simulator.api_secret, simulator.url, folder, guardian=False, **options)


async def ended(simulator: RunwaySimulator, ids: list[str]) -> None:
    sessions = [simulator.sessions[session_id] for session_id in ids]
    await simulator.wait_until(
        lambda: all(session.status is SessionStatus.CANCELLED for session in sessions), MOMENT
    )


async def _sweep(simulator: RunwaySimulator, folder: Path) -> list[SessionEnd]:
    """As the next start on the machine does."""
    told: list[SessionEnd] = []
    client = RunwayClient(simulator.api_secret, base_url=simulator.url)
    try:
        sweep = Sweep(
            simulator.api_secret,
            simulator.url,
            client.delete,
            lambda swept: told.append(swept.session_end()),
        )
        await sweep.run(folder)
    finally:
        await client.aclose()
    return told


async def test_the_next_one_ends_what_a_process_that_was_killed_has_left(journals: Path) -> None:
    async with RunwaySimulator(options=quick()) as simulator:
        async with left_alone(simulator, journals, sessions=2) as one:
            assert await _sweep(simulator, journals) == [], "it lives"
            await one.kill()
            assert len(simulator.leaked()) == 2
            told = await _sweep(simulator, journals)
        assert {end.session_id for end in told} == set(one.sessions)
        await ended(simulator, one.sessions)
        assert files(journals) == []


async def test_a_process_that_ends_in_good_order_leaves_no_file(journals: Path) -> None:
    async with RunwaySimulator(options=quick()) as simulator:
        async with left_alone(simulator, journals, sessions=2) as one:
            assert len(files(journals)) == 1
            await one.close()
        assert files(journals) == []
        assert simulator.leaked() == []


async def test_a_forked_child_that_outlives_it_does_not_make_it_look_alive(journals: Path) -> None:
    async with (
        RunwaySimulator(options=quick()) as simulator,
        left_alone(simulator, journals, fork=True) as one,
    ):
        assert await _sweep(simulator, journals) == [], "it lives, and so does its child"
        await one.kill()
        os.kill(one.child, 0)  # still there
        assert [end.session_id for end in await _sweep(simulator, journals)] == one.sessions
