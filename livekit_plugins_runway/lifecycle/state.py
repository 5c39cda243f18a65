"""The one state of an `AvatarSession`, and the steps it may take."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class AvatarState(enum.StrEnum):
    NEW = "new"
    STARTING = "starting"
    LIVE = "live"
    VOICE_ONLY = "voice_only"
    """No face, for now or for good; the agent speaks by voice."""
    RENEWING = "renewing"
    """The next session is being made, before the cap or for a swap."""
    PAUSED = "paused"
    """The user has left; nothing bills."""
    CLOSED = "closed"


_HOLDS_A_CALL = {AvatarState.VOICE_ONLY, AvatarState.PAUSED, AvatarState.CLOSED}
ALLOWED = {
    AvatarState.NEW: {AvatarState.STARTING, AvatarState.CLOSED},
    AvatarState.STARTING: {AvatarState.LIVE} | _HOLDS_A_CALL,
    AvatarState.LIVE: {AvatarState.RENEWING} | _HOLDS_A_CALL,
    AvatarState.RENEWING: {AvatarState.LIVE} | _HOLDS_A_CALL,
    AvatarState.VOICE_ONLY: {AvatarState.LIVE, AvatarState.PAUSED, AvatarState.CLOSED},
    AvatarState.PAUSED: {AvatarState.STARTING, AvatarState.CLOSED},
    AvatarState.CLOSED: set[AvatarState](),
}


@dataclass(frozen=True)
class StateChanged:
    """Payload of the `state_changed` event."""

    old: AvatarState
    new: AvatarState
    reason: str
