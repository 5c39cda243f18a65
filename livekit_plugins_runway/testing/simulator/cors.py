"""What browsers ask before a page may call: of all of Runway's calls, pages make consume alone."""

from __future__ import annotations

from aiohttp import hdrs, web

_CONSUME = "/v1/realtime_sessions/{id}/consume"


def allow_pages(app: web.Application) -> None:
    """Let pages of any origin consume, and read the answer, refusals too.

    Runway's browser SDKs (`@runwayml/avatars` 0.17.0) call it so, from wherever they are served,
    with these two headers and no cookies. Which further headers the live service would allow is
    not known. All other calls need the API key, which is in no page.
    """
    app.router.add_options(_CONSUME, _answer_preflight)
    app.on_response_prepare.append(_allow)


async def _answer_preflight(_: web.Request) -> web.Response:
    allowed = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: "POST",
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type",
    }
    return web.Response(status=204, headers=allowed)


async def _allow(request: web.Request, response: web.StreamResponse) -> None:
    begin, _, end = _CONSUME.partition("{id}")
    if request.path.startswith(begin) and request.path.endswith(end):
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
