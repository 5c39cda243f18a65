"""The REST server: what a browser's SDK and plain HTTP clients call."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from socket import socket
from typing import Any, cast, get_args

from aiohttp import hdrs, web

from ..errors import RunwayException
from ..log import logger
from ..runway.models import Ready, RealtimeSessionState
from .bodies import Bodies, parse_json
from .guard import MAX_BODY, Guard, joined
from .http.application import serving
from .http.connections import BODY_SECONDS, Connections
from .openapi import document
from .options import Response
from .refusals import Refused, from_runway
from .sessions import Caller, Sessions

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_OPEN_TO_ALL = ("/healthz",)
"""Without the token: whoever watches a container has none. Says nothing but that it is alive."""


@asynccontextmanager
async def rest_server(
    sock: socket, sessions: Sessions, bodies: Bodies, guard: Guard, connections: Connections
) -> AsyncIterator[None]:
    """Serve on a listening socket while the block runs."""
    async with serving(Rest(sessions, bodies, guard).app(), sock, connections):
        yield


class Rest:
    """The routes."""

    def __init__(self, sessions: Sessions, bodies: Bodies, guard: Guard) -> None:
        self._sessions = sessions
        self._bodies = bodies
        self._guard = guard

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._answer], client_max_size=MAX_BODY)
        app.on_response_prepare.append(self._prepare)
        app.add_routes(
            [
                web.post("/api/avatar/session", self._front_end),
                # As the READMEs of Runway's browser SDKs call it.
                web.post("/api/avatar/connect", self._front_end),
                web.get("/openapi.json", self._describe, allow_head=False),
                web.get("/healthz", self._is_alive, allow_head=False),
                web.get("/readyz", self._is_ready, allow_head=False),
                web.post("/v1/realtime-sessions", self._create),
                web.get("/v1/realtime-sessions/{id}", self._get, allow_head=False),
                web.delete("/v1/realtime-sessions/{id}", self._delete),
            ]
        )
        return app

    # -- the calls --

    async def _front_end(self, request: web.Request) -> web.StreamResponse:
        response = _wanted_response(request)
        body = self._bodies.for_front_end(await _json(request))
        with self._caller(request) as caller:
            answer = await self._sessions.make_ready(body, response, caller)
            return await _hand_over(request, answer, caller)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = self._bodies.as_for_runway(await _json(request))
        with self._caller(request) as caller:
            return await _hand_over(request, await self._sessions.create(body, caller), caller)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        state = await self._sessions.state(request.match_info["id"])
        return web.json_response(_view(state))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        await self._sessions.cancel(request.match_info["id"])
        return web.Response(status=204)

    async def _describe(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(document(self._guard.options))

    async def _is_alive(self, _: web.Request) -> web.StreamResponse:
        """This process answers."""
        return web.json_response({"status": "ok"})

    async def _is_ready(self, _: web.Request) -> web.StreamResponse:
        """It would make a session now, as far as it knows; Runway is not asked."""
        alive, most = self._sessions.alive, self._sessions.most
        if self._sessions.stopping or alive >= most:
            raise Refused(503, "No more sessions now.", retry_after=10)
        return web.json_response({"status": "ok", "sessions": alive, "maxSessions": most})

    # -- every call --

    @web.middleware
    async def _answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            preflight = (
                request.method == hdrs.METH_OPTIONS
                and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
            )
            open_to_all = request.path in _OPEN_TO_ALL
            self._guard.check(
                joined(request.headers.items()), request.remote, preflight=preflight or open_to_all
            )
            return _preflight_answer() if preflight else await handler(request)
        except Refused as refused:
            return self._refusal(request, refused)
        except RunwayException as error:
            return self._refusal(request, from_runway(error))
        except web.HTTPRequestEntityTooLarge:
            return self._refusal(
                request, Refused(413, f"The body is longer than {MAX_BODY} bytes.")
            )
        except web.HTTPException as error:
            # Unknown paths and methods.
            response = self._refusal(request, Refused(error.status, error.reason))
            if hdrs.ALLOW in error.headers:
                response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
            return response

    async def _prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        self._sessions.metrics.answered("rest", response.status)
        response.headers[hdrs.CACHE_CONTROL] = "no-store"
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and self._guard.allows(origin):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = hdrs.RETRY_AFTER
        response.headers[hdrs.VARY] = hdrs.ORIGIN

    def _refusal(self, request: web.Request, refused: Refused) -> web.Response:
        self._sessions.metrics.refused("rest", refused)
        route = request.match_info.route.resource
        logger.log(
            logging.WARNING if refused.status >= 500 else logging.INFO,
            "%s %s was answered with %d: %s",
            request.method,
            route.canonical if route else "(unknown path)",
            refused.status,
            refused.for_log,
        )
        answer = web.json_response(refused.body, status=refused.status, headers=refused.headers)
        answer.force_close()  # who is refused keeps no connection from others
        return answer

    def _caller(self, request: web.Request) -> Caller:
        return self._sessions.caller(
            self._guard.client(joined(request.headers.items()), request.remote)
        )


def _wanted_response(request: web.Request) -> Response | None:
    wanted = request.query.get("response")
    if wanted is None or wanted in get_args(Response):
        return cast("Response | None", wanted)
    raise Refused(400, f"response must be one of {', '.join(get_args(Response))}, not {wanted!r}.")


async def _json(request: web.Request) -> dict[str, Any]:
    # Any page may send the other types without asking; this one makes a browser ask first.
    if request.content_type != "application/json":
        raise Refused(415, "Send the body as JSON, with the header Content-Type: application/json.")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return parse_json(await request.read())
    except TimeoutError:
        raise Refused(408, f"The body has not come within {BODY_SECONDS:g} s.") from None


async def _hand_over(
    request: web.Request, answer: dict[str, Any], caller: Caller
) -> web.StreamResponse:
    """Answer here and not after the handler, to know that the answer went out."""
    content = json.dumps(answer).encode()
    response = web.Response(body=content, content_type="application/json")
    await response.prepare(request)
    await response.write_eof()
    caller.sent(content)
    return response


def _preflight_answer() -> web.Response:
    return web.Response(
        status=204,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, DELETE",
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type",
            hdrs.ACCESS_CONTROL_MAX_AGE: "600",
        },
    )


def _view(state: RealtimeSessionState) -> dict[str, Any]:
    """As Runway shows it."""
    view = state.model_dump(by_alias=True)
    if isinstance(state, Ready):
        view["sessionKey"] = state.session_key.get_secret_value()
    return view
