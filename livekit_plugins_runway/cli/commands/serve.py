"""The command `runway-avatar serve`."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import typer

from ..._common.signals import stop_on_signals
from ...errors import ConfigurationError
from ...log import logger
from ...serve.options import TOKEN_VARIABLE, Response, ServeOptions
from ...serve.server import run
from ..settings import Settings, settings_of
from .common import said_of


def serve(
    ctx: typer.Context,
    host: Annotated[
        str, typer.Option(help=f"Address to listen on; a public one needs {TOKEN_VARIABLE}.")
    ] = ServeOptions.host,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the REST server; 0: any free one.")
    ] = 8080,
    mcp: Annotated[bool, typer.Option(help="Serve MCP clients, too (extra 'serve').")] = True,
    mcp_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the MCP server; 0: any free one.")
    ] = 9090,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin whose pages may call, like http://localhost:3000; repeatable."),
    ] = None,
    avatar: Annotated[
        list[str] | None,
        typer.Option(
            help="Preset or avatar id that callers may ask for; repeatable, the first is the "
            "default. Without it: any."
        ),
    ] = None,
    response: Annotated[
        Response,
        typer.Option(
            case_sensitive=False,
            help="What front ends get: the key to take the room's credentials with, or those.",
        ),
    ] = "session-key",
    rate: Annotated[
        int, typer.Option(min=1, max=1000, help="Sessions that one client may make per minute.")
    ] = ServeOptions.rate,
    max_sessions: Annotated[
        int, typer.Option(min=1, max=1000, help="Sessions that may be alive at once.")
    ] = ServeOptions.max_sessions,
    max_duration: Annotated[
        int, typer.Option(min=10, max=1800, help="Seconds that a caller may ask for at most.")
    ] = ServeOptions.max_duration,
    ready_timeout: Annotated[
        float, typer.Option(help="Seconds for a session to become READY.")
    ] = ServeOptions.ready_timeout,
    join_timeout: Annotated[
        float,
        typer.Option(help="Seconds from READY for a user to come; then the session is ended."),
    ] = ServeOptions.join_timeout,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve Prometheus' metrics there, without a token; HOST is 127.0.0.1 if left out.",
        ),
    ] = None,
    trust_proxy: Annotated[
        bool,
        typer.Option("--trust-proxy", help="Behind a proxy: client address from X-Forwarded-For."),
    ] = False,
) -> None:
    """Serve Runway sessions to front ends (REST) and to tool users (MCP), without an agent.

    Callers must present the token that RUNWAY_AVATAR_TOKEN holds, if it is set. Ends on SIGINT or
    SIGTERM.
    """
    settings = settings_of(ctx)
    if settings.dry_run:
        raise ConfigurationError("serve sends nothing by itself: leave --dry-run out.")
    _log_to_stderr()
    token = settings.variable(TOKEN_VARIABLE)
    with said_of(_OPTIONS):
        options = ServeOptions(
            host=host,
            port=port,
            mcp_port=mcp_port if mcp else None,
            token=None if token is None else token.value,
            allowed_origins=tuple(allow_origin or ()),
            avatars=tuple(avatar or ()),
            response=response,
            rate=rate,
            max_sessions=max_sessions,
            max_duration=max_duration,
            ready_timeout=ready_timeout,
            join_timeout=join_timeout,
            metrics=metrics,
            trust_proxy=trust_proxy,
        )
    asyncio.run(_until_signalled(options, settings))


_OPTIONS = {
    "allowed origin": "--allow-origin",
    "host": "--host",
    "join_timeout": "--join-timeout",
    "mcp_port": "--mcp-port",
    "metrics": "--metrics",
    "port": "--port",
    "ready_timeout": "--ready-timeout",
}


async def _until_signalled(options: ServeOptions, settings: Settings) -> None:
    stop = stop_on_signals()
    secret, base_url = settings.runway_key(), settings.base_url
    await run(options, secret, stop=stop, ready=_announce, base_url=base_url)


def _announce(rest_url: str, mcp_url: str | None, metrics_url: str | None) -> None:
    for what, url in (("REST", rest_url), ("MCP", mcp_url), ("Metrics", metrics_url)):
        if url is not None:
            print(f"{what} on {url}", flush=True)


def _log_to_stderr() -> None:
    """With session ids: who runs the server needs them to end a session by hand."""
    handler = logging.StreamHandler()
    text = "%(asctime)s %(levelname)s %(message)s %(lk.pii.session_id)s"
    handler.setFormatter(logging.Formatter(text, defaults={"lk.pii.session_id": ""}))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logger.setLevel(logging.INFO)
