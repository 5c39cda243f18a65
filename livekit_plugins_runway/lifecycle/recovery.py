"""`RecoveryOptions`, and the rules behind them: when to try again, when to renew, what a call may
spend.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from .._common.checks import check_choice, check_seconds
from ..errors import (
    AuthenticationError,
    AvatarLostError,
    CallLimitError,
    ConfigurationError,
    ForbiddenError,
    LossReason,
    NotFoundError,
    QueueTimeoutError,
    QuotaError,
    RateLimitedError,
    RequestRejectedError,
    RoomTokenError,
    SessionFailedError,
    TransportsFailedError,
)
from ..runway.answers import asked_to_wait

OnLoss = Literal["restart", "audio", "close"]
OnUserLeft = Literal["keep", "pause", "close"]

STABLE_AFTER = 120.0
"""Seconds after which an avatar counts as stable, and earlier failures are forgotten. So ten
minutes of avatars that are lost again make six sessions at most.
"""
SHORTEST_SESSION = 10.0
"""Seconds; Runway's shortest `maxDuration` (published schema). A session is not made if less is
left.
"""
MIN_CAP = 60.0
"""Seconds. A session that ends by itself earlier did so for another reason than the cap, such as an
idle limit or moderation, and counts as lost.
"""
_LONGEST_SPREAD = 20.0
_SPREAD = 1 / 15
"""Share of the cap by which a session is renewed earlier at random, at most."""
_GAP_SHARE = 0.1
_LONGEST_GAP_WAIT = 15.0
"""Share of the cap, and seconds at most, in which a gap of the speech is waited for, so that a
session that must be ended first for the next one is not cut off in mid-sentence.
"""
_ALIKE = 0.1
"""Two ends whose ages differ by at most this share are of the same cap."""


@dataclass(frozen=True, kw_only=True)
class RecoveryOptions:
    """How a call outlives its Runway sessions. All times are in seconds.

    Args:
        on_loss: "restart": the voice goes on, and a new session brings the avatar back; "audio":
            the voice goes on for the rest of the call; "close": the `AvatarSession` closes itself.
        max_restarts: how many sessions in a row may fail before the call goes on by voice only. One
            that lasted `STABLE_AFTER` (120) seconds resets the count. As many renewals of one
            session may fail.
        backoff: wait before the second restart in a row, doubled with each further one; the first
            is made at once. Each wait is shortened by up to half at random, so that many agents do
            not retry at the same time.
        backoff_max: the longest wait.
        max_sessions: how many Runway sessions a call may make, for any reason; then the agent goes
            on by voice, and `gave_up` carries a `CallLimitError`. None: no limit.
        max_billed_seconds: how many seconds a call may be billed, likewise. It may be exceeded by
            some seconds, because a change from one session to the next is completed. A
            `max_duration` below `session_cap` is such a limit, too. None: no limit.
        session_cap: age at which Runway is expected to end a session. A session that ended by
            itself at 60 s or later lowers it. The lower value stays once two have ended at about
            the same age, until one has become older. None: sessions are not renewed.
        renew_before: how long before the cap the next session is made; None: 1.5 x the start-up
            time of the present one and 10 more, at most half of the cap, and up to 20 more at
            random, so that many agents do not renew at the same time.
        on_user_left: when the last user has left the agent room for `user_left_grace`. "keep": go
            on; "pause": end the paid session, keep the participant, and make a new session when a
            user is back (where nobody is there at the start, the first one, too); "close": the
            `AvatarSession` closes itself.

    Raises:
        ConfigurationError: names the option that is wrong.
    """

    on_loss: OnLoss = "restart"
    max_restarts: int = 3
    backoff: float = 1.0
    backoff_max: float = 30.0
    max_sessions: int | None = 30
    max_billed_seconds: float | None = 7200.0
    session_cap: float | None = 300.0
    renew_before: float | None = None
    on_user_left: OnUserLeft = "keep"
    user_left_grace: float = 10.0

    def __post_init__(self) -> None:
        check_choice("on_loss", self.on_loss, get_args(OnLoss))
        check_choice("on_user_left", self.on_user_left, get_args(OnUserLeft))
        if self.max_restarts < 0:
            raise ConfigurationError(f"max_restarts must be 0 or more, not {self.max_restarts!r}.")
        check_seconds("backoff", self.backoff)
        check_seconds("backoff_max", self.backoff_max)
        check_seconds("user_left_grace", self.user_left_grace, zero=True)
        if self.max_sessions is not None and self.max_sessions < 1:
            raise ConfigurationError(
                f"max_sessions must be None, or 1 or more, not {self.max_sessions!r}."
            )
        _check_at_least("max_billed_seconds", self.max_billed_seconds)
        _check_at_least("session_cap", self.session_cap)
        if self.renew_before is not None:
            check_seconds("renew_before", self.renew_before)
            if self.session_cap is not None and self.renew_before >= self.session_cap:
                raise ConfigurationError(
                    f"renew_before ({self.renew_before:g} s) must be less than session_cap "
                    f"({self.session_cap:g} s)."
                )


def _check_at_least(option: str, value: float | None) -> None:
    if value is not None and value < SHORTEST_SESSION:
        raise ConfigurationError(
            f"{option} must be None or at least {SHORTEST_SESSION:g} seconds, not {value!r}."
        )


def is_final(error: BaseException) -> bool:
    """True if another session would fail in the same way: key, credits, quota, a refused request,
    a queue that takes too long, or an avatar that does not speak what it is sent.
    """
    if isinstance(error, AvatarLostError):
        return error.reason == LossReason.SPEECH_FOREIGN
    if isinstance(error, SessionFailedError):
        return not error.retryable
    return isinstance(
        error,
        AuthenticationError
        | CallLimitError
        | ForbiddenError
        | NotFoundError
        | QueueTimeoutError
        | QuotaError
        | RequestRejectedError
        | ConfigurationError
        | RoomTokenError
        | TransportsFailedError,
    )


class Restarts:
    """Counts the failures in a row, and says how long to wait before the next try."""

    def __init__(
        self, options: RecoveryOptions, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._options = options
        self._uniform = uniform
        self.in_a_row = 0
        self._limited = 0
        """How often in a row Runway had too many requests."""

    def begin_anew(self) -> int:
        """Forget the failures, because the other transport is tried next. Returns the number of the
        next restart in a row.
        """
        self.in_a_row = 1
        return self.in_a_row

    def next_delay(self, lived: float, error: BaseException | None = None) -> float | None:
        """Seconds to wait after a session that was live for `lived` seconds was lost or did not
        come; None if no more tries are allowed.

        Args:
            error: why. Too many requests are no failure: no session was made, and it passes by
                itself. So it is not counted, and the wait grows as after a failure.
        """
        if isinstance(error, RateLimitedError):
            self._limited += 1
            return max(self._backoff(self._limited), self._asked(error))
        self._limited = 0
        if lived >= STABLE_AFTER:
            self.in_a_row = 0
        if self.in_a_row >= self._options.max_restarts:
            return None
        self.in_a_row += 1
        wait = 0.0 if self.in_a_row == 1 else self._backoff(self.in_a_row - 1)
        return wait if error is None else max(wait, self._asked(error))

    def _asked(self, error: BaseException) -> float:
        return asked_to_wait(error, lambda: self._uniform(0.0, 1.0))

    def _backoff(self, count: int) -> float:
        longest = min(self._options.backoff * 2.0 ** (count - 1), self._options.backoff_max)
        return longest * self._uniform(0.5, 1.0)


class Cap:
    """The age at which Runway ends sessions, as far as is known. Learns from sessions that ended by
    themselves.

    What was learned from one end is used for one session. The next session is not renewed at that
    age: either it ends at about the same age, and the cap is confirmed, or it does not, and the cap
    is forgotten.
    """

    def __init__(
        self, options: RecoveryOptions, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._uniform = uniform
        self._renew_before = options.renew_before
        self._earlier = 0.0
        """Seconds by which the present session is renewed earlier, so that sessions which began at
        the same time are not renewed at the same time.
        """
        self._expected = options.session_cap
        self._learned: float | None = None
        """The age at which a session ended by itself, if that was earlier than expected."""
        self._certain = False
        """True if two sessions have ended at about that age."""
        self._believed = False
        """True if a session was renewed at the learned age."""
        self._probing = False
        """True if the present session is not renewed at the learned age, to test it."""

    @property
    def seconds(self) -> float | None:
        """The cap of the present session; None: it is not renewed."""
        if self._expected is None or self._learned is None or self._probing:
            return self._expected
        return self._learned

    def next_session(self) -> None:
        """Another session has become the avatar."""
        uncertain = self._learned is not None and not self._certain
        self._probing = uncertain and self._believed
        self._believed = uncertain
        if self._renew_before is None and self.seconds is not None:
            self._earlier = self._uniform(0.0, min(_LONGEST_SPREAD, self.seconds * _SPREAD))

    def ended_by_itself(self, age: float) -> None:
        """Runway ended a session as COMPLETED at this age in seconds, unasked."""
        if self._expected is None or not MIN_CAP <= age < self._expected:
            return
        if self._learned is not None and abs(age - self._learned) <= _ALIKE * self._learned:
            self._certain = True
        elif self._learned is None or age < self._learned:
            self._learned, self._certain, self._believed = age, False, False

    def outlived(self, age: float) -> None:
        """A session was this old, in seconds, and had not ended."""
        if self._learned is not None and age > (1 + _ALIKE) * self._learned:
            self._learned, self._certain = None, False

    def renew_at(self, startup: float) -> float | None:
        """Age at which to make the next session, given how long this one took to start; None:
        never."""
        if self.seconds is None:
            return None
        before = 1.5 * startup + 10.0 if self._renew_before is None else self._renew_before
        return self.seconds - min(before + self._earlier, self.seconds / 2)

    def force_at(self) -> float | None:
        """Age at which the next session takes over at the latest, in mid-sentence if need be; None:
        never."""
        if self.seconds is None:
            return None
        return self.seconds - min(8.0, self.seconds / 5)

    def make_room_at(self) -> float | None:
        """Age from which this session may be ended for the next one, in a gap of the speech, if the
        account has no place for both; None: at once. Not earlier, because the place may go to
        another call.
        """
        force_at = self.force_at()
        if force_at is None or self.seconds is None:
            return None
        return force_at - min(_LONGEST_GAP_WAIT, self.seconds * _GAP_SHARE)


class Spending:
    """The limits of a call, and how many sessions it has made."""

    def __init__(self, options: RecoveryOptions, max_duration: int | None) -> None:
        self._max_sessions = options.max_sessions
        self._max_seconds = options.max_billed_seconds
        self._limit: Literal["max_billed_seconds", "max_duration"] = "max_billed_seconds"
        cap, longest = options.session_cap, self._max_seconds
        limits = max_duration is not None and cap is not None and max_duration < cap
        if limits and max_duration is not None and (longest is None or max_duration < longest):
            self._max_seconds, self._limit = float(max_duration), "max_duration"
        self.sessions = 0
        """Sessions made so far, including creates whose outcome is unknown. Counted by
        `SessionMaker`.
        """

    def seconds_left(self, billed: float) -> float:
        """Seconds that may still be billed after `billed` seconds."""
        return math.inf if self._max_seconds is None else self._max_seconds - billed

    def check(self, billed: float) -> None:
        """Raises `CallLimitError` if no more sessions may be made."""
        if self._max_sessions is not None and self.sessions >= self._max_sessions:
            raise CallLimitError(
                limit="max_sessions", allowed=self._max_sessions, used=self.sessions
            )
        if self.seconds_left(billed) < SHORTEST_SESSION:
            raise self.used_up(billed)

    def used_up(self, billed: float) -> CallLimitError:
        """The error for a call that has no billed seconds left."""
        return CallLimitError(limit=self._limit, allowed=self._max_seconds or 0.0, used=billed)
