"""The demo's page: a browser's view of a call, on loopback, until Ctrl-C.

Serves the static files of `page/`, hands out what a browser needs to join the call, and tells it
what happens there. The page is static and its buttons are a fixed list.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from demo.call import Busy, PageCall
from demo.runway import Missed

PAGE = Path(__file__).resolve().parent / "page"
LIBRARY = PAGE / "node_modules/livekit-client/dist/livekit-client.umd.js"
FILES = {
    "/": "index.html",
    "/page.css": "page.css",
    "/page.js": "page.js",
    "/call.js": "call.js",
    "/senses.js": "senses.js",
    "/story.js": "story.js",
    "/icon.svg": "icon.svg",
}
INSTALL_TIMEOUT = 120.0

CDN = "https://cdn.jsdelivr.net"
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self' {CDN}; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self' ws://127.0.0.1:* http://127.0.0.1:*; media-src 'self' blob:; "
        "worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LOCAL_NAMES = {"127.0.0.1", "localhost", "::1"}


def install_library() -> str | None:
    """Fetch livekit-client with npm, unless it is there. Returns why it is not, or None.

    Without it the page asks a public CDN for the same file.
    """
    if LIBRARY.exists():
        return None
    npm = shutil.which("npm")
    if npm is None:
        return "there is no npm"
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        subprocess.run(command, cwd=PAGE, check=True, capture_output=True, timeout=INSTALL_TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"npm took more than {INSTALL_TIMEOUT:g} s"
    except (subprocess.CalledProcessError, OSError):
        return "npm failed"
    return None if LIBRARY.exists() else "npm did not bring it"


@contextlib.asynccontextmanager
async def serving(call: PageCall, port: int = 0) -> AsyncIterator[str]:
    """Serve on 127.0.0.1; yields the page's URL. `port` 0 takes a free one."""
    runner = web.AppRunner(application(call), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def application(call: PageCall) -> web.Application:
    app = web.Application(middlewares=[_only_from_here], client_max_size=1024)
    app.on_response_prepare.append(_add_headers)
    handlers = _Handlers(call)
    app.add_routes([web.get(path, _file(PAGE / name)) for path, name in FILES.items()])
    app.add_routes(
        [
            web.get("/vendor/livekit-client.js", _file(LIBRARY)),
            web.post("/api/call", handlers.begin),
            web.post("/api/break/{name}", handlers.break_it),
            web.get("/api/events", handlers.events),
        ]
    )
    return app


@web.middleware
async def _only_from_here(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse other sites' pages: a name that was pointed here, and a form or script of theirs."""
    if urlsplit(f"//{request.host}").hostname not in _LOCAL_NAMES:
        raise web.HTTPForbidden(text="this page is for this machine alone")
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{request.host}":
        raise web.HTTPForbidden(text="this page is for this machine alone")
    return await handler(request)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _file(path: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    return answer


class _Handlers:
    def __init__(self, call: PageCall) -> None:
        self._call = call

    async def begin(self, _: web.Request) -> web.Response:
        return web.json_response(asdict(await self._call.begin()))

    async def break_it(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        try:
            await self._call.break_it(name)
        except KeyError:
            raise web.HTTPNotFound(text=f"there is no fault {name!r}") from None
        except Busy:
            raise web.HTTPConflict(text="one thing at a time") from None
        except Missed as missed:
            raise web.HTTPConflict(text=str(missed)) from None
        return web.json_response({})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events of a call, from its beginning or from where the browser was cut off;
        they end with the call."""
        after = request.headers.get("Last-Event-ID", "0")
        feed = self._call.feed_of(request.query.get("room", ""))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # the page was closed
            if feed is not None:
                async for news in feed.follow(int(after) if after.isdecimal() else 0):
                    await response.write(news.as_sse())
            await response.write(b"event: over\ndata: {}\n\n")
        return response
