"""What a caller is told when something is not done: this server's own refusals, and Runway's."""

from __future__ import annotations

import math
from typing import Any

from .._common.text import one_line
from ..errors import (
    RequestError,
    RunwayException,
    SessionFailedError,
    SessionNotReadyError,
    TimedOutError,
)

_LONGEST_LINE = 500
_REASONS = {
    400: "body",
    401: "token",
    403: "origin",
    404: "not_found",
    405: "method",
    408: "slow_body",
    413: "long_body",
    415: "content_type",
    429: "rate",
    500: "session_failed",
    502: "runway_unreachable",
    503: "no_room",
    504: "not_ready",
}


class Refused(Exception):
    """An answer that is an error: an HTTP status and a JSON body with the key `error`.

    Args:
        retry_after: seconds after which the same may succeed.
        reason: for the metrics; None: what the status means mostly.
        details: further keys of the body; None is left out.
    """

    def __init__(
        self,
        status: int,
        error: str,
        /,
        *,
        retry_after: float | None = None,
        reason: str | None = None,
        **details: Any,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.body = {
            "error": error,
            **{name: value for name, value in details.items() if value is not None},
        }
        self.reason = reason or _REASONS.get(status, "other")
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(math.ceil(retry_after))
        self.for_log = one_line(error[:_LONGEST_LINE])
        """One line, without control sequences: part of it may be the caller's."""
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"


def from_runway(error: RunwayException) -> Refused:
    """The answer for a failed call to Runway.

    Runway's own refusals keep their status. They say `"source": "runway"`, because a 401 of Runway
    is about this server's key and not about the caller's token.
    """
    match error:
        case RequestError():
            told = error.body if isinstance(error.body, dict) else {}
            return Refused(
                error.status_code,
                error.message,
                retry_after=error.retry_after,
                reason="runway",
                source="runway",
                issues=told.get("issues") or None,
                docUrl=error.doc_url,
            )
        case SessionFailedError():
            return Refused(
                500,
                error.message,
                status=error.status,
                failure=error.failure or None,
                failureCode=error.failure_code or None,
            )
        case SessionNotReadyError():
            return Refused(504, error.message, status="NOT_READY", queued=error.queued)
        case TimedOutError():
            return Refused(504, error.message)
        case _:
            return Refused(502, error.message)
