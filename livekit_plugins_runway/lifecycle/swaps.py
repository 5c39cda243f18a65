"""Requests for another avatar in mid-call: one at a time, each answered once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import AvatarClosedError, RunwayException
from ..runway.models import CreateRealtimeSession


@dataclass(frozen=True, eq=False)
class Swap:
    """What was asked for, and whom to answer."""

    request: CreateRealtimeSession
    done: asyncio.Future[None]

    def succeed(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: RunwayException) -> None:
        """No effect on one that was answered, or that nobody waits for any more."""
        if not self.done.done():
            self.done.set_exception(error)

    @contextlib.contextmanager
    def answered(self) -> Iterator[None]:
        """Whatever becomes of the block, whoever has asked is told."""
        try:
            yield
        except RunwayException as error:
            self.fail(error)
            raise
        else:
            self.succeed()
        finally:
            self.fail(_over())


class SwapRequests:
    """The way from `swap_avatar()` to the supervisor, which takes a swap up when it can."""

    def __init__(self) -> None:
        self._wanted: Swap | None = None
        """The one that was asked for and not taken up yet."""
        self._asked = asyncio.Event()
        """Set while there is a `_wanted`."""
        self._closed = False

    async def ask(self, request: CreateRealtimeSession) -> None:
        """Returns when the user sees the avatar. One at a time; cancelled before it was taken up,
        it does not come about.

        Raises:
            RunwayException: it did not come about.
        """
        if self._closed:
            raise _over()
        swap = Swap(request, asyncio.get_running_loop().create_future())
        self._wanted = swap
        self._asked.set()
        try:
            await swap.done
        finally:
            if self._wanted is swap:
                self._wanted = None
                self._asked.clear()

    async def wait(self) -> None:
        """Until a swap is asked for, which `take()` gives in the same step."""
        while self._wanted is None:
            self._asked.clear()
            await self._asked.wait()

    def take(self) -> Swap | None:
        """The swap that is wanted, for whoever will answer it."""
        swap, self._wanted = self._wanted, None
        self._asked.clear()
        return None if swap is None or swap.done.done() else swap

    def close(self) -> None:
        """Turn down what was not taken up, and whatever comes. Idempotent."""
        self._closed = True
        if (swap := self.take()) is not None:
            swap.fail(_over())


def _over() -> AvatarClosedError:
    return AvatarClosedError("The call ended before the swap.")
