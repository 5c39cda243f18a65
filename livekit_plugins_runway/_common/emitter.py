"""Telling listeners, who are others' code, so that none of them stops who tells."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from livekit import rtc

from ..log import logger

Name = TypeVar("Name", contravariant=True)


class SafeEmitter(rtc.EventEmitter[Name]):
    """An emitter whose `emit()` does not raise: the SDK's lets a `TypeError` of a listener through
    (livekit 1.1.21), which ends whatever was about to be done, and keeps the news from the
    listeners after it.

    To be named before the base whose events it is to tell, so that those which that base emits go
    through it, too: `class Ours(SafeEmitter[Names], TheirEmitter)`.
    """

    def emit(self, event: Name, *args: Any) -> None:
        """Call the listeners of `event` in the order in which they came, each with as many of
        `args` as it takes.

        What one raises is logged with the event's name. A `CancelledError` as well: nothing is
        awaited here, so it is of a task that the listener has looked at, and not of the caller's.
        """
        for listener in list(self._events.get(event, ())):
            try:
                listener(*_taken_by(listener, args))
            except (Exception, asyncio.CancelledError):  # noqa: BLE001  it is others' code
                logger.exception("a listener of an event failed", extra={"event": event})


def _taken_by(listener: Callable[..., object], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """As many of `args` as `listener` takes by position; all, where that cannot be told."""
    try:
        parameters = inspect.signature(listener).parameters.values()
    except ValueError:  # of a builtin that has none
        return args
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return args
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return args[: sum(kind in by_position for kind in kinds)]
