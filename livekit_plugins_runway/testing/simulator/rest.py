"""How Runway's answers look: errors, the views of a session, and what goes wrong with a call."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from ..options import CallFault, Stage
from .session import SessionStatus, SimulatedSession

API_VERSION = "2024-11-06"
DOC_URL = "https://docs.dev.runwayml.com/api"


@dataclass
class RecordedRequest:
    """One call as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    """Names as sent; the value of `Authorization` says only whose it was."""
    body: Any = field(repr=False)
    """The JSON body, `None` if there was none or it was not JSON. It may hold a room token."""
    at: float
    """Loop time of its arrival."""
    status: int | None = None
    """What was answered; `None` while it is open, or when it never was."""


class Refusal(Exception):
    """A call that is answered with an error."""

    def __init__(
        self,
        status: int,
        error: str,
        *,
        issues: list[dict[str, Any]] | None = None,
        doc_url: str | None = DOC_URL,
        retry_after: int | None = None,
    ) -> None:
        """`doc_url` None: without one, where the published schema has none. `retry_after`: seconds
        for a `Retry-After` header."""
        super().__init__(error)
        self.status = status
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.body: dict[str, Any] = {"error": error}
        if issues is not None:
            self.body["issues"] = issues
        if doc_url is not None:
            self.body["docUrl"] = doc_url


class RateLimit:
    """So many calls a minute, and a 429 for the others; refused calls are not counted."""

    def __init__(self, calls: int | None, minute: float, *, tells_when: bool) -> None:
        """`calls` None: no limit. `minute`: its length in seconds of wall clock."""
        self._calls = calls
        self._minute = minute
        self._tells_when = tells_when
        self._until = 0.0
        """Loop time at which the present minute ends."""
        self._left = 0

    def take(self) -> None:
        """Count a call. Raises `Refusal`."""
        if self._calls is None:
            return
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._until, self._left = now + self._minute, self._calls
        if self._left == 0:
            wait = math.ceil(self._until - now) if self._tells_when else None
            raise Refusal(429, "Too many requests, please try again later.", retry_after=wait)
        self._left -= 1


class Unanswered(Exception):
    """A call whose connection is to be closed without an answer."""


Effect = Callable[[], Awaitable[web.Response]]


async def with_fault(fault: CallFault, effect: Effect, closing: asyncio.Event) -> web.Response:
    """Do what a call asks for, with what was planned to go wrong; a call that hangs does so until
    `closing`."""

    async def lose(stage: Stage) -> None:
        if fault.hang == stage:
            await closing.wait()
        if stage in (fault.hang, fault.cut):
            raise Unanswered

    await asyncio.sleep(fault.delay)
    if fault.status is not None:
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        body = {"error": fault.error, "docUrl": DOC_URL}
        refusal = web.json_response(body, status=fault.status, headers=headers)
        return _altered(refusal, fault, headers)
    await lose("before_effect")
    response = await effect()
    await asyncio.sleep(fault.answer_delay)
    await lose("after_effect")
    return _altered(response, fault, {})


def _altered(response: web.Response, fault: CallFault, headers: dict[str, str]) -> web.Response:
    """The answer with another body, if the fault has one."""
    body: str | AsyncIterator[bytes] | None = "<html>" if fault.malformed else fault.body
    if fault.endless:
        body = _without_end()
    elif body is None and (fault.changes or fault.without):
        usual: dict[str, Any] = json.loads(response.text or "{}")
        kept = {name: value for name, value in usual.items() if name not in fault.without}
        body = json.dumps({**kept, **fault.changes})
    if body is None:
        return response
    status = 200 if response.status == 204 else response.status  # a 204 has none
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


async def _without_end() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 65_536
        await asyncio.sleep(0)


def view(session: SimulatedSession) -> dict[str, Any]:
    """What GET answers, by status."""
    answer: dict[str, Any] = {
        "id": session.id,
        "createdAt": iso(session.created_at),
        "status": session.status.value,
    }
    match session.status:
        case SessionStatus.NOT_READY if session.queued:
            answer["queued"] = True
        case SessionStatus.READY:
            options = session.options
            expiry = session.created_at + options.scaled(options.credential_ttl)
            answer |= {"expiresAt": iso(expiry), "sessionKey": session.session_key}
        case SessionStatus.COMPLETED:
            answer["duration"] = round(session.billed_seconds)
        case SessionStatus.FAILED:
            answer |= {"failure": session.failure, "failureCode": session.failure_code}
    return answer


def bearer(request: web.Request) -> str:
    """The key of the Authorization header, empty if there is none."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def require_json(request: web.Request) -> None:
    """Refuse other content types, as measured on /consume."""
    if request.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
        raise Refusal(400, "Incorrect content type")


async def json_body(request: web.Request) -> Any:
    """The parsed body.

    Raises:
        Refusal: another content type, or not JSON.
    """
    require_json(request)
    try:
        return parse_json(await request.read())
    except ValueError:
        raise Refusal(400, "The body is not valid JSON.") from None


def parse_json(text: bytes) -> Any:
    """JSON as JavaScript reads it; raises `ValueError`."""
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    """NaN and Infinity, which Python reads and JSON does not know."""
    raise ValueError(name)


def iso(epoch: float) -> str:
    """As Runway writes a moment: UTC, with milliseconds and a Z."""
    moment = datetime.fromtimestamp(epoch, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
