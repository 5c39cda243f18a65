"""The simulated account answers in the shapes of Runway's published schema, and refuses as it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import aiohttp
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from livekit_plugins_runway.testing import (
    CallFault,
    RunwaySimulator,
    SessionStatus,
    SimulatorOptions,
)
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


# -- what is made, changed and deleted --

FACE = {
    "name": "Ada",
    "referenceImage": "https://example.com/face.png",
    "personality": "Kind.",
    "voice": {"type": "runway-live-preset", "presetId": "luna"},
}
DESIGN = {"type": "text", "prompt": "A warm voice with a friendly tone", "model": "eleven_ttv_v3"}
VIDEO = {"model": "gwm1_avatars", "avatar": PRESET, "speech": {"type": "text", "text": "Hi"}}


@asynccontextmanager
async def empty(**options: Any) -> AsyncIterator[Caller]:
    quick = SimulatorOptions(time_scale=0.01, **options)
    async with RunwaySimulator(options=quick) as simulator, aiohttp.ClientSession() as http:
        yield Caller(simulator, http)


async def made(call: Caller, path: str, body: Any) -> Any:
    code, answer = await call(path, method="POST", body=body)
    assert code == 200, answer
    return answer


async def became(call: Caller, entries: list[dict[str, Any]], status: str) -> None:
    await call.simulator.wait_until(lambda: entries[-1]["status"] == status)


async def test_an_avatar_is_processed_before_it_is_ready() -> None:
    async with empty(avatar_processing_delay=20) as call:
        avatar = check("avatar", await made(call, "/v1/avatars", FACE))
        assert avatar["status"] == "PROCESSING"
        path = f"/v1/avatars/{avatar['id']}"
        code, refused = await call(path, method="PATCH", body=FACE)
        assert code == 409
        Draft202012Validator(ACCOUNT["avatar_update"]["conflict"]).validate(refused)
        assert (await call(path, method="PATCH", body={"name": "Bea"}))[0] == 200
        await became(call, call.simulator.account.avatars, "READY")
        _, ready = await call(path)
        assert check("avatar", ready)["name"] == "Bea"
        async with call.http.get(ready["processedImageUri"]) as picture:
            assert (await picture.read()).startswith(b"\x89PNG")
        _, again = await call(path, method="PATCH", body=FACE)
        assert check("avatar", again)["status"] == "PROCESSING"


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("avatar", "/v1/avatars", FACE),
        ("voice", "/v1/voices", {"name": "Nova", "from": DESIGN}),
    ],
)
async def test_a_failure_that_was_ordered_meets_the_next_one(
    kind: Literal["avatar", "voice"], path: str, body: Any
) -> None:
    async with empty() as call:
        account = call.simulator.account
        entries = {"avatar": account.avatars, "voice": account.voices}[kind]
        account.fail_next(kind, "No face was found")
        for status in ("FAILED", "READY"):
            one = await made(call, path, body)
            await became(call, entries, status)
            _, answer = await call(f"{path}/{one['id']}")
            check(kind, answer)
            reason = answer.get("failureReason")
            assert reason == ("No face was found" if status == "FAILED" else None)


async def test_a_change_without_anything_to_change_is_refused() -> None:
    async with account() as call:
        for kind in ("avatar", "document"):
            entry = getattr(call.simulator.account, f"{kind}s")[0]
            path = f"/v1/{kind}s/{entry['id']}"
            assert (await call(path, method="PATCH", body={}))[0] == 400


@pytest.mark.parametrize("kind", ["avatars", "voices", "documents"])
async def test_what_was_deleted_is_not_found(kind: str) -> None:
    async with account() as call:
        path = f"/v1/{kind}/{getattr(call.simulator.account, kind)[0]['id']}"
        assert (await call(path))[0] == 200
        assert await call(path, method="DELETE") == (204, None)
        for method in ("GET", "DELETE"):
            assert (await call(path, method=method))[0] == 404


async def test_a_document_says_which_avatars_know_it_and_leaves_them() -> None:
    async with empty() as call:
        text = {"name": "FAQ", "content": "Tea: 2 €"}
        document = check("document", await made(call, "/v1/documents", text))
        avatar = await made(call, "/v1/avatars", {**FACE, "documentIds": [document["id"]]})
        path = f"/v1/documents/{document['id']}"
        assert [one["id"] for one in check("document", (await call(path))[1])["usedBy"]] == [
            avatar["id"]
        ]
        assert await call(path, method="PATCH", body={"content": "Tea: 3 €"}) == (204, None)
        assert (await call(path))[1]["content"] == "Tea: 3 €"
        await call(path, method="DELETE")
        assert (await call(f"/v1/avatars/{avatar['id']}"))[1]["documentIds"] == []


async def test_a_voice_can_be_heard_and_an_avatar_says_that_it_is_gone() -> None:
    async with empty() as call:
        preview = await made(
            call, "/v1/voices/preview", {k: DESIGN[k] for k in ("prompt", "model")}
        )
        check("voice_preview", preview)
        async with call.http.get(preview["url"]) as sound:
            assert (await sound.read()).startswith(b"RIFF")
        voice = check("voice_create", await made(call, "/v1/voices", {"name": "N", "from": DESIGN}))
        chosen = {"type": "custom", "id": voice["id"]}
        avatar = await made(call, "/v1/avatars", {**FACE, "voice": chosen})
        assert check("avatar", avatar)["voice"] == {**chosen, "deleted": False, "name": "N"}
        path = f"/v1/voices/{voice['id']}"
        _, renamed = await call(path, method="PATCH", body={"name": "M", "description": None})
        assert check("voice", renamed)["name"] == "M"
        await call(path, method="DELETE")
        _, avatar = await call(f"/v1/avatars/{avatar['id']}")
        assert check("avatar", avatar)["voice"] == {**chosen, "deleted": True}


async def test_an_upload_takes_a_form_with_its_fields_and_without_the_key() -> None:
    async with empty() as call:
        body = {"filename": "a.png", "type": "ephemeral"}
        place = check("upload", await made(call, "/v1/uploads", body))
        for fields, headers, status in (
            (place["fields"], {"Authorization": "Bearer key"}, 400),
            ({**place["fields"], "policy": "another"}, {}, 403),
            (place["fields"], {}, 204),
        ):
            form = aiohttp.FormData(fields)
            form.add_field("file", b"a picture", filename="a.png")
            async with call.http.post(place["uploadUrl"], data=form, headers=headers) as answer:
                assert answer.status == status
        assert call.simulator.account.uploads[place["runwayUri"]].content == b"a picture"
        assert (await call("/v1/uploads", method="POST", body={**body, "filename": "png"}))[
            0
        ] == 400


async def test_a_video_is_a_task_that_is_worked_on_paid_for_and_deleted() -> None:
    async with empty(avatar_video_credits=7, task_delay=20) as call:
        task = check("avatar_video", await made(call, "/v1/avatar_videos", VIDEO))
        path = f"/v1/tasks/{task['id']}"
        for status in ("PENDING", "RUNNING", "SUCCEEDED"):
            await became(call, call.simulator.account.tasks, status)
            assert check("task", (await call(path))[1])["status"] == status
        assert call.simulator.credit_balance == 600 - 7
        today = call.simulator.account.tasks[0]["createdAt"][:10]
        usage = await made(call, "/v1/organization/usage", {"startDate": today})
        used = {"model": "gwm1_avatar_async_text_to_video", "amount": 7}
        assert check("credit_usage", usage)["results"] == [{"date": today, "usedCredits": [used]}]
        assert await call(path, method="DELETE") == (204, None)
        for method in ("GET", "DELETE"):
            code, answer = await call(path, method=method)
            assert code == 404
            Draft202012Validator(ACCOUNT["task"]["missing"]).validate(answer)
        assert call.simulator.credit_balance == 600 - 7


async def test_a_task_can_fail_and_costs_nothing() -> None:
    async with empty() as call:
        call.simulator.account.fail_next("task", "It broke", code="INTERNAL.BAD_OUTPUT")
        task = await made(call, "/v1/avatar_videos", VIDEO)
        await became(call, call.simulator.account.tasks, "FAILED")
        failed = check("task", (await call(f"/v1/tasks/{task['id']}"))[1])
        assert (failed["failureCode"], failed["cost"]) == ("INTERNAL.BAD_OUTPUT", {"credits": 0})
        assert call.simulator.credit_balance == 600


async def test_a_conversation_that_was_deleted_is_gone_with_its_recording() -> None:
    async with account() as call:
        session_id = await call.session("ended")
        path = f"/v1/avatar_conversations/{session_id}"
        _, one = await call(path)
        assert await call(path, method="DELETE") == (204, None)
        assert (await call(path))[0] == 404
        assert (await call("/v1/avatar_conversations"))[1]["data"] == []
        async with call.http.get(one["recordingUrl"]) as answer:
            assert answer.status == 403


@pytest.mark.parametrize(
    "body",
    [
        {"startDate": "2026-02-30"},
        {"startDate": "2026-01-01", "beforeDate": "2026-06-01"},
        {"startDate": "2026-01-02", "beforeDate": "2026-01-01"},
    ],
)
async def test_credits_are_told_for_at_most_90_days(body: Any) -> None:
    async with account() as call:
        assert (await call("/v1/organization/usage", method="POST", body=body))[0] == 400


async def test_calls_go_wrong_as_ordered() -> None:
    async with account() as call:
        call.simulator.account.call_faults += [503, CallFault(status=429, retry_after="1")]
        codes = [(await call("/v1/avatars"))[0] for _ in range(3)]
        assert codes == [503, 429, 200]


async def test_closing_does_not_wait_for_what_is_being_made() -> None:
    async with empty(avatar_processing_delay=1e6) as call:
        await made(call, "/v1/avatars", FACE)
