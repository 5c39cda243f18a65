"""What happens when the face is lost, is about to end, or has no one to look at it: the user's
options, and when to try again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from .._common.checks import check_choice, check_seconds
from ..errors import (
    AuthenticationError,
    AvatarLostError,
    ConfigurationError,
    ForbiddenError,
    LossReason,
    NotFoundError,
    QuotaError,
    RequestRejectedError,
    RoomTokenError,
    SessionFailedError,
)

OnLoss = Literal["restart", "audio", "close"]
OnUserLeft = Literal["keep", "pause", "close"]

STABLE_AFTER = 60.0
"""Seconds after which a face counts as steady, and earlier failures as forgotten."""
MIN_CAP = 10.0
"""Seconds; Runway's shortest `maxDuration` (published schema). A shorter cap is never learned."""


@dataclass(frozen=True, kw_only=True)
class RecoveryOptions:
    """How a call outlives its Runway sessions. All times are in seconds.

    Args:
        on_loss: "restart": the voice goes on, and a new session brings the face back; "audio": the
            voice goes on for the rest of the call; "close": the `AvatarSession` closes itself.
        max_restarts: how many sessions in a row may fail before it is left at the voice. One that
            lasted `STABLE_AFTER` seconds starts the count anew.
        backoff: wait before the second restart in a row, doubled with each further one; the first
            is made at once. Each wait is shortened by up to half at random, so that many agents do
            not come back in step.
        backoff_max: the longest wait.
        session_cap: age at which Runway is expected to end a session; a session that ended earlier
            by itself lowers it for those that follow. None: sessions are not renewed.
        renew_before: how long before the cap the next session is made; None: 1.5 x the start-up
            time of the present one and 10 more, at most half of the cap.
        on_user_left: when the last user has left the agent room for `user_left_grace`. "keep": go
            on; "pause": end the paid session, keep the participant, and make a new session when a
            user is back; "close": the `AvatarSession` closes itself.

    Raises:
        ConfigurationError: names the option that is wrong.
    """

    on_loss: OnLoss = "restart"
    max_restarts: int = 3
    backoff: float = 1.0
    backoff_max: float = 30.0
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
        if self.session_cap is not None and self.session_cap < MIN_CAP:
            raise ConfigurationError(
                f"session_cap must be None or at least {MIN_CAP:g} seconds, not "
                f"{self.session_cap!r}."
            )
        if self.renew_before is not None:
            check_seconds("renew_before", self.renew_before)
            if self.session_cap is not None and self.renew_before >= self.session_cap:
                raise ConfigurationError(
                    f"renew_before ({self.renew_before:g} s) must be less than session_cap "
                    f"({self.session_cap:g} s)."
                )


def is_final(error: BaseException) -> bool:
    """Whether another session would fail in the same way: key, credits, quota, what was asked for,
    or an avatar that does not speak what it is told. Only a change from outside helps."""
    if isinstance(error, AvatarLostError):
        return error.reason == LossReason.SPEECH_FOREIGN
    if isinstance(error, SessionFailedError):
        return not error.retryable
    return isinstance(
        error,
        AuthenticationError
        | ForbiddenError
        | NotFoundError
        | QuotaError
        | RequestRejectedError
        | ConfigurationError
        | RoomTokenError,
    )


class Restarts:
    """Counts the failures in a row, and says how long to wait before the next try."""

    def __init__(
        self, options: RecoveryOptions, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._options = options
        self._uniform = uniform
        self.in_a_row = 0

    def next_delay(self, lived: float) -> float | None:
        """Seconds to wait after a session that was live for `lived` seconds was lost or did not
        come; None if it was one too many."""
        if lived >= STABLE_AFTER:
            self.in_a_row = 0
        if self.in_a_row >= self._options.max_restarts:
            return None
        self.in_a_row += 1
        if self.in_a_row == 1:
            return 0.0
        longest = min(self._options.backoff * 2.0 ** (self.in_a_row - 2), self._options.backoff_max)
        return longest * self._uniform(0.5, 1.0)


class Cap:
    """How old a session may become, as far as is known; learns from those that ended by
    themselves."""

    def __init__(self, options: RecoveryOptions, max_duration: int | None) -> None:
        self._renew_before = options.renew_before
        asked = float(max_duration) if max_duration is not None else None
        known = [cap for cap in (options.session_cap, asked) if cap is not None]
        self.seconds = min(known) if options.session_cap is not None else None

    def ended_by_itself(self, age: float) -> None:
        """Runway ended a session as COMPLETED at this age, unasked."""
        if self.seconds is not None and MIN_CAP <= age < self.seconds:
            self.seconds = age

    def renew_at(self, startup: float) -> float | None:
        """Age at which to make the next session, given how long this one took to start; None:
        never."""
        if self.seconds is None:
            return None
        before = 1.5 * startup + 10.0 if self._renew_before is None else self._renew_before
        return self.seconds - min(before, self.seconds / 2)

    def force_at(self) -> float | None:
        """Age at which the next session takes over at the latest, in mid-sentence if need be; None:
        never."""
        if self.seconds is None:
            return None
        return self.seconds - min(8.0, self.seconds / 5)
