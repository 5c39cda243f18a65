"""Which failures speak against a transport, so that the other one is tried. Pure."""

from __future__ import annotations

import pytest

from livekit_plugins_runway.errors import (
    AuthenticationError,
    AvatarJoinError,
    AvatarLostError,
    ConfigurationError,
    CreditsError,
    ForbiddenError,
    LossReason,
    LostAnswerError,
    NotFoundError,
    QuotaError,
    RateLimitedError,
    RequestError,
    RequestRejectedError,
    RoomTokenError,
    RunwayException,
    RunwayRoomError,
    ServerError,
    SessionFailedError,
    SessionNotReadyError,
    UnavailableError,
)
from livekit_plugins_runway.events import TransportKind
from livekit_plugins_runway.transport.auto.evidence import (
    other_delivery_may_do_better,
    other_may_do_better,
)


def lost(reason: LossReason) -> AvatarLostError:
    return AvatarLostError(reason=reason)


def create(kind: type[RequestError]) -> RequestError:
    return kind(operation="create", status_code=400)


def consume(kind: type[RequestError]) -> RequestError:
    return kind(operation="consume", status_code=400)


AGAINST_BRIDGE: list[RunwayException] = [
    lost(LossReason.SPEECH_FOREIGN),
    lost(LossReason.SPEECH_STALLED),
    AvatarJoinError(missing="audio"),
    AvatarJoinError(missing="video"),
    consume(RequestRejectedError),
    consume(ForbiddenError),
    RoomTokenError(missing=["canSubscribe"], needed_for="seeing the avatar"),
    RunwayRoomError(),
]
AGAINST_DIRECT: list[RunwayException] = [
    lost(LossReason.SPEECH_FOREIGN),
    lost(LossReason.SPEECH_STALLED),
    AvatarJoinError(missing="participant"),
    AvatarJoinError(missing="video", reason="worker_left"),
    create(RequestRejectedError),
    create(ForbiddenError),
    create(ServerError),
    SessionFailedError(failure_code="INTERNAL"),
    ConfigurationError("a room name that is too long"),
]
AGAINST_NEITHER: list[RunwayException] = [
    lost(LossReason.WORKER_LEFT),
    lost(LossReason.VIDEO_STALLED),
    lost(LossReason.SESSION_ENDED),
    lost(LossReason.SPEECH_FAILED),
    create(AuthenticationError),
    create(CreditsError),
    create(NotFoundError),
    create(QuotaError),
    create(RateLimitedError),
    LostAnswerError(operation="create"),
    LostAnswerError(operation="consume"),
    SessionNotReadyError(queued=True),
    UnavailableError(),
]


@pytest.mark.parametrize("error", AGAINST_BRIDGE, ids=repr)
def test_these_speak_against_the_bridge(error: RunwayException) -> None:
    assert other_may_do_better("bridge", error, repeated=False)


@pytest.mark.parametrize("error", AGAINST_DIRECT, ids=repr)
def test_these_speak_against_direct(error: RunwayException) -> None:
    assert other_may_do_better("direct", error, repeated=False)


@pytest.mark.parametrize("kind", ["bridge", "direct"])
@pytest.mark.parametrize("error", AGAINST_NEITHER, ids=repr)
def test_these_would_be_the_same_by_the_other(kind: TransportKind, error: RunwayException) -> None:
    assert not other_may_do_better(kind, error, repeated=False)


@pytest.mark.parametrize("kind", ["bridge", "direct"])
@pytest.mark.parametrize("error", [*AGAINST_BRIDGE, *AGAINST_DIRECT], ids=repr)
def test_nothing_speaks_against_one_that_has_worked(
    kind: TransportKind, error: RunwayException
) -> None:
    assert not other_may_do_better(kind, error, repeated=True)


def test_a_worker_that_may_yet_come_is_not_held_against_the_bridge() -> None:
    assert not other_may_do_better("bridge", AvatarJoinError(missing="participant"), repeated=False)
    gone = AvatarJoinError(missing="video", reason="worker_left")
    assert not other_may_do_better("bridge", gone, repeated=False)


def test_only_a_worker_that_was_silent_is_given_a_track_to_hear() -> None:
    silent, foreign = lost(LossReason.SPEECH_STALLED), lost(LossReason.SPEECH_FOREIGN)
    assert other_delivery_may_do_better(silent, repeated=False)
    assert not other_delivery_may_do_better(silent, repeated=True)
    assert not other_delivery_may_do_better(foreign, repeated=False)
    assert not other_delivery_may_do_better(AvatarJoinError(), repeated=False)
