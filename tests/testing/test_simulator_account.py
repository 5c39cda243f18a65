"""The simulated account answers in the shapes of Runway's published schema, and refuses as it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from livekit_plugins_runway.testing import RunwaySimulator, SessionStatus, SimulatorOptions
from livekit_plugins_runway.testing.simulator.account import avatar, document, voice
from tests.support.published import ACCOUNT

LISTS = {
    "avatars": "/v1/avatars",
    "voices": "/v1/voices",
    "documents": "/v1/documents",
    "conversations": "/v1/avatar_conversations",
}
RANGE = "?startDate=2026-01-01T00:00:00Z&endDate=2026-03-01T00:00:00Z"
PRESET = {"type": "runway-preset", "presetId": "influencer"}
TOOL = {"type": "client_event", "name": "wave", "description": "Waves."}


def check(kind: str, answer: Any) -> Any:
    schema = ACCOUNT[kind]["response"]
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(answer)
    return answer


class Caller:
    def __init__(self, simulator: RunwaySimulator, http: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.http = http

    async def __call__(
        self, path: str, *, method: str = "GET", body: Any = None, key: str | None = None
    ) -> tuple[int, Any]:
        headers = {
            "Authorization": f"Bearer {key or self.simulator.api_secret}",
            "X-Runway-Version": "2024-11-06",
        }
        async with self.http.request(
            method, self.simulator.url + path, json=body, headers=headers
        ) as answer:
            return answer.status, json.loads(await answer.text() or "null")

    async def session(self, status: str, **fields: Any) -> str:
        """One in this state, or one that has never been READY."""
        body = {"model": "gwm1_avatars", "avatar": PRESET, **fields}
        _, made = await self("/v1/realtime_sessions", method="POST", body=body)
        session = await self.simulator.wait_for(made["id"], SessionStatus.READY)
        consume = f"/v1/realtime_sessions/{session.id}/consume"
        await self(consume, method="POST", body={}, key=session.session_key)
        await self.simulator.wait_for(session, SessionStatus.RUNNING)
        if status == "ended":
            session.hit_cap()
        elif status == "failed":
            session.cancel()
        return session.id


@asynccontextmanager
async def account() -> AsyncIterator[Caller]:
    options = SimulatorOptions(queue_delay=0, provisioning_delay=0, consumed_running_delay=0)
    async with RunwaySimulator(options=options) as simulator, aiohttp.ClientSession() as http:
        simulator.account.avatars[:] = [
            avatar("Ada"),
            avatar("Bob", status="PROCESSING", startScript="Hi"),
            avatar("Cyd", status="FAILED", failureReason="No face"),
        ]
        simulator.account.voices[:] = [voice("Warm")]
        simulator.account.documents[:] = [
            document("Manual", updatedAt="2026-08-02T00:00:00Z"),
            document("Prices", createdAt="2026-08-03T00:00:00Z"),
        ]
        yield Caller(simulator, http)


@pytest.mark.parametrize("status", ["in_progress", "ended", "failed"])
async def test_conversations_are_described_as_published(status: str) -> None:
    async with account() as call:
        session_id = await call.session(status, tools=[TOOL], maxDuration=60)
        code, listed = await call("/v1/avatar_conversations")
        assert (code, [c["id"] for c in check("conversations", listed)["data"]]) == (
            200,
            [session_id],
        )
        _, one = await call(f"/v1/avatar_conversations/{session_id}")
        check("conversation", one)
        assert (one["status"], one["maxDuration"]) == (status, 60)
        kept = status == "ended"
        assert (bool(one["transcript"]), bool(one["recordingUrl"])) == (kept, kept)


async def test_the_rest_of_an_account_is_described_as_published() -> None:
    async with account() as call:
        for kind, path in LISTS.items():
            check(kind, (await call(path))[1])
        for kind in ("avatar", "document"):
            entries = getattr(call.simulator.account, f"{kind}s")
            for entry in entries:
                _, got = await call(f"/v1/{kind}s/{entry['id']}")
                assert check(kind, got)["name"] == entry["name"]
        check("organization", (await call("/v1/organization"))[1])
        check("usage", (await call(f"/v1/avatar_usage{RANGE}"))[1])


@pytest.mark.parametrize("path", LISTS.values())
async def test_every_call_needs_the_key_and_the_version(path: str) -> None:
    async with account() as call:
        assert (await call(path, key="key_wrong"))[0] == 401
        bearer = {"Authorization": f"Bearer {call.simulator.api_secret}"}
        async with call.http.get(call.simulator.url + path, headers=bearer) as answer:
            assert answer.status == 400


async def test_pages_follow_one_another_by_their_cursors() -> None:
    async with account() as call:
        _, first = await call("/v1/avatars?limit=2")
        assert ([a["name"] for a in first["data"]], first["hasMore"]) == (["Ada", "Bob"], True)
        _, second = await call(f"/v1/avatars?limit=2&cursor={first['nextCursor']}")
        assert [a["name"] for a in second["data"]] == ["Cyd"]
        assert (second["hasMore"], second["nextCursor"]) == (False, None)
        check("avatars", first)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/avatars?limit=0",
        "/v1/avatars?limit=101",
        "/v1/avatars?cursor=nonsense",
        "/v1/documents?order=up",
        "/v1/avatar_conversations?startDate=yesterday",
        "/v1/avatar_usage",
        "/v1/avatar_usage?startDate=2026-01-01T00:00:00Z&endDate=2026-05-01T00:00:00Z",
    ],
)
async def test_a_wrong_query_is_refused(path: str) -> None:
    async with account() as call:
        code, answer = await call(path)
        assert (code, answer["error"]) == (400, "Validation of query failed")


async def test_what_is_not_there_is_not_found() -> None:
    async with account() as call:
        for path in ("/v1/avatars/x", "/v1/documents/x", "/v1/avatar_conversations/x"):
            assert (await call(path))[0] == 404


async def test_documents_come_in_the_order_asked_for() -> None:
    async with account() as call:
        _, newest = await call("/v1/documents?sort=createdAt&order=desc")
        assert [d["name"] for d in newest["data"]] == ["Prices", "Manual"]
        _, oldest = await call("/v1/documents?sort=updatedAt&order=asc")
        assert [d["name"] for d in oldest["data"]] == ["Prices", "Manual"]


async def test_a_recording_opens_to_its_address_alone() -> None:
    async with account() as call:
        session_id = await call.session("ended")
        _, one = await call(f"/v1/avatar_conversations/{session_id}")
        for url, status in ((one["recordingUrl"], 200), (one["recordingUrl"][:-1], 403)):
            async with call.http.get(url) as answer:
                assert answer.status == status
