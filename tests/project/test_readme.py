"""The README says what the code does: snippets, options, events, errors, files."""

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
from livekit_plugins_runway.runway.journal.writer import VARIABLE
from livekit_plugins_runway.transport.identity import DEFAULT_IDENTITY
from tests.project.test_docs import headings as headings_of

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def section(title: str) -> str:
    """The text under a heading of the second level."""
    _, found, rest = README.partition(f"\n## {title}\n")
    assert found, f"the README has no section {title!r}"
    return rest.partition("\n## ")[0]


def table(title: str, first: str) -> dict[str, str]:
    """The table of a section whose first column has this title: first cell and second cell."""
    _, found, rest = section(title).partition(f"\n| {first} |")
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
    compile(snippet, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), "README.md", "exec"), {})


def test_the_options_are_those_of_the_constructor_with_their_defaults() -> None:
    rows = {name.strip("`"): default for name, default in table("Options", "Argument").items()}
    parameters = arguments(AvatarSession.__init__)
    assert list(rows) == list(parameters)
    for name, parameter in parameters.items():
        if not isinstance(parameter.default, NotGiven | APIConnectOptions):
            assert ast.literal_eval(rows[name].strip("`")) == parameter.default, name
    assert rows["avatar_participant_identity"] == f"`{DEFAULT_IDENTITY}`"


def test_the_recovery_options_are_those_of_the_class_with_their_defaults() -> None:
    rows = {name.strip("`"): default for name, default in table("Options", "Option").items()}
    assert {name: ast.literal_eval(default.strip("`")) for name, default in rows.items()} == {
        field.name: field.default for field in dataclasses.fields(RecoveryOptions)
    }


def test_the_video_options_are_those_of_the_class_with_their_defaults() -> None:
    rows = {name.strip("`"): default for name, default in table("Options", "Video option").items()}
    assert {name: ast.literal_eval(default.strip("`")) for name, default in rows.items()} == {
        field.name: field.default for field in dataclasses.fields(VideoOptions)
    }


def test_the_participant_options_are_those_of_the_class_with_their_defaults() -> None:
    rows = table("Options", "Participant option")
    shown = {name.strip("`"): ast.literal_eval(cell.strip("`")) for name, cell in rows.items()}
    assert shown == dataclasses.asdict(ParticipantOptions())


def test_the_arguments_of_a_swap_are_those_that_it_names() -> None:
    shown = re.search(r"`await avatar\.swap_avatar\((.*?)\)`", section("Options"))
    assert shown
    named = [name for name in re.split(r",\s*", shown[1]) if name != "*"]
    assert named == list(arguments(AvatarSession.swap_avatar))


def test_the_arguments_of_start_are_those_that_it_names() -> None:
    shown = re.search(r"`await avatar\.start\((.*?)\)`", section("Options"))
    assert shown
    named = [name for name in re.split(r",\s*", shown[1]) if name != "*"]
    assert named == list(arguments(AvatarSession.start))


def test_the_environment_variables_are_those_that_the_code_reads() -> None:
    named = names(" ".join(table("Options", "Environment variable")))
    read = re.findall(r'"((?:RUNWAYML|LIVEKIT)_\w+)"', inspect.getsource(avatar))
    assert named == {*read, VARIABLE}


def test_the_events_states_and_stages_are_those_of_the_session() -> None:
    events = table("Events and attributes", "Event")
    assert names(" ".join(events)) == {*typing.get_args(Event), "metrics_collected"}
    text = section("Events and attributes")
    assert {state.value for state in AvatarState} <= names(text)
    assert set(StageTimings.__dataclass_fields__) <= names(text)
    told = re.search(r"`SessionEnd` \| (.*) \|", text)
    assert told
    assert names(told[1]) <= set(SessionEnd.__dataclass_fields__)


def test_the_attributes_exist() -> None:
    for name in names(" ".join(table("Events and attributes", "Attribute"))):
        assert isinstance(getattr(AvatarSession, name), property), name


def test_every_error_that_it_names_exists_and_every_kind_is_explained() -> None:
    known = {**vars(rtc), **vars(livekit.agents), **vars(errors)}
    for name in re.findall(r"\b[A-Z]\w+(?:Error|Exception)\b", README):
        assert issubclass(known[name], Exception), name
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.RunwayException)
    }
    rows = table("Troubleshooting", "Symptom").values()
    bases = {"RunwayException", "RequestError"}
    assert names(" ".join(rows)) == kinds - bases
    assert bases <= names(section("Troubleshooting"))


def test_every_reason_of_a_loss_is_in_the_table() -> None:
    assert {loss.value for loss in LossReason} <= names(section("When something fails"))


def test_the_files_and_make_targets_that_it_names_exist() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README):
        name, _, heading = target.partition("#")
        assert (ROOT / name).exists(), target
        assert not heading or heading in headings_of(ROOT / name), target
    headings = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^## (.+)$", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake (demo|test|check|docs)\b", README)) <= set(targets)


def test_the_layout_is_that_of_the_package() -> None:
    package = ROOT / "livekit_plugins_runway"
    layout = section("Development").split("```")[1]
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    modules |= {path.name for path in ROOT.glob("*.py")}
    assert set(re.findall(r"\w+\.py", layout)) == modules
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert set(re.findall(r"^  (?:log\.py )?(\w+)/", layout, re.MULTILINE)) == rooms
    outside = set(re.findall(r"(\w+)/", layout.splitlines()[-1]))
    assert outside == {"examples", "demo", "bench", "tools", "tests"}
    assert all((ROOT / name).is_dir() for name in outside)


def test_the_faults_that_it_names_can_be_switched_on() -> None:
    text = section("Test your own agent")
    for name in re.findall(r"`(\w+)\(\)`", text):
        assert callable(getattr(testing.SimulatedSession, name)), name
    assert {"Faults", "SimulatorOptions"} <= names(text) & set(testing.__all__)
