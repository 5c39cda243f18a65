"""What all calls about an account need of the simulator."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from ...options import SimulatorOptions
from ..checks import Check
from ..rest import Refusal, iso, json_body, with_fault
from ..session import SimulatedSession
from .entries import SimulatedAccount, entry_of

Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass(frozen=True)
class Backend:
    """The account, and what is around it.

    Attributes:
        sessions: by id, in order of creation.
        authorize: raises `Refusal` for a call without key or version.
        url: where the simulator is.
        later: does something after so many seconds of the service.
        closing: set when the simulator closes.
    """

    account: SimulatedAccount
    options: SimulatorOptions
    sessions: Mapping[str, SimulatedSession]
    authorize: Callable[[web.Request], None]
    url: Callable[[], str]
    later: Callable[[float, Callable[[], None]], None]
    closing: asyncio.Event
    _files: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def guarded(self, handler: Handler) -> Handler:
        """With key and version, and with what was ordered to go wrong."""

        async def answer(request: web.Request) -> web.Response:
            self.authorize(request)
            fault = self.account.next_call_fault()
            return await with_fault(fault, lambda: handler(request), self.closing)

        return answer

    def publish(self, content: bytes, content_type: str) -> str:
        """An address of the file that opens it to whoever has it."""
        name = secrets.token_hex(16)
        self._files[name] = (content, content_type)
        return f"{self.url()}/files/{name}"

    async def file(self, request: web.Request) -> web.Response:
        """Without a key: the address is the secret."""
        found = self._files.get(request.match_info["name"])
        if found is None:
            raise Refusal(403, "Forbidden")
        refuse_a_key(request)
        content, content_type = found
        return web.Response(body=content, content_type=content_type)


def refuse_a_key(request: web.Request) -> None:
    """As a store of signed addresses does."""
    if "Authorization" in request.headers:
        raise Refusal(400, "Only one auth mechanism allowed")


async def checked_body(request: web.Request, check: Check) -> dict[str, Any]:
    """The body of a call; raises `Refusal` for one that is not as published."""
    body = await json_body(request)
    if issues := list(check(body, ())):
        details = [issue.as_json() for issue in issues]
        raise Refusal(400, "Validation of body failed", issues=details)
    assert isinstance(body, dict)
    return body


def wanted(request: web.Request, entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The entry that the path names; raises `Refusal` if there is none."""
    found = entry_of(entries, request.match_info["id"])
    if found is None:
        raise Refusal(404, f"Could not find {kind}")
    return found


def now() -> str:
    return iso(datetime.now(UTC).timestamp())
