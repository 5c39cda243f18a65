"""One Runway session, from its creation to its confirmed end."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from ..errors import RunwayException
from ..events import SessionEnd
from ..log import logger
from .client import RunwayClient
from .models import (
    TERMINAL_STATES,
    Completed,
    ConsumedCredentials,
    CreateRealtimeSession,
    Ready,
    RealtimeSessionState,
)

END_BUDGET = 7.0
"""Seconds in which a session's end must be confirmed; a job has 10 after its room is gone."""
STATUS_INTERVAL = 10.0
"""Seconds between polls of the status of a session that seems to be alive."""
_CONFIRM_SHARE = 0.6
_POLL = 0.5
_RETRY = 0.5
_FOLLOWS = 0.5
"""Seconds after its worker has left, in which Runway may report that the session has ended by
itself.
"""
_SETTLE_INTERVAL = 3.0


class SessionState(enum.Enum):
    NEW = "new"
    CREATED = "created"
    READY = "ready"
    CONSUMED = "consumed"
    ENDING = "ending"
    ENDED = "ended"


_ORDER = list(SessionState)


@dataclass
class _Times:
    """Unix times in seconds, set when the session reaches a stage; None for stages that it did not
    reach. For reports only, not for differences: the machine's clock may be set in between.
    """

    created: float | None = None
    ready: float | None = None
    consumed: float | None = None
    running: float | None = None
    """The worker joined: it is billed from this time."""
    ended: float | None = None


@dataclass(eq=False)
class RealtimeSession:
    """Owns one Runway session. Once it was created, `end()` must be awaited, whatever else fails.
    Used by the event loop's thread only.

    Args:
        client: shared; not closed here.
        request: the body of the create call.
    """

    client: RunwayClient
    request: CreateRealtimeSession
    state: SessionState = SessionState.NEW
    """Changed by `_move_to()` only, and only forward; steps may be left out."""
    id: str = ""
    """Runway's id; "" until CREATED."""
    times: _Times = field(default_factory=_Times)
    _billed_from: float | None = field(default=None, repr=False)
    """Loop time of `times.running`."""
    _final: RealtimeSessionState | None = field(default=None, repr=False)
    """Runway's terminal answer, once `wait_until_ended()` has received it."""
    _end_task: asyncio.Task[SessionEnd] | None = field(default=None, repr=False)
    """The task that ends it, from the first `end()` on."""

    def _move_to(self, state: SessionState) -> None:
        """Change the state; forward only."""
        if _ORDER.index(state) <= _ORDER.index(self.state):
            raise RuntimeError(f"a session cannot go from {self.state.value} to {state.value}")
        self.state = state
        logger.debug(
            "runway session state changed",
            extra={"state": state.value, "lk.pii.session_id": self.id},
        )

    async def create(
        self, on_sent: Callable[[], None] | None = None, *, repeat_5xx: bool = True
    ) -> None:
        """As `RunwayClient.create`. Cancelled, it leaves no session behind."""
        self.id = await self.client.create(self.request, on_sent=on_sent, repeat_5xx=repeat_5xx)
        self.times.created = time.time()
        self._move_to(SessionState.CREATED)

    async def wait_until_ready(
        self,
        timeout: float,
        on_queued: Callable[[bool], None] | None = None,
        *,
        queue_timeout: float | None = None,
    ) -> Ready:
        """Raises what `RunwayClient.wait_until_ready` raises."""
        ready = await self.client.wait_until_ready(
            self.id, timeout=timeout, queue_timeout=queue_timeout, on_queued=on_queued
        )
        self.times.ready = time.time()
        self._move_to(SessionState.READY)
        return ready

    async def wait_until_under_way(
        self, timeout: float, on_queued: Callable[[bool], None] | None = None
    ) -> None:
        """Wait for a session whose worker joins a room by itself. Raises what
        `RunwayClient.wait_until_under_way` raises.
        """
        await self.client.wait_until_under_way(self.id, timeout=timeout, on_queued=on_queued)
        self.times.ready = time.time()
        self._move_to(SessionState.READY)

    async def consume(self, ready: Ready) -> ConsumedCredentials:
        """Possible once. Raises what `RunwayClient.consume` raises."""
        credentials = await self.client.consume(self.id, ready.session_key.get_secret_value())
        self.times.consumed = time.time()
        self._move_to(SessionState.CONSUMED)
        return credentials

    async def wait_until_ended(self, interval: float = STATUS_INTERVAL) -> RealtimeSessionState:
        """Poll the status every `interval` seconds, less up to a fifth at random, until it is
        terminal, else until cancelled. A failed poll does not count as an end.
        """
        while True:
            await asyncio.sleep(interval * (1 - self.client.jitter() / 5))
            state = await self._status()
            if state is not None and _terminal(state):
                self._final = state
                return state

    def worker_joined(self) -> None:
        """Note that billing has begun."""
        self.times.running = time.time()
        self._billed_from = asyncio.get_running_loop().time()

    async def end(
        self,
        *,
        say_goodbye: Callable[[], Awaitable[bool]] | None = None,
        worker_gone: asyncio.Event | None = None,
        budget: float = END_BUDGET,
    ) -> SessionEnd:
        """End the session and confirm its end. Idempotent; callers share one attempt.

        Sends END_CALL if the worker can receive it, confirmed by the worker's leaving or by a
        terminal status; else DELETE, repeated within `budget` seconds. Never raises for Runway's
        answers: an end that could not be confirmed is reported in the result and in the log.
        Cancelling the caller does not stop it.

        Args:
            say_goodbye: sends END_CALL; returns False if it could not.
            worker_gone: set when the worker has left.
        """
        if self._end_task is None:
            self._end_task = asyncio.create_task(
                self._end(say_goodbye, worker_gone, budget), name="runway_end_session"
            )
        return await asyncio.shield(self._end_task)

    async def settled(self, end: SessionEnd, timeout: float) -> SessionEnd | None:
        """The same end with Runway's final status and figures, which come some seconds later; None
        if they did not come within `timeout` seconds. If the session has not ended by then,
        although its worker was seen to leave, it is deleted, and that end is returned: the worker
        may have come back, and bills.
        """
        try:
            async with asyncio.timeout(timeout):
                state = await self.wait_until_ended(_SETTLE_INTERVAL)
                if isinstance(state, Completed):
                    if state.duration is None:
                        return replace(end, status=state.status)
                    return replace(
                        end,
                        status=state.status,
                        billed_seconds=float(state.duration),
                        estimated=False,
                    )
        except TimeoutError:
            if end.how == "worker left":
                logger.warning("a Runway session goes on without its worker; deleting it")
                return await self._end_by_delete(asyncio.get_running_loop().time() + END_BUDGET)
        return None

    async def _end(
        self,
        say_goodbye: Callable[[], Awaitable[bool]] | None,
        worker_gone: asyncio.Event | None,
        budget: float,
    ) -> SessionEnd:
        self._move_to(SessionState.ENDING)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + budget
        try:
            async with asyncio.timeout_at(loop.time() + budget * _CONFIRM_SHARE):
                end = await self._end_politely(say_goodbye, worker_gone)
        except TimeoutError:
            end = None
        if end is None:
            end = await self._end_by_delete(deadline)
        self._move_to(SessionState.ENDED)
        if end.confirmed:
            self.client.forget(self.id)
        return end

    async def _end_politely(
        self,
        say_goodbye: Callable[[], Awaitable[bool]] | None,
        worker_gone: asyncio.Event | None,
    ) -> SessionEnd | None:
        if self._final is not None:
            return self._result("already ended", self._final)

        def has_gone() -> bool:
            return worker_gone is not None and worker_gone.is_set()

        if has_gone() or say_goodbye is None or not await say_goodbye():
            if has_gone():  # at first, or if END_CALL could not be sent
                return await self._ended_with_its_worker()
            used = self.times.consumed is not None or self.times.running is not None
            state = await self._status() if used else None
            return self._result("already ended", state) if _terminal(state) else None
        assert worker_gone is not None
        while True:
            try:
                async with asyncio.timeout(_POLL):
                    await worker_gone.wait()
                return self._result("worker left", await self._status())
            except TimeoutError:
                state = await self._status()
                if _terminal(state):
                    return self._result("end call", state)

    async def _ended_with_its_worker(self) -> SessionEnd | None:
        """Whether the session of a worker that left by itself has ended. The worker may have
        crashed, which does not end the session at Runway. So only a terminal status counts, which
        may come after the leaving.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _FOLLOWS
        while True:
            state = await self._status()
            if _terminal(state):
                return self._result("already ended", state)
            if loop.time() >= until:
                return None
            await asyncio.sleep(_FOLLOWS / 2)

    async def _status(self) -> RealtimeSessionState | None:
        try:
            return await self.client.get(self.id)
        except RunwayException as error:
            logger.debug("no status of the session", extra={"error": type(error).__name__})
            return None

    async def _end_by_delete(self, deadline: float) -> SessionEnd:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await self.client.delete(self.id, within=deadline - loop.time())
                return self._result("deleted", None)
            except (RunwayException, TimeoutError) as error:
                if loop.time() + _RETRY >= deadline:
                    return self._unconfirmed(error)
                await asyncio.sleep(_RETRY)

    def _unconfirmed(self, error: Exception) -> SessionEnd:
        logger.error(
            "a Runway session may still be billing: its end could not be confirmed. End it by hand "
            "with: DELETE /v1/realtime_sessions/<session id>",
            extra={"lk.pii.session_id": self.id, "error": type(error).__name__},
        )
        return self._result("unconfirmed", None)

    def _result(
        self,
        how: Literal["worker left", "already ended", "end call", "deleted", "unconfirmed"],
        state: RealtimeSessionState | None,
    ) -> SessionEnd:
        now = self.times.ended = time.time()
        since = self._billed_from
        estimate = 0.0 if since is None else asyncio.get_running_loop().time() - since
        told = state.duration if isinstance(state, Completed) else None
        return SessionEnd(
            session_id=self.id,
            # After END_CALL it takes Runway 7 to 12 s to settle; until then it says RUNNING.
            status=state.status if state is not None and _terminal(state) else None,
            how=how,
            confirmed=how != "unconfirmed",
            created_at=self.times.created,
            ready_at=self.times.ready,
            started_at=self.times.running,
            ended_at=now,
            billed_seconds=estimate if told is None else float(told),
            estimated=told is None,
        )


def abandoned(session_id: str) -> SessionEnd:
    """The end of a session whose create was given up before its response came, and which could not
    be ended afterwards.
    """
    return SessionEnd(
        session_id=session_id,
        status=None,
        how="unconfirmed",
        confirmed=False,
        created_at=None,
        ready_at=None,
        started_at=None,
        ended_at=time.time(),
        billed_seconds=0.0,
        estimated=True,
    )


def _terminal(state: RealtimeSessionState | None) -> bool:
    return isinstance(state, TERMINAL_STATES)
