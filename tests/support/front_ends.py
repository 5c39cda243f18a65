"""A real Chromium with a page of front ends that nobody here wrote (`tests/clients/page`)."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from tests.support import chromium, npm


def bundled(source: Path, scratch: Path) -> Path:
    """The folder with the page and its script, bundled."""
    folder = npm.installed(source, scratch)
    subprocess.run(
        [
            folder / "node_modules/.bin/esbuild",
            "page.jsx",
            *("--bundle", "--format=esm", "--jsx=automatic", "--log-level=warning"),
            '--define:process.env.NODE_ENV="production"',
            "--outfile=page.js",
        ],
        cwd=folder,
        check=True,
        timeout=60,
    )
    return folder


@dataclass
class FrontEnd:
    """An open page."""

    page: Any

    async def seen(self) -> dict[str, float]:
        """Pictures shown, and energy of the sound received, so far."""
        return dict(await self.page.evaluate("seen()"))

    async def errors(self) -> list[str]:
        return list(await self.page.evaluate("errors"))

    async def samples(self) -> list[dict[str, Any]]:
        """What the hooks have shown each 50 ms; `at` is in milliseconds since the epoch."""
        return list(await self.page.evaluate("samples"))

    async def until(self, expression: str, timeout: float = 20.0) -> None:
        """Until this JavaScript is true of the latest sample, `s`."""
        try:
            await self.page.wait_for_function(
                f"(s => s && ({expression}))(samples.at(-1))", timeout=1000 * timeout
            )
        except Exception as error:
            shown = (await self.samples())[-1:]
            raise AssertionError(f"not within {timeout:g} s: {expression}; {shown}") from error

    async def until_seen_and_heard(self, timeout: float = 20.0) -> None:
        """Until ten pictures were shown and some sound has come, or the front end has failed."""
        expression = "seen().then(s => errors.length || (s.frames >= 10 && s.energy > 0.001))"
        try:
            await self.page.wait_for_function(expression, timeout=1000 * timeout)
        except Exception as error:
            raise AssertionError(f"not within {timeout:g} s: {await self.seen()}") from error
        assert await self.errors() == []


@asynccontextmanager
async def page_server(folder: Path) -> AsyncIterator[str]:
    """The origin that serves the page."""
    app = web.Application()
    for path, name in (("/", "index.html"), ("/page.js", "page.js")):
        app.router.add_get(path, _file(folder / name))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _file(path: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    return answer


@asynccontextmanager
async def opened(origin: str, **query: str) -> AsyncIterator[FrontEnd]:
    """The page in a browser of its own. What it throws fails the test."""
    thrown: list[str] = []
    async with chromium.launched() as browser:
        page = await browser.new_page()
        page.on("pageerror", lambda error: thrown.append(str(error)))
        await page.goto(f"{origin}/?{urlencode(query)}")
        yield FrontEnd(page)
    assert thrown == []
