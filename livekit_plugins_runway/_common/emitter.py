"""An event emitter whose listeners cannot stop the code that emits."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from livekit import rtc

from ..log import logger

Name = TypeVar("Name", contravariant=True)


class SafeEmitter(rtc.EventEmitter[Name]):
    """An emitter whose `emit()` does not raise. The SDK's raises a listener's `TypeError` (livekit
    1.1.21), which ends the emitting code and skips the remaining listeners.

    Name it before the other emitter base, so that what that base emits goes through it, too: `class
    Ours(SafeEmitter[Names], TheirEmitter)`.
    """

    def emit(self, event: Name, *args: Any) -> None:
        """Call the listeners of `event` in the order in which they came, each with as many of
        `args` as it takes.

        What one raises is logged with the event's name. A `CancelledError` as well: nothing is
        awaited here, so it comes from a task that the listener inspected, and not from the caller.
        """
        for listener in list(self._events.get(event, ())):
            try:
                listener(*_taken_by(listener, args))
            except (Exception, asyncio.CancelledError):  # noqa: BLE001  a listener is not our code
                logger.exception("a listener of an event failed", extra={"event": event})


def _taken_by(listener: Callable[..., object], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """As many of `args` as `listener` takes by position; all, if that cannot be found out."""
    try:
        parameters = inspect.signature(listener).parameters.values()
    except ValueError:  # a builtin without a signature
        return args
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return args
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return args[: sum(kind in by_position for kind in kinds)]
