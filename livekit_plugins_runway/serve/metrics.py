"""What the server counts, for Prometheus. No id, no address and no name of a caller is in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from socket import socket

from aiohttp import hdrs, web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    generate_latest,
)

from .http.application import serving
from .http.connections import Connections
from .made import Outcome
from .refusals import Refused


class Metrics:
    """Of one server; with a registry of its own, so that two servers in a process count apart."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._ended = self._counter(
            "runway_avatar_serve_sessions_ended_total", "Sessions by how they ended.", "outcome"
        )
        self._answers = self._counter(
            "runway_avatar_serve_requests_total",
            "Answered requests, by HTTP status.",
            "server",
            "status",
        )
        self._refusals = self._counter(
            "runway_avatar_serve_refusals_total",
            "What was refused, by reason; an MCP tool's error, too.",
            "server",
            "reason",
        )
        self._open = self._gauge(
            "runway_avatar_serve_connections_open", "Open connections.", "server"
        )
        self._alive = self._gauge(
            "runway_avatar_serve_sessions_alive", "Sessions that have not ended."
        )
        self._most = self._gauge(
            "runway_avatar_serve_sessions_most", "Sessions that may be alive at once."
        )

    def session_ended(self, outcome: Outcome) -> None:
        self._ended.labels(outcome).inc()

    def answered(self, server: str, status: int) -> None:
        """A request of the "rest" or "mcp" server."""
        self._answers.labels(server, str(status)).inc()

    def refused(self, server: str, refused: Refused) -> None:
        self._refusals.labels(server, refused.reason).inc()

    def watch_connections(self, server: str, connections: Connections) -> None:
        """They are counted whenever somebody asks."""
        self._open.labels(server).set_function(lambda: connections.open)

    def watch_sessions(self, alive: Callable[[], int], most: int) -> None:
        self._alive.set_function(alive)
        self._most.set(most)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self._registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(name, what, labels, registry=self._registry)


@asynccontextmanager
async def metrics_server(
    sock: socket, metrics: Metrics, connections: Connections
) -> AsyncIterator[None]:
    """Serve `/metrics` on a listening socket of its own while the block runs."""

    async def show(_: web.Request) -> web.StreamResponse:
        return web.Response(body=metrics.text(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", show)
    async with serving(app, sock, connections):
        yield
