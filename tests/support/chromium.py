"""The system's own Chromium, driven by Playwright: on a developer's machine, never in CI."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

_PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def missing() -> str | None:
    """Why there is no browser to test with."""
    if os.environ.get("CI"):
        return "never in CI"
    if _PROGRAM is None:
        return "there is no Chromium: apt install chromium"
    if importlib.util.find_spec("playwright") is None:
        return 'there is no Playwright: pip install -e ".[browser]"'
    return None


@asynccontextmanager
async def launched() -> AsyncIterator[Any]:
    """A Playwright browser in which sound plays without a click."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=_PROGRAM,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        yield browser
        await browser.close()
