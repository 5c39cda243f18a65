"""Requests to Runway: shown with `--dry-run`, else made; lists are followed to their end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import typer

from ..errors import ConfigurationError
from .output import HIDDEN, json_text, masked
from .settings import Settings

if TYPE_CHECKING:
    from ..runway.account.calls import AccountCalls
    from ..runway.client import RunwayClient
    from ..runway.journal.writer import Journal

_PATIENCE = 10.0
"""Seconds for a call that only asks; and until somebody is told that one which changes something
has had no answer yet."""
_LONGEST = 45.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Request:
    """One call of Runway's API; `body` is JSON-ready."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    def described(self, base_url: str) -> dict[str, Any]:
        """As it would be sent, with secrets masked."""
        from ..runway.http import request_headers  # with HTTP, which help does without

        headers = request_headers(HIDDEN)
        if self.body is not None:
            headers["Content-Type"] = "application/json"
        query = f"?{urlencode(self.query)}" if self.query else ""
        return {
            "method": self.method,
            "url": f"{base_url}{self.path}{query}",
            "headers": headers,
            "body": masked(self.body),
        }


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Do it to its end. Ctrl-C cancels it, and waits for what it has to tidy up."""
    return asyncio.run(work)


@asynccontextmanager
async def runway(
    settings: Settings,
    *,
    retries: int = 2,
    patience: float = _LONGEST,
    key: str | None = None,
    journal: Journal | None = None,
) -> AsyncIterator[RunwayClient]:
    """A client with the settings' key; closed at the end.

    Args:
        patience: seconds for one call, with all its attempts.
        key: instead of that of the settings.
    """
    from ..runway.client import RunwayClient
    from ..runway.http import ConnectOptions

    client = RunwayClient(
        key or settings.runway_key(),
        base_url=settings.base_url,
        conn_options=ConnectOptions(max_retry=retries, retry_interval=0.5, timeout=5.0),
        call_timeout=patience,
        journal=journal,
    )
    try:
        yield client
    finally:
        await client.aclose()


def preview(settings: Settings, *requests: Request) -> None:
    """With `--dry-run`: show the requests, and end the command. Needs no key and no network."""
    if not settings.dry_run:
        return
    described = [request.described(settings.base_url) for request in requests]
    if settings.output.as_json:
        if len(described) == 1:
            settings.output.json(described[0])
        else:
            for request in described:
                settings.output.json_line(request)
    else:
        for request in described:
            settings.output.line(f"{request['method']} {request['url']}")
            for name, value in request["headers"].items():
                settings.output.line(f"{name}: {value}")
            if request["body"] is not None:
                typer.echo("\n" + json_text(_short(request["body"]), 2))
    raise typer.Exit


def _short(value: Any) -> Any:
    """For people: a file that is part of a body is millions of characters."""
    match value:
        case dict():
            return {name: _short(inner) for name, inner in value.items()}
        case list():
            return [_short(inner) for inner in value]
        case str() if value.startswith("data:") and len(value) > _LONGEST_URI:
            return f"{value[:_LONGEST_URI]}... ({len(value)} characters)"
        case _:
            return value


_LONGEST_URI = 60


async def send(settings: Settings, request: Request, *, key: str | None = None) -> Any:
    """The decoded JSON of the answer, to this key or to that of the settings."""
    preview(settings, request)
    patience = _PATIENCE if request.method == "GET" else _LONGEST
    async with runway(settings, patience=patience, key=key) as client:
        with asking(settings, patience):
            return await ask(client, request)


async def ask(client: RunwayClient, request: Request) -> Any:
    return await client.request(
        request.method, request.path, query=request.query, body=request.body
    )


@contextmanager
def asking(settings: Settings, patience: float = _LONGEST) -> Iterator[None]:
    """For the time of a call that has so many seconds. It may be longer than somebody who sees
    nothing would wait: that it goes on is said once."""

    def tell() -> None:
        if patience > _PATIENCE:
            settings.output.note(
                f"Runway has not answered for {_PATIENCE:.0f} s; it gets {patience:.0f} s in all."
            )

    alarm = asyncio.get_running_loop().call_later(_PATIENCE, tell)
    try:
        with settings.output.busy("waiting for Runway's answer"):
            yield
    finally:
        alarm.cancel()


async def send_list(settings: Settings, request: Request, limit: int | None) -> list[Any]:
    """The entries of all pages, or the first `limit` of them. `--dry-run` shows the first page."""
    async with account_calls(settings, patience=_PATIENCE) as client:
        with asking(settings, _PATIENCE):
            return await client.list_all(request.path, query=request.query, limit=limit)


@asynccontextmanager
async def account_calls(
    settings: Settings, *, patience: float = _LONGEST
) -> AsyncIterator[AccountCalls]:
    """A client's calls about an account. With `--dry-run` the first request is shown instead of
    sent, and ends the command; it needs no key."""
    if settings.dry_run:
        from .dry_run import ShownCalls

        yield ShownCalls(settings)
        return
    async with runway(settings, patience=patience) as client:
        yield client


def json_argument(text: str, where: str) -> Any:
    """JSON that a user has written; `ConfigurationError` says where it breaks."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{where} is not JSON: {error}.") from None
