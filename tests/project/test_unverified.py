"""docs/unverified.md: each unknown has a variant, an option, a probe, and they exist."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from livekit_plugins_runway import AvatarSession, RecoveryOptions
from livekit_plugins_runway.cli.doctor import command
from livekit_plugins_runway.testing import CallFault, Faults, SimulatorOptions, WorkerManners

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/unverified.md"
HEADER = [
    "Unknown",
    "Bad case, in the simulator",
    "Option, default",
    "Probe of `doctor --live`",
    "In a call, in the bad case",
]
CLASSES = {kind.__name__: kind for kind in (CallFault, Faults, SimulatorOptions, WorkerManners)}


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == HEADER
    return cells[2:]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_unknown_has_a_variant_that_the_simulator_has(row: list[str]) -> None:
    assert len(row) == len(HEADER)
    assert all(row)
    variants = code(row[1])
    assert variants
    for variant in variants:
        name, _, argument = variant.partition("(")
        kind, _, field = name.partition("=")[0].rpartition(".")
        if argument:  # CallFault(status=400)
            kind, field = name, argument.partition("=")[0]
        fields = {one.name for one in dataclasses.fields(CLASSES[kind or "WorkerManners"])}
        assert field in fields, variant


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_unknown_has_an_option_with_the_default_that_is_told(row: list[str]) -> None:
    options = code(row[2])
    assert options or row[2] == "none needed"
    of_session = inspect.signature(AvatarSession).parameters
    for option in options:
        name, _, default = option.partition("=")
        if name.startswith("recovery."):
            assert str(getattr(RecoveryOptions(), name.removeprefix("recovery."))) == default
        else:
            parameter = of_session[name]
            assert not default or repr(parameter.default).strip("'\"") == default.strip("'\"")


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_probe_is_in_the_report(row: list[str]) -> None:
    report = inspect.getsource(command._told)
    for probe in code(row[3]):
        if probe in ("datastream", "worker_joined", "consumed", "latency"):
            continue  # within `deliveries` and `stages`
        assert f'"{probe}"' in report, probe


def test_no_variant_of_a_worker_is_missing_on_the_page() -> None:
    named = {variant.partition("=")[0] for row in rows() for variant in code(row[1])}
    assert {one.name for one in dataclasses.fields(WorkerManners)} <= named


def test_each_variant_of_a_worker_is_tried_in_a_test() -> None:
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    used = "".join(path.read_text() for path in tests)
    for one in dataclasses.fields(WorkerManners):
        assert re.search(rf"\b{one.name}=", used), one.name
