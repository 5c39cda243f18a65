"""What somebody orders in JSON, as the options and faults that a test in Python would make."""

from __future__ import annotations

import json
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ..options import Faults, SimulatorOptions

_T = TypeVar("_T")
_MOST_TOLD = 3


class WrongOrder(ValueError):
    """What is wrong, on one line."""


def faults_of(given: Any) -> Faults:
    """From `{"create": [503], "get": [{"hang": "before_effect"}], "rpc_delay": 3}`.

    Raises:
        WrongOrder: an unknown name, or a value that cannot be meant.
    """
    return _valid(Faults, given, "faults")


def option_of(assignment: str) -> tuple[str, Any]:
    """From `credits=0`: the name of one of `SimulatorOptions`, and its value, written in JSON.

    Raises:
        WrongOrder: an unknown name, or a value that cannot be meant.
    """
    name, sign, text = assignment.partition("=")
    kinds = get_type_hints(SimulatorOptions)
    if not sign or name not in kinds:
        raise WrongOrder(f"{name!r} is no option; there are: {', '.join(sorted(kinds))}")
    try:
        value = json.loads(text)
    except ValueError:
        value = text  # speech=track
    return name, _valid(kinds[name], value, name)


def _valid(kind: type[_T], given: Any, what: str) -> _T:
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
    told = [f"{_place(what, one['loc'])}: {one['msg']}" for one in found[:_MOST_TOLD]]
    raise WrongOrder("; ".join(told))


def _place(what: str, path: tuple[int | str, ...]) -> str:
    return ".".join([what, *map(str, path)])
