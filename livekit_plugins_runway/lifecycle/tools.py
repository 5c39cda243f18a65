"""Tools that the avatar uses: client events are emitted, backend calls are answered.

A client event is a data message of the avatar worker (runwayml/avatars-sdk-react). A backend call
is an RPC that the worker makes to a hidden participant, `rpc-handler:<session id>`, whose
credentials `connect_backend` gives (runwayml/avatars-node-rpc); Runway allows one of them per
session. If it loses its room while the session goes on, it joins once more.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from livekit import rtc

from .._common.tasks import cancel_and_wait, watched
from ..errors import ConfigurationError, RunwayException, UnavailableError
from ..events import ToolCall
from ..log import logger
from ..media.connect import connect, leave
from ..runway.client import RunwayClient
from ..runway.models import BackendRpcTool, Tool

ToolHandler = Callable[[dict[str, Any]], Awaitable[object] | object]
"""Takes the arguments as a dict; returns JSON data, or an awaitable of it. As with the framework's
function tools: a plain function runs in the event loop, and must not block it.
"""

LONGEST_ANSWER = 15 * 1024
"""Bytes of UTF-8 that an answer may have (LiveKit's limit for RPC)."""
_SENT = "event_sent"
"""`args.status` of a message that only confirms another one."""
_SESSION_ENDS = (rtc.DisconnectReason.ROOM_DELETED, rtc.DisconnectReason.ROOM_CLOSED)
"""Runway closes the room when the session has ended; the end is reported elsewhere."""
_FOR_GOOD = (*_SESSION_ENDS, rtc.DisconnectReason.DUPLICATE_IDENTITY)
"""Another participant answers the session's tools; joining again would remove it."""
_BEFORE_AGAIN = 1.0


@dataclass(frozen=True)
class ToolDispatcher:
    """Handles the tool calls of all sessions of a call.

    Args:
        handlers: the handlers of `backend_rpc` tools, by tool name.
        on_called: called with each tool call.
        on_error: called with the reason if the calls of a session cannot be answered.
    """

    client: RunwayClient
    handlers: Mapping[str, ToolHandler]
    on_called: Callable[[ToolCall], None]
    on_error: Callable[[RunwayException], None]

    def open(
        self,
        session_id: str,
        tools: tuple[Tool, ...],
        room: rtc.Room,
        is_worker: Callable[[str], bool],
    ) -> SessionTools:
        """Handle the tools of one session, in its room; `is_worker` recognises its avatar worker by
        the identity.
        """
        return SessionTools(self, session_id, tools, room, is_worker)


class SessionTools:
    """The tools of one session, until `aclose()`."""

    def __init__(
        self,
        dispatcher: ToolDispatcher,
        session_id: str,
        tools: tuple[Tool, ...],
        room: rtc.Room,
        is_worker: Callable[[str], bool],
    ) -> None:
        self._dispatcher = dispatcher
        self._session_id = session_id
        self._room = room
        self._is_worker = is_worker
        self._answered = [
            tool
            for tool in tools
            if isinstance(tool, BackendRpcTool) and tool.name in dispatcher.handlers
        ]
        self._answering: asyncio.Task[None] | None = None
        """The task of `_answer_calls()`: from joining the hidden participant's room to leaving
        it.
        """
        room.on("data_received", self._on_data)
        if self._answered:
            self._answering = watched(
                asyncio.create_task(self._answer_calls(), name="runway_tools")
            )

    async def aclose(self) -> None:
        """Idempotent."""
        self._room.off("data_received", self._on_data)
        answering, self._answering = self._answering, None
        await cancel_and_wait(answering)

    def _report(self, kind: Literal["client_event", "backend_rpc"], name: str, args: Any) -> None:
        logger.info("the avatar uses a tool", extra={"kind": kind, "tool": name})
        self._dispatcher.on_called(ToolCall(kind, name, args, self._session_id))

    # -- client events --------------------------------------------------------------------------

    def _on_data(self, packet: rtc.DataPacket) -> None:
        sender = packet.participant
        if packet.topic or sender is None or not self._is_worker(sender.identity):
            return
        try:
            message = json.loads(packet.data)
        except (ValueError, RecursionError):
            return
        match message:
            case {"type": "client_event", "args": {"status": status}} if status == _SENT:
                return
            case {"type": "client_event", "tool": str(name), "args": dict(args)}:
                self._report("client_event", name, args)

    # -- backend calls --------------------------------------------------------------------------

    async def _answer_calls(self) -> None:
        """Runs beside the start of the avatar; a failure here does not affect the avatar."""
        try:
            reason = await self._stay()
            if reason not in _FOR_GOOD:
                logger.warning(
                    "the room of the avatar's backend tools was lost; joining it once more",
                    extra={"reason": rtc.DisconnectReason.Name(reason)},
                )
                # If the session has ended, let that be reported first.
                await asyncio.sleep(_BEFORE_AGAIN)
                reason = await self._stay()
            if reason not in _SESSION_ENDS:
                raise UnavailableError(
                    "The room in which the avatar's backend tools are answered was lost "
                    f"({rtc.DisconnectReason.Name(reason)}); the avatar's calls of them fail until "
                    "its next session."
                )
        except RunwayException as error:
            logger.warning(
                "the avatar's backend tools cannot be answered",
                extra={"error": type(error).__name__, "detail": str(error)},
            )
            self._dispatcher.on_error(error)

    async def _stay(self) -> rtc.DisconnectReason.ValueType:
        """Answer calls until the room is lost. Returns the reason."""
        credentials = await self._dispatcher.client.connect_backend(self._session_id)
        room = rtc.Room()
        lost: asyncio.Future[rtc.DisconnectReason.ValueType] = (
            asyncio.get_running_loop().create_future()
        )

        def on_disconnected(reason: rtc.DisconnectReason.ValueType) -> None:
            if not lost.done():
                lost.set_result(reason)

        room.on("disconnected", on_disconnected)
        try:
            try:
                await connect(room, credentials.url, credentials.token.get_secret_value())
            except rtc.ConnectError as error:
                raise UnavailableError("The session's tools cannot be answered.") from error
            for tool in self._answered:
                room.local_participant.register_rpc_method(tool.name, self._answer(tool))
            return await lost
        finally:
            room.off("disconnected", on_disconnected)
            await leave(room)

    def _answer(self, tool: BackendRpcTool) -> Callable[[rtc.RpcInvocationData], Awaitable[str]]:
        handler = self._dispatcher.handlers[tool.name]

        async def answer(call: rtc.RpcInvocationData) -> str:
            if not self._is_worker(call.caller_identity):
                raise rtc.RpcError(rtc.RpcError.ErrorCode.APPLICATION_ERROR, "not the avatar")
            args = arguments_of(call.payload, tool)
            self._report("backend_rpc", tool.name, args)
            try:
                result = handler(args)
                if inspect.isawaitable(result):
                    result = await result
            except Exception as error:
                logger.exception("the handler of a tool failed", extra={"tool": tool.name})
                raise rtc.RpcError(
                    rtc.RpcError.ErrorCode.APPLICATION_ERROR, f"The tool {tool.name} failed."
                ) from error
            return answer_of(tool.name, result)

        return answer


def answer_of(tool: str, result: object) -> str:
    """The handler's result as JSON. Raises `rtc.RpcError` if it cannot be sent; the text tells the
    avatar's model that the tool itself has run.
    """
    code = rtc.RpcError.ErrorCode.APPLICATION_ERROR
    cause: Exception | None = None
    try:
        # UTF-8 cannot encode half of a character (a lone surrogate).
        text = json.dumps(result, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        why, cause = f"is nothing that JSON can hold: {error}"[:120], error
    else:
        if size <= LONGEST_ANSWER:
            return text
        code = rtc.RpcError.ErrorCode.RESPONSE_PAYLOAD_TOO_LARGE
        why = f"is too long: {size} bytes, and {LONGEST_ANSWER} can be sent"
    logger.error("the answer of a tool cannot be sent: it %s", why, extra={"tool": tool})
    raise rtc.RpcError(code, f"The tool {tool} has run, but its answer {why}.") from cause


def checked_handlers(
    handlers: Mapping[str, ToolHandler] | None, tools: tuple[Tool, ...] | None
) -> Mapping[str, ToolHandler]:
    """Raises `ConfigurationError` for a handler without a tool, or one that is not callable."""
    answered = {tool.name for tool in tools or () if isinstance(tool, BackendRpcTool)}
    if unknown := sorted(set(handlers or {}) - answered):
        raise ConfigurationError(
            f"tool_handlers names {', '.join(map(repr, unknown))}, but tools has no BackendRpcTool "
            "of that name."
        )
    for name, handler in (handlers or {}).items():
        if not callable(handler):
            raise ConfigurationError(
                f"tool_handlers[{name!r}] must be a function that takes the arguments as a dict, "
                f"not {type(handler).__name__}."
            )
    return dict(handlers or {})


def arguments_of(payload: str, tool: BackendRpcTool) -> dict[str, Any]:
    """The arguments in a call's payload, which is `{"args": {...}}` or the arguments themselves
    (avatars-node-rpc accepts both). Raises `rtc.RpcError` for anything else.
    """
    try:
        message = json.loads(payload or "{}")
    except (ValueError, RecursionError):
        message = None
    bare = any(parameter.name == "args" for parameter in tool.parameters or ())
    match message:
        case {"args": dict(args)} if not bare:
            return args
        case dict(args):
            return args
    raise rtc.RpcError(rtc.RpcError.ErrorCode.APPLICATION_ERROR, "The arguments are not an object.")
