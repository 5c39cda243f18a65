"""The one state of an `AvatarSession`, and the steps it may take."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class AvatarState(enum.StrEnum):
    NEW = "new"
    STARTING = "starting"
    LIVE = "live"
    VOICE_ONLY = "voice_only"
    CLOSED = "closed"


ALLOWED = {
    AvatarState.NEW: {AvatarState.STARTING, AvatarState.CLOSED},
    AvatarState.STARTING: {AvatarState.LIVE, AvatarState.VOICE_ONLY, AvatarState.CLOSED},
    AvatarState.LIVE: {AvatarState.VOICE_ONLY, AvatarState.CLOSED},
    AvatarState.VOICE_ONLY: {AvatarState.STARTING, AvatarState.CLOSED},
    AvatarState.CLOSED: set[AvatarState](),
}


@dataclass(frozen=True)
class StateChanged:
    """Payload of the `state_changed` event."""

    old: AvatarState
    new: AvatarState
    reason: str
