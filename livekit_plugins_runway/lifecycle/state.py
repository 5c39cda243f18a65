"""The steps that the one state of an `AvatarSession` may take."""

from __future__ import annotations

from ..events import AvatarState

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
