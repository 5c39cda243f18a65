"""Checks of what a user passes: each refusal names the argument, the value and what to do."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from livekit.agents import NotGivenOr


def required(what: str, argument: str, value: NotGivenOr[str], variable: str, *others: str) -> str:
    """The argument, else the first environment variable that is set. Never shows the value, and
    names the first variable alone where there is none."""
    found = value or next(filter(None, map(os.getenv, (variable, *others))), "")
    if not found:
        raise ConfigurationError(f"{what} is missing: pass {argument}, or set {variable}.")
    return found


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        allowed = ", ".join(map(repr, choices))
        raise ConfigurationError(f"{argument} must be one of {allowed}, not {value!r}.")


def check_seconds(
    argument: str, value: float, *, zero: bool = False, least: float | None = None
) -> None:
    """`least` takes the place of `zero`."""
    allowed = "0 or more" if zero else "more than 0" if least is None else f"{least:g} or more"
    if not (value > 0 or (zero and value == 0)) or (least is not None and value < least):
        raise ConfigurationError(f"{argument} must be {allowed} seconds, not {value!r}.")


def check_whole(argument: str, value: int, lowest: int, highest: int, unit: str) -> None:
    if not isinstance(value, int) or not lowest <= value <= highest:
        raise ConfigurationError(
            f"{argument} must be a whole number of {unit} from {lowest} to {highest}, not "
            f"{value!r}."
        )


def is_loopback(host: str) -> bool:
    """True if only this machine can reach it. A name other than localhost may be any address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
