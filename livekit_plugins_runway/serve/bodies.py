"""Bodies that callers send, as requests that may be sent to Runway."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import ValidationError

from ..errors import ConfigurationError
from ..runway.models import (
    Avatar,
    CreateRealtimeSession,
    CustomAvatar,
    PresetAvatar,
    PresetId,
)
from ..runway.wire import explain
from .refusals import Refused

_RUNWAYS_DEFAULT = 300
_DEEPEST = 32
"""Levels of a body; a tool's parameter begins in the fifth."""
_MOST_VALUES = 4000
"""In its lists and objects: twice what 20 tools with 20 described parameters each have."""
_FRONT_END_FIELDS = ("avatarId", "maxDuration", "personality", "startScript", "tools")


def avatar_named(name: str) -> Avatar:
    """An avatar by the one name that Runway's browser SDKs send: a preset's id, or a UUID.

    Raises:
        ConfigurationError: neither of both.
    """
    if name in get_args(PresetId):
        return PresetAvatar.model_validate({"preset_id": name})
    try:
        return CustomAvatar(avatar_id=name)
    except ValidationError:
        raise ConfigurationError(
            f"avatar {name[:80]!r} is neither the id of an avatar (a version 4 UUID) nor a preset: "
            f"{', '.join(get_args(PresetId))}."
        ) from None


def parse_json(content: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        Refused: 400, another kind of body.
    """
    try:
        body = json.loads(content, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise Refused(400, f"The body must be a JSON object, not {type(body).__name__}.")
    return body


def _check_size(body: dict[str, Any]) -> None:
    """Each value may be wrong in several ways, of which pydantic makes a list: that of one body
    would hold up everybody else's."""
    level: list[Any] = [body]
    values = 0
    for _ in range(_DEEPEST):
        values += sum(map(len, level))
        if values > _MOST_VALUES:
            raise Refused(400, f"The body holds more than {_MOST_VALUES} values.")
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise Refused(400, f"The body is nested deeper than {_DEEPEST} levels.")


class Bodies:
    """Turns bodies into requests, within what this server allows.

    Args:
        avatars: those that may be asked for, the first being the default; empty: any.
        max_duration: seconds that may be asked for at most.
    """

    def __init__(self, avatars: Sequence[str], max_duration: int) -> None:
        self._allowed = [_key(avatar_named(name)) for name in avatars]
        self._default = avatars[0] if avatars else None
        self._max_duration = max_duration

    def for_front_end(self, body: dict[str, Any]) -> CreateRealtimeSession:
        """From `{avatarId?, maxDuration?, personality?, startScript?, tools?}`.

        Raises:
            Refused: 400, says which field is wrong and what is allowed.
        """
        if unknown := sorted(body.keys() - set(_FRONT_END_FIELDS)):
            raise Refused(
                400,
                f"Unknown field {unknown[0][:80]!r}; known are {', '.join(_FRONT_END_FIELDS)}.",
            )
        rest = {name: value for name, value in body.items() if name != "avatarId"}
        name = body.get("avatarId", self._default)
        if name is None and "avatarId" in body:
            raise Refused(400, "avatarId is null: leave it out instead.")
        if name is None:
            raise Refused(400, "avatarId is missing: name a preset or the id of an avatar.")
        if not isinstance(name, str):
            raise Refused(400, f"avatarId must be a string, not {type(name).__name__}.")
        try:
            avatar = avatar_named(name)
        except ConfigurationError as error:
            raise Refused(400, f"avatarId: {error}") from None
        return self._checked({"avatar": avatar, **rest})

    def as_for_runway(self, body: dict[str, Any]) -> CreateRealtimeSession:
        """From a body as Runway's own create call takes it.

        Raises:
            Refused: 400, says which field is wrong and what is allowed.
        """
        return self._checked({"model": "gwm1_avatars", **body})

    def _checked(self, fields: dict[str, Any]) -> CreateRealtimeSession:
        _check_size(fields)
        if (null := _null_at(fields)) is not None:
            raise Refused(400, f"{null} is null: leave it out instead.")
        try:
            request = CreateRealtimeSession.model_validate(fields)
        except ValidationError as error:
            raise Refused(400, f"Validation of body failed: {explain(error)}") from None
        if self._allowed and _key(request.avatar) not in self._allowed:
            raise Refused(
                400, f"This server does not serve that avatar, only: {', '.join(self._allowed)}."
            )
        seconds = request.max_duration
        if seconds is None:
            seconds = min(_RUNWAYS_DEFAULT, self._max_duration)
        if seconds > self._max_duration:
            raise Refused(
                400,
                f"maxDuration {seconds} is more than this server allows: {self._max_duration}.",
            )
        return request.model_copy(update={"max_duration": seconds})


def _null_at(fields: dict[str, Any]) -> str | None:
    """The first field that is null, of the body, its avatar and integration, a tool or a
    parameter: Runway's schema has none. Deeper is JSON that is Runway's to judge."""
    for name, value in fields.items():
        if value is None:
            return name[:80]
    for within in ("avatar", "integration"):
        inner = fields.get(within)
        if isinstance(inner, dict) and (found := _null_at(inner)) is not None:
            return f"{within}.{found}"
    for within in ("tools", "parameters"):
        for number, inner in enumerate(fields.get(within) or ()):
            if isinstance(inner, dict) and (found := _null_at(inner)) is not None:
                return f"{within}.{number}.{found}"
    return None


def _key(avatar: Avatar) -> str:
    return avatar.preset_id if isinstance(avatar, PresetAvatar) else avatar.avatar_id.lower()


def _finite(digits: str) -> float:
    """1e400 is valid JSON, and no number that Runway could be sent."""
    if math.isinf(number := float(digits)):
        raise ValueError(digits)
    return number


def _refuse_constant(name: str) -> None:
    """NaN and Infinity, which Python reads and JSON does not know."""
    raise ValueError(name)
