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


class Refused(Exception):
    """An answer that is an error: an HTTP status and a JSON body with the key `error`.

    Args:
        retry_after: seconds after which the same may succeed.
        details: further keys of the body; None is left out.
    """

    def __init__(
        self, status: int, error: str, /, *, retry_after: float | None = None, **details: Any
    ) -> None:
        super().__init__(error)
        self.status = status
        self.body = {
            "error": error,
            **{name: value for name, value in details.items() if value is not None},
        }
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
