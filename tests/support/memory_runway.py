"""A Runway without sockets, for virtual time: sessions with states, and faults to order.

The client above it is the real one, with its attempts, waits and abandoned creates.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from livekit_plugins_runway.errors import (
    ConfigurationError,
    Operation,
    RunwayException,
    TimedOutError,
    UnavailableError,
)
from livekit_plugins_runway.runway import http
from livekit_plugins_runway.runway.answers import error_from_response
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.http import ApiCall, HttpCaller
from tests.support.scripted_runway import state

PROVISIONING = 1.0
UNCONSUMED_TTL = 21.0
TERMINAL = ("COMPLETED", "FAILED", "CANCELLED")


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(frozen=True)
class Fault:
    """Of one call. Seconds; `status` is answered instead of a success, and by default in place of
    what was asked for."""

    before: float = 0.05
    """On the way there."""
    after: float = 0.05
    """On the way back."""
    status: int = 0
    done: bool = False
    """It is done although `status` says otherwise."""
    lost: bool = False
    """The connection is cut after it was done."""
    nameless: bool = False
    """The session is made, and its id is not told."""
    unreached: bool = False
    """Nothing is sent."""
    retry_after: float | None = None
    lies: str = ""
    """A status that a get claims."""


OK = Fault()


@dataclass(eq=False)
class MemorySession:
    id: str
    body: dict[str, Any]
    created_at: float
    told: bool = False
    """Somebody has got its id."""
    consumed_at: float | None = None
    running_at: float | None = None
    ended_at: float | None = None
    ended_as: str = ""
    duration: float = 0.0
    on_end: Callable[[], None] = lambda: None
    """What its worker does then."""

    @property
    def status(self) -> str:
        if self.ended_as:
            return self.ended_as
        if self.running_at is not None:
            return "RUNNING"
        if now() < self.created_at + PROVISIONING:
            return "NOT_READY"
        since = self.created_at + PROVISIONING if self.consumed_at is None else self.consumed_at
        return "FAILED" if now() >= since + UNCONSUMED_TTL else "READY"

    @property
    def alive(self) -> bool:
        return self.status not in TERMINAL

    @property
    def billed(self) -> float:
        if self.running_at is None:
            return 0.0
        return (now() if self.ended_at is None else self.ended_at) - self.running_at

    def run(self) -> None:
        """The worker has come."""
        if self.alive and self.running_at is None:
            self.running_at = now()

    def end(self, as_: str) -> None:
        if self.alive:
            self.ended_as, self.ended_at = as_, now()
            self.duration = self.billed
            self.on_end()


@dataclass
class MemoryRunway:
    """Has every session that was made, and what it was asked."""

    faults: dict[Operation, list[Fault]] = field(default_factory=dict)
    """For the next calls of each kind, in their order."""
    always: dict[Operation, Fault] = field(default_factory=dict)
    """For all calls of a kind that have none of their own."""
    sessions: dict[str, MemorySession] = field(default_factory=dict)
    asked: list[tuple[float, Operation, str]] = field(default_factory=list)
    """Loop time of arrival, kind, and id of the session, of each call."""
    tried: list[tuple[float, Operation, str]] = field(default_factory=list)
    """The same, when it was sent, or to be sent."""
    disowned: set[str] = field(default_factory=set)
    """Ids of sessions that it claimed had ended, and that had not."""
    on_created: Callable[[MemorySession], None] = lambda _: None
    cap: float | None = None
    """Seconds after which a session that runs is ended."""
    places: int | None = None
    """Sessions at once; those beyond are queued."""
    _ids: Any = field(default_factory=itertools.count)

    def serve(self, client: RunwayClient) -> None:
        """Answer this client instead of the network."""
        real = client._http
        client._http = _MemoryHttp(self, real._conn_options, real._call_timeout, lambda: 0.0)

    @property
    def alive(self) -> list[MemorySession]:
        return [session for session in self.sessions.values() if session.alive]

    def deletes(self, session_id: str) -> list[float]:
        return [at for at, what, of in self.asked if what == "delete" and of == session_id]

    def count(self, operation: Operation) -> int:
        return sum(what == operation for _, what, _ in self.asked)

    async def answer(self, call: ApiCall) -> object:
        waiting = self.faults.get(call.operation, [])
        fault = waiting.pop(0) if waiting else self.always.get(call.operation, OK)
        self.tried.append((now(), call.operation, call.session_id or ""))
        await asyncio.sleep(fault.before)
        if fault.unreached:
            raise ConnectionRefusedError
        if call.body is not None:
            call.body._leave()
        self.asked.append((now(), call.operation, call.session_id or ""))
        if fault.status:
            if fault.done:
                self._do(call)
            await asyncio.sleep(fault.after)
            raise error_from_response(
                fault.status, None, operation=call.operation, retry_after=fault.retry_after
            )
        answer = self._do(call)
        await asyncio.sleep(fault.after)
        if fault.lost:
            raise ConnectionResetError
        if fault.lies:
            if fault.lies in TERMINAL and self.sessions[call.session_id or ""].alive:
                self.disowned.add(call.session_id or "")
            return state(fault.lies, **({"duration": 5} if fault.lies == "COMPLETED" else {}))
        if fault.nameless:
            return {}
        if call.operation == "create":
            assert isinstance(answer, dict)
            self.sessions[answer["id"]].told = True
        return answer

    def _do(self, call: ApiCall) -> object:
        if call.operation == "create":
            assert call.content is not None
            made = MemorySession(f"s{next(self._ids)}", json.loads(call.content), now())
            self.sessions[made.id] = made
            self.on_created(made)
            return {"id": made.id}
        session = self.sessions[call.session_id or ""]
        if call.operation == "delete":
            session.end("CANCELLED")
            return None
        if call.operation == "consume":
            return self._consume(session)
        if session in self.alive[self.places or len(self.alive) :]:
            return state("NOT_READY", queued=True)
        fields: dict[str, Any] = {}
        if session.status == "COMPLETED":
            fields = {"duration": int(session.duration)}
        elif session.status == "FAILED":
            fields = {"failure": "nobody came", "failureCode": "NO_PARTICIPANT"}
        return state(session.status, **fields)

    def _consume(self, session: MemorySession) -> object:
        if session.status != "READY" or session.consumed_at is not None:
            raise error_from_response(404, None, operation="consume")
        session.consumed_at = now()
        return {"url": "wss://r.test", "token": "t", "roomName": session.id}


class _MemoryHttp(HttpCaller):
    """Attempts and waits are the real ones."""

    def __init__(self, runway: MemoryRunway, options: Any, timeout: float, jitter: Any) -> None:
        super().__init__("https://runway.test", None, options, timeout, jitter)
        self._runway = runway

    async def prewarm(self) -> None:
        await asyncio.sleep(0.1)

    async def _attempt(self, call: ApiCall, seconds: float) -> object:
        if self._closed:
            raise ConfigurationError("The Runway client is closed.")
        call.body = None if call.content is None else http._Body(call.content, call.on_sent)
        try:
            async with asyncio.timeout(min(seconds, http._ANSWER_SECONDS[call.operation])):
                return await self._runway.answer(call)
        except TimeoutError:
            failure: RunwayException = TimedOutError()
        except OSError:
            failure = UnavailableError()
        raise call.lost(failure) if call.sent else failure
