"""docs/sdk-quirks.md: what it names exists, and each quirk that the package mentions is on it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "livekit_plugins_runway"
PAGE = (ROOT / "docs/sdk-quirks.md").read_text()
ROWS = [row for row in PAGE.splitlines() if row.startswith("| ") and "`" in row]
MENTION = re.compile(r"\blivekit 1\.\d")
"""How the package's comments name the version of the SDK with which a quirk was seen."""


def test_each_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) >= 12
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text())
        tests = {
            n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in tests, f"{path}::{name}"


def test_each_quirk_has_a_test_or_says_why_not() -> None:
    assert len(ROWS) >= 12
    for row in ROWS:
        quirk, _where, shown = row.strip("| ").split(" | ")
        assert "::test_" in shown or "no test" in shown, quirk


@pytest.mark.parametrize(
    "module",
    [p for p in sorted(PACKAGE.rglob("*.py")) if MENTION.search(p.read_text())],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_each_module_that_mentions_a_version_of_the_sdk_is_on_the_page(module: Path) -> None:
    name = f"`{module.relative_to(PACKAGE)}`"
    there = sum(name in row for row in ROWS)
    # One row for each mention; a quirk that is mentioned twice in a module has one.
    assert there >= len(MENTION.findall(module.read_text())), name


def test_each_module_that_the_page_names_exists() -> None:
    named = re.findall(
        r"`((?:cli|lifecycle|media|playout|runway|serve|testing|transport)/[\w/]+\.py)`", PAGE
    )
    assert len(named) >= 12
    for name in named:
        assert (PACKAGE / name).is_file(), name
