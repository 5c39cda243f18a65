"""What a call has found out of an account is known to the next one, and to no other account's."""

from __future__ import annotations

import json
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from livekit_plugins_runway import LearnedTransports
from livekit_plugins_runway.errors import ConfigurationError
from livekit_plugins_runway.transport.auto.learned import AccountMemory, Learned

DIRECT, BRIDGE = Learned("direct", "datastream"), Learned("bridge", "track")
ACCOUNT = "key-of-runway", "https://api.test", "wss://livekit.test"


def test_the_next_call_of_the_same_account_knows_it() -> None:
    learned = LearnedTransports()
    AccountMemory(learned, *ACCOUNT).note(DIRECT)
    assert AccountMemory(learned, *ACCOUNT).recall() == DIRECT
    assert AccountMemory(learned, *ACCOUNT[:2], "wss://other.test").recall() is None
    assert AccountMemory(learned, "another key", *ACCOUNT[1:]).recall() is None


def test_without_it_nothing_is_kept() -> None:
    memory = AccountMemory(None, *ACCOUNT)
    memory.note(DIRECT)
    memory.forget()
    assert memory.recall() is None


def test_what_was_wrong_is_forgotten() -> None:
    memory = AccountMemory(LearnedTransports(), *ACCOUNT)
    memory.note(DIRECT)
    memory.forget()
    assert memory.recall() is None
    memory.note(BRIDGE)
    assert memory.recall() == BRIDGE


def test_a_file_is_read_by_other_processes_and_names_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "state" / "transports.json"
    AccountMemory(LearnedTransports(path), *ACCOUNT).note(DIRECT)
    assert AccountMemory(LearnedTransports(path), *ACCOUNT).recall() == DIRECT
    assert not [secret for secret in ACCOUNT if secret in path.read_text()]
    assert [left.name for left in path.parent.iterdir()] == [path.name]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_process_may_have_written_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "transports.json"
    first, second = LearnedTransports(path), LearnedTransports(path)
    AccountMemory(first, "a").note(DIRECT)
    AccountMemory(second, "b").note(BRIDGE)
    assert AccountMemory(first, "a").recall() == DIRECT
    assert AccountMemory(first, "b").recall() == BRIDGE
    AccountMemory(second, "a").forget()
    assert AccountMemory(first, "a").recall() is None


def test_what_is_a_week_old_is_found_out_anew(tmp_path: Path) -> None:
    path = tmp_path / "transports.json"
    memory = AccountMemory(LearnedTransports(path), *ACCOUNT)
    memory.note(DIRECT)
    told = json.loads(path.read_text())
    for age, known in ((6 * 86_400, DIRECT), (8 * 86_400, None), (-3600, None)):
        for entry in told.values():
            entry["noted_at"] = time.time() - age
        path.write_text(json.dumps(told))
        assert memory.recall() == known


@pytest.mark.parametrize(
    "text", ["", "[]", "7", '{"a": 1}', '{"a": {"transport": "x"}}', "\x00", '{"a": {}}']
)
def test_a_file_that_makes_no_sense_is_done_without(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "transports.json"
    path.write_text(text)
    memory = AccountMemory(LearnedTransports(path), *ACCOUNT)
    assert memory.recall() is None
    assert "could not be read" in caplog.text
    memory.note(DIRECT)
    assert memory.recall() == DIRECT


def test_a_file_that_cannot_be_written_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    memory = AccountMemory(LearnedTransports(in_the_way / "transports.json"), *ACCOUNT)
    memory.note(DIRECT)
    assert "could not be written" in caplog.text


def test_writers_at_the_same_time_leave_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "transports.json"

    def write(account: str) -> None:
        for _ in range(20):
            LearnedTransports(path).note(account, DIRECT)

    writers = [threading.Thread(target=write, args=(str(n),)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert json.loads(path.read_text())
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def test_it_is_kept_beside_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWAY_AVATAR_JOURNAL", str(tmp_path))
    LearnedTransports.on_this_machine().note("a", DIRECT)
    assert (tmp_path / "transports.json").exists()
    monkeypatch.setenv("RUNWAY_AVATAR_JOURNAL", "off")
    with pytest.raises(ConfigurationError, match="RUNWAY_AVATAR_JOURNAL"):
        LearnedTransports.on_this_machine()
