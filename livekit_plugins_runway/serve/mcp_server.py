"""The MCP server: the same sessions as tools, over streamable HTTP. Needs the extra `serve`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from socket import socket
from typing import Annotated, Any, cast

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations
from pydantic import Field
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .. import __version__
from ..errors import RunwayException
from ..log import logger
from .bodies import Bodies
from .connections import BODY_SECONDS, Connections
from .guard import MAX_BODY, Guard, joined
from .options import MCP_PATH, Response, ServeOptions
from .refusals import Refused, from_runway
from .sessions import Caller, Sessions

_CALLER = "runway_avatar.caller"
_CALLED = "runway_avatar.called"
"""What a request calls: the name of the tool, and its arguments as they were given."""
_GRACE = 3
"""Seconds for answers that are under way at shutdown."""

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
            _app(_tools(sessions, bodies), sessions, guard, options),
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


def _tools(sessions: Sessions, bodies: Bodies) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer(
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
        _check_arguments(context)
        caller = _caller_of(context)
        if body is not None:
            with _errors():
                return await sessions.create(bodies.as_for_runway(body), caller)
        fields = {
            "avatarId": avatar_id,
            "maxDuration": max_duration,
            "personality": personality,
            "startScript": start_script,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        with _errors():
            return await sessions.make_ready(bodies.for_front_end(given), response, caller)

    @server.tool(
        name="get-realtime-session",
        title="Realtime session status",
        annotations=ToolAnnotations(read_only_hint=True),
    )
    async def get(context: Context[Any, Request], session_id: _SessionId) -> dict[str, Any]:
        """The status of a session that this server made: NOT_READY, READY, RUNNING, COMPLETED,
        FAILED or CANCELLED, and what belongs to it."""
        _check_arguments(context)
        with _errors():
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
        _check_arguments(context)
        with _errors():
            await sessions.cancel(session_id)
        return {"id": session_id, "status": "CANCELLED"}

    return server


@contextmanager
def _errors() -> Iterator[None]:
    """Refusals as the tool's error, with a text for the model."""
    try:
        yield
    except Refused as refused:
        raise ToolError(str(refused)) from None
    except RunwayException as error:
        answer = from_runway(error)
        logger.warning("a tool call failed with %d: %s", answer.status, answer.for_log)
        raise ToolError(str(answer)) from None


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


def _check_arguments(context: Context[Any, Request]) -> None:
    """Refuse what the framework (mcp 2.3.0) leaves out without a word: another session than the
    one that was asked for would be made, and paid."""
    name, given = _request_of(context).scope[_CALLED]
    known = _KNOWN[name]
    if unknown := sorted(set(given) - known):
        raise ToolError(
            f"Unknown argument {unknown[0][:80]!r}; known are {', '.join(sorted(known))}."
        )
    if "body" in given and len(given) > 1:
        raise ToolError("With body no other argument is taken: everything is in it.")
    if nothing := sorted(name for name, value in given.items() if value is None):
        raise ToolError(f"{nothing[0]} is null: leave it out instead.")


def _request_of(context: Context[Any, Request]) -> Request:
    request = context.request_context.request
    assert request is not None  # there is no other transport than HTTP
    return request


def _caller_of(context: Context[Any, Request]) -> Caller:
    return cast(Caller, _request_of(context).scope[_CALLER])


def _called(content: bytes) -> tuple[str, dict[str, Any]]:
    """The tool's name and its arguments as they were given; "" and none for another request."""
    try:
        message = json.loads(content)
    except (ValueError, RecursionError):
        return "", {}
    params = message.get("params") if isinstance(message, dict) else None
    if not isinstance(params, dict) or message.get("method") != "tools/call":
        return "", {}
    name, arguments = params.get("name"), params.get("arguments")
    return str(name), arguments if isinstance(arguments, dict) else {}


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
        request = Request(scope, receive)
        peer = request.client.host if request.client else None
        try:
            self._guard.check(joined(request.headers.items()), peer, preflight=False)
            if request.url.path.rstrip("/") != MCP_PATH:
                raise Refused(404, f"There is nothing here: MCP is at {MCP_PATH}.")
            _check_method(request.method)
            body = await _read(request)
        except ClientDisconnect:
            return
        except Refused as refused:
            headers = {**refused.headers, "Connection": "close"}
            answer = JSONResponse(refused.body, refused.status, headers)
            await answer(scope, receive, send)
            return
        client = self._guard.client(joined(request.headers.items()), peer)
        with self._sessions.caller(client) as caller:
            scope[_CALLER], scope[_CALLED] = caller, _called(body)
            await _while_connected(self._app, request, body, send, caller)


async def _while_connected(
    app: ASGIApp, request: Request, body: bytes, send: Send, caller: Caller
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

    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            hung_up.set()
            # An answered call looks the same, but may have something left to do.
            if not answered:
                tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        await app(request.scope, receive, send_if_connected)
        tasks.cancel_scope.cancel()


def _check_method(method: str) -> None:
    # GET would be a stream of messages that this server never has.
    if method not in ("POST", "DELETE"):
        refused = Refused(405, f"{method} is not served here: MCP clients use POST.")
        refused.headers["Allow"] = "POST, DELETE"
        raise refused


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
