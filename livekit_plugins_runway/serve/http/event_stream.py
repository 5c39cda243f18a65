"""An MCP answer as an event stream, where the client wants to be told how far its call is.

The SDK (mcp 2.3.0) could do it, but only for all answers alike: then clients that accept JSON alone
are refused, a connection that is cut in mid-call ends in a traceback, and a task of its own stays
behind in the event loop. So it answers with JSON here, and the few events are written around that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import Message, Send

_EVENTS = ("text/event-stream", "text/*", "*/*")


def progress_token(message: Any, accept: str) -> str | int | None:
    """What a tool's call wants its progress to be told under.

    Args:
        message: of the protocol, decoded.
        accept: the header.

    Returns:
        None: it does not want it, or could not read it.
    """
    kinds = {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}
    if kinds.isdisjoint(_EVENTS) or not isinstance(message, dict):
        return None
    if message.get("method") != "tools/call":
        return None
    found: Any = message
    for name in ("params", "_meta", "progressToken"):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str | int) else None


class EventStream:
    """The answer to one request: as it comes, or, once progress has been told, as the last event.

    Args:
        send: takes what goes out.
        token: as `progress_token()` returns it.
        headers: of the answer, if it becomes an event stream.
    """

    def __init__(self, send: Send, token: str | int | None, headers: Mapping[str, str]) -> None:
        self._send = send
        self._token = token
        self._headers = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache, no-transform",
            **headers,
        }
        self._streams = False
        self._answer = b""

    async def tell(self, seconds: float, most: float, message: str) -> None:
        """How long the call has taken, of so many seconds at most; dropped if nobody wants it."""
        if self._token is None:
            return
        if not self._streams:
            self._streams = True
            headers = [(k.lower().encode(), v.encode()) for k, v in self._headers.items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        params = {"progressToken": self._token, "progress": round(seconds, 1), "total": most}
        notification = {
            "jsonrpc": "2.0",
            "method": "notifications/progress",
            "params": {**params, "message": message},
        }
        await self._write(json.dumps(notification).encode(), more=True)

    async def send(self, message: Message) -> None:
        """The answer, as the framework has it: JSON, on one line."""
        if not self._streams:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._answer += message.get("body", b"")
            if not message.get("more_body", False):
                await self._write(self._answer, more=False)

    async def _write(self, data: bytes, *, more: bool) -> None:
        event = b"event: message\r\ndata: " + data + b"\r\n\r\n"
        await self._send({"type": "http.response.body", "body": event, "more_body": more})
