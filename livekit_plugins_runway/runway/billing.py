"""The cost of a call so far, with Runway's own figures if they are known."""

from __future__ import annotations

import math
from dataclasses import replace

from ..events import CallUsage, SessionEnd

CREDITS_PER_SESSION = 2
CREDITS_PER_STEP = 2
SECONDS_PER_STEP = 6.0
USD_PER_CREDIT = 0.01
"""Runway's prices (docs.dev.runwayml.com, "Pricing", as of 2026)."""


def credits_for(billed_seconds: float) -> int:
    """Credits of one session whose worker was in the room for so many seconds; 0 if it never
    came.
    """
    if billed_seconds <= 0:
        return 0
    return CREDITS_PER_SESSION + CREDITS_PER_STEP * math.ceil(billed_seconds / SECONDS_PER_STEP)


def credits_of(end: SessionEnd) -> int:
    """Credits of a session that has ended. A consumed session costs at least its begin, even if its
    worker never came.
    """
    consumed = CREDITS_PER_SESSION if end.consumed_at is not None else 0
    return max(credits_for(end.billed_seconds), consumed)


def with_session(usage: CallUsage, end: SessionEnd) -> CallUsage:
    """A copy with one more session."""
    return replace(
        usage,
        sessions=usage.sessions + 1,
        unconfirmed=usage.unconfirmed + (not end.confirmed),
        billed_seconds=usage.billed_seconds + end.billed_seconds,
        credits=usage.credits + credits_of(end),
    )


def corrected(usage: CallUsage, estimate: SessionEnd, settled: SessionEnd) -> CallUsage:
    """A copy with Runway's own figures for one session instead of the estimate."""
    more = settled.billed_seconds - estimate.billed_seconds
    credits = credits_of(settled) - credits_of(estimate)
    return replace(
        usage, billed_seconds=usage.billed_seconds + more, credits=usage.credits + credits
    )
