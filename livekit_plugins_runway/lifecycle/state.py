"""The one state of an `AvatarSession`, and the steps that it may take."""

from __future__ import annotations

from ..events import AvatarState, CallEvents, StateChanged
from ..log import logger

_HOLDS_A_CALL = {AvatarState.VOICE_ONLY, AvatarState.PAUSED, AvatarState.CLOSED}
ALLOWED = {
    AvatarState.NEW: {AvatarState.STARTING, AvatarState.CLOSED},
    AvatarState.STARTING: {AvatarState.LIVE} | _HOLDS_A_CALL,
    AvatarState.LIVE: {AvatarState.RENEWING} | _HOLDS_A_CALL,
    AvatarState.RENEWING: {AvatarState.LIVE} | _HOLDS_A_CALL,
    AvatarState.VOICE_ONLY: {AvatarState.LIVE, AvatarState.PAUSED, AvatarState.CLOSED},
    AvatarState.PAUSED: {AvatarState.STARTING, AvatarState.VOICE_ONLY, AvatarState.CLOSED},
    AvatarState.CLOSED: set[AvatarState](),
}


class StateMachine:
    """Used by the event loop's thread only. `state` is written by `move_to()` only."""

    def __init__(self, events: CallEvents) -> None:
        self._events = events
        self.state = AvatarState.NEW

    def move_to(self, state: AvatarState, reason: str) -> None:
        """Without effect once closed: late callbacks are expected then.

        Raises:
            RuntimeError: the step is not allowed.
        """
        if state is self.state or self.state is AvatarState.CLOSED:
            return
        if state not in ALLOWED[self.state]:
            raise RuntimeError(f"cannot go from {self.state.value} to {state.value}")
        old, self.state = self.state, state
        logger.debug("avatar state changed", extra={"old": old.value, "new": state.value})
        self._events.state_changed(StateChanged(old, state, reason))
