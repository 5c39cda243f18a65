"""What a call costs: Runway's steps, sums over sessions, and figures that come later."""

from __future__ import annotations

from typing import Any

import pytest

from livekit_plugins_runway.events import CallUsage, SessionEnd
from livekit_plugins_runway.runway.billing import (
    USD_PER_CREDIT,
    corrected,
    credits_for,
    credits_of,
    with_session,
)


def ended(billed: float, **other: Any) -> SessionEnd:
    fields: dict[str, Any] = {
        "session_id": "id",
        "status": "COMPLETED",
        "how": "end call",
        "confirmed": True,
        "created_at": 1.0,
        "ready_at": 2.0,
        "started_at": 3.0,
        "ended_at": 3.0 + billed,
        "billed_seconds": billed,
        "estimated": True,
    }
    return SessionEnd(**{**fields, **other})


@pytest.mark.parametrize(
    ("seconds", "credits"),
    [(0.01, 4), (5.9, 4), (6.0, 4), (6.01, 6), (12.0, 6), (59.5, 22), (60.0, 22), (300.0, 102)],
)
def test_a_session_costs_two_credits_and_two_more_for_each_six_seconds_begun(
    seconds: float, credits: int
) -> None:
    assert credits_for(seconds) == credits


def test_a_minute_costs_twenty_two_cents() -> None:
    assert credits_for(60.0) * USD_PER_CREDIT == pytest.approx(0.22)


@pytest.mark.parametrize("seconds", [0.0, -0.5])
def test_a_session_whose_worker_never_came_costs_nothing(seconds: float) -> None:
    assert credits_for(seconds) == 0


def test_a_session_that_was_consumed_costs_as_much_as_one_that_has_begun() -> None:
    assert credits_of(ended(0.0, consumed_at=2.5)) == 2
    assert credits_of(ended(0.0)) == 0
    assert credits_of(ended(7.0, consumed_at=2.5)) == credits_for(7.0)


def test_each_session_is_rounded_up_by_itself() -> None:
    usage = with_session(with_session(CallUsage(), ended(7.0)), ended(7.0))
    assert usage == CallUsage(sessions=2, billed_seconds=14.0, credits=12)


def test_a_session_that_may_still_bill_is_counted_as_such() -> None:
    usage = with_session(CallUsage(), ended(7.0, confirmed=False, how="unconfirmed"))
    usage = with_session(usage, ended(7.0))
    assert (usage.sessions, usage.unconfirmed) == (2, 1)


def test_what_else_was_counted_stays() -> None:
    before = CallUsage(restarts=1, renewals=2, swaps=3, resumes=4, overlap_seconds=5.0)
    usage = with_session(before, ended(0.0))
    assert usage == CallUsage(
        sessions=1, restarts=1, renewals=2, swaps=3, resumes=4, overlap_seconds=5.0
    )
    assert corrected(usage, ended(0.0), ended(0.0)) == usage


@pytest.mark.parametrize(("told", "credits"), [(5.0, 10), (7.0, 12), (30.0, 18), (0.0, 6)])
def test_runways_own_figure_replaces_the_estimate_of_that_session_alone(
    told: float, credits: int
) -> None:
    estimate = ended(8.0)
    usage = with_session(with_session(CallUsage(), estimate), ended(10.0))
    usage = corrected(usage, estimate, ended(told, estimated=False))
    assert usage == CallUsage(sessions=2, billed_seconds=told + 10.0, credits=credits)
