"""Runway's API over HTTP (Runway API schema 2024-11-06): typed, bounded, leak-free.

Here are the realtime sessions; what else the key's project holds is in `account`.

`consume` is not in the published schema; its form is that of Runway's own browser client. What is
repeated after a failure, and what never is, stands at the top of `http.py`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import ValidationError

from ..errors import (
    ConfigurationError,
    LostAnswerError,
    NotFoundError,
    Operation,
    ProtocolError,
    QueueTimeoutError,
    RunwayException,
    SessionFailedError,
    SessionNotReadyError,
)
from ..log import logger
from .account.calls import AccountCalls
from .address import DEFAULT_BASE_URL
from .http import LAST_CHANCE, ApiCall, ConnectOptions, GivenSession, HttpCaller
from .models import (
    TERMINAL_STATES,
    ConsumedCredentials,
    CreatedSession,
    CreateRealtimeSession,
    Failed,
    NotReady,
    Ready,
    RealtimeSessionState,
    Running,
    Unknown,
    parse_session,
)
from .polling import Pace, poll
from .wire import explain

if TYPE_CHECKING:
    from livekit.agents import APIConnectOptions

    from .journal.writer import Journal


_PATH = "/v1/realtime_sessions"
_PACE = Pace(first=0.25, slowest=1.0, steady_for=2.0, unknown_for=5.0)
_QUEUE_PACE = Pace(first=0.25, slowest=3.0, steady_for=2.0, unknown_for=5.0)
"""`queued` is normal for about a second. After that it lasts, and many may wait; a session that is
READY unnoticed for 3 s is still far from its end.
"""


class RunwayClient(AccountCalls):
    """Runway's realtime sessions, and what else the key's project holds, for one API secret.

    Args:
        api_secret: the organization's key (`RUNWAYML_API_SECRET`).
        base_url: where Runway is; keys belong to one host.
        http_session: a session to use, or a function that gives one, and that is never closed here.
            None, from the function as well: an own one, which goes through the proxy that the
            environment names. That one also steps in where the given one is closed, so that
            sessions can still be ended.
        conn_options: the framework's, or `ConnectOptions`, which has the same defaults: `max_retry`
            repeats after the first attempt; `retry_interval` is the first wait in seconds, doubled
            each time up to 8 s, plus up to half of it at random; `timeout` bounds connecting (TCP
            and TLS) in each attempt, not the answer.
        call_timeout: seconds for one call, with all its attempts and the waits between them; what
            is sent with it may take a second for each 64 KiB in addition.
        jitter: gives numbers in [0, 1) for the random part of a wait.
        journal: where the ids of sessions stand while they may bill; None: nowhere. Not closed
            here.

    Every call raises the kinds in `errors`. `get` and `wait_until_ready` may be cancelled without
    consequence, a cancelled `delete` may or may not have been done, a cancelled `consume` may have
    spent the credentials; for `create` see there. Close with `aclose()`.
    """

    def __init__(
        self,
        api_secret: str,
        *,
        base_url: str = DEFAULT_BASE_URL,
        http_session: GivenSession = None,
        conn_options: APIConnectOptions | ConnectOptions = ConnectOptions(),  # noqa: B008  frozen
        call_timeout: float = 45.0,
        jitter: Callable[[], float] = random.random,
        journal: Journal | None = None,
    ) -> None:
        http = HttpCaller(base_url, http_session, conn_options, call_timeout, jitter)
        super().__init__(_checked_secret(api_secret), http)
        self._journal = journal
        self.jitter = jitter
        """Gives numbers in [0, 1)."""
        # A create is in `_creates` while somebody waits for it. Abandoned, it moves to
        # `_background`, as the task that sees it to its end. Both empty themselves.
        self._creates: set[asyncio.Task[str]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._unconfirmed: list[str] = []
        """Ids of abandoned sessions that could not be ended; it only grows."""
        self._closing = asyncio.Event()
        """Set by `aclose()` when its time is nearly over."""

    def __repr__(self) -> str:
        return f"RunwayClient(base_url={self.base_url!r}, pending_creates={self.pending_creates})"

    @property
    def base_url(self) -> str:
        """Where Runway is, without a trailing slash."""
        return self._http.base_url

    async def prewarm(self) -> None:
        """Open the connection that the next call takes, if that comes within about 120 s (15 s of a
        session that was given without a longer `keepalive_timeout`). Sends no key; does not raise
        where Runway cannot be reached."""
        await self._http.prewarm()

    @property
    def pending_creates(self) -> int:
        """Creates without an outcome: unanswered, or answered too late and not yet deleted."""
        return len(self._creates) + len(self._background)

    async def create(
        self,
        request: CreateRealtimeSession,
        *,
        on_sent: Callable[[], None] | None = None,
        repeat_5xx: bool = True,
    ) -> str:
        """Make a session; from now on it must be ended, by END_CALL in its room or by `delete`.

        Safe to cancel: before anything was sent, nothing is sent. After that the request goes on in
        the background, and the session is deleted as soon as its id is known.

        Args:
            on_sent: called when the request leaves, in each attempt.
            repeat_5xx: False: 502, 503 and 504, after which a session may exist, are not repeated
                here.

        Returns:
            The id of the session.

        Raises:
            LostAnswerError: a session may exist whose id is unknown; never repeated here.
            RequestError: refused, by kind.
            UnavailableError, TimedOutError: nothing was sent.
        """
        try:
            content = json.dumps(request.wire(), allow_nan=False).encode()
        except ValueError:
            raise ConfigurationError("A tool parameter holds NaN or infinity.") from None
        call = ApiCall(
            "create",
            "POST",
            _PATH,
            self._api_secret,
            content,
            request.secrets(),
            on_sent=on_sent,
            repeats_5xx=repeat_5xx,
        )
        task = asyncio.create_task(self._create(call, request.max_duration), name="runway_create")
        self._creates.add(task)
        task.add_done_callback(self._creates.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if task.cancelled() and current is not None and not current.cancelling():
                # Not this caller was cancelled: `aclose` ran out of time.
                raise call.given_up() from None
            self._abandon(call, task)
            raise

    async def get(self, session_id: str) -> RealtimeSessionState:
        """The present state of a session."""
        call = self._on_session("get", "GET", session_id)
        state = parse_session(await self._http.perform(call))
        if isinstance(state, TERMINAL_STATES):
            self.forget(session_id)
        return state

    async def delete(self, session_id: str, *, within: float | None = None) -> None:
        """End a session. A running one becomes CANCELLED, and its transcript is lost.

        Safe to repeat. A session that Runway does not know (404) counts as ended: this key made
        it or could never end it.

        Args:
            within: seconds after which the caller gives up. However long Runway asks to wait, and
                however often it did, it is then tried once more a second before they are over.
        """
        if within is None:
            await self._delete(session_id, None)
            return
        hurry = asyncio.Event()
        alarm = asyncio.get_running_loop().call_later(within - LAST_CHANCE, hurry.set)
        try:
            await self._delete(session_id, hurry)
        finally:
            alarm.cancel()

    async def _delete(self, session_id: str, hurry: asyncio.Event | None) -> None:
        call = self._on_session("delete", "DELETE", session_id)
        call.hurry = hurry
        try:
            await self._http.perform(call)
        except NotFoundError:
            logger.debug("runway session to be deleted was not found")
        self.forget(session_id)

    def forget(self, session_id: str) -> None:
        """It has ended, or is somebody else's to end: it goes from the journal."""
        if self._journal is not None:
            self._journal.ended(session_id)

    async def consume(self, session_id: str, session_key: str) -> ConsumedCredentials:
        """Take the one-time credentials of a READY session; billing starts soon after.

        Repeated only where Runway cannot have given them away, or said that it is not able to
        answer now: if it had, the repeat is refused, and the session was lost anyway.

        Raises:
            LostAnswerError: the credentials may be spent; end the session and make a new one.
            RequestError: refused, e.g. consumed before.
        """
        call = self._on_session("consume", "POST", session_id, "/consume")
        call.bearer, call.content, call.secrets = session_key, b"{}", (session_key,)
        payload = await self._http.perform(call)
        try:
            return ConsumedCredentials.model_validate(payload)
        except ValidationError as error:
            reason = explain(error)
        raise call.lost(ProtocolError(f"Unexpected fields: {reason}."))

    async def connect_backend(self, session_id: str) -> ConsumedCredentials:
        """Credentials of the hidden participant that answers the session's `backend_rpc` tools.

        Not in the published schema; its form is that of runwayml/avatars-node-rpc. Free, and may
        be asked for again.
        """
        path = f"{_PATH}/{quote(session_id, safe='')}/connect_backend"
        try:
            return ConsumedCredentials.model_validate(await self.request("POST", path))
        except ValidationError as error:
            reason = explain(error)
        raise ProtocolError(f"Unexpected fields: {reason}.")

    async def wait_until_ready(
        self,
        session_id: str,
        *,
        timeout: float = 60.0,
        queue_timeout: float | None = None,
        on_queued: Callable[[bool], None] | None = None,
    ) -> Ready:
        """Poll until the session is READY: each 0.25 s for 2 s, then slower, down to each second
        (each 3 s in a queue that has a `queue_timeout`), and later by up to a quarter at random.

        A session is usually READY 0.7 to 2 s after its creation, and then lives for about 21 s.
        A poll that fails for a reason that may pass (5xx, 408, 429, no answer, one that makes no
        sense, a 404 in the first seconds) is no end, and a status that is not known is waited out.

        Args:
            session_id: from `create`.
            timeout: seconds.
            queue_timeout: seconds for which it may be queued; `timeout` begins when it has left the
                queue. None: `timeout` is for both.
            on_queued: called with True when Runway says that the session waits for capacity (the
                first poll often does, without meaning much), with False when it no longer does.

        Raises:
            SessionFailedError: FAILED, CANCELLED, COMPLETED, or RUNNING (consumed by another).
            QueueTimeoutError: queued for longer than `queue_timeout`; the session still exists.
            SessionNotReadyError: not READY in time; the session still exists.
            RunwayException: a poll failed for good, or the last ones before `timeout` did.
        """
        state = await self._wait_for(session_id, (Ready,), timeout, queue_timeout, on_queued)
        assert isinstance(state, Ready)
        return state

    async def wait_until_under_way(
        self,
        session_id: str,
        *,
        timeout: float = 60.0,
        on_queued: Callable[[bool], None] | None = None,
    ) -> Ready | Running:
        """The same for a session whose worker joins a room by itself: RUNNING is as good."""
        state = await self._wait_for(session_id, (Ready, Running), timeout, None, on_queued)
        assert isinstance(state, Ready | Running)
        return state

    async def _wait_for(
        self,
        session_id: str,
        wanted: tuple[type[Ready] | type[Running], ...],
        timeout: float,
        queue_timeout: float | None,
        on_queued: Callable[[bool], None] | None,
    ) -> RealtimeSessionState:
        seen = _Polls(session_id, wanted, on_queued)

        async def until_it_changes(pace: Pace, seconds: float) -> RealtimeSessionState:
            """Also until it is in or out of the queue, if there is a `queue_timeout`."""
            queued = seen.queued
            return await poll(
                lambda: self.get(session_id),
                lambda state: (
                    seen.is_wanted(state)
                    or (queue_timeout is not None and seen.queued is not queued)
                ),
                pace=replace(pace, jitter=self.jitter),
                timeout=seconds,
                too_late=lambda: seen.too_late(
                    seconds, in_queue=queued and queue_timeout is not None
                ),
            )

        while True:
            if seen.queued and queue_timeout is not None:
                state = await until_it_changes(_QUEUE_PACE, queue_timeout)
            else:
                state = await until_it_changes(_PACE, timeout)
            if isinstance(state, wanted):
                return state

    async def aclose(self, timeout: float = 5.0) -> list[str]:
        """Wait for the creates that are under way, end what nobody wants, close the own session.

        May be called more than once, and at the same time.

        Args:
            timeout: seconds; what is not settled by then is given up.

        Returns:
            Ids of sessions that could not be confirmed ended. Each was logged, with how to end it
            by hand.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        alarm = loop.call_at(deadline - LAST_CHANCE, self._closing.set)
        try:
            while pending := {*self._creates, *self._background}:
                if (left := deadline - loop.time()) > 0:
                    await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                    continue
                # A task that is cancelled before its first step would skip its own clean-up.
                await asyncio.sleep(0)
                for task in pending:
                    task.cancel()
                await asyncio.wait(pending)
        finally:
            alarm.cancel()
        await self._http.aclose()
        return list(self._unconfirmed)

    # -- creates that nobody waits for --

    async def _create(self, call: ApiCall, max_duration: int | None) -> str:
        payload = await self._http.perform(call)
        try:
            session_id = CreatedSession.model_validate(payload).id
        except ValidationError as error:
            reason = explain(error)
        else:
            if self._journal is not None:
                self._journal.made(session_id, max_duration)
            return session_id
        raise call.lost(ProtocolError(f"Unexpected fields: {reason}."))

    def _abandon(self, call: ApiCall, task: asyncio.Task[str]) -> None:
        call.abandon()
        if not call.sent:
            task.cancel()
        settling = asyncio.create_task(self._settle(call, task), name="runway_settle_create")
        self._creates.discard(task)
        self._background.add(settling)
        settling.add_done_callback(self._background.discard)

    async def _settle(self, call: ApiCall, task: asyncio.Task[str]) -> None:
        """See an abandoned create to its end: no session, or a deleted one."""
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and task.exception() is None:
                self._report(task.result())
            elif call.sent:
                logger.error(
                    "a Runway create was given up before its answer came: a session may exist "
                    "whose id is unknown"
                )
            raise
        if task.cancelled():
            return
        if (error := task.exception()) is None:
            await self._end_unwanted(task.result())
        elif isinstance(error, LostAnswerError):
            logger.warning("the answer to an abandoned Runway create was lost")
        elif not isinstance(error, RunwayException):
            logger.error("an abandoned Runway create broke", exc_info=error)

    async def _end_unwanted(self, session_id: str) -> None:
        try:
            await self._delete(session_id, self._closing)
        except RunwayException as error:
            self._report(session_id, error)
        except asyncio.CancelledError:
            self._report(session_id)
            raise

    def _report(self, session_id: str, error: RunwayException | None = None) -> None:
        self._unconfirmed.append(session_id)
        logger.error(
            "a Runway session could not be confirmed ended and may bill; end it by hand: "
            "DELETE /v1/realtime_sessions/<id>",
            extra={
                "lk.pii.session_id": session_id,
                "error": type(error).__name__,
                "lk.pii.reason": str(error or "given up"),
            },
        )

    def _on_session(
        self, operation: Operation, method: str, session_id: str, suffix: str = ""
    ) -> ApiCall:
        path = f"{_PATH}/{quote(session_id, safe='')}{suffix}"
        return ApiCall(operation, method, path, self._api_secret, session_id=session_id)


class _Polls:
    """What the polls of one wait have told, in their order."""

    def __init__(
        self,
        session_id: str,
        wanted: tuple[type[Ready] | type[Running], ...],
        on_queued: Callable[[bool], None] | None,
    ) -> None:
        self._session_id = session_id
        self._wanted = wanted
        self._on_queued = on_queued
        self.queued = False
        """Runway last said that the session waits for capacity."""
        self._unknown = ""
        """The first status that was not known."""

    def is_wanted(self, state: RealtimeSessionState) -> bool:
        """Raises `SessionFailedError` for what can no longer become what is waited for."""
        match state:
            case Unknown():
                self._note_unknown(state.status[:40])
            case NotReady():
                self._note_queued(state.queued)
            case Ready() if Running not in self._wanted and not state.session_key:
                raise ProtocolError("Runway calls the session READY and gives no key to it.")
            case _ if isinstance(state, self._wanted):
                return True
            case _:
                raise session_failed(self._session_id, state)
        return False

    def too_late(self, waited: float, *, in_queue: bool) -> SessionNotReadyError:
        """The error where the time is over."""
        if in_queue:
            return QueueTimeoutError(session_id=self._session_id, queued=True, waited=waited)
        text = self._unknown and (
            f"The Runway session was not READY after {waited:g} s; its status {self._unknown!r} is "
            "not known to this version of the package: look for a newer one."
        )
        return SessionNotReadyError(
            text, session_id=self._session_id, queued=self.queued, waited=waited
        )

    def _note_queued(self, queued: bool) -> None:
        if queued != self.queued:
            self.queued = queued
            if self._on_queued is not None:
                self._on_queued(queued)

    def _note_unknown(self, status: str) -> None:
        if not self._unknown:
            self._unknown = status or "(empty)"
            logger.warning(
                "Runway gives a status of the session that is not known; it is waited for",
                extra={"status": status},
            )


def session_failed(session_id: str, state: RealtimeSessionState) -> SessionFailedError:
    """What a session in this state, which is not the one that was waited for, means."""
    failed = state if isinstance(state, Failed) else None
    return SessionFailedError(
        session_id=session_id,
        status=state.status,
        failure=failed.failure if failed else "",
        failure_code=failed.failure_code if failed else "",
    )


def _checked_secret(api_secret: str) -> str:
    secret = api_secret.strip()
    if not secret:
        raise ConfigurationError("No Runway API secret: pass one or set RUNWAYML_API_SECRET.")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigurationError("The Runway API secret has characters that no key has.")
    return secret
