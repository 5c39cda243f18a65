"""The control API: what a test does to a `RunwaySimulator`, over HTTP."""

from __future__ import annotations

import asyncio
import functools
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from livekit import rtc

from ..simulator.account import avatar, document, voice
from ..simulator.rest import RecordedRequest, bearer, parse_json
from ..simulator.service import RunwaySimulator
from ..simulator.session import SessionStatus, SimulatedSession
from .orders import WrongOrder, account_faults_of, faults_of

PATH = "/_simulator"
_Handler = Callable[[web.Request], Awaitable[web.Response]]
_LONGEST_WAIT = 300.0
_SECRET = ("token", "signedUrl")
"""Fields of a create body that open a room of the user's own."""
_ENTRIES = {"avatars": avatar, "voices": voice, "documents": document}


class Refused(Exception):
    """An order that is not carried out."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class ControlApi:
    """Routes for an application that listens on loopback.

    Args:
        simulator: told what to do.
        token: what callers must present as `Authorization: Bearer`. `None`: whoever is on this
            machine, but for web pages.
    """

    def __init__(self, simulator: RunwaySimulator, token: str | None = None) -> None:
        self._simulator = simulator
        self._token = token

    def routes(self) -> list[web.RouteDef]:
        found: list[tuple[str, str, _Handler]] = [
            ("GET", "", self._summary),
            ("GET", "/requests", self._requests),
            ("DELETE", "/requests", self._forget_requests),
            ("GET", "/account", self._account),
            ("PUT", "/account", self._fill_account),
            ("PUT", "/account/faults", self._order_account_faults),
            ("PUT", "/faults", self._order_faults),
            ("GET", "/sessions", self._sessions),
            ("GET", "/sessions/{id}", self._session),
            ("POST", "/sessions/{id}/{action}", self._act),
        ]
        return [
            web.route(method, PATH + path, functools.partial(self._answer, handler))
            for method, path, handler in found
        ]

    async def _answer(self, handler: _Handler, request: web.Request) -> web.Response:
        try:
            self._check(request)
            return await handler(request)
        except Refused as refused:
            return web.json_response({"error": str(refused)}, status=refused.status)
        except WrongOrder as wrong:
            return web.json_response({"error": str(wrong)}, status=400)

    def _check(self, request: web.Request) -> None:
        """A page that is open in a browser could send it what it likes, under a name of its own
        too (DNS rebinding)."""
        if self._token is not None:
            given = bearer(request).encode(errors="surrogateescape")
            if not hmac.compare_digest(given, self._token.encode()):
                raise Refused(401, "The control API needs its token: Authorization: Bearer ...")
            return
        names = (request.remote or "", urlsplit(f"//{request.host}").hostname or "")
        if "Origin" in request.headers or not all(map(_is_loopback, names)):
            raise Refused(403, "Only programs of this machine may control it without a token.")

    # What it shows.

    async def _summary(self, _: web.Request) -> web.Response:
        simulator = self._simulator
        alive = [session.id for session in simulator.leaked()]
        return web.json_response(
            {
                "url": simulator.url,
                "requests": len(simulator.requests),
                "sessions": len(simulator.sessions),
                "alive": alive,
                "credits": simulator.credit_balance,
            }
        )

    async def _requests(self, request: web.Request) -> web.Response:
        after = _number(request, "after", 0)
        known = self._simulator.requests
        shown = [_request_view(n, one) for n, one in enumerate(known[after:], after + 1)]
        return web.json_response({"requests": shown})

    async def _forget_requests(self, _: web.Request) -> web.Response:
        self._simulator.requests.clear()
        return web.json_response({"requests": []})

    async def _sessions(self, _: web.Request) -> web.Response:
        views = [_session_view(session) for session in self._simulator.sessions.values()]
        return web.json_response({"sessions": views})

    async def _session(self, request: web.Request) -> web.Response:
        """At once, or when it has reached `?status=`, within `?timeout=` seconds."""
        status, timeout = request.query.get("status"), _number(request, "timeout", 10)
        if status is None:
            return web.json_response(_session_view(self._find(request)))
        if status not in SessionStatus.__members__:
            raise Refused(400, f"status must be one of {', '.join(SessionStatus)}, not {status!r}.")
        name, simulator = request.match_info["id"], self._simulator
        try:
            async with asyncio.timeout(min(timeout, _LONGEST_WAIT)):
                if name == "last":  # it may not have been made yet
                    await simulator.wait_until(lambda: bool(simulator.sessions), timeout)
                session = await simulator.wait_for(self._find(request), status, timeout)
        except TimeoutError:
            raise Refused(504, f"It was not {status} within {timeout} s.") from None
        return web.json_response(_session_view(session))

    async def _account(self, _: web.Request) -> web.Response:
        account = self._simulator.account
        return web.json_response({kind: getattr(account, kind) for kind in _ENTRIES})

    # What it does.

    async def _fill_account(self, request: web.Request) -> web.Response:
        """Each list that is given replaces the one that was there."""
        body = await _object(request)
        if unknown := sorted(body.keys() - _ENTRIES.keys()):
            raise Refused(400, f"unknown {unknown[0]!r}; known are {', '.join(_ENTRIES)}")
        filled = {kind: _entries(kind, entries) for kind, entries in body.items()}
        for kind, entries in filled.items():
            getattr(self._simulator.account, kind)[:] = entries
        return await self._account(request)

    async def _order_faults(self, request: web.Request) -> web.Response:
        """For `?session=`: `next` (if it is left out), `every`, `last`, or an id."""
        faults = faults_of(await _object(request))
        match request.query.get("session", "next"):
            case "next":
                self._simulator.faults.for_next_session(faults)
            case "every":
                self._simulator.faults.default = faults
            case name:
                self._find(request, name).faults = faults
        return web.json_response({"ordered": True})

    async def _order_account_faults(self, request: web.Request) -> web.Response:
        account_faults_of(await _object(request)).order(self._simulator.account)
        return web.json_response({"ordered": True})

    async def _act(self, request: web.Request) -> web.Response:
        session = self._find(request)
        action = request.match_info["action"]
        if action not in _ACTIONS:
            raise Refused(404, f"A session cannot {action!r}; it can {', '.join(_ACTIONS)}.")
        body = await _object(request) if request.can_read_body else {}
        try:
            result = await _ACTIONS[action](session, body)
        except WrongOrder:
            raise
        except (RuntimeError, ValueError) as error:
            raise Refused(409, f"{error}.") from None
        except rtc.RpcError as error:
            raise Refused(504, f"Nobody answered the tool: {error.message}.") from None
        return web.json_response({"session": _session_view(session), "result": result})

    def _find(self, request: web.Request, name: str | None = None) -> SimulatedSession:
        name = request.match_info["id"] if name is None else name
        sessions = self._simulator.sessions
        if name == "last" and sessions:
            return list(sessions.values())[-1]
        if name not in sessions:
            raise Refused(404, f"There is no session {name!r}; there are {len(sessions)}.")
        return sessions[name]


async def _stall(session: SimulatedSession, body: dict[str, Any], *, video: bool) -> None:
    stalled = body.get("stalled", True)
    if not isinstance(stalled, bool):
        raise WrongOrder("stalled must be true or false")
    (session.stall_video if video else session.stall_audio)(stalled)


async def _call_tool(session: SimulatedSession, body: dict[str, Any]) -> Any:
    name, arguments = body.get("name"), body.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise WrongOrder('call_tool wants {"name": "...", "arguments": {...}}')
    return await session.call_tool(name, **arguments)


def _simple(act: Callable[[SimulatedSession], None]) -> Callable[..., Awaitable[Any]]:
    async def run(session: SimulatedSession, _: dict[str, Any]) -> None:
        act(session)

    return run


async def _unpublish(session: SimulatedSession, _: dict[str, Any]) -> None:
    await session.unpublish()


_ACTIONS: dict[str, Callable[[SimulatedSession, dict[str, Any]], Awaitable[Any]]] = {
    "crash": _simple(SimulatedSession.crash),
    "kill": _simple(SimulatedSession.kill),
    "freeze": _simple(SimulatedSession.freeze),
    "thaw": _simple(SimulatedSession.thaw),
    "stall_video": functools.partial(_stall, video=True),
    "stall_audio": functools.partial(_stall, video=False),
    "unpublish": _unpublish,
    "hit_cap": _simple(SimulatedSession.hit_cap),
    "cancel": _simple(SimulatedSession.cancel),
    "call_tool": _call_tool,
}
ACTIONS = tuple(_ACTIONS)
"""What can be done to a session."""


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _number(request: web.Request, name: str, default: int) -> int:
    given = request.query.get(name, str(default))
    if not given.isdecimal():
        raise Refused(400, f"{name} must be a number of 0 or more, not {given!r}.")
    return int(given)


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        body = parse_json(await request.read())
    except ValueError:
        raise Refused(400, "The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body must be a JSON object.")
    return body


def _entries(kind: str, entries: Any) -> list[dict[str, Any]]:
    """Whole ones of those that were given; a name is enough."""
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
    ):
        raise Refused(400, f'{kind} must be a list of objects with a "name" each.')
    return [_ENTRIES[kind](**entry) for entry in entries]


def _request_view(number: int, request: RecordedRequest) -> dict[str, Any]:
    return {
        "number": number,
        "method": request.method,
        "path": request.path,
        "status": request.status,
        "body": _masked(request.body),
        "headers": request.headers,
    }


def _session_view(session: SimulatedSession) -> dict[str, Any]:
    began = session.history[0][1]
    return {
        "id": session.id,
        "status": session.status.value,
        "history": [
            {"status": status.value, "after": round(at - began, 3)}
            for status, at in session.history
        ],
        "failure": session.failure,
        "failureCode": session.failure_code,
        "worker": _worker(session),
        "credits": session.credits,
        "billedSeconds": round(session.billed_seconds, 3),
        "endCalls": session.end_calls,
        "speechReceived": [round(seconds, 3) for seconds in session.speech_received],
        "body": _masked(session.create_body),
    }


def _worker(session: SimulatedSession) -> str:
    if session.worker_joined_at is None:
        return "not there yet"
    return "in the room" if session.worker_left_at is None else "gone"


def _masked(body: Any) -> Any:
    if isinstance(body, list):
        return [_masked(one) for one in body]
    if not isinstance(body, dict):
        return body
    return {
        name: "***" if name in _SECRET and isinstance(value, str) else _masked(value)
        for name, value in body.items()
    }
