"""`make test` runs all four parts, and none of their failures is lost."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from tools import run_tests


@pytest.mark.parametrize(
    ("codes", "exit_code"),
    [([0, 0, 0, 0], 0), ([0, 0, 0, 3], 3), ([1, 0, 0, 0], 1), ([0, 0, 2, 1], 2)],
)
@pytest.mark.parametrize("arguments", [[], ["--coverage"]])
def test_each_part_runs_and_the_first_failure_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, codes: list[int], exit_code: int, arguments: list[str]
) -> None:
    selected: list[str] = []
    left = iter(codes)

    def run(command: list[str]) -> SimpleNamespace:
        selected.append(command[command.index("-m", 2) + 1])
        return SimpleNamespace(returncode=next(left))

    monkeypatch.setattr(subprocess, "run", run)
    assert run_tests.main(arguments) == exit_code
    without = ["not server and not slow", "not server and slow"]
    assert selected == [*without, "server and not heavy", "server and heavy"]
