"""`make matrix`: what it installs, what it runs, and what it says of it."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from livekit_plugins_runway._common.versions import TESTED_LIVEKIT

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def matrix() -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("matrix", ROOT / "tools/matrix.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["matrix"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["matrix"]


def environment(matrix: Any, name: str) -> Any:
    (found,) = [it for it in matrix.ENVIRONMENTS if it.name == name]
    return found


def test_each_version_that_is_declared_as_tested_has_an_environment(matrix: Any) -> None:
    livekit = {it.livekit for it in matrix.ENVIRONMENTS} - {None}
    assert livekit == set(TESTED_LIVEKIT)
    python = {f"Programming Language :: Python :: {it.python}" for it in matrix.ENVIRONMENTS}
    assert python >= {it for it in PROJECT["classifiers"] if ":: Python :: 3" in it}


def test_the_lowest_versions_are_the_declared_ones(matrix: Any) -> None:
    given = ["aiohttp>=3.10,<4", "rich>=13.8", "mcp[cli]>=2.2,<3"]
    assert matrix.lower_bounds(given) == ["aiohttp==3.10", "rich==13.8", "mcp==2.2"]
    (call,) = matrix.installs(environment(matrix, "lowest"))
    assert len([it for it in call if "==" in it]) >= len(PROJECT["dependencies"])
    with pytest.raises(matrix.SetupError, match="'rich'"):
        matrix.lower_bounds(["rich"])


def test_a_version_that_livekit_agents_does_not_pin_is_put_in_its_place(matrix: Any) -> None:
    first, second = matrix.installs(environment(matrix, f"livekit-{TESTED_LIVEKIT[-1]}"))
    assert set(PROJECT["dependencies"]) <= set(first)
    assert second == ["--no-deps", f"livekit=={TESTED_LIVEKIT[-1]}"]


def test_each_file_that_is_run_exists(matrix: Any) -> None:
    for it in matrix.ENVIRONMENTS:
        for step in it.steps:
            for command in matrix.commands(it, step):
                for argument in command:
                    name = argument.removeprefix("--ignore=")
                    assert not name.startswith("tests/") or (ROOT / name).exists(), name


def test_the_counts_of_all_runs_of_a_step_are_added_up(matrix: Any) -> None:
    lines = ["3 failed, 100 passed, 1 rerun in 60.00s (0:01:00)", "20 passed, 2 rerun in 9.00s"]
    assert matrix.summary(matrix.NATIVE, lines) == "3 failed, 120 passed, 3 rerun"
    assert matrix.summary(matrix.QUICK, ["Segmentation fault"]) == "broken off"


@pytest.mark.slow
def test_a_python_that_does_not_exist_is_not_found(matrix: Any) -> None:
    assert matrix.find_python("3.1") is None
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert matrix.find_python(running) is not None


def test_results_outlive_a_run_that_is_broken_off(matrix: Any, tmp_path: Path) -> None:
    it = environment(matrix, "lowest")
    result = matrix.Result(True, "1200 passed", "tree", "abc", "2026-01-01")
    matrix.Store(tmp_path / "results.json").keep(it, matrix.QUICK, result)
    assert matrix.Store(tmp_path / "results.json").result(it, matrix.QUICK) == result


@pytest.mark.slow
def test_the_page_says_what_passed_what_failed_and_what_was_not_run(
    matrix: Any, tmp_path: Path
) -> None:
    store = matrix.Store(tmp_path / "results.json")
    passed = matrix.Result(True, "1200 passed", "tree", "abc", "2026-01-01")
    failed = dataclasses.replace(passed, passed=False, summary="1 failed, 9 passed")
    store.keep(environment(matrix, "lowest"), matrix.QUICK, passed)
    store.keep_versions(environment(matrix, "lowest"), {"Python": "3.11.7", "livekit": "1.1.21"})
    store.keep(environment(matrix, "livekit-1.2.1"), matrix.NATIVE, failed)
    page = matrix.page_text(f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter", store)
    assert page.startswith("before\n")
    assert page.endswith("\nafter")
    assert "old" not in page
    assert "| 3.11.7 | 1.1.21 | 1200 passed |" in page
    assert "**failed**: 1 failed, 9 passed" in page
    assert "not run" in page
    assert "abc, 2026-01-01" in page


@pytest.mark.slow
def test_the_page_keeps_what_another_machine_has_run(matrix: Any, tmp_path: Path) -> None:
    elsewhere, here = (matrix.Store(tmp_path / name) for name in ("elsewhere", "here"))
    passed = matrix.Result(True, "1200 passed", "tree", "abc", "2026-01-01")
    for store, name, version in (
        (elsewhere, "lowest", "3.11.7"),
        (elsewhere, "python-3.12", "3.12.1"),
        (here, "python-3.12", "3.12.9"),
    ):
        store.keep(environment(matrix, name), matrix.QUICK, passed)
        store.keep_versions(environment(matrix, name), {"Python": version, "livekit": "1.1.21"})
    first = matrix.page_text(f"before\n{matrix.BEGIN}\n{matrix.END}\nafter", elsewhere)
    page = matrix.page_text(first, here)
    assert "| lowest declared versions | 3.11.7 | 1.1.21 | 1200 passed |" in page
    assert "| Python 3.12, newest versions | 3.12.9 | 1.1.21 | 1200 passed |" in page
    assert "| Python | 3.12.9 | 3.11.7 |" in page
    assert matrix.page_text(page, here) == page


def test_the_page_has_the_marks_between_which_results_are_written(matrix: Any) -> None:
    text = matrix.PAGE.read_text()
    assert text.count(matrix.BEGIN) == text.count(matrix.END) == 1
