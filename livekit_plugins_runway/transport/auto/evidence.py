"""What a failure says of the transport by which it came. Pure.

What Runway documents: in a room that it hosts, without `integration`, its worker converses by
itself; with `integration` it joins the agent's room and says what the agent says. What the workers
of an account really do is found out in the call.
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
    """Whether the other transport may give a face where this one has failed for a reason of its
    own.

    Args:
        kind: the one that has failed.
        repeated: by it an avatar was heard to say the agent's words, so it works for this account.
    """
    if repeated:
        return False
    if isinstance(error, AvatarLostError):
        return error.reason in _DOES_NOT_SAY_IT
    return _bridge_is_closed(error) if kind == "bridge" else _direct_is_closed(error)


def _bridge_is_closed(error: RunwayException) -> bool:
    """The room that Runway hosts, or the way to it, is not what is needed."""
    if isinstance(error, AvatarJoinError):
        return error.missing != "participant" and error.reason == "timed_out"
    if isinstance(error, RequestError):
        refused = isinstance(error, RequestRejectedError | ForbiddenError)
        return error.operation == "consume" and refused
    return isinstance(error, RoomTokenError | RunwayRoomError)


def _direct_is_closed(error: RunwayException) -> bool:
    """Runway does not take the invitation, or its worker does not come by it."""
    if isinstance(error, RequestError):
        refused = isinstance(error, RequestRejectedError | ForbiddenError | ServerError)
        return refused and not isinstance(error, CreditsError) and error.operation == "create"
    return isinstance(error, AvatarJoinError | SessionFailedError | ConfigurationError)


def other_delivery_may_do_better(error: RunwayException, *, repeated: bool) -> bool:
    """Whether a worker that took the agent's words as a data stream, and was silent, may say them
    where it hears them. One that says words of its own will not."""
    lost = isinstance(error, AvatarLostError) and error.reason == LossReason.SPEECH_STALLED
    return lost and not repeated
