"""When another session is made, and when not: options and counting, without a clock."""

from __future__ import annotations

from typing import Any

import pytest

from livekit_plugins_runway import RecoveryOptions
from livekit_plugins_runway.errors import (
    AuthenticationError,
    AvatarJoinError,
    AvatarLostError,
    CallLimitError,
    ConfigurationError,
    CreditsError,
    ForbiddenError,
    NotFoundError,
    QueueTimeoutError,
    QuotaError,
    RateLimitedError,
    RequestRejectedError,
    RunwayException,
    ServerError,
    SessionFailedError,
    UnavailableError,
)
from livekit_plugins_runway.lifecycle.recovery import (
    MIN_CAP,
    STABLE_AFTER,
    Cap,
    Restarts,
    Spending,
    is_final,
)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"on_loss": "retry"}, "on_loss"),
        ({"on_user_left": "leave"}, "on_user_left"),
        ({"max_restarts": -1}, "max_restarts"),
        ({"backoff": 0.0}, "backoff"),
        ({"backoff_max": -1.0}, "backoff_max"),
        ({"user_left_grace": -0.1}, "user_left_grace"),
        ({"max_sessions": 0}, "max_sessions"),
        ({"max_billed_seconds": 9.9}, "max_billed_seconds"),
        ({"session_cap": 5.0}, "session_cap"),
        ({"renew_before": 0.0}, "renew_before"),
        ({"session_cap": 60.0, "renew_before": 60.0}, "renew_before"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        RecoveryOptions(**options)


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError(),
        ForbiddenError(),
        NotFoundError(),
        CreditsError(),
        QueueTimeoutError(queued=True, waited=600.0),
        QuotaError(),
        RequestRejectedError(),
        SessionFailedError(failure_code="SAFETY.INPUT"),
        AvatarLostError(reason="speech_foreign"),
        CallLimitError(),
    ],
)
def test_what_would_fail_again_is_not_tried_again(error: RunwayException) -> None:
    assert is_final(error)


@pytest.mark.parametrize(
    "error",
    [
        AvatarLostError(reason="worker_left"),
        AvatarJoinError(),
        ServerError(),
        RateLimitedError(),
        UnavailableError(),
        SessionFailedError(failure_code="INTERNAL"),
    ],
)
def test_what_may_pass_is_tried_again(error: RunwayException) -> None:
    assert not is_final(error)


def test_the_first_restart_is_at_once_and_each_further_one_waits_twice_as_long() -> None:
    options = RecoveryOptions(max_restarts=6, backoff=1.0, backoff_max=5.0)
    longest = Restarts(options, uniform=lambda a, b: b)
    assert [longest.next_delay(0.0) for _ in range(7)] == [0.0, 1.0, 2.0, 4.0, 5.0, 5.0, None]
    shortest = Restarts(options, uniform=lambda a, b: a)
    assert [shortest.next_delay(0.0) for _ in range(4)] == [0.0, 0.5, 1.0, 2.0]


def test_a_face_that_lasted_clears_the_count() -> None:
    restarts = Restarts(RecoveryOptions(max_restarts=1))
    assert restarts.next_delay(0.0) == 0.0
    assert restarts.next_delay(STABLE_AFTER) == 0.0
    assert restarts.next_delay(STABLE_AFTER - 1) is None


def test_the_next_session_is_made_early_enough_to_start_and_to_wait_for_a_gap() -> None:
    cap = Cap(RecoveryOptions())
    assert cap.renew_at(startup=10.0) == 300 - 25
    assert Cap(RecoveryOptions(session_cap=20)).renew_at(startup=10.0) == 10
    assert Cap(RecoveryOptions(renew_before=40)).renew_at(startup=10.0) == 260
    assert Cap(RecoveryOptions(session_cap=None)).renew_at(startup=10.0) is None


def test_it_takes_over_before_the_cap_even_in_mid_sentence() -> None:
    for seconds in (20.0, 60.0, 300.0):
        cap = Cap(RecoveryOptions(session_cap=seconds))
        renew_at, force_at = cap.renew_at(startup=10.0), cap.force_at()
        assert renew_at is not None
        assert force_at is not None
        assert renew_at < force_at <= seconds - 2


def test_without_a_cap_nothing_takes_over() -> None:
    assert Cap(RecoveryOptions(session_cap=None)).force_at() is None


def test_a_session_that_ended_early_by_itself_lowers_the_cap_and_a_later_one_does_not() -> None:
    cap = Cap(RecoveryOptions())
    cap.ended_by_itself(200.0)
    assert cap.seconds == 200.0
    cap.ended_by_itself(250.0)
    assert cap.seconds == 200.0
    cap.ended_by_itself(MIN_CAP - 0.1)  # idle, moderation: no cap
    assert cap.seconds == 200.0
    cap.ended_by_itself(MIN_CAP)
    assert cap.seconds == MIN_CAP
    cap.ended_by_itself(310.0)
    assert cap.seconds == MIN_CAP
    unlimited = Cap(RecoveryOptions(session_cap=None))
    unlimited.ended_by_itself(200.0)
    assert unlimited.seconds is None


def test_what_one_end_has_taught_is_believed_once_and_then_put_to_the_test() -> None:
    cap = Cap(RecoveryOptions())
    cap.ended_by_itself(90.0)
    cap.next_session()
    assert cap.seconds == 90.0
    cap.next_session()
    assert cap.seconds == 300.0
    cap.outlived(275.0)  # it was another reason
    cap.next_session()
    assert cap.seconds == 300.0


def test_what_two_ends_have_taught_alike_is_kept_until_a_session_outlives_it() -> None:
    cap = Cap(RecoveryOptions())
    cap.ended_by_itself(90.0)
    cap.next_session()
    cap.next_session()
    cap.ended_by_itself(95.0)
    for _ in range(5):
        cap.next_session()
        assert cap.seconds == 90.0
        cap.outlived(65.0)  # renewed before it
    cap.outlived(100.0)
    assert cap.seconds == 300.0


def test_a_call_may_make_so_many_sessions() -> None:
    spending = Spending(RecoveryOptions(max_sessions=2), None)
    for _ in range(2):
        spending.check(0.0)
        spending.sessions += 1
    with pytest.raises(CallLimitError, match="2 of the 2 Runway sessions that max_sessions"):
        spending.check(0.0)
    Spending(RecoveryOptions(max_sessions=None), None).check(0.0)


def test_no_session_is_made_for_less_than_runways_shortest() -> None:
    spending = Spending(RecoveryOptions(max_billed_seconds=100.0), None)
    spending.check(90.0)
    with pytest.raises(CallLimitError) as caught:
        spending.check(90.1)
    assert (caught.value.limit, caught.value.allowed) == ("max_billed_seconds", 100.0)
    assert spending.seconds_left(99.0) == 1.0
    unlimited = Spending(RecoveryOptions(max_billed_seconds=None), None)
    unlimited.check(1e9)
    assert unlimited.seconds_left(1e9) == float("inf")


@pytest.mark.parametrize(
    ("max_duration", "options", "allowed"),
    [
        (60, {}, 60.0),
        (299, {"max_billed_seconds": None}, 299.0),
        (300, {}, 7200.0),
        (1800, {}, 7200.0),
        (60, {"session_cap": 60.0}, 7200.0),  # sessions of a minute, one after the other
        (60, {"session_cap": None}, 7200.0),
        (60, {"max_billed_seconds": 30.0}, 30.0),
    ],
)
def test_a_max_duration_below_the_cap_is_a_limit_of_the_call(
    max_duration: int, options: dict[str, Any], allowed: float
) -> None:
    assert Spending(RecoveryOptions(**options), max_duration).seconds_left(0.0) == allowed


def test_the_defaults_are_those_that_the_documentation_states() -> None:
    assert vars(RecoveryOptions()) == {
        "on_loss": "restart",
        "max_restarts": 3,
        "backoff": 1.0,
        "backoff_max": 30.0,
        "max_sessions": 30,
        "max_billed_seconds": 7200.0,
        "session_cap": 300.0,
        "renew_before": None,
        "on_user_left": "keep",
        "user_left_grace": 10.0,
    }
    assert STABLE_AFTER == 120.0


@pytest.mark.parametrize(
    "options",
    [
        {"max_restarts": 0},
        {"user_left_grace": 0.0},
        {"session_cap": 10.0},
        {"max_sessions": 1, "max_billed_seconds": 10.0},
        {"max_sessions": None, "max_billed_seconds": None},
        {"session_cap": None, "renew_before": 400.0},
        {"session_cap": 60.0, "renew_before": 59.9},
        {"on_loss": "audio", "on_user_left": "pause"},
        {"on_loss": "close", "on_user_left": "close"},
    ],
)
def test_what_is_just_allowed_is_taken(options: dict[str, Any]) -> None:
    given = RecoveryOptions(**options)
    assert {name: getattr(given, name) for name in options} == options


def test_without_restarts_the_first_failure_is_one_too_many() -> None:
    assert Restarts(RecoveryOptions(max_restarts=0)).next_delay(0.0) is None


def test_a_wait_is_shortened_by_half_at_most_and_never_made_longer() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    restarts = Restarts(RecoveryOptions(), uniform)
    restarts.next_delay(0.0)
    restarts.next_delay(0.0)
    assert asked == [(0.5, 1.0)]
    random = Restarts(RecoveryOptions(max_restarts=100, backoff=2.0, backoff_max=2.0))
    waits = [random.next_delay(0.0) for _ in range(100)][1:]
    assert all(wait is not None and 1.0 <= wait <= 2.0 for wait in waits)
    assert len(set(waits)) > 50


@pytest.mark.parametrize(("cap", "force_at"), [(300.0, 292.0), (40.0, 32.0), (20.0, 16.0)])
def test_at_the_latest_it_takes_over_eight_seconds_before_the_cap_or_a_fifth(
    cap: float, force_at: float
) -> None:
    assert Cap(RecoveryOptions(session_cap=cap)).force_at() == force_at


def test_too_many_requests_are_no_failure_and_are_waited_out() -> None:
    restarts = Restarts(RecoveryOptions(max_restarts=1), uniform=lambda _, high: high)
    limited = RateLimitedError()
    waits = [restarts.next_delay(0.0, limited) for _ in range(8)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert restarts.next_delay(0.0, RateLimitedError(retry_after=40.0)) == 60.0
    assert restarts.next_delay(0.0, UnavailableError()) == 0.0
    assert restarts.next_delay(0.0, UnavailableError()) is None


def test_other_errors_that_name_a_time_are_tried_again_after_it() -> None:
    restarts = Restarts(RecoveryOptions(), uniform=lambda low, _: low)
    assert restarts.next_delay(0.0, ServerError(status_code=503, retry_after=7.0)) == 7.0


def test_sessions_are_renewed_earlier_by_some_seconds_at_random() -> None:
    cap = Cap(RecoveryOptions(), uniform=lambda _, high: high)
    cap.next_session()
    assert cap.renew_at(10.0) == 300.0 - 25.0 - 20.0
    exact = Cap(RecoveryOptions(renew_before=30.0), uniform=lambda _, high: high)
    exact.next_session()
    assert exact.renew_at(10.0) == 270.0


def test_room_for_the_next_session_is_made_shortly_before_the_cap() -> None:
    assert Cap(RecoveryOptions()).make_room_at() == 300.0 - 8.0 - 15.0
    assert Cap(RecoveryOptions(session_cap=None)).make_room_at() is None
