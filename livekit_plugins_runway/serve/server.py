"""Both servers in one event loop, from listening to the last session's end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from ..errors import ConfigurationError
from ..runway.address import DEFAULT_BASE_URL
from ..runway.client import RunwayClient
from ..runway.journal.keeper import Keeper
from .bodies import Bodies
from .guard import Guard
from .http.connections import Connections, most_connections
from .metrics import Metrics, metrics_server
from .options import MCP_PATH, ServeOptions
from .rest import rest_server
from .sessions import Sessions

_McpServer = Callable[
    [socket.socket, Sessions, Bodies, Guard, Connections, ServeOptions],
    AbstractAsyncContextManager[None],
]
_SCRAPERS = 8
"""Connections to the metrics."""
_CREATE_SECONDS = 10.0
"""For calls that were under way at shutdown and may still make a session."""


async def run(
    options: ServeOptions,
    api_secret: str,
    *,
    stop: asyncio.Event,
    ready: Callable[[str, str | None, str | None], None],
    base_url: str = DEFAULT_BASE_URL,
) -> None:
    """Serve until `stop` is set, or until cancelled; then end what was not handed over.

    Args:
        options: where and for whom.
        api_secret: Runway's; it never leaves this process except to Runway.
        stop: set it to end.
        ready: called once, when callers may come, with the addresses of the REST server, of the
            MCP server and of the metrics (None if there is none).
        base_url: where Runway is.

    Raises:
        ConfigurationError: an address cannot be listened on, the secret has an impossible form, or
            the extra `serve` is not installed.
    """
    serve_mcp = None if options.mcp_port is None else _mcp_server()
    async with AsyncExitStack() as stack:
        keeper = Keeper.on_this_machine(api_secret, base_url)
        stack.push_async_callback(keeper.aclose)
        client = RunwayClient(api_secret, base_url=base_url, journal=keeper.journal)
        stack.push_async_callback(client.aclose, _CREATE_SECONDS)
        sessions = Sessions(client, options)
        stack.push_async_callback(sessions.aclose)
        bodies = Bodies(options.avatars, options.max_duration)
        guard = Guard(options)

        rest_socket = stack.enter_context(_listen(options.host, options.port))
        mcp_url = None
        most = most_connections(1 if serve_mcp is None else 2)
        if serve_mcp is not None and options.mcp_port is not None:
            mcp_socket = stack.enter_context(_listen(options.host, options.mcp_port))
            mcp_url = _url(options.host, mcp_socket) + MCP_PATH
            mcp_connections = Connections(most)
            sessions.metrics.watch_connections("mcp", mcp_connections)
            mcp = serve_mcp(mcp_socket, sessions, bodies, guard, mcp_connections, options)
            await stack.enter_async_context(mcp)
        rest_url = _url(options.host, rest_socket)
        rest_connections = Connections(most)
        sessions.metrics.watch_connections("rest", rest_connections)
        rest = rest_server(rest_socket, sessions, bodies, guard, rest_connections)
        await stack.enter_async_context(rest)
        metrics_url = await _serve_metrics(stack, sessions.metrics, options)
        keeper.sweep(client.delete)
        ready(rest_url, mcp_url, metrics_url)
        try:
            await stop.wait()
        finally:
            sessions.stop()


async def _serve_metrics(
    stack: AsyncExitStack, metrics: Metrics, options: ServeOptions
) -> str | None:
    if (address := options.metrics_address) is None:
        return None
    host, port = address
    sock = stack.enter_context(_listen(host, port))
    await stack.enter_async_context(metrics_server(sock, metrics, Connections(_SCRAPERS)))
    return _url(host, sock) + "/metrics"


def _mcp_server() -> _McpServer:
    try:
        from .mcp_server import mcp_server
    except ImportError as error:
        raise ConfigurationError(
            f"The MCP server needs packages that are not installed ({error}). Install them with: "
            "pip install '.[serve]' in a clone of this project, or do without: --no-mcp."
        ) from None
    return mcp_server


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}. "
            "Is another server running there? Choose another host or port."
        ) from None


def _url(host: str, sock: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{sock.getsockname()[1]}"
