"""A Runway that runs on this machine: the REST side, and the account behind it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Self

from aiohttp import web

from ...log import logger
from ..faults import FaultPlan
from ..options import CallName, SimulatorOptions
from ..worker.face import Face
from .account.backend import Backend
from .account.conversations import ConversationApi
from .account.entries import SimulatedAccount, entry_of
from .account.resources import ResourceApi
from .account.works import WorkApi, task_credits
from .cors import allow_pages
from .rest import (
    API_VERSION,
    DOC_URL,
    Effect,
    RateLimit,
    RecordedRequest,
    Refusal,
    Unanswered,
    bearer,
    json_body,
    parse_json,
    require_json,
    view,
    with_fault,
)
from .rooms import Rooms
from .session import SessionStatus, SimulatedSession
from .validation import create_issues

_MODEL = "gwm1_avatars"
_UPFRONT_CREDITS = 2
_LONGEST_BODY = 32 * 1024 * 1024
"""Bytes: data URIs have up to 16 MiB."""


class RunwaySimulator:
    """Runway's realtime sessions on 127.0.0.1, as strict as the real ones, with an avatar worker.

        async with RunwaySimulator(
            livekit_url=..., livekit_api_key=..., livekit_api_secret=...
        ) as sim:
            ...  # a client with base URL sim.url and key sim.api_secret

    Without a LiveKit server the REST side runs alone: sessions become READY, can be consumed and
    go on to RUNNING, and no worker comes (`SimulatedSession.hit_cap` then completes one).

    On leaving, every session's task is cancelled and awaited, workers leave and rooms are deleted.
    """

    def __init__(
        self,
        *,
        livekit_url: str | None = None,
        livekit_api_key: str | None = None,
        livekit_api_secret: str | None = None,
        options: SimulatorOptions | None = None,
        api_secret: str | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`port` 0 takes a free one; without `api_secret` one is made up; with `tls`, a server's
        context for 127.0.0.1, `url` is https.

        Raises:
            ValueError: only some of the `livekit_*` arguments were given.
        """
        livekit = (livekit_url, livekit_api_key, livekit_api_secret)
        if any(livekit) and not all(livekit):
            raise ValueError("give all of livekit_url, livekit_api_key, livekit_api_secret or none")
        self.options = options or SimulatorOptions()
        self.api_secret = api_secret or "key_" + secrets.token_hex(64)
        self.faults = FaultPlan(self.options.faults)
        self.requests: list[RecordedRequest] = []
        self.sessions: dict[str, SimulatedSession] = {}
        """By id, in order of creation; those that ended stay."""
        self.account = SimulatedAccount()
        self.unrecorded: list[web.RouteDef] = []
        """Further routes, which are none of Runway's: to be added before `start()`."""
        for identifier in self.options.custom_avatars or ():
            self.account.add_avatar("Custom", id=identifier)
        self._alarms: set[asyncio.TimerHandle] = set()
        self._port = port
        self._tls = tls
        self._has_livekit = all(livekit)
        # Without a server the credentials that /consume hands out lead nowhere.
        self._rooms = Rooms(
            livekit_url or "ws://127.0.0.1:9",
            livekit_api_key or "nowhere",
            livekit_api_secret or secrets.token_hex(32),
        )
        self._face = Face(self.options.picture)
        self._places = asyncio.Semaphore(self.options.concurrency)
        self._rate = RateLimit(
            self.options.requests_per_minute,
            self.options.scaled(60.0),
            tells_when=self.options.tells_retry_after,
        )
        self._created = 0
        self._lives: list[asyncio.Task[None]] = []
        self._watchers: list[asyncio.Future[None]] = []
        self._closing = asyncio.Event()
        self._stack = AsyncExitStack()
        self.url = ""

    def __repr__(self) -> str:
        return f"RunwaySimulator(url={self.url!r}, sessions={len(self.sessions)})"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Listen on loopback; `url` is known from then on."""
        async with AsyncExitStack() as stack:
            if self._has_livekit:
                sizes = (self.options.start_size, self.options.full_size)
                await asyncio.to_thread(self._face.prepare, *sizes)
                await stack.enter_async_context(self._rooms)
            backend = Backend(
                self.account,
                self.options,
                self.sessions,
                self._authorize,
                lambda: self.url,
                self._later,
                self._closing,
            )
            app = web.Application(middlewares=[self._answer], client_max_size=_LONGEST_BODY)
            app.add_routes(self.unrecorded)
            app.add_routes(
                [
                    web.post("/v1/realtime_sessions", self._create),
                    web.get("/v1/realtime_sessions/{id}", self._get, allow_head=False),
                    web.delete("/v1/realtime_sessions/{id}", self._delete),
                    web.post("/v1/realtime_sessions/{id}/consume", self._consume),
                    web.post("/v1/realtime_sessions/{id}/connect_backend", self._connect_backend),
                    web.get("/v1/organization", self._organization, allow_head=False),
                    *ResourceApi(backend).routes(),
                    *ConversationApi(backend).routes(),
                    *WorkApi(backend, self._check_video).routes(),
                ]
            )
            allow_pages(app)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", self._port, ssl_context=self._tls)
            await site.start()
            scheme = "http" if self._tls is None else "https"
            self.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
            self._stack = stack.pop_all()

    async def aclose(self) -> None:
        """End everything; may be called twice.

        Raises:
            ExceptionGroup: a session's own task failed, which is a fault of the simulator.
        """
        self._closing.set()
        for alarm in self._alarms:
            alarm.cancel()
        self._alarms.clear()
        try:
            for life in self._lives:
                life.cancel()
            ends = await asyncio.gather(*self._lives, return_exceptions=True)
            self._lives = []
        finally:
            await self._stack.aclose()
        if failures := [end for end in ends if isinstance(end, Exception)]:
            raise ExceptionGroup("simulated sessions failed", failures)

    # What a test asks.

    def leaked(self) -> list[SimulatedSession]:
        """Sessions that have not ended."""
        return [session for session in self.sessions.values() if not session.status.is_terminal]

    @property
    def credit_balance(self) -> int:
        price = self.options.avatar_video_credits
        sessions = sum(session.credits for session in self.sessions.values())
        videos = sum(task_credits(task, price) for task in self.account.tasks)
        return self.options.credits - sessions - videos

    async def wait_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Return once the condition holds; it is looked at after each change in the simulator.

        Raises:
            TimeoutError: it did not hold within `timeout` seconds.
        """
        async with asyncio.timeout(timeout):
            while not condition():
                change = asyncio.get_running_loop().create_future()
                self._watchers.append(change)
                await change

    async def wait_for(
        self,
        session: SimulatedSession | str | None,
        status: SessionStatus | str,
        timeout: float = 10.0,
    ) -> SimulatedSession:
        """Return the session once it has reached the status, even if it went on since; `None`
        waits for any session that is in this status now.

        Raises:
            TimeoutError: none was within `timeout` seconds.
        """
        wanted = SessionStatus(status)

        def found() -> SimulatedSession | None:
            if session is None:
                return next((s for s in self.sessions.values() if s.status is wanted), None)
            one = self.sessions[session] if isinstance(session, str) else session
            return one if any(reached is wanted for reached, _ in one.history) else None

        await self.wait_until(lambda: found() is not None, timeout)
        result = found()
        if result is None:  # cannot be: nothing ran in between
            raise TimeoutError
        return result

    def _notify(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        """After so many seconds of the service, unless the simulator closes before."""

        def act() -> None:
            self._alarms.discard(alarm)
            action()
            self._notify()

        delay = self.options.scaled(seconds)
        alarm = asyncio.get_running_loop().call_later(delay, act)
        self._alarms.add(alarm)

    # Every call.

    @web.middleware
    async def _answer(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        if any(request.match_info.handler is route.handler for route in self.unrecorded):
            return await handler(request)
        record = await self._record(request)
        response: web.StreamResponse
        try:
            self._rate.take()
            response = await handler(request)
        except Refusal as refusal:
            response = web.json_response(
                refusal.body, status=refusal.status, headers=refusal.headers
            )
        except web.HTTPException as error:
            # Unknown paths and methods, as far as the router knows them.
            response = web.json_response(
                {"error": error.reason, "docUrl": DOC_URL}, status=error.status
            )
        except Unanswered:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        record.status = response.status
        self._notify()
        return response

    async def _record(self, request: web.Request) -> RecordedRequest:
        headers = dict(request.headers)
        if "Authorization" in headers:
            headers["Authorization"] = f"Bearer <{self._owner(request)}>"
        body = None
        if not request.content_type.startswith("multipart/"):  # which is read piece by piece
            with contextlib.suppress(ValueError):
                body = parse_json(await request.read())
        record = RecordedRequest(
            request.method, request.path, headers, body, asyncio.get_running_loop().time()
        )
        self.requests.append(record)
        self._notify()
        return record

    def _owner(self, request: web.Request) -> str:
        key = bearer(request)
        if key == self.api_secret:
            return "account secret"
        if any(key == session.session_key for session in self.sessions.values()):
            return "session key"
        return "unknown key"

    def _authorize(self, request: web.Request) -> None:
        """The two headers that all calls but consume need."""
        key = bearer(request)
        if not key:
            raise Refusal(
                401,
                "No API key was provided. Make sure to pass it in the Authorization header, "
                "with the Bearer prefix.",
            )
        if key != self.api_secret:
            raise Refusal(401, "The API key that was provided is not valid for this host.")
        version = request.headers.get("X-Runway-Version")
        if version is None:
            raise Refusal(400, "The X-Runway-Version header is missing.")
        if version != API_VERSION:
            raise Refusal(400, "The X-Runway-Version header names an unknown version.")

    def _session(self, request: web.Request) -> SimulatedSession:
        session = self.sessions.get(request.match_info["id"])
        if session is None:
            raise Refusal(404, "Could not find the realtime session.")
        return session

    # The calls.

    async def _create(self, request: web.Request) -> web.Response:
        self._authorize(request)

        async def effect() -> web.Response:
            body = await json_body(request)
            self._check_create(body)
            self._created += 1
            await asyncio.sleep(self.options.scaled(self.options.create_delay))
            session = SimulatedSession(self.options, self.faults.take(), body, self._notify)
            self.sessions[session.id] = session
            rooms = self._rooms if self._has_livekit else None
            life = asyncio.create_task(
                session.run(self._places, rooms, self._face), name="simulated-session"
            )
            life.add_done_callback(_report)
            self._lives.append(life)
            self._notify()
            return web.json_response({"id": session.id})

        return await with_fault(self.faults.upcoming().next_call("create"), effect, self._closing)

    def _check_create(self, body: Any) -> None:
        options = self.options
        issues = create_issues(
            body,
            accept_deprecated_livekit=options.accept_deprecated_livekit,
            allow_private_url=options.allow_private_livekit_url,
        )
        if issues:
            details = [issue.as_json() for issue in issues]
            raise Refusal(400, "Validation of body failed", issues=details)
        self._check_avatar(body["avatar"])
        self._check_credits(_UPFRONT_CREDITS)
        if self._created >= options.daily_quota:
            raise Refusal(429, "Your daily task limit has been reached.")

    def _check_video(self, avatar: dict[str, Any]) -> None:
        self._check_avatar(avatar)
        self._check_credits(self.options.avatar_video_credits)

    def _check_avatar(self, avatar: dict[str, Any]) -> None:
        """A custom one must be there, and READY (how Runway says that it is not, is not known)."""
        if avatar["type"] != "custom":
            return
        found = entry_of(self.account.avatars, avatar["avatarId"])
        if found is None and self.options.custom_avatars is not None:
            raise Refusal(404, "Could not find Avatar")
        if found is not None and found["status"] != "READY":
            raise Refusal(400, f"The avatar is not ready: it is {found['status']}.")

    def _check_credits(self, needed: int) -> None:
        if self.credit_balance < needed:
            raise Refusal(400, "You do not have enough credits to run this task.")

    async def _get(self, request: web.Request) -> web.Response:
        self._authorize(request)
        session = self._session(request)

        async def effect() -> web.Response:
            return web.json_response(view(session))

        return await self._call(session, "get", effect)

    async def _delete(self, request: web.Request) -> web.Response:
        self._authorize(request)
        session = self._session(request)

        async def effect() -> web.Response:
            session.cancel()
            return web.Response(status=204)

        return await self._call(session, "delete", effect)

    async def _consume(self, request: web.Request) -> web.Response:
        require_json(request)
        if not (key := bearer(request)):
            raise Refusal(401, "No API key was provided.")
        session = self._session(request)
        if key != session.session_key or session.external_room is not None:
            raise Refusal(404, "Could not find the realtime session.")

        async def effect() -> web.Response:
            if await request.read():
                await json_body(request)
            if session.consumed_at is not None:
                raise Refusal(
                    self.options.second_consume_status,
                    "The credentials of this session were consumed already.",
                )
            if session.status is not SessionStatus.READY:
                raise Refusal(404, "Could not find the realtime session.")
            session.consume()
            token = self._rooms.user_token(
                session.id,
                publish=self.options.user_can_publish,
                publish_data=self.options.user_can_publish_data,
            )
            return web.json_response(
                {"url": self._rooms.url, "token": token, "roomName": session.id}
            )

        return await self._call(session, "consume", effect)

    async def _connect_backend(self, request: web.Request) -> web.Response:
        """For the participant that answers `backend_rpc` tools: hidden, free, and as often as one
        likes (as runwayml/avatars-node-rpc uses it; what is refused is inferred)."""
        self._authorize(request)
        session = self._session(request)
        live = (SessionStatus.READY, SessionStatus.RUNNING)
        if session.external_room is not None or session.status not in live:
            raise Refusal(404, "Could not find the realtime session.")

        async def effect() -> web.Response:
            token = self._rooms.backend_token(session.id)
            answer = {"url": self._rooms.url, "token": token, "roomName": session.id}
            return web.json_response(answer)

        return await self._call(session, "connect_backend", effect)

    async def _call(
        self, session: SimulatedSession, name: CallName, effect: Effect
    ) -> web.Response:
        return await with_fault(session.active_faults.next_call(name), effect, self._closing)

    async def _organization(self, request: web.Request) -> web.Response:
        self._authorize(request)
        limits = {
            "maxConcurrentGenerations": self.options.concurrency,
            "maxDailyGenerations": self.options.daily_quota,
        }
        return web.json_response(
            {
                "tier": {"maxMonthlyCreditSpend": 10_000, "models": {_MODEL: limits}},
                "creditBalance": max(0, self.credit_balance),
                "usage": {"models": {_MODEL: {"dailyGenerations": self._created}}},
            }
        )


def _report(life: asyncio.Task[None]) -> None:
    """Says at once what `aclose()` raises later."""
    if not life.cancelled() and (error := life.exception()) is not None:
        logger.error("a simulated session failed", extra={"error_type": type(error).__name__})
