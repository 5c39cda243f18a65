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
    """One request, and the future for its answer."""

    request: CreateRealtimeSession
    done: asyncio.Future[None]

    def succeed(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: RunwayException) -> None:
        """No effect if it was answered already, or was cancelled."""
        if not self.done.done():
            self.done.set_exception(error)

    @contextlib.contextmanager
    def answered(self) -> Iterator[None]:
        """The request is answered in any case: with the block's exception, or with success."""
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
    """Passes requests from `swap_avatar()` to the supervisor, which takes one up when it can."""

    def __init__(self) -> None:
        self._wanted: Swap | None = None
        """The one that was asked for and not taken up yet."""
        self._asked = asyncio.Event()
        """Set while there is a `_wanted`."""
        self._closed = False

    async def ask(self, request: CreateRealtimeSession) -> None:
        """Returns when the user sees the avatar. One request at a time. If it is cancelled before
        it was taken up, no swap is made.

        Raises:
            RunwayException: the swap was not made.
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
        """Wait for a request; `take()` returns it in the same step of the event loop."""
        while self._wanted is None:
            self._asked.clear()
            await self._asked.wait()

    def take(self) -> Swap | None:
        """Return the pending request; the caller must answer it."""
        swap, self._wanted = self._wanted, None
        self._asked.clear()
        return None if swap is None or swap.done.done() else swap

    def close(self) -> None:
        """Refuse the pending request and all later ones. Idempotent."""
        self._closed = True
        if (swap := self.take()) is not None:
            swap.fail(_over())


def _over() -> AvatarClosedError:
    return AvatarClosedError("The call ended before the swap.")
