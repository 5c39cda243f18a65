"""Checks of what a user passes: each refusal names the argument, the value and what to do."""

from __future__ import annotations

import os
from collections.abc import Sequence

from livekit.agents import NotGivenOr
from pydantic import ValidationError

from ..errors import ConfigurationError
from .models import CreateRealtimeSession, CustomAvatar, PresetAvatar, Tool, explain


def required(what: str, argument: str, value: NotGivenOr[str], variable: str) -> str:
    """The argument, else the environment variable. Never shows the value."""
    found = value or os.getenv(variable) or ""
    if not found:
        raise ConfigurationError(f"{what} is missing: pass {argument}, or set {variable}.")
    return found


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        allowed = ", ".join(map(repr, choices))
        raise ConfigurationError(f"{argument} must be one of {allowed}, not {value!r}.")


def check_seconds(argument: str, value: float, *, zero: bool = False) -> None:
    if not (value > 0 or (zero and value == 0)):
        raise ConfigurationError(
            f"{argument} must be {'0 or more' if zero else 'more than 0'} seconds, not {value!r}."
        )


def check_whole(argument: str, value: int, lowest: int, highest: int, unit: str) -> None:
    if not isinstance(value, int) or not lowest <= value <= highest:
        raise ConfigurationError(
            f"{argument} must be a whole number of {unit} from {lowest} to {highest}, not "
            f"{value!r}."
        )


def realtime_request(
    avatar_id: str | None,
    preset_id: str | None,
    max_duration: int | None,
    personality: str | None,
    start_script: str | None,
    tools: list[Tool] | None,
) -> CreateRealtimeSession:
    """The body of the create call."""
    if (avatar_id is None) == (preset_id is None):
        raise ConfigurationError("Pass either avatar_id or preset_id, and not both.")
    optional = {
        "max_duration": max_duration,
        "personality": personality,
        "start_script": start_script,
        "tools": tuple(tools) if tools is not None else None,
    }
    try:
        avatar = (
            CustomAvatar.model_validate({"avatar_id": avatar_id})
            if preset_id is None
            else PresetAvatar.model_validate({"preset_id": preset_id})
        )
        given = {name: value for name, value in optional.items() if value is not None}
        return CreateRealtimeSession.model_validate({"avatar": avatar, **given})
    except ValidationError as error:
        raise ConfigurationError(f"Not a valid Runway session: {explain(error)}") from None
