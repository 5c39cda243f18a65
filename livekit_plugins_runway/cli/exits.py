"""Exit codes, one meaning each."""

from __future__ import annotations

import enum

from ..errors import (
    AuthenticationError,
    AvatarJoinError,
    ConfigurationError,
    CreditsError,
    LostAnswerError,
    NotFoundError,
    ProtocolError,
    QuotaError,
    RateLimitedError,
    RunwayException,
    ServerError,
    SessionNotReadyError,
    StillProcessingError,
    TimedOutError,
    UnavailableError,
)


class ExitCode(enum.IntEnum):
    """What the process says at its end."""

    OK = 0
    REFUSED = 1
    """Runway or LiveKit refused, the session failed, or `doctor` found something wrong."""
    USAGE = 2
    """A wrong argument, or a setting that is missing."""
    AUTH = 3
    """No key, or one that was not accepted."""
    NOT_FOUND = 4
    TIMEOUT = 5
    """No answer, or not READY, in time."""
    NETWORK = 6
    """Not reached, or the answer was lost."""
    LIMIT = 7
    """Credits, the daily limit, or too many requests."""
    SERVER = 8
    """Runway's own fault: 5xx, or an answer that does not make sense."""
    INTERRUPTED = 130


# The first that fits counts: some kinds derive from others.
_CODES: tuple[tuple[type[RunwayException], ExitCode], ...] = (
    (CreditsError, ExitCode.LIMIT),
    (QuotaError, ExitCode.LIMIT),
    (RateLimitedError, ExitCode.LIMIT),
    (AuthenticationError, ExitCode.AUTH),
    (NotFoundError, ExitCode.NOT_FOUND),
    (ServerError, ExitCode.SERVER),
    (ProtocolError, ExitCode.SERVER),
    (TimedOutError, ExitCode.TIMEOUT),
    (SessionNotReadyError, ExitCode.TIMEOUT),
    (StillProcessingError, ExitCode.TIMEOUT),
    (AvatarJoinError, ExitCode.TIMEOUT),
    (LostAnswerError, ExitCode.NETWORK),
    (UnavailableError, ExitCode.NETWORK),
    (ConfigurationError, ExitCode.USAGE),
)


class CredentialsError(ConfigurationError):
    """There is no key to call with, or LiveKit did not accept it."""


def exit_code(error: RunwayException) -> ExitCode:
    if isinstance(error, CredentialsError):
        return ExitCode.AUTH
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.REFUSED)
