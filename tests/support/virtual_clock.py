"""An event loop whose time stands still while there is work, and jumps where it would sleep.

For tests of waits and limits whose peers all live in the test's own thread: real sockets work,
since bytes on loopback arrive within the short grace that is given before each jump.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

GRACE = 0.005


class _Selector(selectors.DefaultSelector):
    now = 0.0

    def __init__(self, grace: float) -> None:
        super().__init__()
        self._grace = grace

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(min(timeout, self._grace))
        if not events:
            self.now += timeout
        return events


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """`grace` is 0 where nothing but timers is waited for: no socket is given any real time."""

    def __init__(self, grace: float = GRACE) -> None:
        self._virtual = _Selector(grace)
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def virtual_clock(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs an async test on a clock of its own that begins at 0."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def timers_only(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """As `virtual_clock`, for tests without sockets: hours take seconds."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(0.0)) as runner:
            runner.run(test(*args, **kwargs))

    return run
