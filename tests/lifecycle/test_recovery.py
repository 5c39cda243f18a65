"""When another session is made, and when not: options and counting, without a clock."""

from __future__ import annotations

from typing import Any

import pytest

from livekit_plugins_runway import RecoveryOptions
from livekit_plugins_runway.errors import (
    AuthenticationError,
    AvatarJoinError,
    AvatarLostError,
    ConfigurationError,
    CreditsError,
    ForbiddenError,
    NotFoundError,
    QuotaError,
    RateLimitedError,
    RequestRejectedError,
    RunwayException,
    ServerError,
    SessionFailedError,
    UnavailableError,
)
from livekit_plugins_runway.lifecycle.recovery import STABLE_AFTER, Cap, Restarts, is_final


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"on_loss": "retry"}, "on_loss"),
        ({"on_user_left": "leave"}, "on_user_left"),
        ({"max_restarts": -1}, "max_restarts"),
        ({"backoff": 0.0}, "backoff"),
        ({"backoff_max": -1.0}, "backoff_max"),
        ({"user_left_grace": -0.1}, "user_left_grace"),
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
        QuotaError(),
        RequestRejectedError(),
        SessionFailedError(failure_code="SAFETY.INPUT"),
        AvatarLostError(reason="speech_foreign"),
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
    cap = Cap(RecoveryOptions(), None)
    assert cap.renew_at(startup=10.0) == 300 - 25
    assert Cap(RecoveryOptions(session_cap=20), None).renew_at(startup=10.0) == 10
    assert Cap(RecoveryOptions(renew_before=40), None).renew_at(startup=10.0) == 260
    assert Cap(RecoveryOptions(session_cap=None), None).renew_at(startup=10.0) is None


def test_it_takes_over_before_the_cap_even_in_mid_sentence() -> None:
    for seconds in (20.0, 60.0, 300.0):
        cap = Cap(RecoveryOptions(session_cap=seconds), None)
        renew_at, force_at = cap.renew_at(startup=10.0), cap.force_at()
        assert renew_at is not None
        assert force_at is not None
        assert renew_at < force_at <= seconds - 2


def test_without_a_cap_nothing_takes_over() -> None:
    assert Cap(RecoveryOptions(session_cap=None), None).force_at() is None


def test_a_shorter_max_duration_is_the_cap() -> None:
    assert Cap(RecoveryOptions(), 120).seconds == 120
    assert Cap(RecoveryOptions(), 1800).seconds == 300


def test_a_session_that_ended_early_by_itself_lowers_the_cap_and_a_later_one_does_not() -> None:
    cap = Cap(RecoveryOptions(), None)
    cap.ended_by_itself(200.0)
    assert cap.seconds == 200.0
    cap.ended_by_itself(250.0)
    assert cap.seconds == 200.0
    cap.ended_by_itself(9.9)  # an accident, not a cap
    assert cap.seconds == 200.0
    cap.ended_by_itself(10.0)  # Runway's shortest
    assert cap.seconds == 10.0
    unlimited = Cap(RecoveryOptions(session_cap=None), 60)
    unlimited.ended_by_itself(200.0)
    assert unlimited.seconds is None


def test_the_defaults_are_those_that_the_documentation_states() -> None:
    assert vars(RecoveryOptions()) == {
        "on_loss": "restart",
        "max_restarts": 3,
        "backoff": 1.0,
        "backoff_max": 30.0,
        "session_cap": 300.0,
        "renew_before": None,
        "on_user_left": "keep",
        "user_left_grace": 10.0,
    }
    assert STABLE_AFTER == 60.0


@pytest.mark.parametrize(
    "options",
    [
        {"max_restarts": 0},
        {"user_left_grace": 0.0},
        {"session_cap": 10.0},
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
    assert Cap(RecoveryOptions(session_cap=cap), None).force_at() == force_at
