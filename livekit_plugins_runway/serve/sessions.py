"""The Runway sessions that this server makes: within limits, and each either handed over or ended.

A session belongs to its caller once an answer with its id has gone out. Until then it is this
server's, and is ended whatever happens: not READY in time, a failed call, a caller that hung up,
shutdown. After that it is looked after while this server runs (`made.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from .._common.tasks import cancel_and_wait, watched
from ..log import logger
from ..runway.address import DEFAULT_BASE_URL
from ..runway.client import RunwayClient
from ..runway.models import (
    CreateRealtimeSession,
    Ready,
    RealtimeSessionState,
)
from ..runway.session import RealtimeSession, SessionState
from .guard import RateLimit, too_many
from .made import STARTUP_MARGIN, Made, Outcome, look_after
from .metrics import Metrics
from .options import Response, ServeOptions
from .refusals import Refused

_REMEMBERED = 3600.0
"""Seconds for which an ended session can still be asked about."""


class Caller:
    """One request and what is made for it. Leaving it ends what was not handed over.

    Args:
        address: that limits are counted for.
    """

    def __init__(self, address: str, sessions: Sessions) -> None:
        self.address = address
        self._sessions = sessions
        self._making: set[asyncio.Timeout] = set()
        self._waiting: list[Made] = []
        self._gone = False

    def __enter__(self) -> Self:
        self._sessions.callers.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._gone = True
        self._sessions.callers.discard(self)
        self.break_off()
        for made in self._waiting:
            self._sessions.take_back(made)
        self._waiting = []

    def sent(self, content: bytes) -> None:
        """This has gone out to the caller: the sessions whose id is in it are the caller's now."""
        kept = []
        for made in self._waiting:
            if made.session.id.encode() in content:
                self._sessions.handed_over(made)
            else:
                kept.append(made)
        self._waiting = kept

    @asynccontextmanager
    async def making(self) -> AsyncIterator[None]:
        """What is done in it is broken off with a `Refused` when the caller hangs up or the server
        stops."""
        # A limit without a time is the standard library's way to break off a block from outside.
        limit = asyncio.timeout(None)
        self._refuse_if_over()
        try:
            async with limit:
                self._making.add(limit)
                try:
                    yield
                finally:
                    self._making.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise
            self._refuse_if_over()

    def hold(self, made: Made) -> None:
        """Made, and not yet handed over.

        Raises:
            Refused: too late, the caller is gone.
        """
        self._refuse_if_over()
        self._waiting.append(made)

    def break_off(self) -> None:
        """End what is being made now."""
        for limit in self._making:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    def _refuse_if_over(self) -> None:
        if self._gone or self._sessions.stopping:
            if self._gone:
                raise Refused(503, "The caller hung up.", reason="hung_up")
            raise Refused(503, "This server is shutting down.", reason="shutdown")


class Sessions:
    """Makes, shows and ends sessions. End with `stop()`, then `aclose()`.

    Args:
        client: not closed here.
    """

    def __init__(
        self, client: RunwayClient, options: ServeOptions, metrics: Metrics | None = None
    ) -> None:
        self._client = client
        self._options = options
        self.metrics = metrics or Metrics()
        self.metrics.watch_sessions(lambda: self.alive, options.max_sessions)
        self._creates = RateLimit(options.rate)
        self._made: list[Made] = []
        self._ends: set[asyncio.Task[None]] = set()
        self._watches: set[asyncio.Task[None]] = set()
        """Of sessions that were handed over."""
        self.callers: set[Caller] = set()
        """Whose requests are under way."""
        self.stopping = False

    def caller(self, address: str) -> Caller:
        """A request begins; to be entered and left."""
        return Caller(address, self)

    async def create(self, request: CreateRealtimeSession, caller: Caller) -> dict[str, Any]:
        """Runway's answer to a create call.

        Raises:
            Refused: a limit of this server.
            RunwayException: Runway refused, or could not be reached.
        """
        async with self._made_for(caller, request) as session:
            return {"id": session.id}

    async def make_ready(
        self,
        request: CreateRealtimeSession,
        response: Response | None,
        caller: Caller,
        on_queued: Callable[[bool], None] | None = None,
    ) -> dict[str, Any]:
        """Make a session, wait until it is READY, and say how to join it.

        Args:
            response: what to answer; None: what the server's options say.
            on_queued: told, while it waits, whether Runway has no capacity yet.

        Raises:
            Refused: a limit of this server.
            SessionNotReadyError: not READY in time; it is being ended.
            SessionFailedError: it ended before it was READY.
            RunwayException: Runway refused, or could not be reached.
        """
        async with self._made_for(caller, request) as session:
            ready = await session.wait_until_ready(self._options.ready_timeout, on_queued)
            if (response or self._options.response) == "session-key":
                return self._with_key(session.id, ready)
            credentials = await session.consume(ready)
            return {
                "sessionId": session.id,
                "serverUrl": credentials.url,
                "token": credentials.token.get_secret_value(),
                "roomName": credentials.room_name,
            }

    def _with_key(self, session_id: str, ready: Ready) -> dict[str, Any]:
        answer = {"sessionId": session_id, "sessionKey": ready.session_key.get_secret_value()}
        # Where the key is good, if that is not where Runway's browser SDKs look by themselves.
        if self._client.base_url != DEFAULT_BASE_URL:
            answer["baseUrl"] = self._client.base_url
        return answer

    async def state(self, session_id: str) -> RealtimeSessionState:
        """What Runway says of a session that this server made.

        Raises:
            Refused: 404, it did not make that one.
            RunwayException: as the client's `get`.
        """
        made = self._known(session_id)
        state = await self._client.get(session_id)
        made.told(state)
        return state

    async def cancel(self, session_id: str) -> None:
        """End a session that this server made; may be repeated.

        Raises:
            Refused: 404, it did not make that one.
            RunwayException: as the client's `delete`; it may still be alive.
        """
        made = self._known(session_id)
        await self._client.delete(session_id)
        made.ended("cancelled")
        logger.info("a session was cancelled", extra={"lk.pii.session_id": session_id})

    def stop(self) -> None:
        """Make no more sessions, and break off those that are being made."""
        self.stopping = True
        for caller in self.callers:
            caller.break_off()

    async def aclose(self) -> None:
        """Wait until the sessions that nobody got are seen to have ended (7 s at most)."""
        self.stop()
        await cancel_and_wait(*self._watches)
        if self._ends:
            await asyncio.wait(self._ends)
        if self.alive:
            logger.info("sessions that were handed over go on without this server: %d", self.alive)

    # -- from create to the caller --

    @asynccontextmanager
    async def _made_for(
        self, caller: Caller, request: CreateRealtimeSession
    ) -> AsyncIterator[RealtimeSession]:
        """A session that is the caller's to be handed if the block succeeds, else ended."""
        if wait := self._creates.take(caller.address):
            raise too_many(wait, "sessions")
        async with caller.making():
            await self._find_room()
            made = self._reserve(request)
            with ExitStack() as undo:
                undo.callback(self.take_back, made)
                await made.session.create()
                yield made.session
                caller.hold(made)
                undo.pop_all()

    async def _find_room(self) -> None:
        self._forget()
        if self._has_room():
            return
        async with asyncio.TaskGroup() as looks:
            for made in self._made:
                if made.is_alive and made.session.id:
                    looks.create_task(made.look(self._client))
        if not self._has_room():
            raise Refused(
                503,
                f"{self._options.max_sessions} sessions of this server are alive, its limit "
                "(--max-sessions): try again when one has ended.",
                retry_after=10,
            )

    @property
    def alive(self) -> int:
        """Sessions that have not ended, as far as is known."""
        return sum(made.is_alive for made in self._made)

    @property
    def most(self) -> int:
        """That may be alive at once."""
        return self._options.max_sessions

    def _has_room(self) -> bool:
        return self.alive < self.most

    def _reserve(self, request: CreateRealtimeSession) -> Made:
        now = asyncio.get_running_loop().time()
        lasts = (request.max_duration or self._options.max_duration) + STARTUP_MARGIN
        session = RealtimeSession(self._client, request)
        made = Made(session, lasts, now + lasts, self.metrics.session_ended)
        self._made.append(made)
        return made

    def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        self._made = [made for made in self._made if now < made.alive_until + _REMEMBERED]

    def _known(self, session_id: str) -> Made:
        for made in self._made:
            # One that is being made has no id yet.
            if session_id and made.session.id == session_id:
                return made
        raise Refused(404, "This server has not made that session, or it ended long ago.")

    # -- what becomes of it --

    def handed_over(self, made: Made) -> None:
        """Its caller has got it, and ends it: that this server is killed is no reason to."""
        self._client.forget(made.session.id)
        logger.info("a session was handed over", extra={"lk.pii.session_id": made.session.id})
        watch = watched(asyncio.create_task(self._watch(made), name="runway_serve_watch"))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    def take_back(self, made: Made) -> None:
        """Nobody has got it: end it, in the background."""
        if made.session.state is SessionState.NEW:
            # The client sees to a create whose answer nobody waits for any more.
            self._made.remove(made)
            return
        self._end(made, "not_handed_over")

    async def _watch(self, made: Made) -> None:
        if (reason := await look_after(made, self._client, self._options.join_timeout)) is not None:
            self._end(made, reason)

    def _end(self, made: Made, reason: Outcome) -> None:
        ending = asyncio.create_task(made.end(reason), name="runway_serve_end")
        self._ends.add(ending)
        ending.add_done_callback(self._ends.discard)
