"""The avatar uses a tool of its session: client events are told, backend calls are answered.

A client event is a data message of the avatar worker (runwayml/avatars-sdk-react). A backend call
is an RPC that the worker makes to a hidden participant, `rpc-handler:<session id>`, whose
credentials `connect_backend` gives (runwayml/avatars-node-rpc); Runway allows one of it a session.
"""

from __future__ import annotations

import asyncio
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

ToolHandler = Callable[[dict[str, Any]], Awaitable[object]]
"""Takes the arguments by name, returns what JSON can hold."""

_SENT = "event_sent"
"""`args.status` of a message that only confirms another one."""


@dataclass(frozen=True)
class ToolDispatcher:
    """Where the calls of all sessions of a call arrive.

    Args:
        handlers: by the name of the `backend_rpc` tool that each answers.
        on_called: told of each call.
        on_error: told why the calls of a session cannot be answered.
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
        """Attend to one session, in whose room we are; `is_worker` knows its avatar worker by the
        identity."""
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
        self._backend = rtc.Room()
        self._joining: asyncio.Task[None] | None = None
        room.on("data_received", self._on_data)
        if self._answered:
            self._joining = watched(asyncio.create_task(self._join(), name="runway_tools"))

    async def aclose(self) -> None:
        """Idempotent."""
        self._room.off("data_received", self._on_data)
        if self._joining is not None:
            joining, self._joining = self._joining, None
            await cancel_and_wait(joining)
            await leave(self._backend)

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
        except ValueError:
            return
        match message:
            case {"type": "client_event", "args": {"status": status}} if status == _SENT:
                return
            case {"type": "client_event", "tool": str(name), "args": dict(args)}:
                self._report("client_event", name, args)

    # -- backend calls --------------------------------------------------------------------------

    async def _join(self) -> None:
        """The face does not wait for it, and does not go with it."""
        try:
            credentials = await self._dispatcher.client.connect_backend(self._session_id)
            try:
                await connect(self._backend, credentials.url, credentials.token.get_secret_value())
            except rtc.ConnectError as error:
                raise UnavailableError("The session's tools could not be attended to.") from error
        except RunwayException as error:
            logger.warning(
                "the avatar's backend tools are not answered",
                extra={"error": type(error).__name__, "detail": str(error)},
            )
            self._dispatcher.on_error(error)
            return
        for tool in self._answered:
            self._backend.local_participant.register_rpc_method(tool.name, self._answer(tool))

    def _answer(self, tool: BackendRpcTool) -> Callable[[rtc.RpcInvocationData], Awaitable[str]]:
        handler = self._dispatcher.handlers[tool.name]

        async def answer(call: rtc.RpcInvocationData) -> str:
            if not self._is_worker(call.caller_identity):
                raise rtc.RpcError(rtc.RpcError.ErrorCode.APPLICATION_ERROR, "not the avatar")
            args = arguments_of(call.payload, tool)
            self._report("backend_rpc", tool.name, args)
            try:
                return json.dumps(await handler(args))
            except Exception as error:
                logger.exception("the handler of a tool failed", extra={"tool": tool.name})
                raise rtc.RpcError(
                    rtc.RpcError.ErrorCode.APPLICATION_ERROR, f"The tool {tool.name} failed."
                ) from error

        return answer


def checked_handlers(
    handlers: Mapping[str, ToolHandler] | None, tools: tuple[Tool, ...] | None
) -> Mapping[str, ToolHandler]:
    """Raises `ConfigurationError` for a handler that would never be called."""
    answered = {tool.name for tool in tools or () if isinstance(tool, BackendRpcTool)}
    if unknown := sorted(set(handlers or {}) - answered):
        raise ConfigurationError(
            f"tool_handlers names {', '.join(map(repr, unknown))}, but tools has no BackendRpcTool "
            "of that name."
        )
    return dict(handlers or {})


def arguments_of(payload: str, tool: BackendRpcTool) -> dict[str, Any]:
    """The arguments in a call's payload, which comes as `{"args": {...}}` or bare (avatars-node-rpc
    takes both). Raises `rtc.RpcError` for what is neither."""
    try:
        message = json.loads(payload or "{}")
    except ValueError:
        message = None
    bare = any(parameter.name == "args" for parameter in tool.parameters or ())
    match message:
        case {"args": dict(args)} if not bare:
            return args
        case dict(args):
            return args
    raise rtc.RpcError(rtc.RpcError.ErrorCode.APPLICATION_ERROR, "The arguments are not an object.")
