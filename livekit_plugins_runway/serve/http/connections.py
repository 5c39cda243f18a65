"""How many connections a server holds, and for how long one may say nothing.

Who connects is known only once a request has come: so a server that waits for everybody can be shut
for all by a few hundred connections that say nothing.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

MOST = 200
"""Connections of one server at a time; fewer where the process may open few files."""
HEAD_SECONDS = 10.0
"""For the head of a request to be complete, from the connection's beginning."""
BODY_SECONDS = 15.0
"""For its body, after that."""
_KEPT_FILES = 64
"""For Runway, the log, and what Python itself has open."""
_HEAD_ENDS = b"\r\n\r\n"


def most_connections(servers: int) -> int:
    """For each of so many servers of this process."""
    if sys.platform == "win32":
        return MOST
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, min(MOST, (files - _KEPT_FILES) // servers))


class Connections:
    """Of one server. All of it is of the event loop's thread.

    Args:
        most: at a time. Where there are as many, the oldest one that has not sent the head of a
            request gives way to a new one; if all have, the new one is closed.
    """

    def __init__(self, most: int, head_seconds: float = HEAD_SECONDS) -> None:
        self._most = most
        self._head_seconds = head_seconds
        self._open = 0
        self._silent: dict[_Guarded, None] = {}
        """Those without a whole head yet, the oldest first."""

    def guarded(self, inner: asyncio.BaseProtocol) -> asyncio.Protocol:
        """What speaks the protocol of one connection, behind this limit."""
        return _Guarded(cast(asyncio.Protocol, inner), self)

    @property
    def open(self) -> int:
        """How many there are now."""
        return self._open

    def admit(self, connection: _Guarded) -> asyncio.TimerHandle | None:
        """A connection begins. Returns what closes it if it stays silent; None: there is no place
        for it."""
        if self._open >= self._most:
            if not self._silent:
                return None
            next(iter(self._silent)).abort()
        self._open += 1
        self._silent[connection] = None
        loop = asyncio.get_running_loop()
        return loop.call_later(self._head_seconds, connection.abort)

    def speaks(self, connection: _Guarded) -> None:
        """It has sent the head of a request."""
        self._silent.pop(connection, None)

    def end(self, connection: _Guarded) -> None:
        """It is closed. Once for each that was admitted."""
        self._open -= 1
        self._silent.pop(connection, None)


class _Guarded(asyncio.Protocol):
    """Hands everything on to `inner`, which knows nothing of it."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._closing: asyncio.TimerHandle | None = None
        """Closes it while it is silent. None before it was admitted, and if it was not."""
        self._last = b""
        """Of what has come, while the head is not complete: as much as its end may begin in."""
        self._admitted = False

    def abort(self) -> None:
        """Now; `connection_lost()` follows later, but its place is free."""
        if self._admitted:
            self._admitted = False
            self._connections.end(self)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._closing = self._connections.admit(self)
        if self._closing is None:
            self._transport.abort()
            return
        self._admitted = True
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._closing is None:
            return
        if not self._closing.cancelled():
            self._last = (self._last + data)[-len(data) - len(_HEAD_ENDS) :]
            if _HEAD_ENDS in self._last:
                self._closing.cancel()
                self._last = b""
                self._connections.speaks(self)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._closing is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        if self._closing is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._closing is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing is None:
            return
        self._closing.cancel()
        if self._admitted:
            self._admitted = False
            self._connections.end(self)
        self._inner.connection_lost(exc)
