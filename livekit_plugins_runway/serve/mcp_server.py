"""The MCP server: the same sessions as tools, over streamable HTTP. Needs the extra `serve`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from socket import socket
from typing import Annotated, Any, cast

import anyio
import pydantic_core
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    CallToolResult,
    InputRequiredResult,
    ToolAnnotations,
    jsonrpc_message_adapter,
)
from pydantic import Field, ValidationError
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .. import __version__
from .._common.tasks import cancel_and_wait
from ..errors import RunwayException
from ..log import logger
from ..runway.wire import explain
from .bodies import Bodies
from .guard import MAX_BODY, Guard, joined
from .http.connections import BODY_SECONDS, Connections
from .http.event_stream import EventStream, progress_token
from .metrics import Metrics
from .options import MCP_PATH, Response, ServeOptions
from .refusals import Refused, from_runway
from .sessions import Caller, Sessions

_CALLER = "runway_avatar.caller"
_STREAM = "runway_avatar.stream"
_GRACE = 3
"""Seconds for answers that are under way at shutdown."""
_PROGRESS_INTERVAL = 1.0
"""Seconds between two notifications of a call's progress."""

_AvatarId = Annotated[
    str | None,
    Field(description="Id of a preset (such as 'influencer') or of an own avatar (a UUID)."),
]
_MaxDuration = Annotated[
    int | None, Field(description="Seconds after which Runway ends the session, from 10.")
]
_Personality = Annotated[
    str | None, Field(description="Instead of the avatar's own, up to 10,000 characters.")
]
_StartScript = Annotated[
    str | None, Field(description="What the avatar says first, up to 2,000 characters.")
]
_Body = Annotated[
    dict[str, Any] | None,
    Field(
        description="The body of Runway's own create call, POST /v1/realtime_sessions, instead of "
        "all other arguments. The answer is Runway's then: the id of a session that is not READY "
        "yet."
    ),
]
_ResponseShape = Annotated[
    Response | None,
    Field(
        description="'credentials': serverUrl, token and roomName of the session's LiveKit room, "
        "to be joined within 20 seconds. 'session-key': sessionId and sessionKey, with which a "
        "browser takes those itself, within 20 seconds, once."
    ),
]
_SessionId = Annotated[
    str, Field(description="The sessionId that the create tool gave.", min_length=1, max_length=200)
]


@asynccontextmanager
async def mcp_server(
    sock: socket,
    sessions: Sessions,
    bodies: Bodies,
    guard: Guard,
    connections: Connections,
    options: ServeOptions,
) -> AsyncIterator[None]:
    """Serve on a listening socket while the block runs."""

    def http(**made_of: Any) -> asyncio.Protocol:
        return connections.guarded(H11Protocol(**made_of))

    server = _Uvicorn(
        uvicorn.Config(
            _app(_tools(sessions, bodies, options), sessions, guard, options),
            http=cast(type[asyncio.Protocol], http),  # it is called, and nothing else
            log_config=None,
            log_level="warning",
            access_log=False,
            # It would believe any X-Forwarded-For that comes from this machine.
            proxy_headers=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=_GRACE,
        )
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[sock]), name="runway_serve_mcp")
        try:
            yield
        finally:
            server.should_exit = True


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs this: there are two servers, and sessions to end."""
        yield


class _Tools(MCPServer[Any]):
    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """With arguments that no tool has refused, and errors in this project's words."""
        if name in _KNOWN:
            _check_arguments(name, arguments)
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            reason = explain(error.__cause__)
        raise ToolError(f"Error executing tool {name}: {reason}.")


def _tools(sessions: Sessions, bodies: Bodies, options: ServeOptions) -> MCPServer[Any]:
    server = _Tools(
        "runway-avatar",
        title="Runway Characters",
        version=__version__,
        instructions="Makes live video sessions with Runway Characters. Each costs money from the "
        "moment it is used until it ends: cancel those that are not needed any more.",
        subscriptions=False,
        log_level="WARNING",
    )

    @server.tool(
        name="create-new-realtime-session",
        title="New realtime session",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=False
        ),
    )
    async def create(
        context: Context[Any, Request],
        avatar_id: _AvatarId = None,
        max_duration: _MaxDuration = None,
        personality: _Personality = None,
        start_script: _StartScript = None,
        response: _ResponseShape = None,
        body: _Body = None,
    ) -> dict[str, Any]:
        """Make a live session with a Runway Character and wait until it can be joined (seconds).
        It costs money once it is used."""
        caller = _caller_of(context)
        if body is not None:
            with _errors(sessions.metrics):
                return await sessions.create(bodies.as_for_runway(body), caller)
        fields = {
            "avatarId": avatar_id,
            "maxDuration": max_duration,
            "personality": personality,
            "startScript": start_script,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        with _errors(sessions.metrics):
            request = bodies.for_front_end(given)
            async with _progress(context, options.ready_timeout) as on_queued:
                return await sessions.make_ready(request, response, caller, on_queued)

    @server.tool(
        name="get-realtime-session",
        title="Realtime session status",
        annotations=ToolAnnotations(read_only_hint=True),
    )
    async def get(context: Context[Any, Request], session_id: _SessionId) -> dict[str, Any]:
        """The status of a session that this server made: NOT_READY, READY, RUNNING, COMPLETED,
        FAILED or CANCELLED, and what belongs to it."""
        with _errors(sessions.metrics):
            state = await sessions.state(session_id)
        # Credentials come from the create tool alone, not whenever a model looks.
        return state.model_dump(by_alias=True, exclude={"session_key"})

    @server.tool(
        name="cancel-realtime-session",
        title="Cancel realtime session",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True
        ),
    )
    async def cancel(context: Context[Any, Request], session_id: _SessionId) -> dict[str, Any]:
        """End a session that this server made; it costs nothing more from then on."""
        with _errors(sessions.metrics):
            await sessions.cancel(session_id)
        return {"id": session_id, "status": "CANCELLED"}

    return server


@contextmanager
def _errors(metrics: Metrics) -> Iterator[None]:
    """Refusals as the tool's error, with a text for the model."""
    try:
        yield
    except Refused as refused:
        metrics.refused("mcp", refused)
        raise ToolError(str(refused)) from None
    except RunwayException as error:
        answer = from_runway(error)
        metrics.refused("mcp", answer)
        logger.warning("a tool call failed with %d: %s", answer.status, answer.for_log)
        raise ToolError(str(answer)) from None


@asynccontextmanager
async def _progress(
    context: Context[Any, Request], seconds: float
) -> AsyncIterator[Callable[[bool], None]]:
    """Tell the client each second how long it has waited, of so many seconds at most, while the
    block runs; nothing is sent to one that has not asked for it. Yields what is to be told whether
    Runway has capacity."""
    stream = cast(EventStream, _request_of(context).scope[_STREAM])
    queued = False

    def on_queued(is_so: bool) -> None:
        nonlocal queued
        queued = is_so

    async def tell() -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            what = "queued: Runway has no capacity yet" if queued else "the session is made ready"
            await stream.tell(min(clock() - began, seconds), seconds, what)
            await asyncio.sleep(_PROGRESS_INTERVAL)

    telling = asyncio.create_task(tell(), name="runway_serve_progress")
    try:
        yield on_queued
    finally:
        await cancel_and_wait(telling)


_KNOWN = {
    "create-new-realtime-session": {
        "avatar_id",
        "max_duration",
        "personality",
        "start_script",
        "response",
        "body",
    },
    "get-realtime-session": {"session_id"},
    "cancel-realtime-session": {"session_id"},
}
"""Arguments by tool."""


def _check_arguments(name: str, given: dict[str, Any]) -> None:
    """Refuse what the framework (mcp 2.3.0) leaves out without a word: another session than the
    one that was asked for would be made, and paid."""
    known = _KNOWN[name]
    if unknown := sorted(set(given) - known):
        raise ToolError(
            f"Unknown argument {unknown[0][:80]!r}; known are {', '.join(sorted(known))}."
        )
    if "body" in given and len(given) > 1:
        raise ToolError("With body no other argument is taken: everything is in it.")
    if nothing := sorted(name for name, value in given.items() if value is None):
        raise ToolError(f"{nothing[0]} is null: leave it out instead.")


def _caller_of(context: Context[Any, Request]) -> Caller:
    return cast(Caller, _request_of(context).scope[_CALLER])


def _request_of(context: Context[Any, Request]) -> Request:
    request = context.request_context.request
    assert request is not None  # there is no other transport than HTTP
    return request


def _app(
    server: MCPServer[Any], sessions: Sessions, guard: Guard, options: ServeOptions
) -> ASGIApp:
    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        # One body per answer: whether a session's credentials went out can then be seen.
        json_response=True,
        max_request_body_size=MAX_BODY,
        # The guard has looked at the host and the origin.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return CORSMiddleware(
        _Front(app, sessions, guard),
        allow_origins=options.allowed_origins,
        allow_methods=["POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["Mcp-Session-Id", "Retry-After"],
    )


class _Front:
    """Asks the guard, and knows for each request whether its caller is still there."""

    def __init__(self, app: ASGIApp, sessions: Sessions, guard: Guard) -> None:
        self._app = app
        self._sessions = sessions
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        metrics = self._sessions.metrics

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.answered("mcp", message["status"])
            await send(message)

        await self._serve(scope, receive, counted)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        peer = request.client.host if request.client else None
        try:
            self._guard.check(joined(request.headers.items()), peer, preflight=False)
            if request.url.path.rstrip("/") != MCP_PATH:
                raise Refused(404, f"There is nothing here: MCP is at {MCP_PATH}.")
            _check_method(request.method)
            body = await _read(request)
            message = _message(body) if request.method == "POST" else None
        except ClientDisconnect:
            return
        except _NoMessage as wrong:
            await wrong.answer(scope, receive, send)
            return
        except Refused as refused:
            self._sessions.metrics.refused("mcp", refused)
            headers = {**refused.headers, "Connection": "close"}
            answer = JSONResponse(refused.body, refused.status, headers)
            await answer(scope, receive, send)
            return
        client = self._guard.client(joined(request.headers.items()), peer)
        with self._sessions.caller(client) as caller:
            scope[_CALLER] = caller
            token = progress_token(message, request.headers.get("Accept", "*/*"))
            await _while_connected(self._app, request, body, send, caller, token)


async def _while_connected(
    app: ASGIApp,
    request: Request,
    body: bytes,
    send: Send,
    caller: Caller,
    progress: str | int | None,
) -> None:
    """Run a call until it has answered or its caller has hung up."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    hung_up = anyio.Event()
    answered = False

    async def receive() -> Message:
        if unread:
            return unread.pop()
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send_if_connected(message: Message) -> None:
        nonlocal answered
        # uvicorn drops without a word what is sent to a caller that is gone.
        if await request.is_disconnected():
            return
        is_body = message["type"] == "http.response.body"
        answered = is_body and not message.get("more_body", False)
        await send(message)
        if is_body:
            caller.sent(message.get("body", b""))

    mcp_session = request.headers.get("Mcp-Session-Id")
    headers = {} if mcp_session is None else {"Mcp-Session-Id": mcp_session}
    stream = EventStream(send_if_connected, progress, headers)
    request.scope[_STREAM] = stream
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            hung_up.set()
            # An answered call looks the same, but may have something left to do.
            if not answered:
                tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        await app(request.scope, receive, stream.send)
        tasks.cancel_scope.cancel()


def _check_method(method: str) -> None:
    # GET would be a stream of messages that this server never has.
    if method not in ("POST", "DELETE"):
        refused = Refused(405, f"{method} is not served here: MCP clients use POST.")
        refused.headers["Allow"] = "POST, DELETE"
        raise refused


class _NoMessage(Exception):
    """A body that is no message of the protocol. The framework's own answer has links in it."""

    def __init__(self, code: int, text: str) -> None:
        error = {"code": code, "message": text}
        self.answer = JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, 400)


def _message(body: bytes) -> Any:
    try:
        message = pydantic_core.from_json(body)
        jsonrpc_message_adapter.validate_python(message, by_name=False)
    except ValidationError:
        raise _NoMessage(INVALID_REQUEST, "The body is not a JSON-RPC 2.0 message.") from None
    except ValueError:
        raise _NoMessage(PARSE_ERROR, "The body is not valid JSON.") from None
    return message


async def _read(request: Request) -> bytes:
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > MAX_BODY:
                    raise Refused(413, f"The body is longer than {MAX_BODY} bytes.")
    except TimeoutError:
        raise Refused(408, f"The body has not come within {BODY_SECONDS:g} s.") from None
    return bytes(content)
