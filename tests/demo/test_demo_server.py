"""The server side of the demo's page, and the page's own files, without a browser."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from demo import call as call_module
from demo import feed as feed_module
from demo import page as page_module
from demo import runway
from demo.__main__ import wants_page
from demo.stage import Stage

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "demo" / "page"
HTML = (PAGE / "index.html").read_text()
CSS = (PAGE / "page.css").read_text()
SCRIPTS = {path.name: path.read_text() for path in PAGE.glob("*.js")}


# -- page or report ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "is_terminal", "page"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"CI": "true"}, True, False),
        ({"HEADLESS": "1"}, True, False),
        ({"HEADLESS": "0"}, False, True),
        ({"HEADLESS": "0", "CI": "true"}, False, True),
    ],
)
def test_a_page_is_served_only_where_somebody_can_end_it(
    environment: dict[str, str], is_terminal: bool, page: bool
) -> None:
    assert wants_page(environment, is_terminal) is page


# -- the feed ------------------------------------------------------------------------------------


async def test_who_comes_late_or_again_misses_nothing_and_gets_nothing_twice() -> None:
    feed = feed_module.Feed()
    feed.publish("state", state="live")
    feed.publish("bill", seconds=1)
    following = feed.follow(after=1)
    first = await anext(following)
    assert (first.number, first.event, first.values) == (2, "bill", {"seconds": 1})
    later = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    assert not later.done()
    feed.publish("error", kind="CreditsError", event_of="x")
    assert (await later).number == 3
    feed.close()
    feed.publish("state", state="closed")
    assert [news async for news in following] == []
    assert [news.number async for news in feed.follow()] == [1, 2, 3]


async def test_an_event_keeps_its_name_whatever_it_carries() -> None:
    feed = feed_module.Feed()
    feed.publish("gave_up", kind="CreditsError", at="never")
    feed.close()
    (news,) = [news async for news in feed.follow()]
    data = json.loads(news.as_sse().decode().split("data: ")[1])
    assert (data["event"], data["kind"]) == ("gave_up", "CreditsError")
    assert data["at"] == news.at


# -- the call ------------------------------------------------------------------------------------


class FakeRunway:
    def __init__(self) -> None:
        self.done: list[Any] = []
        self.missed: str | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def sessions(self) -> list[Any]:
        return []

    async def set_credits(self, credits: int) -> None:
        self.done.append(credits)

    async def strike(self, name: str, session_id: str | None) -> None:
        await self.gate.wait()
        if self.missed:
            raise runway.Missed(self.missed)
        self.done.append((name, session_id))


class FakeWorker:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    def tell(self, **event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    async def wait_for_event(self, seen: int) -> None:
        while len(self.events) <= seen:
            self._changed.clear()
            await self._changed.wait()


class FakeStage:
    def __init__(self) -> None:
        self.runway = FakeRunway()
        self.worker = FakeWorker()
        self.is_paused = threading.Event()
        self.is_resumed = False
        self.dispatched: list[tuple[str, str]] = []
        self.deleted: list[str] = []
        self.server = SimpleNamespace(
            url="ws://127.0.0.1:1",
            api_key="key",
            api_secret="secret" * 8,
            pause=self.is_paused.set,
            resume=lambda: setattr(self, "is_resumed", True),
        )

    async def dispatch(self, room: str, metadata: str) -> None:
        self.dispatched.append((room, metadata))

    @contextlib.asynccontextmanager
    async def livekit_api(self) -> AsyncIterator[Any]:
        async def delete_room(request: Any) -> None:
            self.deleted.append(request.room)

        yield SimpleNamespace(room=SimpleNamespace(delete_room=delete_room))


@pytest.fixture
def stage() -> FakeStage:
    return FakeStage()


@pytest.fixture
async def call(stage: FakeStage) -> AsyncIterator[Any]:
    async with call_module.PageCall.on(cast(Stage, stage)) as call:
        yield call


async def news_of(call: Any, room: str, count: int, but: str = "bill") -> list[tuple[str, Any]]:
    """The first so many news of the call, without those of the bill."""
    found: list[tuple[str, Any]] = []
    async with asyncio.timeout(5):
        async for news in call.feed_of(room).follow():
            if news.event != but:
                found.append((news.event, news.values))
            if len(found) == count:
                break
    return found


async def test_a_fault_strikes_the_session_that_is_the_face(call: Any, stage: FakeStage) -> None:
    ticket = await call.begin()
    stage.worker.tell(event="state", room=ticket.room, state="live", session="one")
    stage.worker.tell(event="state", room="another call", state="live", session="other")
    assert await news_of(call, ticket.room, 1) == [("state", {"state": "live", "session": "one"})]
    stage.runway.done.clear()
    await call.break_it("crash")
    await call.break_it("cap")
    await call.break_it("credits")
    await call.break_it("top-up")
    assert stage.runway.done[:3] == [("crash", "one"), ("hit_cap", "one"), 0]
    assert stage.runway.done[3] == ("crash", "one")
    assert stage.runway.done[4] > 1000
    phases = await news_of(call, ticket.room, 9)
    assert phases[1:3] == [
        ("fault", {"name": "crash", "phase": "begins"}),
        ("fault", {"name": "crash", "phase": "over"}),
    ]


async def test_one_fault_at_a_time_and_none_without_a_call(call: Any, stage: FakeStage) -> None:
    with pytest.raises(call_module.Busy):
        await call.break_it("crash")
    await call.begin()
    with pytest.raises(KeyError):
        await call.break_it("rm -rf")
    stage.runway.gate.clear()
    first = asyncio.ensure_future(call.break_it("freeze"))
    await asyncio.sleep(0)
    with pytest.raises(call_module.Busy):
        await call.break_it("crash")
    stage.runway.gate.set()
    await first


async def test_the_network_comes_back_even_if_the_demo_ends_meanwhile(
    call: Any, stage: FakeStage
) -> None:
    await call.begin()
    cutting = asyncio.ensure_future(call.break_it("network"))
    assert await asyncio.to_thread(stage.is_paused.wait, 5)
    cutting.cancel()
    await asyncio.wait([cutting])
    assert cutting.cancelled()
    assert stage.is_resumed


async def test_a_new_call_ends_the_former_and_its_news(call: Any, stage: FakeStage) -> None:
    former = await call.begin()
    following = asyncio.ensure_future(news_of(call, former.room, 99))
    await asyncio.sleep(0)  # it follows
    present = await call.begin()
    await following  # has come to an end
    assert stage.deleted == [former.room]
    assert [room for room, _ in stage.dispatched] == [former.room, present.room]
    assert call.feed_of(former.room) is None
    assert call.feed_of("") is None


# -- the server ----------------------------------------------------------------------------------


@pytest.fixture
async def client(call: Any) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(page_module.application(call))) as client:
        yield client


async def test_everything_that_the_page_names_is_served(client: TestClient[Any, Any]) -> None:
    imported = re.findall(r'from "\./(\S+)"', "".join(SCRIPTS.values()))
    named = re.findall(r'(?:src|href)="([^"]+)"', HTML)
    for name in ["", *named, *imported]:
        async with client.get(f"/{name}") as answer:
            assert answer.status == 200, name
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    async with client.get("/package.json") as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
async def test_another_site_can_neither_call_nor_break(
    client: TestClient[Any, Any], stage: FakeStage, headers: dict[str, str]
) -> None:
    for path in ("/api/call", "/api/break/crash"):
        async with client.post(path, headers=headers) as answer:
            assert answer.status == 403
    assert stage.dispatched == []


async def test_the_browser_gets_a_ticket_and_a_fixed_list_of_faults(
    client: TestClient[Any, Any], stage: FakeStage
) -> None:
    own = {"Origin": str(client.make_url("")).rstrip("/")}
    async with client.post("/api/break/crash", headers=own) as answer:
        assert answer.status == 409  # nobody calls
    async with client.post("/api/call", headers=own) as answer:
        ticket = await answer.json()
    assert set(ticket) == {"url", "token", "room"}
    assert stage.server.api_secret not in json.dumps(ticket)
    for name, status in (("crash", 200), ("leaked", 404), ("unpublish", 404)):
        async with client.post(f"/api/break/{name}") as answer:
            assert answer.status == status
    stage.runway.missed = "the avatar worker is not in the room"
    async with client.post("/api/break/crash") as answer:
        assert (answer.status, await answer.text()) == (409, stage.runway.missed)


async def test_events_go_on_where_the_browser_was_cut_off(
    client: TestClient[Any, Any], stage: FakeStage
) -> None:
    async with client.post("/api/call") as answer:
        room = (await answer.json())["room"]
    for name in ("crash", "freeze"):
        async with client.post(f"/api/break/{name}"):
            pass
    async with client.get("/api/events?room=gone") as answer:
        assert (await answer.text()).startswith("event: over")
    path = f"/api/events?room={room}"
    async with client.get(path, headers={"Last-Event-ID": "2"}) as answer:
        assert answer.content_type == "text/event-stream"
        assert await answer.content.readline() == b"id: 3\n"


async def test_the_page_is_on_loopback_alone(call: Any) -> None:
    async with page_module.serving(call) as url, ClientSession() as http:
        assert url.startswith("http://127.0.0.1:")
        async with http.get(url) as answer:
            assert answer.status == web.HTTPOk.status_code


# -- the files -----------------------------------------------------------------------------------


def test_the_buttons_are_the_faults_that_there_are(call: Any) -> None:
    buttons = set(re.findall(r'data-fault="([^"]+)"', HTML))
    assert buttons | {"top-up"} == set(call.faults)


def test_the_page_has_what_its_scripts_ask_for() -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', HTML))
    asked = set(re.findall(r'\$\("([\w-]+)"\)', SCRIPTS["page.js"]))
    assert asked <= ids
    assert len(asked) > 15


def test_every_control_has_a_name_for_those_who_do_not_see_it() -> None:
    for field in re.findall(r'<input[^>]*id="([^"]+)"', HTML):
        assert f'<label for="{field}"' in HTML
    for text in re.findall(r"<button[^>]*>(.*?)</button>", HTML, re.DOTALL):
        assert re.sub(r"<[^>]+>", "", text).strip()
    for name in re.findall(r'aria-labelledby="([^"]+)"', HTML):
        assert f'id="{name}"' in HTML
    assert not re.search(r'\son\w+="|style="', HTML)  # neither is allowed by the policy


def colours(text: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", text))


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_can_be_read(theme: str) -> None:
    """WCAG AA: 4.5 to 1."""
    first, second = CSS.split("@media (prefers-color-scheme: dark)")
    palette = colours(first) | (colours(second) if theme == "dark" else {})
    pairs = [
        *(
            (text, ground)
            for text in ("ink", "soft", "bad", "accent")
            for ground in ("page", "card")
        ),
        ("on-accent", "accent"),
        ("bad", "bad-soft"),
        ("soft", "bad-soft"),
        ("accent", "good-soft"),
        ("ink", "good-soft"),
        ("ink", "wait-soft"),
        ("wait", "wait-soft"),
    ]
    for text, ground in pairs:
        assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)


def test_the_lock_names_no_host_and_pins_what_the_page_falls_back_on() -> None:
    text = (PAGE / "package-lock.json").read_text()
    assert "resolved" not in text
    packages = json.loads(text)["packages"]
    assert all("integrity" in entry for name, entry in packages.items() if name)
    version = packages["node_modules/livekit-client"]["version"]
    wanted = json.loads((PAGE / "package.json").read_text())["dependencies"]["livekit-client"]
    assert wanted == version
    assert f"{page_module.CDN}/npm/livekit-client@{version}/" in SCRIPTS["call.js"]


def test_the_hash_is_that_of_the_library() -> None:
    if not page_module.LIBRARY.exists():
        pytest.skip("npm has not fetched livekit-client here (make demo does)")
    digest = hashlib.sha384(page_module.LIBRARY.read_bytes()).digest()
    assert f"sha384-{base64.b64encode(digest).decode()}" in SCRIPTS["call.js"]
