"""An aiohttp application on a socket, behind the limits on connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import socket
from typing import cast

from aiohttp import hdrs, web

from ...log import logger
from .connections import Connections

_SERVER = "runway-avatar"
"""Instead of aiohttp's, which tells everybody its version and Python's."""
_KEEP_ALIVE = 5.0
"""Seconds for a caller's next request on the same connection."""
_GRACE = 3.0
"""Seconds for answers that are under way at shutdown."""


@asynccontextmanager
async def serving(
    app: web.Application, sock: socket, connections: Connections
) -> AsyncIterator[None]:
    """Serve it on a listening socket while the block runs."""
    app.on_response_prepare.append(_name_server)
    runner = web.AppRunner(
        app,
        # Without it a handler would go on, and make a session, for a caller that hung up.
        handler_cancellation=True,
        shutdown_timeout=_GRACE,
    )
    await runner.setup()
    manager = runner.server
    assert manager is not None  # set up
    loop = asyncio.get_running_loop()
    no_log = cast(logging.Logger, None)  # as documented; aiohttp 3.14's type is too narrow

    def speak() -> asyncio.Protocol:
        http = _Http(manager, loop=loop, access_log=no_log, keepalive_timeout=_KEEP_ALIVE)
        return connections.guarded(http)

    server = await loop.create_server(speak, sock=sock)
    try:
        yield
    finally:
        server.close()
        await runner.cleanup()


async def _name_server(_: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = _SERVER


class _Http(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is answered where no route was asked: as all else here, and without versions."""
        if status >= 500:
            super().handle_error(request, status, exc, message)
            error = "This server has failed."
        else:
            # aiohttp would write a traceback into the log for whoever sends a stray byte.
            if request.writer.output_size > 0:
                raise ConnectionError("part of another answer was sent already")
            error = "The request is not valid HTTP."
            logger.info("what came on a connection is no HTTP", extra={"status": status})
        headers = {hdrs.SERVER: _SERVER}
        answer = web.json_response({"error": error}, status=status, headers=headers)
        answer.force_close()
        return answer
