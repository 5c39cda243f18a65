"""What somebody orders in JSON, as the options and faults that a test in Python would make."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ..options import STRICT, CallFault, Faults, SimulatorOptions
from ..simulator.account.entries import MadeKind, SimulatedAccount

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


@dataclass(frozen=True, kw_only=True)
class AccountFaults:
    """What goes wrong with the account: each is used up.

    Attributes:
        avatar, voice, task: why the next one that is made becomes FAILED.
        calls: statuses and faults of the next calls about the account, in order.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = STRICT

    avatar: str | None = None
    voice: str | None = None
    task: str | None = None
    calls: Sequence[int | CallFault] = ()

    def order(self, account: SimulatedAccount) -> None:
        """To go wrong from now on."""
        reasons: dict[MadeKind, str | None] = {
            "avatar": self.avatar,
            "voice": self.voice,
            "task": self.task,
        }
        for kind, reason in reasons.items():
            if reason is not None:
                account.fail_next(kind, reason)
        account.call_faults.extend(self.calls)


def account_faults_of(given: Any) -> AccountFaults:
    """From `{"avatar": "No face was found", "calls": [503]}`.

    Raises:
        WrongOrder: an unknown name, or a value that cannot be meant.
    """
    return _valid(AccountFaults, given, "faults")


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
