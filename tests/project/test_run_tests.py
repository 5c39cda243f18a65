"""`make test` runs all its parts, and none of their failures is lost."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from tests.support.rerun_budget import EXCEEDED
from tools import run_tests

PARTS = ["not server and not slow", "not server and slow", "server and not heavy"]


class Runs:
    """Stands in for pytest: each run ends with the next one of these codes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, codes: list[int]) -> None:
        self.commands: list[list[str]] = []
        self._codes = iter(codes)
        monkeypatch.setattr(subprocess, "run", self._run)

    def _run(self, command: list[str]) -> SimpleNamespace:
        self.commands.append(command)
        return SimpleNamespace(returncode=next(self._codes))

    @property
    def selected(self) -> list[str]:
        return [command[command.index("-m", 2) + 1] for command in self.commands]


@pytest.mark.parametrize(
    ("codes", "exit_code"),
    [([0, 0, 0, 0], 0), ([0, 0, 0, 3], 3), ([1, 0, 0, 0], 1), ([0, 2, EXCEEDED, 3], 2)],
)
def test_each_part_runs_and_the_first_failure_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, codes: list[int], exit_code: int
) -> None:
    runs = Runs(monkeypatch, codes)
    assert run_tests.main([]) == exit_code
    assert runs.selected == [*PARTS, "server and heavy"]


@pytest.mark.parametrize("alone", [0, 1])
@pytest.mark.parametrize("failed", [2, 3], ids=["of media", "heavy"])
def test_what_fails_beside_another_call_is_repeated_by_itself(
    monkeypatch: pytest.MonkeyPatch, failed: int, alone: int
) -> None:
    codes = [0, 0, 0, 0]
    codes[failed : failed + 1] = [1, alone]
    runs = Runs(monkeypatch, codes)
    assert run_tests.main([]) == alone
    parts = [*PARTS, "server and heavy"]
    assert runs.selected == [*parts[: failed + 1], *parts[failed:]]
    assert "-n" in runs.commands[failed]
    assert "-n" not in runs.commands[failed + 1]
    assert "--last-failed" in runs.commands[failed + 1]


@pytest.mark.parametrize(("codes", "exit_code"), [([0, 0, 0], 0), ([0, 0, 1], 1), ([2, 0, 0], 2)])
def test_coverage_takes_the_calls_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch, codes: list[int], exit_code: int
) -> None:
    runs = Runs(monkeypatch, codes)
    assert run_tests.main(["--coverage"]) == exit_code
    assert runs.selected == PARTS
    assert "-n" not in runs.commands[2]
