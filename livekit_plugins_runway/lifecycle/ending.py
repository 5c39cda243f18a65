"""The end of each Runway session of a call: begun at once, confirmed, and accounted for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from .._common.tasks import BackgroundTasks, cancel_and_wait
from ..errors import AvatarClosedError
from ..events import AvatarReplaced, CallEvents, CallUsage, SessionEnd
from ..log import logger
from ..runway.billing import corrected, with_session
from ..runway.session import END_BUDGET, abandoned
from .instance import AvatarInstance

_SETTLE_TIMEOUT = 30.0


class Endings:
    """Holds each session of a call from its creation on, ends it, and counts what it has cost.

    Args:
        background: runs the ends.
        on_own_end: called with the age in seconds of a session that Runway has ended by itself.
    """

    def __init__(
        self,
        events: CallEvents,
        background: BackgroundTasks,
        on_own_end: Callable[[float], None],
    ) -> None:
        # Used by the event loop's thread only.
        self._events = events
        self._background = background
        self._on_own_end = on_own_end
        self._held: set[AvatarInstance] = set()
        """Sessions that were created and are not accounted for yet."""
        self._ending: set[asyncio.Task[None]] = set()
        """A task for each session that is being ended."""
        self._settling: set[asyncio.Task[None]] = set()
        """Tasks that ask Runway what ended sessions have cost. `aclose()` cancels them."""
        self._deadline: float | None = None
        """Loop time at which all must have ended, from `close()` on; None before."""
        self.usage = CallUsage()
        """Sums of the sessions that have ended. Replaced as a whole, never changed, so a caller may
        keep it.
        """

    def __repr__(self) -> str:
        return f"Endings(held={len(self._held)}, ending={len(self._ending)})"

    @property
    def billed(self) -> float:
        """Seconds that the sessions of the call were billed until now."""
        return self.usage.billed_seconds + sum(instance.billed for instance in self._held)

    def hold(self, instance: AvatarInstance) -> None:
        """Own a session from now on; called as soon as it was created.

        Raises:
            AvatarClosedError: the call is over; the session is being ended.
        """
        self._held.add(instance)
        if self._deadline is not None:
            self.retire(instance)
            raise AvatarClosedError("The call ended while the session was made.")

    def retire(self, instance: AvatarInstance | None) -> None:
        """End a session in the background. Idempotent."""
        if instance is None or instance.retired:
            return
        instance.retired = True
        instance.hide()
        ending = self._background.start(self._end(instance, instance.age), "runway_end_instance")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def close(self, deadline: float) -> None:
        """Begin to end all sessions, including those that are created later. Idempotent.

        Args:
            deadline: loop time in seconds at which the ends must be confirmed.
        """
        if self._deadline is None:
            self._deadline = deadline
        for instance in list(self._held):
            self.retire(instance)

    async def ended(self) -> None:
        """Wait until all sessions have ended and are accounted for. Call it after `close()`."""
        while self._ending:
            await asyncio.wait(set(self._ending))
        await cancel_and_wait(*self._settling)

    def account_for(self, end: SessionEnd) -> None:
        """Count a session that has ended, and emit the events."""
        self.usage = with_session(self.usage, end)
        self._events.session_ended(end)
        self._events.usage_updated(self.usage)

    def count(self, replaced: AvatarReplaced) -> None:
        """Count that another session has become the avatar."""
        usage, cause = self.usage, replaced.cause
        self.usage = replace(
            usage,
            restarts=usage.restarts + (cause == "restart"),
            renewals=usage.renewals + (cause == "renewal"),
            swaps=usage.swaps + (cause == "swap"),
            resumes=usage.resumes + (cause == "resume"),
            overlap_seconds=usage.overlap_seconds + replaced.overlap,
        )
        self._events.replaced(replaced)

    async def _end(self, instance: AvatarInstance, age: float) -> None:
        try:
            end = await instance.close(budget=self._budget())
        except Exception:  # noqa: BLE001  a bug here: account for the session anyway
            logger.exception("the end of a Runway session has failed")
            end = abandoned(instance.session.id)
        finally:
            self._held.discard(instance)
        end = replace(end, consumed_at=instance.session.times.consumed)
        logger.info(
            "the Runway session has ended",
            extra={"how": end.how, "status": end.status, "billed_seconds": end.billed_seconds},
        )
        if end.how == "already ended" and end.status == "COMPLETED":
            self._on_own_end(age)
        self.account_for(end)
        if end.estimated and end.billed_seconds and self._deadline is None:
            settling = asyncio.create_task(self._settle(instance, end), name="runway_settle")
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)

    def _budget(self) -> float:
        if self._deadline is None:
            return END_BUDGET
        return max(0.5, self._deadline - asyncio.get_running_loop().time())

    async def _settle(self, instance: AvatarInstance, end: SessionEnd) -> None:
        """Runway's figures for a session come some time after its end."""
        settled = await instance.session.settled(end, _SETTLE_TIMEOUT)
        if settled is not None:
            self.usage = corrected(self.usage, end, settled)
            self._events.usage_updated(self.usage)
