"""README and docs say what the code does: snippets, options, events, errors, files."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import typing
from pathlib import Path

import livekit.agents
import pytest
from livekit import rtc
from livekit.agents import APIConnectOptions
from livekit.agents.types import NotGiven

from livekit_plugins_runway import (
    AvatarSession,
    AvatarState,
    ParticipantOptions,
    RecoveryOptions,
    SessionEnd,
    VideoOptions,
    avatar,
    errors,
    testing,
)
from livekit_plugins_runway.errors import LossReason
from livekit_plugins_runway.events import Event
from livekit_plugins_runway.lifecycle.timings import StageTimings
from livekit_plugins_runway.runway.address import API_SECRET_VARIABLES
from livekit_plugins_runway.runway.journal.writer import VARIABLE
from livekit_plugins_runway.transport.identity import DEFAULT_IDENTITY

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SNIPPETS = [
    pytest.param(snippet, id=f"{path.name}-{index}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for index, snippet in enumerate(
        re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    )
]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def section(text: str, title: str) -> str:
    """The part under a heading of the second level."""
    _, found, rest = text.partition(f"\n## {title}\n")
    assert found, f"there is no section {title!r}"
    return rest.partition("\n## ")[0]


def table(text: str, first: str) -> dict[str, str]:
    """The table whose first column has this title: first cell and second cell."""
    _, found, rest = text.partition(f"\n| {first} |")
    assert found, f"no table of {first!r}"
    lines = rest.split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1] for row in rows}


def names(text: str) -> set[str]:
    """What stands alone between backticks."""
    return set(re.findall(r"`(\w+)`", text))


def arguments(function: object) -> dict[str, inspect.Parameter]:
    assert callable(function)
    found = dict(inspect.signature(function).parameters)
    found.pop("self")
    return found


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_snippet_compiles_and_its_imports_exist(snippet: str) -> None:
    compile(snippet, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.Import | ast.ImportFrom) and "my_" not in ast.unparse(node):
            exec(compile(ast.Module([node], []), "page", "exec"), {})


def test_the_options_are_those_of_the_constructor_with_their_defaults() -> None:
    rows = {
        name.strip("`"): default for name, default in table(page("options"), "Argument").items()
    }
    parameters = arguments(AvatarSession.__init__)
    assert list(rows) == list(parameters)
    for name, parameter in parameters.items():
        if not isinstance(parameter.default, NotGiven | APIConnectOptions):
            assert ast.literal_eval(rows[name].strip("`")) == parameter.default, name
    assert rows["avatar_participant_identity"] == f"`{DEFAULT_IDENTITY}`"


def test_the_recovery_options_are_those_of_the_class_with_their_defaults() -> None:
    rows = {name.strip("`"): default for name, default in table(page("options"), "Option").items()}
    assert {name: ast.literal_eval(default.strip("`")) for name, default in rows.items()} == {
        field.name: field.default for field in dataclasses.fields(RecoveryOptions)
    }


def test_the_video_options_are_those_of_the_class_with_their_defaults() -> None:
    rows = {
        name.strip("`"): default for name, default in table(page("options"), "Video option").items()
    }
    assert {name: ast.literal_eval(default.strip("`")) for name, default in rows.items()} == {
        field.name: field.default for field in dataclasses.fields(VideoOptions)
    }


def test_the_participant_options_are_those_of_the_class_with_their_defaults() -> None:
    rows = table(page("options"), "Participant option")
    shown = {name.strip("`"): ast.literal_eval(cell.strip("`")) for name, cell in rows.items()}
    assert shown == dataclasses.asdict(ParticipantOptions())


def test_the_arguments_of_a_swap_are_those_that_it_names() -> None:
    shown = re.search(r"`await avatar\.swap_avatar\((.*?)\)`", page("options"))
    assert shown
    named = [name for name in re.split(r",\s*", shown[1]) if name != "*"]
    assert named == list(arguments(AvatarSession.swap_avatar))


def test_the_arguments_of_start_are_those_that_it_names() -> None:
    shown = re.search(r"`await avatar\.start\((.*?)\)`", page("options"))
    assert shown
    named = [name for name in re.split(r",\s*", shown[1]) if name != "*"]
    assert named == list(arguments(AvatarSession.start))


def test_the_environment_variables_are_those_that_the_code_reads() -> None:
    named = names(" ".join(table(page("options"), "Environment variable")))
    read = re.findall(r'"((?:RUNWAYML|LIVEKIT)_\w+)"', inspect.getsource(avatar))
    assert named == {*read, *API_SECRET_VARIABLES, VARIABLE}


def test_the_events_states_and_stages_are_those_of_the_session() -> None:
    events = table(page("events"), "Event")
    assert names(" ".join(events)) == {*typing.get_args(Event), "metrics_collected"}
    text = page("events")
    assert {state.value for state in AvatarState} <= names(text)
    assert set(StageTimings.__dataclass_fields__) <= names(text)
    told = re.search(r"`SessionEnd` \| (.*) \|", text)
    assert told
    assert names(told[1]) <= set(SessionEnd.__dataclass_fields__)


def test_the_attributes_exist() -> None:
    for name in names(" ".join(table(page("events"), "Attribute"))):
        assert isinstance(getattr(AvatarSession, name), property), name


def test_every_error_that_it_names_exists_and_every_kind_is_explained() -> None:
    known = {**vars(rtc), **vars(livekit.agents), **vars(errors)}
    told = README + page("failures") + page("troubleshooting") + page("options")
    for name in re.findall(r"\b[A-Z]\w+(?:Error|Exception)\b", told):
        assert issubclass(known[name], Exception), name
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.RunwayException)
    }
    rows = table(page("troubleshooting"), "Symptom").values()
    bases = {"RunwayException", "RequestError"}
    assert names(" ".join(rows)) == kinds - bases
    assert bases <= names(page("troubleshooting"))


def test_every_reason_of_a_loss_is_in_the_table() -> None:
    assert {loss.value for loss in LossReason} <= names(page("failures"))


def test_the_make_targets_that_it_names_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", README))
    assert {"demo", "test"} <= named <= set(targets)


def test_the_options_of_the_readme_are_those_of_the_page() -> None:
    shown = table(README, "Argument of `AvatarSession`")
    defaults = {
        name.strip("`"): default for name, default in table(page("options"), "Argument").items()
    }
    for names_, default in shown.items():
        for name in names(names_):
            assert defaults[name] == default, name


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 250
    assert max(map(len, README.splitlines())) <= 120
    assert len(README.split()) <= 2000


def test_the_review_page_has_twenty_questions_each_with_a_way_to_its_answer() -> None:
    rows = re.findall(r"^\| (\d+) \| .*\? \| (.*) \|$", page("review"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 21))
    linked = set(re.findall(r"\]\(([^)#]+)", README))
    for number, answer in rows:
        (target,) = re.findall(r"\]\(([^)]+)\)", answer)
        if not target.startswith("../README.md#"):  # one look; else one click
            path = (ROOT / "docs" / target.partition("#")[0]).resolve()
            assert str(path.relative_to(ROOT)) in linked, (number, target)


def test_the_layout_is_that_of_the_package() -> None:
    package = ROOT / "livekit_plugins_runway"
    layout = section((ROOT / "CONTRIBUTING.md").read_text(), "The folders").split("```")[1]
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    modules |= {path.name for path in ROOT.glob("*.py")}
    assert set(re.findall(r"\w+\.py", layout)) == modules
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert set(re.findall(r"^  (?:log\.py )?(\w+)/", layout, re.MULTILINE)) == rooms
    outside = set(re.findall(r"(\w+)/", layout.splitlines()[-1]))
    assert outside == {"examples", "demo", "bench", "tools", "tests"}
    assert all((ROOT / name).is_dir() for name in outside)


def test_the_faults_that_it_names_can_be_switched_on() -> None:
    rows = re.findall(r"^\| .*`runway_simulator\.sessions`.*\|$", page("testing"), re.MULTILINE)
    methods = re.findall(r"`(\w+)\(\)`", " ".join(rows))
    assert "crash" in methods
    for name in methods:
        assert callable(getattr(testing.SimulatedSession, name)), name
