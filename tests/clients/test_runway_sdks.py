"""Runway's own SDKs, for Python and for npm, take the simulator for Runway."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from livekit_plugins_runway.testing import (
    CallFault,
    Faults,
    RunwaySimulator,
    SessionStatus,
    SimulatedSession,
)
from livekit_plugins_runway.testing.simulator.account import avatar, document, voice
from tests.support import npm
from tests.support.runway_sdks import Sdk, SdkError, npm_sdk, python_sdk
from tests.support.serving import NEVER, quick

pytestmark = pytest.mark.real_clients

BODY = {
    "model": "gwm1_avatars",
    "avatar": {"type": "runway-preset", "presetId": "influencer"},
    "maxDuration": 60,
}
NOBODY = "17f20503-6c24-4c16-946b-35dbbce2af2f"

OpenSdk = Callable[..., AbstractAsyncContextManager[Sdk]]


@pytest.fixture(scope="module")
def npm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return npm.installed(Path(__file__).parent / "sdk", tmp_path_factory.mktemp("npm"))


@pytest.fixture(params=["python", "npm"])
def opened(request: pytest.FixtureRequest) -> OpenSdk:
    """The SDK on a simulator."""
    folder = request.getfixturevalue("npm_folder") if request.param == "npm" else None

    @asynccontextmanager
    async def opened(
        runway: RunwaySimulator, key: str = "", retries: int = 0
    ) -> AsyncIterator[Sdk]:
        key = key or runway.api_secret
        if folder is None:
            async with python_sdk(runway.url, key, retries) as sdk:
                yield sdk
        else:
            async with npm_sdk(folder, runway.url, key, retries) as sdk:
                yield sdk

    return opened


async def consume(runway: RunwaySimulator, session: dict[str, Any]) -> dict[str, Any]:
    """As a browser does: neither SDK has this call."""
    address = f"{runway.url}/v1/realtime_sessions/{session['id']}/consume"
    headers = {"Authorization": f"Bearer {session['sessionKey']}"}
    async with aiohttp.ClientSession() as http, http.post(address, json={}, headers=headers) as got:
        assert got.status == 200
        return dict(await got.json())


async def test_a_session_is_made_seen_consumed_and_ended(opened: OpenSdk) -> None:
    async with RunwaySimulator() as runway, opened(runway) as sdk:
        made = await sdk.call("realtime_sessions.create", BODY)
        session = runway.sessions[made["id"]]
        assert session.create_body == BODY
        await runway.wait_for(session, SessionStatus.READY)
        seen = await sdk.call("realtime_sessions.retrieve", session.id)
        assert seen["sessionKey"] == session.session_key
        assert (await consume(runway, seen))["roomName"] == session.id
        for _ in range(2):  # a second time is no error
            assert await sdk.call("realtime_sessions.delete", session.id) is None
        seen = await sdk.call("realtime_sessions.retrieve", session.id)
        assert (seen["id"], seen["status"]) == (session.id, "CANCELLED")


@pytest.mark.parametrize("status", SessionStatus)
async def test_each_status_is_read(opened: OpenSdk, status: SessionStatus) -> None:
    faults = Faults()
    options = quick(consumed_running_delay=0.0)
    if status is SessionStatus.NOT_READY:
        options = quick(queue_delay=NEVER)
    if status is SessionStatus.FAILED:
        faults = Faults(fail_while_provisioning="SAFETY.INPUT.TEXT")
    async with RunwaySimulator(options=options) as runway, opened(runway) as sdk:
        runway.faults.for_next_session(faults)
        session = runway.sessions[(await sdk.call("realtime_sessions.create", BODY))["id"]]
        await reach(runway, sdk, session, status)
        seen = await sdk.call("realtime_sessions.retrieve", session.id)
        assert seen["status"] == status.value
        more: dict[SessionStatus, dict[str, Any]] = {
            SessionStatus.NOT_READY: {"queued": True},
            SessionStatus.READY: {"sessionKey": session.session_key},
            SessionStatus.COMPLETED: {"duration": round(session.billed_seconds)},
            SessionStatus.FAILED: {"failureCode": "SAFETY.INPUT.TEXT"},
        }
        assert seen.items() >= more.get(status, {}).items()


async def reach(
    runway: RunwaySimulator, sdk: Sdk, session: SimulatedSession, status: SessionStatus
) -> None:
    if status in (SessionStatus.RUNNING, SessionStatus.COMPLETED):
        await runway.wait_for(session, SessionStatus.READY)
        await consume(runway, await sdk.call("realtime_sessions.retrieve", session.id))
        await runway.wait_for(session, SessionStatus.RUNNING)
    if status is SessionStatus.COMPLETED:
        session.hit_cap()
    if status is SessionStatus.CANCELLED:
        await sdk.call("realtime_sessions.delete", session.id)
    await runway.wait_for(session, status)


async def refused(sdk: Sdk, name: str, *arguments: Any) -> SdkError:
    with pytest.raises(SdkError) as caught:
        await sdk.call(name, *arguments)
    return caught.value


async def test_what_runway_refuses_is_an_error_of_the_right_class(opened: OpenSdk) -> None:
    async with RunwaySimulator(options=quick(daily_quota=1)) as runway:
        async with opened(runway, key="key_" + "0" * 128) as sdk:
            error = await refused(sdk, "organization.retrieve")
            assert (error.kind, error.status) == ("AuthenticationError", 401)
        async with opened(runway) as sdk:
            error = await refused(sdk, "realtime_sessions.create", {**BODY, "maxDuration": 5})
            assert (error.kind, error.status) == ("BadRequestError", 400)
            assert error.body["issues"][0]["path"] == ["maxDuration"]
            error = await refused(sdk, "realtime_sessions.retrieve", NOBODY)
            assert (error.kind, error.status) == ("NotFoundError", 404)
            await sdk.call("realtime_sessions.create", BODY)
            error = await refused(sdk, "realtime_sessions.create", BODY)
            assert (error.kind, error.status) == ("RateLimitError", 429)
            [session] = runway.sessions.values()
            session.faults = Faults(get=[503])
            error = await refused(sdk, "realtime_sessions.retrieve", session.id)
            assert (error.kind, error.status) == ("InternalServerError", 503)


@pytest.mark.parametrize(
    ("fault", "sessions", "least"),
    [
        pytest.param(CallFault(status=503), 1, 0.0, id="503"),
        pytest.param(CallFault(status=429, retry_after="1"), 1, 1.0, id="429"),
        # What they retry has been done: there is nothing by which Runway could tell.
        pytest.param(CallFault(cut="after_effect"), 2, 0.0, id="cut"),
    ],
)
async def test_a_create_that_fails_is_tried_again(
    opened: OpenSdk, fault: CallFault, sessions: int, least: float
) -> None:
    async with RunwaySimulator(options=quick()) as runway, opened(runway, retries=2) as sdk:
        runway.faults.for_next_session(Faults(create=[fault]))
        began = time.monotonic()
        made = await sdk.call("realtime_sessions.create", BODY)
        assert time.monotonic() - began >= least
        assert made["id"] in runway.sessions
        assert len(runway.sessions) == sessions


async def test_what_an_account_has_is_listed_over_pages_and_read_one_by_one(
    opened: OpenSdk,
) -> None:
    async with RunwaySimulator(options=quick()) as runway, opened(runway) as sdk:
        account = runway.account
        account.avatars += [avatar(f"avatar {n}") for n in range(5)]
        account.voices += [voice(f"voice {n}") for n in range(5)]
        account.documents += [document(f"document {n}") for n in range(5)]
        for kind in ("avatars", "voices", "documents"):
            query: dict[str, Any] = {"limit": 2}
            if kind == "documents":
                query |= {"order": "asc", "sort": "createdAt"}
            listed = await sdk.call(f"{kind}.list", query, every_page=True)
            held = getattr(account, kind)
            assert sorted(entry["id"] for entry in listed) == sorted(entry["id"] for entry in held)
        for kind in ("avatars", "documents"):
            one = getattr(account, kind)[3]
            assert (await sdk.call(f"{kind}.retrieve", one["id"]))["name"] == one["name"]


async def test_conversations_usage_and_credits_are_read(opened: OpenSdk) -> None:
    options = quick(consumed_running_delay=0.0)
    async with RunwaySimulator(options=options) as runway, opened(runway) as sdk:
        session = runway.sessions[(await sdk.call("realtime_sessions.create", BODY))["id"]]
        await reach(runway, sdk, session, SessionStatus.COMPLETED)
        [listed] = await sdk.call("avatar_conversations.list", {"limit": 1}, every_page=True)
        assert (listed["id"], listed["status"]) == (session.id, "ended")
        one = await sdk.call("avatar_conversations.retrieve", session.id)
        assert one["transcript"]
        today = time.strftime("%Y-%m-%d", time.gmtime())
        span = {"startDate": f"{today}T00:00:00Z", "endDate": f"{today}T23:59:59Z"}
        usage = await sdk.call("avatars.get_usage", span)
        assert usage["totalSeconds"] == round(session.billed_seconds)
        organization = await sdk.call("organization.retrieve")
        assert organization["creditBalance"] == runway.credit_balance


async def test_avatars_documents_and_voices_are_made_changed_and_deleted(opened: OpenSdk) -> None:
    prompt = {"prompt": "A warm voice with a friendly tone", "model": "eleven_ttv_v3"}
    async with RunwaySimulator(options=quick(time_scale=0.01)) as runway, opened(runway) as sdk:
        account = runway.account
        upload = await sdk.call("uploads.create_ephemeral", {"file": b"a picture"})
        assert account.uploads[upload["uri"]].content == b"a picture"
        document = await sdk.call("documents.create", {"name": "FAQ", "content": "Tea: 2"})
        assert (await sdk.call("voices.preview", prompt))["url"]
        voice = await sdk.call("voices.create", {"name": "V", "from": {"type": "text", **prompt}})
        assert (await sdk.call("voices.retrieve", voice["id"]))["name"] == "V"
        face = {
            "name": "Ada",
            "personality": "Kind.",
            "referenceImage": upload["uri"],
            "voice": {"type": "custom", "id": voice["id"]},
            "documentIds": [document["id"]],
        }
        avatar = await sdk.call("avatars.create", face)
        assert avatar["status"] == "PROCESSING"
        await runway.wait_until(lambda: account.avatars[0]["status"] == "READY")
        change = {"personality": "Kinder.", "startScript": "Hi"}
        changed = await sdk.call("avatars.update", avatar["id"], change)
        assert (changed["status"], changed["personality"]) == ("READY", "Kinder.")
        await sdk.call("documents.update", document["id"], {"content": "Tea: 3"})
        known = await sdk.call("documents.retrieve", document["id"])
        assert (known["content"], known["usedBy"][0]["id"]) == ("Tea: 3", avatar["id"])
        for kind, entry in (("avatars", avatar), ("documents", document), ("voices", voice)):
            await sdk.call(f"{kind}.delete", entry["id"])
            assert not getattr(account, kind)


async def test_a_video_is_a_task_and_costs_credits(opened: OpenSdk) -> None:
    speech = {"type": "text", "text": "Hi"}
    video = {"model": "gwm1_avatars", "avatar": BODY["avatar"], "speech": speech}
    async with RunwaySimulator(options=quick(time_scale=0.01)) as runway, opened(runway) as sdk:
        task = await sdk.call("avatar_videos.create", video)
        await runway.wait_until(lambda: runway.account.tasks[0]["status"] == "SUCCEEDED")
        done = await sdk.call("tasks.retrieve", task["id"])
        assert (done["status"], len(done["output"])) == ("SUCCEEDED", 1)
        today = time.strftime("%Y-%m-%d", time.gmtime())
        usage = await sdk.call("organization.retrieve_usage", {"startDate": today})
        assert usage["results"][0]["usedCredits"][0]["amount"] == done["cost"]["credits"]
        await sdk.call("tasks.delete", task["id"])
        with pytest.raises(SdkError) as gone:
            await sdk.call("tasks.retrieve", task["id"])
        assert gone.value.status == 404


async def test_an_avatar_that_is_not_ready_is_neither_shown_nor_given_another_picture(
    opened: OpenSdk,
) -> None:
    async with RunwaySimulator(options=quick()) as runway, opened(runway) as sdk:
        avatar = runway.account.add_avatar("Ada", status="PROCESSING")
        custom = {"type": "custom", "avatarId": avatar["id"]}
        with pytest.raises(SdkError) as refused:
            await sdk.call("realtime_sessions.create", {**BODY, "avatar": custom})
        assert refused.value.kind == "BadRequestError"
        picture = {"referenceImage": "https://example.com/face.png"}
        with pytest.raises(SdkError) as locked:
            await sdk.call("avatars.update", avatar["id"], picture)
        assert locked.value.kind == "ConflictError"


async def test_a_conversation_is_deleted(opened: OpenSdk) -> None:
    options = quick(consumed_running_delay=0.0)
    async with RunwaySimulator(options=options) as runway, opened(runway) as sdk:
        session = runway.sessions[(await sdk.call("realtime_sessions.create", BODY))["id"]]
        await reach(runway, sdk, session, SessionStatus.COMPLETED)
        await sdk.call("avatar_conversations.delete", session.id)
        assert await sdk.call("avatar_conversations.list", {"limit": 1}, every_page=True) == []
