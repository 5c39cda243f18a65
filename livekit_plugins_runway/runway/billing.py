"""What a call has cost so far, by Runway's own figures where they are known."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .session import SessionEnd

CREDITS_PER_SESSION = 2
CREDITS_PER_STEP = 2
SECONDS_PER_STEP = 6.0
USD_PER_CREDIT = 0.01
"""Runway's prices (docs.dev.runwayml.com, "Pricing", as of 2026)."""


def credits_for(billed_seconds: float) -> int:
    """Credits of one session whose worker was there for so many seconds; 0 if it never was."""
    if billed_seconds <= 0:
        return 0
    return CREDITS_PER_SESSION + CREDITS_PER_STEP * math.ceil(billed_seconds / SECONDS_PER_STEP)


@dataclass(frozen=True)
class CallUsage:
    """Sums over the sessions of one `AvatarSession` that have ended.

    Attributes:
        sessions: Runway sessions that were created and have ended.
        unconfirmed: how many of them may still bill.
        restarts, renewals, swaps, resumes: new faces after a loss, before the cap, on demand, and
            after a pause.
        billed_seconds: Runway's own figures where it gave them, else estimated.
        overlap_seconds: how long two sessions were billed at once, in renewals and swaps.
        credits: estimated from `billed_seconds`, session by session.
    """

    sessions: int = 0
    unconfirmed: int = 0
    restarts: int = 0
    renewals: int = 0
    swaps: int = 0
    resumes: int = 0
    billed_seconds: float = 0.0
    overlap_seconds: float = 0.0
    credits: int = 0

    def with_session(self, end: SessionEnd) -> CallUsage:
        return replace(
            self,
            sessions=self.sessions + 1,
            unconfirmed=self.unconfirmed + (not end.confirmed),
            billed_seconds=self.billed_seconds + end.billed_seconds,
            credits=self.credits + credits_for(end.billed_seconds),
        )

    def corrected(self, estimate: SessionEnd, settled: SessionEnd) -> CallUsage:
        """The same, with Runway's own figures for one session instead of the estimate."""
        more = settled.billed_seconds - estimate.billed_seconds
        credits = credits_for(settled.billed_seconds) - credits_for(estimate.billed_seconds)
        return replace(
            self, billed_seconds=self.billed_seconds + more, credits=self.credits + credits
        )
