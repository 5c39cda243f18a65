"""Waiting for the first of several tasks, and cancelling tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..log import logger

T = TypeVar("T")


async def first_of(
    *ways: Coroutine[Any, Any, object] | asyncio.Future[Any] | None, timeout: float | None = None
) -> int | None:
    """Wait until the first of several has ended.

    A coroutine runs as a task of this call: it is cancelled when the wait is over, in any way, and
    has ended when this returns or raises. A future or task is only watched: it belongs to the
    caller, who alone cancels it. Those that end in the same step of the event loop are all first.
    Errors of the others are logged at debug.

    Args:
        ways: None is ignored; at least one must not be None.
        timeout: seconds; None: no limit.

    Returns:
        The index of the first in `ways`, the lowest if there are several; None after `timeout`.

    Raises:
        The exception of one of the first; the caller's own cancellation.
    """
    entries: list[tuple[int, asyncio.Future[Any]]] = []
    ours: list[asyncio.Future[Any]] = []
    for place, way in enumerate(ways):
        if isinstance(way, asyncio.Future):
            entries.append((place, way))
        elif way is not None:
            ours.append(asyncio.create_task(way, name="runway_race"))
            entries.append((place, ours[-1]))
    done: set[asyncio.Future[Any]] = set()
    try:
        done, _ = await asyncio.wait(
            [entry for _, entry in entries],
            timeout=timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
    finally:
        await cancel_and_wait(*(entry for entry in ours if entry not in done))
    ended = [(place, entry) for place, entry in entries if entry in done]
    for _, entry in ended:
        entry.result()
    return ended[0][0] if ended else None


def watched(task: asyncio.Task[None]) -> asyncio.Task[None]:
    """For a task that is not awaited until it is cancelled: an error that ends it is logged at
    once, with the task's name.
    """
    task.add_done_callback(_log_failure)
    return task


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("a task has failed", exc_info=error, extra={"task": task.get_name()})


async def cancel_and_wait(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks, and wait until each has ended, however it ends. None is no task.

    Their errors are logged at debug. Cancelled while it waits, it cancels them once more, still
    waits for them, and raises the cancellation after that.
    """
    wanted = [task for task in tasks if task is not None]
    for task in wanted:
        task.cancel()
    outcomes = await asyncio.gather(*wanted, return_exceptions=True)
    for task, outcome in zip(wanted, outcomes, strict=True):
        if isinstance(outcome, Exception):
            name = task.get_name() if isinstance(task, asyncio.Task) else "future"
            logger.debug(
                "a cancelled task had failed",
                extra={"task": name, "error": type(outcome).__name__},
            )


class BackgroundTasks:
    """Owns tasks that may outlive their starter, such as leaving a room. An error that ends one is
    logged, with the task's name. A task that waits for a timer or the SDK is referenced by these,
    so it survives the owner of this object.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"BackgroundTasks({sorted(task.get_name() for task in self._tasks)})"

    @property
    def pending(self) -> int:
        """How many tasks have not ended."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run it as a task that need not be awaited."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_failure)
        return task

    async def settle(self, deadline: float) -> bool:
        """Wait until all tasks have ended, also those that are started meanwhile. False if
        `deadline`, a loop time in seconds, came first; then the rest goes on.
        """
        loop = asyncio.get_running_loop()
        while self._tasks:
            if (left := deadline - loop.time()) <= 0:
                return False
            await asyncio.wait(set(self._tasks), timeout=left)
        return True
