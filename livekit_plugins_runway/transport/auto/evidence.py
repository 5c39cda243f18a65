"""What a failure says about the transport in use. Pure.

What Runway documents: in a room that it hosts, without `integration`, its worker converses by
itself; with `integration` it joins the agent's room and says what the agent says. What an account's
workers really do is found out in the call.
"""

from __future__ import annotations

from ...errors import (
    AvatarJoinError,
    AvatarLostError,
    ConfigurationError,
    CreditsError,
    ForbiddenError,
    LossReason,
    RequestError,
    RequestRejectedError,
    RoomTokenError,
    RunwayException,
    RunwayRoomError,
    ServerError,
    SessionFailedError,
)
from ...events import TransportKind

_DOES_NOT_SAY_IT = (LossReason.SPEECH_FOREIGN, LossReason.SPEECH_STALLED)


def other_may_do_better(kind: TransportKind, error: RunwayException, *, repeated: bool) -> bool:
    """True if the other transport may give an avatar, because this failure is due to the transport.

    Args:
        kind: the transport that has failed.
        repeated: with it an avatar was heard to say the agent's words, so it works for this
            account.
    """
    if repeated:
        return False
    if isinstance(error, AvatarLostError):
        return error.reason in _DOES_NOT_SAY_IT
    return _bridge_is_closed(error) if kind == "bridge" else _direct_is_closed(error)


def _bridge_is_closed(error: RunwayException) -> bool:
    """True if the room that Runway hosts cannot be used, or cannot be reached."""
    if isinstance(error, AvatarJoinError):
        return error.missing != "participant" and error.reason == "timed_out"
    if isinstance(error, RequestError):
        refused = isinstance(error, RequestRejectedError | ForbiddenError)
        return error.operation == "consume" and refused
    return isinstance(error, RoomTokenError | RunwayRoomError)


def _direct_is_closed(error: RunwayException) -> bool:
    """True if Runway refuses the invitation, or its worker does not join."""
    if isinstance(error, RequestError):
        refused = isinstance(error, RequestRejectedError | ForbiddenError | ServerError)
        return refused and not isinstance(error, CreditsError) and error.operation == "create"
    return isinstance(error, AvatarJoinError | SessionFailedError | ConfigurationError)


def other_delivery_may_do_better(error: RunwayException, *, repeated: bool) -> bool:
    """True for a worker that took a data stream and was silent: it may speak what it hears on a
    track. A worker that says words of its own will not.
    """
    lost = isinstance(error, AvatarLostError) and error.reason == LossReason.SPEECH_STALLED
    return lost and not repeated
