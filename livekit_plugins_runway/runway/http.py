"""One HTTP call to Runway: its attempts, and which of them are repeated.

| what happened | get, any delete, requests that read | create, consume, other requests |
|---|---|---|
| 429 (except the daily limit), 502, 503, 504 | repeated | repeated |
| no connection, so nothing was sent | repeated | repeated |
| cut or timed out after sending | repeated | `LostAnswerError` |
| success that is not JSON, too long or too deep | `ProtocolError` | `LostAnswerError` |
| any other answer | typed error at once | typed error at once |
| aiohttp refuses the address or the session given to it | `ConfigurationError` | the same |

A delete has succeeded whatever the body of its success says. Of an answer 1 MiB is read (16 MiB for
other requests), and JSON in 64 levels: what is longer or deeper is no JSON here.

Runway documents 502, 503 and 504 as transient, so a create is repeated after them too, although a
gateway may have passed it on: the id of such a session is never known here. A consume that is
repeated after them is refused if it had been accepted, and the session was lost anyway.

Beyond 64 KiB a body may take another second for each 64 KiB. A file goes to the place that Runway
names, as a form, without the key: that is repeated, for it has no other effect than that the file
is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from .. import __version__
from .._common.http import new_session
from ..errors import (
    ConfigurationError,
    LostAnswerError,
    Operation,
    ProtocolError,
    RateLimitedError,
    RunwayException,
    ServerError,
    TimedOutError,
    UnavailableError,
)
from ..log import logger
from .address import checked_base_url
from .answers import asked_to_wait, error_from_response, one_line, parsed, seconds_to_wait

if TYPE_CHECKING:
    from livekit.agents import APIConnectOptions

API_VERSION = "2024-11-06"

_USER_AGENT = f"livekit-plugins-runway-bridge/{__version__}"
_NO_KEY = {"User-Agent": _USER_AGENT}
_ANSWER_SECONDS: dict[Operation, float] = {
    "create": 30.0,
    "get": 5.0,
    "delete": 10.0,
    "consume": 15.0,
    "request": 30.0,
    "upload": 30.0,
}
TRANSIENT = (502, 503, 504)
"""Statuses that Runway documents as transient."""
_LONGEST_BACKOFF = 8.0
LAST_CHANCE = 1.0
"""Seconds reserved for the last repeat of a call with a deadline."""
_MIB = 1024 * 1024
_SLOWEST_SENDING = 64 * 1024
"""Bytes in a second."""


@dataclass(frozen=True)
class ConnectOptions:
    """How one call is repeated. The framework's `APIConnectOptions`, with the same fields and
    defaults, is accepted as well; this class does not load the framework.

    Attributes:
        max_retry: repeats after the first attempt.
        retry_interval: the first wait in seconds.
        timeout: seconds for connecting.
    """

    max_retry: int = 3
    retry_interval: float = 2.0
    timeout: float = 10.0


class _Body(aiohttp.BytesPayload):
    """A JSON body that records whether any of it may have been sent. aiohttp does not tell: a
    time-out or a cut connection can come before or after sending.
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
    """One call, with all its attempts."""

    operation: Operation
    method: str
    path: str
    bearer: str = field(repr=False)
    content: bytes | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    session_id: str | None = None
    on_sent: Callable[[], None] | None = None
    repeats_5xx: bool = True
    """False: a 502, 503 or 504 is raised to the caller, who may repeat the call with another
    body.
    """
    hurry: asyncio.Event | None = None
    """Set by the caller `LAST_CHANCE` seconds before its deadline: a running wait ends then, for
    one last repeat. With it repeats are limited by time only, and not by `max_retry`.
    """
    repeatable: bool = False
    """True for a request that has a body and changes nothing, so that it may be repeated."""
    form: Callable[[], aiohttp.FormData] | None = None
    """For an upload: makes the form of each attempt. `path` is then a whole address of another
    host, which gets no key.
    """
    form_length: int = 0
    body: _Body | None = None
    attempts: int = 0
    """Number of attempts so far."""
    abandoned: bool = False

    @property
    def sent(self) -> bool:
        return self.body is not None and self.body.sent

    @property
    def longest_answer(self) -> int:
        """Maximum bytes of a response. Lists and documents are longer than sessions."""
        return 16 * _MIB if self.operation == "request" else _MIB

    @property
    def sending(self) -> float:
        """Additional seconds for sending its body."""
        length = max(len(self.content or b""), self.form_length)
        return max(0, length - _SLOWEST_SENDING) / _SLOWEST_SENDING

    async def pause(self, seconds: float) -> None:
        """Called before a repeat."""
        if self.hurry is None:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.hurry.wait()

    def told(self, error: Exception) -> str:
        """The text of an aiohttp error, on one line, without secrets and ids."""
        text = f"{type(error).__name__}: {error}".replace(self.session_id or self.path, "<id>")
        return one_line(self.without_secrets(text))[:300]

    def without_secrets(self, text: str) -> str:
        for secret in filter(None, (self.bearer, *self.secrets)):
            text = text.replace(secret, "[secret]")
        return text

    def lost(self, why: RunwayException) -> RunwayException:
        """The error for a response that did not arrive, or cannot be understood."""
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
        elif self.operation == "request" and self.method != "GET" and not self.repeatable:
            text = f"Runway may have done what was asked, but the answer was lost: {why.message}"
        else:
            return why
        return LostAnswerError(
            text,
            operation=self.operation,
            session_id=self.session_id,
            answered=isinstance(why, ProtocolError),
        )

    def given_up(self) -> RunwayException:
        """The error for a call that was ended by closing the client."""
        why = UnavailableError("The Runway client was closed before the answer came.")
        return self.lost(why) if self.sent else why

    def repeats(self, error: ServerError) -> bool:
        """True if another attempt may follow a 5xx."""
        return self.repeats_5xx and error.status_code in TRANSIENT

    def abandon(self) -> None:
        """Abandon the call: no further attempts; abort one whose body has not been sent."""
        self.abandoned = True
        if self.body is not None:
            self.body.withdrawn = True


GivenSession: TypeAlias = aiohttp.ClientSession | Callable[[], aiohttp.ClientSession | None] | None
"""An `aiohttp.ClientSession` of the caller, or a function that returns one."""


class HttpCaller:
    """Makes calls, with attempts and waits. Arguments are those of `RunwayClient`."""

    def __init__(
        self,
        base_url: str,
        http_session: GivenSession,
        conn_options: APIConnectOptions | ConnectOptions,
        call_timeout: float,
        jitter: Callable[[], float],
    ) -> None:
        self.base_url = checked_base_url(base_url)
        self._given_http = http_session
        if isinstance(http_session, aiohttp.ClientSession):
            _check_session(http_session)
        self._own_http: aiohttp.ClientSession | None = None
        self._conn_options = conn_options
        self._call_timeout = call_timeout
        self._jitter = jitter
        self._closed = False

    async def perform(self, call: ApiCall) -> object:
        """Make all attempts of a call. Returns the decoded JSON of its success, None for delete."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + self._call_timeout + call.sending
        attempt = 0
        while True:
            last = call.hurry is not None and (
                call.hurry.is_set() or loop.time() + LAST_CHANCE >= deadline
            )
            try:
                return await self._attempt(call, deadline - loop.time())
            except (RateLimitedError, ServerError, UnavailableError, TimedOutError) as error:
                if isinstance(error, ServerError) and not call.repeats(error):
                    raise
                wait = self._wait_before_repeat(attempt, error)
                given_up = last or call.abandoned
                if call.hurry is not None:
                    wait = min(wait, max(0.0, deadline - LAST_CHANCE - loop.time()))
                elif attempt >= self._conn_options.max_retry or loop.time() + wait >= deadline:
                    given_up = True
                if given_up:
                    raise _counted(error, attempt + 1, loop.time() - began) from error.__cause__
                logger.debug(
                    "a Runway call failed; repeating it",
                    extra={"operation": call.operation, "attempt": attempt + 1, "wait": wait},
                )
            call.body = None
            await call.pause(wait)
            attempt += 1

    async def prewarm(self) -> None:
        """Open a connection for the next call. Errors are ignored; that call will raise them."""
        try:
            async with (
                asyncio.timeout(self._conn_options.timeout),
                self._http().head(self.base_url, allow_redirects=False, raise_for_status=False),
            ):
                pass
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            logger.debug(
                "the connection to Runway could not be opened in advance",
                extra={"error": type(error).__name__},
            )

    async def aclose(self) -> None:
        """Close the HTTP session, if this object has made it."""
        self._closed = True
        if self._own_http is not None:
            await self._own_http.close()

    def _wait_before_repeat(self, attempt: int, error: RunwayException) -> float:
        base = min(self._conn_options.retry_interval * 2.0**attempt, _LONGEST_BACKOFF)
        wait = base * (1 + self._jitter() / 2)
        return max(wait, asked_to_wait(error, self._jitter))

    async def _attempt(self, call: ApiCall, seconds: float) -> object:
        call.body = None if call.content is None else _Body(call.content, call.on_sent)
        call.attempts += 1
        cause: BaseException | None = None
        try:
            limit = _ANSWER_SECONDS[call.operation] + call.sending
            answer = await self._exchange(call, min(seconds, limit))
        except TimeoutError as error:
            failure: RunwayException = TimedOutError()
            cause = error
        except (aiohttp.ClientError, OSError) as error:
            failure = UnavailableError(f"Runway could not be reached ({call.told(error)}).")
            # This exception holds the request's headers, and so the key.
            cause = None if isinstance(error, aiohttp.ClientResponseError) else error
        except RunwayException:
            raise
        except (ValueError, RuntimeError) as error:
            failure = ConfigurationError(
                f"The request to Runway could not be made ({call.told(error)}). Check api_url "
                "(RUNWAYML_BASE_URL), and http_session if one is given."
            )
        else:
            return _decode(call, answer)
        # Raised outside of the handlers, so that no exception with a secret becomes the context.
        raise (call.lost(failure) if call.sent else failure) from cause

    async def _exchange(self, call: ApiCall, limit: float) -> _Answer:
        # aiohttp's own total limit can swallow a cancellation that comes at the same moment.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._conn_options.timeout)
        async with (
            asyncio.timeout(limit),
            self._http().request(
                call.method,
                self.base_url + call.path if call.form is None else call.path,
                data=call.body if call.form is None else call.form(),
                headers=request_headers(call.bearer) if call.form is None else _NO_KEY,
                timeout=timeout,
                allow_redirects=False,
                raise_for_status=False,
            ) as response,
        ):
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > call.longest_answer:
                    break
            return _Answer(
                response.status,
                bytes(body[: call.longest_answer]).decode(errors="replace"),
                whole=len(body) <= call.longest_answer,
                retry_after=response.headers.get("Retry-After"),
                request_id=response.headers.get("X-Request-Id"),
            )

    def _http(self) -> aiohttp.ClientSession:
        given = self._given_http() if callable(self._given_http) else self._given_http
        if given is not None and not given.closed:
            _check_session(given)
            return given
        if self._closed:
            raise ConfigurationError("The Runway client is closed.")
        if self._own_http is None or self._own_http.closed:
            self._own_http = new_session()
        return self._own_http


def _counted(error: RunwayException, attempts: int, seconds: float) -> RunwayException:
    """The error where no answer came, with what was done about it."""
    if type(error) in (UnavailableError, TimedOutError):
        tried = f"tried {'once' if attempts == 1 else f'{attempts} times'} in {seconds:.1f} s"
        return type(error)(f"{error.message.rstrip('.')}; {tried}.")
    return error


def request_headers(bearer: str) -> dict[str, str]:
    """The headers of each call; those with a body are `application/json`."""
    return {
        "Authorization": f"Bearer {bearer}",
        "X-Runway-Version": API_VERSION,
        "User-Agent": _USER_AGENT,
        "Accept": "application/json",
    }


@dataclass(frozen=True, slots=True)
class _Answer:
    """A response. `whole`: `text` is all of it."""

    status: int
    text: str = field(repr=False)
    whole: bool
    retry_after: str | None
    request_id: str | None


def _decode(call: ApiCall, answer: _Answer) -> object:
    if not 200 <= answer.status < 300:
        payload, _ = parsed(call.without_secrets(answer.text))
        raise error_from_response(
            answer.status,
            payload,
            operation=call.operation,
            retry_after=seconds_to_wait(answer.retry_after),
            request_id=one_line(answer.request_id) or None,
        )
    if call.operation in ("delete", "upload") or (call.operation == "request" and not answer.text):
        return None
    payload, fault = parsed(answer.text)
    if not answer.whole:
        fault = f"is longer than {call.longest_answer // _MIB} MiB"
    elif fault == "is not JSON":
        fault += ", as all of its API's are: check the address (RUNWAYML_BASE_URL)"
    if fault:
        raise call.lost(ProtocolError(f"Runway's answer {fault}."))
    return payload


def _check_session(session: aiohttp.ClientSession) -> None:
    if getattr(session, "auth", None) is not None:  # aiohttp 4 has it no longer
        raise ConfigurationError(
            "http_session was made with auth=, which takes the place of Runway's API key: pass a "
            "session without it, or none."
        )
