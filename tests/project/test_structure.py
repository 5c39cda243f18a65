"""The package stays a house of few rooms on few floors: counted from its imports.

A box is a module or package directly in the package, its `__init__` too; an arrow, that one box
imports from another. Imports for type checkers alone are none. Which way each may go is said to
import-linter, in `pyproject.toml`.
"""

from __future__ import annotations

from collections import Counter
from graphlib import TopologicalSorter

import grimp
import pytest

NAME = "livekit_plugins_runway"
MOST_BOXES, MOST_ARROWS, MOST_FLOORS, MOST_MODULES = 15, 60, 7, 14

Boxes = dict[str, set[str]]
"""What each box imports from."""


def box_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(NAME, exclude_type_checking_imports=True, cache_dir=None)


@pytest.fixture(scope="module")
def boxes(graph: grimp.ImportGraph) -> Boxes:
    found = {box_of(module): set[str]() for module in graph.modules}
    for module in graph.modules:
        imported = map(box_of, graph.find_modules_directly_imported_by(module))
        found[box_of(module)] |= set(imported) - {box_of(module)}
    return found


def test_boxes_and_arrows_are_few(boxes: Boxes) -> None:
    arrows = sorted((box, other) for box, others in boxes.items() for other in others)
    assert len(boxes) <= MOST_BOXES, sorted(boxes)
    assert len(arrows) <= MOST_ARROWS, arrows


def test_no_circle_and_few_floors(boxes: Boxes) -> None:
    floor: dict[str, int] = {}
    for box in TopologicalSorter(boxes).static_order():  # raises `CycleError`
        floor[box] = 1 + max((floor[other] for other in boxes[box]), default=0)
    assert max(floor.values()) <= MOST_FLOORS, sorted(floor.items(), key=lambda at: at[1])


def test_no_room_is_crowded(graph: grimp.ImportGraph) -> None:
    """Its `__init__` counts; what is in a package in it counts there."""
    modules = Counter(
        module if graph.find_children(module) else module.rpartition(".")[0]
        for module in graph.modules
    )
    crowded = {room: number for room, number in modules.items() if number > MOST_MODULES}
    assert not crowded
