"""The body of the create call, checked before anything is sent."""

from __future__ import annotations

from pydantic import ValidationError

from ..errors import ConfigurationError
from .models import CreateRealtimeSession, CustomAvatar, PresetAvatar, Tool
from .wire import explain


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
