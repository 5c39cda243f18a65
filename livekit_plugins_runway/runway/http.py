"""One HTTP call to Runway: its attempts, what is repeated, and what an answer means.

| what happened | get, delete, request with GET | create, consume, other requests |
|---|---|---|
| 429 (except the daily limit), 502, 503, 504 | repeated | repeated |
| no connection, so nothing was sent | repeated | repeated |
| cut or timed out after sending | repeated | `LostAnswerError` |
| success that is not JSON | `ProtocolError` | `LostAnswerError` |
| any other answer | typed error at once | typed error at once |

Runway documents 502, 503 and 504 as transient, so a create is repeated after them too, although a
gateway may have passed it on: the id of such a session is never known here. A consume that is
repeated after them is refused if it had been accepted, and the session was lost anyway.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from .. import __version__
from ..errors import (
    AuthenticationError,
    ConfigurationError,
    CreditsError,
    ForbiddenError,
    Issue,
    LostAnswerError,
    NotFoundError,
    Operation,
    ProtocolError,
    QuotaError,
    RateLimitedError,
    RequestError,
    RequestRejectedError,
    RunwayException,
    ServerError,
    TimedOutError,
    UnavailableError,
)
from ..log import logger

if TYPE_CHECKING:
    from livekit.agents import APIConnectOptions

API_VERSION = "2024-11-06"

_USER_AGENT = f"livekit-plugins-runway-bridge/{__version__}"
_ANSWER_SECONDS: dict[Operation, float] = {
    "create": 30.0,
    "get": 5.0,
    "delete": 10.0,
    "consume": 15.0,
    "request": 30.0,
}
TRANSIENT = (502, 503, 504)
"""Statuses that Runway documents as transient."""
_LONGEST_BACKOFF = 8.0
_LONGEST_TEXT = 500
_NO_CREDITS = re.compile(r"(not|n't|insufficient|out of|no)\b.*\bcredits?\b", re.I | re.S)
_DAILY_LIMIT = re.compile(r"\bdaily\b", re.I)


@dataclass(frozen=True)
class ConnectOptions:
    """How one call is repeated. The framework's `APIConnectOptions`, with the same fields and
    defaults, is taken as well; this one does not load the framework.

    Attributes:
        max_retry: repeats after the first attempt.
        retry_interval: the first wait in seconds.
        timeout: seconds for connecting.
    """

    max_retry: int = 3
    retry_interval: float = 2.0
    timeout: float = 10.0


class _Body(aiohttp.BytesPayload):
    """A JSON body that knows whether any of it may have left this machine.

    aiohttp tells that of no other request: a time-out or a cut can come before or after sending.
    """

    def __init__(self, content: bytes, on_sent: Callable[[], None] | None) -> None:
        super().__init__(content, content_type="application/json")
        self._on_sent = on_sent
        self.sent = False
        self.withdrawn = False

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._leave()
        await super().write(writer)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        self._leave()
        await super().write_with_length(writer, content_length)

    def _leave(self) -> None:
        if self.withdrawn:
            raise ConnectionAbortedError("withdrawn before it was sent")
        self.sent = True
        if self._on_sent is not None:
            self._on_sent()


@dataclass(slots=True)
class ApiCall:
    """One call, over all of its attempts."""

    operation: Operation
    method: str
    path: str
    bearer: str = field(repr=False)
    content: bytes | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    session_id: str | None = None
    on_sent: Callable[[], None] | None = None
    repeats_5xx: bool = True
    """False: after 502, 503 or 504 it is left to the caller, who may want another body."""
    body: _Body | None = None
    abandoned: bool = False

    @property
    def sent(self) -> bool:
        return self.body is not None and self.body.sent

    def lost(self, why: RunwayException) -> RunwayException:
        """The error for an answer that did not arrive, or does not make sense."""
        if self.operation == "create":
            text = (
                "A Runway session may have been made, but the answer was lost: "
                f"{why.message} Its id is unknown, so it cannot be deleted."
            )
        elif self.operation == "consume":
            text = (
                "The credentials of the Runway session may be spent, but the answer was lost: "
                f"{why.message} End it and make a new one."
            )
        elif self.operation == "request" and self.method != "GET":
            text = f"Runway may have done what was asked, but the answer was lost: {why.message}"
        else:
            return why
        return LostAnswerError(text, operation=self.operation, session_id=self.session_id)

    def given_up(self) -> RunwayException:
        """The error for a call that the client's own closing cut short."""
        why = UnavailableError("The Runway client was closed before the answer came.")
        return self.lost(why) if self.sent else why

    def repeats(self, error: ServerError) -> bool:
        """Whether another attempt may follow a 5xx."""
        return self.repeats_5xx and error.status_code in TRANSIENT

    def abandon(self) -> None:
        """Nobody wants the answer any more: start no further attempt, let none leave."""
        self.abandoned = True
        if self.body is not None:
            self.body.withdrawn = True


class HttpCaller:
    """Makes calls, with attempts and waits. Arguments are those of `RunwayClient`."""

    def __init__(
        self,
        base_url: str,
        http_session: aiohttp.ClientSession | Callable[[], aiohttp.ClientSession] | None,
        conn_options: APIConnectOptions | ConnectOptions,
        call_timeout: float,
        jitter: Callable[[], float],
    ) -> None:
        self.base_url = _checked_base_url(base_url)
        self._given_http = http_session
        self._own_http: aiohttp.ClientSession | None = None
        self._conn_options = conn_options
        self._call_timeout = call_timeout
        self._jitter = jitter
        self._closed = False

    async def perform(self, call: ApiCall) -> object:
        """All attempts of a call; the decoded JSON of its success, None for delete."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._call_timeout
        attempt = 0
        while True:
            try:
                return await self._attempt(call, deadline - loop.time())
            except (RateLimitedError, ServerError, UnavailableError, TimedOutError) as error:
                if isinstance(error, ServerError) and not call.repeats(error):
                    raise
                wait = self._wait_before_repeat(attempt, error)
                out_of_time = loop.time() + wait >= deadline
                if attempt >= self._conn_options.max_retry or out_of_time or call.abandoned:
                    raise
                logger.debug(
                    "runway call failed, to be repeated",
                    extra={"operation": call.operation, "attempt": attempt + 1, "wait": wait},
                )
            call.body = None
            await asyncio.sleep(wait)
            attempt += 1

    async def prewarm(self) -> None:
        """Leave an open connection for the next call. What goes wrong is for that call to tell."""
        try:
            async with (
                asyncio.timeout(self._conn_options.timeout),
                self._http().head(self.base_url, allow_redirects=False, raise_for_status=False),
            ):
                pass
        except (aiohttp.ClientError, OSError) as error:
            logger.debug("runway was not reached early", extra={"error": type(error).__name__})

    async def aclose(self) -> None:
        """Close the HTTP session if it was made here."""
        self._closed = True
        if self._own_http is not None:
            await self._own_http.close()

    def _wait_before_repeat(self, attempt: int, error: RunwayException) -> float:
        base = min(self._conn_options.retry_interval * 2.0**attempt, _LONGEST_BACKOFF)
        wait = base * (1 + self._jitter() / 2)
        asked = getattr(error, "retry_after", None)
        return wait if asked is None else max(wait, asked)

    async def _attempt(self, call: ApiCall, seconds: float) -> object:
        call.body = None if call.content is None else _Body(call.content, call.on_sent)
        limit = min(seconds, _ANSWER_SECONDS[call.operation])
        # aiohttp's own total limit can swallow a cancellation that comes at the same moment.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._conn_options.timeout)
        cause: BaseException | None
        try:
            async with (
                asyncio.timeout(limit),
                self._http().request(
                    call.method,
                    self.base_url + call.path,
                    data=call.body,
                    headers=request_headers(call.bearer),
                    timeout=timeout,
                    allow_redirects=False,
                    raise_for_status=False,
                ) as response,
            ):
                return _decode(call, response, (await response.read()).decode(errors="replace"))
        except TimeoutError as error:
            failure: RunwayException = TimedOutError()
            cause = error
        except (aiohttp.ClientError, OSError) as error:
            what = f"{type(error).__name__}: {error}"[:300]
            what = what.replace(call.session_id or call.path, "<id>")
            failure = UnavailableError(f"Runway could not be reached ({what}).")
            # This kind holds the request's headers, and so the key.
            cause = None if isinstance(error, aiohttp.ClientResponseError) else error
        # Outside of the handlers, so that no error with a secret becomes the context.
        raise (call.lost(failure) if call.sent else failure) from cause

    def _http(self) -> aiohttp.ClientSession:
        given = self._given_http() if callable(self._given_http) else self._given_http
        if given is not None and not given.closed:
            return given
        if self._closed:
            raise ConfigurationError("The Runway client is closed.")
        if self._own_http is None or self._own_http.closed:
            self._own_http = aiohttp.ClientSession()
        return self._own_http


def request_headers(bearer: str) -> dict[str, str]:
    """The headers of each call; those with a body are `application/json`."""
    return {
        "Authorization": f"Bearer {bearer}",
        "X-Runway-Version": API_VERSION,
        "User-Agent": _USER_AGENT,
        "Accept": "application/json",
    }


def _decode(call: ApiCall, response: aiohttp.ClientResponse, text: str) -> object:
    success = 200 <= response.status < 300
    if success and (call.operation == "delete" or (call.operation == "request" and not text)):
        return None
    if not success:
        for secret in filter(None, (call.bearer, *call.secrets)):
            text = text.replace(secret, "[secret]")
    is_json, payload = _parse(text)
    if not success:
        raise error_from_response(
            response.status,
            payload,
            operation=call.operation,
            retry_after=_retry_after(response.headers.get("Retry-After")),
            request_id=response.headers.get("X-Request-Id"),
        )
    if not is_json:
        raise call.lost(ProtocolError("Runway's answer is not JSON."))
    return payload


def _parse(text: str) -> tuple[bool, object]:
    """Whether it is JSON, and the value, or the text. Without an error: that would quote it."""
    try:
        return True, json.loads(text)
    except ValueError:
        return False, text


def error_from_response(
    status: int,
    payload: object,
    *,
    operation: Operation,
    retry_after: float | None = None,
    request_id: str | None = None,
) -> RequestError | ProtocolError:
    """The error for an HTTP answer that is no success.

    Args:
        status: HTTP status.
        payload: the decoded JSON body, or its text where it was no JSON. Must hold no secret.
        operation: the call that was answered.
        retry_after: seconds that Runway asked to wait.
        request_id: Runway's id of the request.
    """
    if not 400 <= status < 600:
        return ProtocolError(
            f"Runway answered with HTTP {status}, which is neither success nor error. "
            "Check RUNWAYML_BASE_URL."
        )
    fields: Mapping[object, object] = payload if isinstance(payload, dict) else {}
    text = payload if isinstance(payload, str) else fields.get("message") or fields.get("error")
    runway_message = _one_line(text)
    issues = _issues(fields.get("issues"))
    doc_url = fields.get("docUrl")
    kind = _kind(status, runway_message, bool(issues))
    return kind(
        status_code=status,
        operation=operation,
        runway_message=runway_message,
        issues=issues,
        doc_url=doc_url if isinstance(doc_url, str) else None,
        retry_after=retry_after,
        hint=_hint(kind, operation),
        request_id=request_id,
        body={
            "error": runway_message,
            "issues": [{"code": i.code, "message": i.message, "path": [*i.path]} for i in issues],
            "docUrl": doc_url if isinstance(doc_url, str) else None,
        },
    )


def _kind(status: int, text: str, has_issues: bool) -> type[RequestError]:
    if status >= 500:
        return ServerError
    if status == 429:
        return QuotaError if _DAILY_LIMIT.search(text) else RateLimitedError
    if status in (400, 402) and not has_issues and _NO_CREDITS.search(text):
        return CreditsError
    by_status = {401: AuthenticationError, 403: ForbiddenError, 404: NotFoundError}
    return by_status.get(status, RequestRejectedError)


def _hint(kind: type[RequestError], operation: Operation) -> str | None:
    if operation == "consume" and kind in (AuthenticationError, NotFoundError):
        return (
            "A session is consumed once, with its own session key, soon after READY: "
            "make a new session."
        )
    if kind is NotFoundError and operation in ("get", "delete"):
        return "A session is visible only to keys of the project that made it: check the key."
    if kind is NotFoundError and operation == "request":
        return "What belongs to another project is not visible to this key: check id and key."
    return None


def _issues(raw: object) -> tuple[Issue, ...]:
    found = []
    for entry in raw if isinstance(raw, list) else []:
        if not isinstance(entry, dict):
            continue
        path, code = entry.get("path"), entry.get("code")
        found.append(
            Issue(
                path=tuple(
                    p if isinstance(p, int) else str(p)
                    for p in (path if isinstance(path, list) else [])
                ),
                message=_one_line(entry.get("message")),
                code=code if isinstance(code, str) else None,
            )
        )
    return tuple(found)


def _one_line(text: object) -> str:
    """A text of unknown origin (perhaps a gateway's HTML page) as one bounded line."""
    return " ".join(text.split())[:_LONGEST_TEXT] if isinstance(text, str) else ""


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or an HTTP date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value)) if value.strip().isdecimal() else _until(value)
    except ValueError:
        return None


def _until(date: str) -> float:
    moment: datetime = parsedate_to_datetime(date)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def _checked_base_url(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError("The Runway base URL must be like https://api.dev.runwayml.com")
    return base_url.rstrip("/")
