"""What a caller can rely on in each error."""

from __future__ import annotations

import copy
import pickle

import pytest
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from livekit_plugins_runway import errors as e
from livekit_plugins_runway.runway.answers import error_from_response

NO_CREDITS = "You do not have enough credits to run this task."
DAILY = "Your daily task limit has been reached."
ISSUE = {"code": "too_big", "message": "Too big", "path": ["tools", 0, "timeoutSeconds"]}
INVALID = {"error": "Validation of body failed", "issues": [ISSUE], "docUrl": "https://docs.test"}


@pytest.mark.parametrize(
    ("status", "payload", "kind", "retryable"),
    [
        (400, INVALID, e.RequestRejectedError, False),
        (400, {"error": NO_CREDITS}, e.CreditsError, False),
        (401, {"error": "No API key was provided."}, e.AuthenticationError, False),
        (403, {"error": "Model variant is not available"}, e.ForbiddenError, False),
        (404, {"error": "Could not find Avatar"}, e.NotFoundError, False),
        (405, None, e.RequestRejectedError, False),
        (409, {}, e.RequestRejectedError, False),
        (410, [], e.RequestRejectedError, False),
        (429, {"error": DAILY}, e.QuotaError, False),
        (429, {"error": "Too many requests"}, e.RateLimitedError, True),
        (500, "<html>\nnginx</html>", e.ServerError, True),
        (503, None, e.ServerError, True),
    ],
)
def test_each_http_answer_becomes_its_kind(
    status: int, payload: object, kind: type[e.RequestError], retryable: bool
) -> None:
    error = error_from_response(status, payload, operation="create")
    assert type(error) is kind
    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.retryable) == (status, retryable)
    assert f"HTTP {status}" in str(error)
    assert error.hint
    assert error.hint in str(error)


def test_an_error_says_what_runway_said_and_where_to_read_more() -> None:
    error = error_from_response(400, INVALID, operation="create")
    assert isinstance(error, e.RequestRejectedError)
    assert error.runway_message == "Validation of body failed"
    assert error.issues == (e.Issue(("tools", 0, "timeoutSeconds"), "Too big", "too_big"),)
    assert error.doc_url == "https://docs.test"
    for part in ("Validation of body failed", "tools.0.timeoutSeconds: Too big", error.doc_url):
        assert part in str(error)


def test_an_issue_that_mentions_credits_is_no_lack_of_credits() -> None:
    payload = {"error": "not a valid number of credits", "issues": [ISSUE]}
    assert type(error_from_response(400, payload, operation="create")) is e.RequestRejectedError


def test_the_hint_fits_the_call() -> None:
    def hint(operation: e.Operation) -> str:
        error = error_from_response(404, None, operation=operation)
        assert isinstance(error, e.RequestError)
        return error.hint

    assert "avatar" in hint("create")
    assert "key" in hint("get")
    assert "new session" in hint("consume")


@pytest.mark.parametrize("payload", [None, 1, [], {"issues": [1, {}], "docUrl": 5, "error": {}}])
def test_odd_error_bodies_still_give_a_typed_error(payload: object) -> None:
    assert isinstance(error_from_response(400, payload, operation="get"), e.RequestRejectedError)


def test_a_redirect_is_no_answer() -> None:
    assert isinstance(error_from_response(302, "", operation="get"), e.ProtocolError)


SAMPLES = [
    e.RunwayException("x"),
    e.ConfigurationError("x"),
    e.AvatarClosedError(),
    e.CallLimitError(limit="max_billed_seconds", allowed=60.0, used=60.2),
    error_from_response(400, INVALID, operation="create", retry_after=2.0, request_id="q"),
    error_from_response(429, {"error": DAILY}, operation="create"),
    e.UnavailableError(),
    e.RunwayRoomError(),
    e.TransportsFailedError("x"),
    e.TimedOutError(),
    e.LostAnswerError(operation="consume", session_id="s"),
    e.ProtocolError(),
    e.SessionFailedError(session_id="s", failure="No one.", failure_code="A.B"),
    e.SessionNotReadyError(session_id="s", queued=True, waited=60.0),
    e.QueueTimeoutError(session_id="s", queued=True, waited=600.0),
    e.ProcessingFailedError(kind="voice", id="v", failure="Too short."),
    e.StillProcessingError(kind="task", id="t", status="RUNNING", waited=600.0),
    e.AvatarJoinError(session_id="s", missing="video", waited=20.0, reason="worker_left"),
    e.AvatarLostError(reason="video_stalled"),
    e.AvatarEvictedError(reason="replaced", identity="runway-avatar-agent"),
    e.RoomTokenError(missing=["canPublishData"], needed_for="delivery 'datastream'"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_and_copying_with_all_fields(error: e.RunwayException) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert (str(twin), repr(twin), vars(twin)) == (str(error), repr(error), vars(error))
    assert str(error)
    assert type(error).__name__ in repr(error)


def test_every_kind_is_a_runway_exception_and_tested_here() -> None:
    kinds = {
        kind
        for kind in vars(e).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == e.__name__
    }
    assert all(issubclass(kind, e.RunwayException) for kind in kinds)
    not_by_status = {kind for kind in kinds if not issubclass(kind, e.RequestError)}
    assert not_by_status <= {type(error) for error in SAMPLES}


@pytest.mark.parametrize(
    ("kind", "framework", "retryable"),
    [
        (e.UnavailableError, APIConnectionError, True),
        (e.TimedOutError, APITimeoutError, True),
        (e.LostAnswerError, APIConnectionError, False),
        (e.ProtocolError, APIError, False),
        (e.SessionNotReadyError, APITimeoutError, True),
        (e.AvatarJoinError, APIConnectionError, True),
        (e.RunwayRoomError, APIConnectionError, True),
        (e.TransportsFailedError, APIConnectionError, False),
    ],
)
def test_handlers_of_the_framework_catch_them(
    kind: type[e.RunwayException], framework: type[APIError], retryable: bool
) -> None:
    error = kind()
    assert isinstance(error, framework)
    assert error.retryable is retryable


def test_where_both_transports_fail_each_is_told_after_pickling_too() -> None:
    error = e.TransportsFailedError(bridge=e.RunwayRoomError(), direct=e.ConfigurationError("y"))
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin.bridge), str(twin.direct)) == (e.RunwayRoomError, "y")
    assert str(error.bridge) in str(twin)


def test_a_bad_argument_is_a_value_error() -> None:
    assert issubclass(e.ConfigurationError, ValueError)


def test_a_failed_session_tells_why() -> None:
    error = e.SessionFailedError(
        session_id="s", failure="No participants", failure_code="TALKING_AVATAR.NO_PARTICIPANT"
    )
    assert "TALKING_AVATAR.NO_PARTICIPANT: No participants" in str(error)
    assert error.retryable
    assert not e.SessionFailedError(failure_code="SAFETY.INPUT.TEXT").retryable
    assert not e.SessionFailedError(status="CANCELLED").retryable


def test_not_ready_tells_queued_from_provisioning() -> None:
    assert "queued" in str(e.SessionNotReadyError(queued=True))
    assert "provisioned" in str(e.SessionNotReadyError(queued=False))
