"""The guides say what the code does: the official plugin's options, the API reference."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import livekit_plugins_runway as ours
from livekit_plugins_runway.lifecycle import telemetry

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def official() -> ModuleType:
    from livekit.plugins import runway

    assert runway.__version__ == "1.8.9"
    return runway


def parameters(function: object) -> dict[str, inspect.Parameter]:
    assert callable(function)
    found = dict(inspect.signature(function).parameters)
    found.pop("self")
    return found


def test_every_option_of_the_official_plugin_is_one_of_ours(official: ModuleType) -> None:
    for method in ("__init__", "start"):
        theirs = parameters(getattr(official.AvatarSession, method))
        mine = parameters(getattr(ours.AvatarSession, method))
        for name, parameter in theirs.items():
            assert mine[name].kind is parameter.kind, name
            assert mine[name].default == parameter.default, name
    assert set(official.__all__) <= set(ours.__all__)


def test_the_migration_guide_has_every_option_of_the_official_plugin(official: ModuleType) -> None:
    text = (ROOT / "docs" / "migration.md").read_text()
    table = text.partition("| Argument | There | Here |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    constructor = parameters(official.AvatarSession.__init__)
    start = parameters(official.AvatarSession.start)
    assert named == constructor.keys() | {name for name in start if name.startswith("livekit_")}


def test_the_import_line_of_the_migration_guide_works() -> None:
    readme, guide = ((ROOT / name).read_text() for name in ("README.md", "docs/migration.md"))
    [line] = set(re.findall(r"^(import .*)# was: ", readme + guide, re.MULTILINE))
    namespace: dict[str, ModuleType] = {}
    exec(line, namespace)
    assert namespace["runway"] is ours


def test_the_metrics_that_the_guides_name_exist() -> None:
    source = inspect.getsource(telemetry)
    named = set(re.findall(r"`(runway_avatar_[a-z]\w*)`", "".join(g.read_text() for g in GUIDES)))
    assert named
    for name in named:
        assert f'"{name}"' in source, name


@pytest.mark.slow
def test_the_api_reference_builds_without_a_warning(tmp_path: Path) -> None:
    from tools import api_docs  # pdoc takes a while to load

    api_docs.main(tmp_path)
    page = (tmp_path / "livekit_plugins_runway.html").read_text()
    for name in ours.__all__:
        assert f'id="{name}"' in page, name


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_modules_that_it_names_exist(page: str) -> None:
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", (ROOT / page).read_text())
    assert len(named) > 10
    for name in named:
        assert any((root / name).exists() for root in (ROOT, ROOT / ours.__name__)), name
