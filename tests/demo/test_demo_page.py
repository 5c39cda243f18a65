"""The demo's page in a real Chromium: pictures, sound, captions, and each button's recovery.

`make test-page`; skipped where there is no Chromium or no Playwright, never run in CI.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import chromium

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "demo/page/node_modules/livekit-client/dist/livekit-client.umd.js"
START_TIMEOUT = 120
PUT_OUT = "closed unexpectedly"
"""What LiveKit's client logs as an error when the server ends a tab's call for another one."""
PHONE = {"width": 390, "height": 844}


def missing() -> str | None:
    if reason := chromium.missing():
        return reason
    if not LIBRARY.exists() and shutil.which("npm") is None:
        return "there is neither livekit-client nor npm to fetch it"
    return None


pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(180),
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a demo that runs; it must stop in order afterwards."""
    environment = os.environ | {
        "HEADLESS": "0",
        "DEMO_PORT": "0",
        "DEMO_OUT": str(tmp_path_factory.mktemp("demo")),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "demo"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        try:
            lines = iter(demo.stdout.readline, "")
            yield next(line.split()[1] for line in lines if line.startswith("Open "))
            demo.send_signal(signal.SIGINT)
            assert demo.wait(30) == 0
        finally:
            demo.kill()


@pytest.fixture
async def page(url: str) -> AsyncIterator[Any]:
    """A visitor's browser, before the call. Fails a test in which the page complained."""
    complaints: list[str] = []
    async with chromium.launched() as browser:
        context = await browser.new_context(viewport={"width": 1280, "height": 960})
        page = await context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))

        def on_console(message: Any) -> None:
            if message.type == "error" and PUT_OUT not in message.text:
                complaints.append(message.text)

        page.on("console", on_console)
        await page.goto(url)
        yield page
    assert complaints == []


@pytest.fixture
async def call(page: Any) -> Any:
    """The same, in a call that shows a face."""
    await page.click("#start")
    await page.wait_for_selector("#screen[data-face=live]")
    return page


async def eventually(page: Any, expression: str, timeout: float = 20.0) -> Any:
    """What a JavaScript expression is once it is true. (The page's policy forbids Playwright's own
    `wait_for_function`.)"""
    try:
        async with asyncio.timeout(timeout):
            while True:
                if value := await page.evaluate(expression):
                    return value
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"not within {timeout:g} s: {expression}")


async def picture(page: Any, name: str) -> None:
    """A picture of the page for the docs, if `DEMO_PICTURES` names a folder for them."""
    if folder := os.environ.get("DEMO_PICTURES"):
        await page.screenshot(path=Path(folder) / f"demo-{name}.png")


PIXELS = """() => {
  const canvas = new OffscreenCanvas(64, 40);
  const pen = canvas.getContext("2d");
  pen.drawImage(document.getElementById("video"), 0, 0, 64, 40);
  return Array.from(pen.getImageData(0, 0, 64, 40).data);
}"""


async def test_pictures_are_decoded_and_the_voice_is_heard(call: Any) -> None:
    decoded = "document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames"
    before = await call.evaluate(decoded)
    pixels = await call.evaluate(PIXELS)
    assert len({tuple(pixels[i : i + 3]) for i in range(0, len(pixels), 4)}) > 20  # a picture
    await eventually(call, f"{decoded} > {before + 25}")
    energy = await call.evaluate("demo.senses.energy")
    await eventually(call, f"demo.senses.energy > {energy} + 0.05")
    assert await eventually(call, "demo.senses.fps(2000) >= 12 && demo.senses.fps(2000)") <= 31
    assert await call.evaluate(PIXELS) != pixels  # the mouth moves, or the eyes do


async def test_what_is_written_is_answered_aloud_with_captions(call: Any) -> None:
    await call.wait_for_selector("#talk >> text=made on this machine")
    await call.focus("#text")
    await call.keyboard.type("Who are you?")
    await call.keyboard.press("Enter")
    await call.wait_for_selector("#talk li.you >> text=Who are you?")
    caption = await call.wait_for_selector("#caption:not([hidden]) >> text=voice agent")
    assert caption is not None
    energy = await call.evaluate("demo.senses.energy")
    await eventually(call, f"demo.senses.energy > {energy} + 0.02")
    await call.wait_for_selector("#talk >> text=speaks them back to you")


async def test_figures_and_timeline_tell_of_the_call(call: Any) -> None:
    await call.wait_for_selector("#timeline >> text=the avatar was heard")
    for stage in ("has made a session", "worker has joined", "first picture", "live"):
        assert stage in await call.inner_text("#timeline")
    assert await call.inner_text("#state") == "live: face and voice"
    await eventually(call, "parseInt(document.getElementById('billed').textContent) >= 2")
    assert (await call.inner_text("#cost")).startswith("$0.")
    assert await call.inner_text("#sessions") == "1"
    assert 0 < float((await call.inner_text("#first-frame")).split()[0]) < 15
    await eventually(call, "document.getElementById('latency').textContent.endsWith(' s')")


VOICE_WITHOUT_FACE = (
    "demo.senses.samples.filter((one) => one.frames === 0 && one.rms > 0.008).length"
)


async def strike(call: Any, fault: str) -> dict[str, float]:
    """Press a button, hear the voice go on without a face, wait for what the page says."""
    await call.wait_for_selector("#talk >> text=made on this machine")
    await eventually(call, "performance.now() - demo.senses.lastLoud > 800")
    await call.click(f"[data-fault={fault}]")
    await call.wait_for_selector(f"[data-fault={fault}][aria-busy=true]")
    await call.wait_for_selector("#screen[data-face=gone]")
    await eventually(call, VOICE_WITHOUT_FACE + " > 5")
    await picture(call, f"{fault}-gone")
    await call.wait_for_selector("#outcome.done")
    results: dict[str, dict[str, float]] = await call.evaluate("demo.results")
    print(fault, results)  # shown with -s
    return results["top-up" if "top-up" in results else fault]


@pytest.mark.parametrize(
    ("fault", "silence"),
    # A frozen avatar is noticed after 1.5 s; a cut network lasts for 4 s and silences everybody.
    [("crash", 1.2), ("freeze", 2.7), ("cap", 1.2), ("network", 8.0)],
)
async def test_after_a_fault_the_voice_carries_on_and_the_face_comes_back(
    call: Any, fault: str, silence: float
) -> None:
    result = await strike(call, fault)
    assert result["silence"] < silence
    assert 0.5 < result["away"] < 30
    assert await call.evaluate(VOICE_WITHOUT_FACE) > 5
    assert "face was back" in await call.inner_text("#outcome")
    assert "voice only" in await call.inner_text("#timeline")
    assert await call.get_attribute("#screen", "data-face") == "live"
    frames = await call.evaluate("demo.senses.frames")
    await eventually(call, f"demo.senses.frames > {frames + 25}")
    await eventually(call, "document.getElementById('sessions').textContent.startsWith('2')")
    assert await call.is_enabled("[data-fault=crash]")
    await picture(call, f"{fault}-back")


async def test_without_credits_it_goes_on_by_voice_until_some_are_bought(call: Any) -> None:
    await strike(call, "credits")
    assert "No credits, no face" in await call.inner_text("#outcome")
    await eventually(call, f"{VOICE_WITHOUT_FACE} > 30")
    assert await call.get_attribute("#screen", "data-face") == "gone"
    assert await call.is_disabled("[data-fault=crash]")
    await call.click("[data-fault=credits] >> text=Buy credits")
    await call.wait_for_selector("#outcome >> text=after you paid")
    await call.wait_for_selector("#screen[data-face=live]")
    assert await call.is_enabled("[data-fault=crash]")
    print(await call.evaluate("demo.results"))


async def test_a_second_tab_takes_the_call_over(call: Any) -> None:
    other = await call.context.new_page()
    await other.goto(call.url)
    await other.click("#start")
    await other.wait_for_selector("#screen[data-face=live]")
    await call.wait_for_selector("#welcome >> text=The call is over")
    assert await call.is_disabled("#text")


async def test_the_keyboard_reaches_everything(call: Any) -> None:
    await call.focus("#text")
    reached: list[str] = []
    for _ in range(14):
        await call.keyboard.press("Tab")
        reached.append(await call.evaluate("document.activeElement.textContent.trim()"))
    everything = " ".join(reached)
    for name in ("Send", "Microphone", "Who are you?", "Crash", "Freeze", "cap", "network"):
        assert name in everything
    assert "credits" in everything


@pytest.mark.parametrize("width", [1280, 390, 320])
async def test_nothing_is_cut_off_at_any_width(call: Any, width: int) -> None:
    await call.set_viewport_size({**PHONE, "width": width})
    assert await call.evaluate("document.documentElement.scrollWidth") == width
    small = await call.evaluate(
        "[...document.querySelectorAll('button')].filter((one) => one.offsetHeight"
        " && one.offsetHeight < 32).map((one) => one.textContent)"
    )
    assert small == []
    await picture(call, f"width-{width}")
