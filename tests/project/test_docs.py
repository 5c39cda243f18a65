"""The guides say what the code does: the official plugin's options, the API reference."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import livekit_plugins_runway as ours
from livekit_plugins_runway.events import AvatarState
from livekit_plugins_runway.lifecycle import state, supervisor, telemetry
from livekit_plugins_runway.serve import metrics as serve_metrics
from tools import docs_site

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
    source = inspect.getsource(telemetry) + inspect.getsource(serve_metrics)
    named = set(re.findall(r"`(runway_avatar_[a-z]\w*)`", "".join(g.read_text() for g in GUIDES)))
    assert named
    for name in named:
        assert f'"{name}"' in source, name


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_has_the_whole_api(tmp_path: Path) -> None:
    assert docs_site.main(tmp_path) == 0
    page = (tmp_path / "api" / "index.html").read_text()
    for name in set(ours.__all__) - {"__version__"}:
        assert f'id="livekit_plugins_runway.{name}"' in page, name


def test_every_page_of_the_docs_is_in_the_site() -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"- docs/{page.name}\n" in config, page.name
    for module in docs_site.API:
        name = "index" if "." not in module else module.partition(".")[2]
        assert f"- api/{name}.md\n" in config, module


def test_a_link_to_a_file_that_is_no_page_leads_to_a_page_that_shows_it(tmp_path: Path) -> None:
    root, pages = tmp_path / "root", tmp_path / "pages"
    for name, text in {
        "README.md": "[a](docs/a.md#b), [x](examples/x.py), [all](examples), [web](https://a.b/c)",
        "CHANGELOG.md": "",
        "CONTRIBUTING.md": "",
        "docs/a.md": "[x](../examples/x.py), ![p](p.png), [gone](nowhere.md)",
        "docs/p.png": "",
        "examples/x.py": "print()\n",
        "examples/.env": "not shown",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    docs_site.lay_out(root, pages)

    assert (pages / "README.md").read_text() == (
        "[a](docs/a.md#b), [x](examples/x.py.md), [all](examples/index.md), [web](https://a.b/c)"
    )
    assert (pages / "docs/a.md").read_text() == (
        "[x](../examples/x.py.md), ![p](p.png), [gone](nowhere.md)"
    )
    assert "````python\nprint()\n````" in (pages / "examples/x.py.md").read_text()
    assert (pages / "examples/index.md").read_text().endswith("- [x.py](x.py.md)\n")


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_modules_that_it_names_exist(page: str) -> None:
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", (ROOT / page).read_text())
    assert len(named) > 10
    for name in named:
        assert any((root / name).exists() for root in (ROOT, ROOT / ours.__name__)), name


def drawn(first: str) -> set[tuple[str, str]]:
    """The steps of the state diagram of architecture.md that follows these words."""
    _, found, rest = (ROOT / "docs/architecture.md").read_text().partition(first)
    assert found
    diagram = rest.partition("stateDiagram-v2")[2].partition("```")[0]
    return set(re.findall(r"^  (\w+) --> (\w+)", diagram, re.MULTILINE))


def test_the_steps_that_are_drawn_are_those_that_the_states_allow() -> None:
    assert drawn("`AvatarState` (") == {
        (old.value, new.value)
        for old, steps in state.ALLOWED.items()
        for new in steps - {AvatarState.CLOSED}
    }
    allowed = {
        (old.value, new.value) for old, steps in supervisor._ALLOWED.items() for new in steps
    }
    assert drawn("`Phase` (`lifecycle/supervisor.py`") < allowed


def test_no_sequence_diagram_has_a_semicolon() -> None:
    for guide in GUIDES:  # it ends a statement, and GitHub shows an error in place of the diagram
        for diagram in re.findall(r"```mermaid\nsequence(.*?)```", guide.read_text(), re.DOTALL):
            assert ";" not in diagram, guide.name
