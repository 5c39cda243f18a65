"""Polls Runway until a condition holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ..errors import (
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    RequestRejectedError,
    RunwayException,
    ServerError,
    TimedOutError,
    UnavailableError,
)
from .answers import asked_to_wait

_T = TypeVar("_T")


@dataclass(frozen=True)
class Pace:
    """The intervals of polling, in seconds.

    Attributes:
        first: between the first polls.
        slowest: between later ones; each wait is 1.3 times the one before, up to this.
        steady_for: how long the first interval is kept.
        at_once: ask before the first wait.
        unknown_for: for how long after its creation Runway may not know it yet, wherever it keeps
            what it was asked to make; a 404 after that is final.
        jitter: gives numbers in [0, 1); each wait is longer by up to a quarter at random, so that
            many that began at the same time do not go on asking at the same time.
    """

    first: float
    slowest: float
    steady_for: float = 0.0
    at_once: bool = False
    unknown_for: float = 0.0
    jitter: Callable[[], float] = lambda: 0.0


async def poll(
    ask: Callable[[], Awaitable[_T]],
    is_over: Callable[[_T], bool],
    *,
    pace: Pace,
    timeout: float,
    too_late: Callable[[], RunwayException],
) -> _T:
    """Returns the first answer that `is_over`. A poll that fails for a temporary reason (5xx, 408,
    429, no answer, one that cannot be understood) does not end the wait. After a 429 it asks again
    when the service has asked it to, and later by up to a half at random.

    Args:
        is_over: may raise what ends the wait; a `ProtocolError` counts as a poll that failed.
        timeout: seconds.
        too_late: the error where the time is over, and the last poll has told something.

    Raises:
        RunwayException: a poll failed for good, or the last ones before `timeout` did.
    """
    loop = asyncio.get_running_loop()
    fault: RunwayException | None = None
    limit = asyncio.timeout(timeout)
    interval = pace.first
    begin = loop.time()
    due = begin if pace.at_once else begin + interval * (1 + pace.jitter() / 4)
    try:
        async with limit:
            while True:
                await asyncio.sleep(due - loop.time())
                try:
                    answer = await ask()
                    if is_over(answer):
                        return answer
                    fault = None
                except RunwayException as error:
                    # A poll may have reached its own limit at the same moment.
                    if limit.expired() or not _may_pass(error, due - begin, pace.unknown_for):
                        raise
                    fault = error
                    if isinstance(error, RateLimitedError) and error.retry_after is not None:
                        due = loop.time() + asked_to_wait(error, pace.jitter)
                        continue
                if due - begin >= pace.steady_for:
                    interval = min(interval * 1.3, pace.slowest)
                due = max(due + interval * (1 + pace.jitter() / 4), loop.time())
    except (TimeoutError, RunwayException):
        if not limit.expired():
            raise
    raise fault or too_late()


def _may_pass(error: RunwayException, waited: float, unknown_for: float) -> bool:
    """True if the resource may exist although a poll fails in this way after so many seconds of
    waiting.
    """
    if isinstance(error, NotFoundError):
        return waited < unknown_for
    if isinstance(error, RequestRejectedError):
        return error.status_code == 408
    return isinstance(
        error, ServerError | RateLimitedError | UnavailableError | TimedOutError | ProtocolError
    )
