"""The simulated Runway refuses what the real one refuses, and lives by its timers."""

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import trustme

from livekit_plugins_runway.testing import (
    CallFault,
    Faults,
    RunwaySimulator,
    SessionStatus,
    SimulatedSession,
    SimulatorOptions,
)

CUSTOM = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
BODY: dict[str, Any] = {
    "model": "gwm1_avatars",
    "avatar": {"type": "runway-preset", "presetId": "influencer"},
}
LIVEKIT = {"type": "livekit", "url": "wss://a.example.com", "token": "t", "roomName": "r"}
SESSIONS = "/v1/realtime_sessions"
QUICK = 0.05


class Caller:
    """Speaks HTTP to the simulator, by hand."""

    def __init__(self, sim: RunwaySimulator, http: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.http = http

    async def call(
        self, method: str, path: str, *, key: str | None = "", body: Any = None, **changes: Any
    ) -> tuple[int, Any]:
        headers = {"X-Runway-Version": "2024-11-06"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key or self.sim.api_secret}"
        data = None if body is None else json.dumps(body)
        if data is not None:
            headers["Content-Type"] = "application/json"
        for name, value in changes.get("headers", {}).items():
            if value is None:
                headers.pop(name, None)
            else:
                headers[name] = value
        if data is None and method == "POST":
            data = changes.get("raw", "")
        async with self.http.request(
            method,
            self.sim.url + path,
            data=data,
            headers=headers,
            skip_auto_headers=("Content-Type",),
        ) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return response.status, json.loads(text) if is_json else text

    async def create(self, **extra: Any) -> SimulatedSession:
        status, answer = await self.call("POST", SESSIONS, body={**BODY, **extra})
        assert status == 200, answer
        assert list(answer) == ["id"]
        return self.sim.sessions[answer["id"]]

    async def get(self, session: SimulatedSession) -> dict[str, Any]:
        status, answer = await self.call("GET", f"{SESSIONS}/{session.id}")
        assert status == 200
        return dict(answer)

    async def consume(self, session: SimulatedSession, key: str = "") -> tuple[int, Any]:
        path = f"{SESSIONS}/{session.id}/consume"
        return await self.call("POST", path, key=key or session.session_key, body={})


@asynccontextmanager
async def simulated(**options: Any) -> AsyncIterator[Caller]:
    options.setdefault("time_scale", QUICK)
    async with (
        aiohttp.ClientSession() as http,
        RunwaySimulator(options=SimulatorOptions(**options)) as sim,
    ):
        yield Caller(sim, http)


@pytest.fixture
async def runway() -> AsyncIterator[Caller]:
    async with simulated(custom_avatars=frozenset({CUSTOM})) as caller:
        yield caller


async def test_with_a_certificate_it_is_https() -> None:
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        RunwaySimulator(tls=tls) as simulator,
        aiohttp.ClientSession() as http,
        http.get(simulator.url + "/v1/organization", ssl=trusting) as answer,
    ):
        assert simulator.url.startswith("https://")
        assert answer.status == 401


# What it refuses.


async def test_call_without_key_is_refused(runway: Caller) -> None:
    status, answer = await runway.call("POST", SESSIONS, key=None, body=BODY)
    assert status == 401
    assert answer["error"].startswith("No API key was provided.")


@pytest.mark.parametrize("key", ["key_wrong", "x"])
async def test_call_with_a_wrong_key_is_refused(runway: Caller, key: str) -> None:
    status, _ = await runway.call("GET", "/v1/organization", key=key)
    assert status == 401


@pytest.mark.parametrize("version", [None, "2023-01-01"])
async def test_call_without_the_api_version_is_refused(runway: Caller, version: str | None) -> None:
    headers = {"X-Runway-Version": version}
    status, answer = await runway.call("POST", SESSIONS, body=BODY, headers=headers)
    assert status == 400
    assert "X-Runway-Version" in answer["error"]
    assert not runway.sim.sessions


async def test_body_of_another_content_type_is_refused(runway: Caller) -> None:
    headers = {"Content-Type": "text/plain"}
    status, answer = await runway.call("POST", SESSIONS, body=BODY, headers=headers)
    assert (status, answer["error"]) == (400, "Incorrect content type")


async def test_body_that_is_not_json_is_refused(runway: Caller) -> None:
    headers = {"Content-Type": "application/json"}
    status, _ = await runway.call("POST", SESSIONS, raw="{", headers=headers)
    assert status == 400


async def test_unknown_paths_methods_and_ids_are_refused(runway: Caller) -> None:
    session = await runway.create()
    assert (await runway.call("GET", "/v1/nothing"))[0] == 404
    assert (await runway.call("PUT", SESSIONS, body=BODY))[0] == 405
    assert (await runway.call("PATCH", f"{SESSIONS}/{session.id}", body={}))[0] == 405
    unknown = f"{SESSIONS}/00000000-0000-4000-8000-000000000000"
    for method in ("GET", "DELETE"):
        assert (await runway.call(method, unknown))[0] == 404


TOOL = {"type": "client_event", "name": "wave", "description": "Waves"}
RPC = {**TOOL, "type": "backend_rpc"}
ITEM = {"name": "n", "description": "d"}


def with_parameter(**parameter: Any) -> dict[str, Any]:
    return {"tools": [{**TOOL, "parameters": [{**ITEM, **parameter}]}]}


@pytest.mark.parametrize(
    ("extra", "path", "message"),
    [
        ({"livekit": {}}, [], 'Unrecognized key: "livekit"'),
        ({"a": 1, "b": 2}, [], 'Unrecognized keys: "a", "b"'),
        ({"model": "gwm2"}, ["model"], 'Invalid input: expected "gwm1_avatars"'),
        ({"avatar": {"type": "runway-preset", "presetId": "me"}}, ["avatar", "presetId"], None),
        (
            {"avatar": {**BODY["avatar"], "avatarId": "x"}},
            ["avatar"],
            'Unrecognized key: "avatarId"',
        ),
        ({"avatar": {"type": "custom", "avatarId": "x"}}, ["avatar", "avatarId"], "Invalid UUID"),
        ({"avatar": {"type": "else"}}, ["avatar", "type"], "Invalid input"),
        ({"maxDuration": 9}, ["maxDuration"], "Too small: expected number to be >=10"),
        ({"maxDuration": 1801}, ["maxDuration"], "Too big: expected number to be <=1800"),
        ({"maxDuration": 10.5}, ["maxDuration"], None),
        ({"maxDuration": True}, ["maxDuration"], None),
        ({"maxDuration": 1e999}, None, None),
        ({"personality": ""}, ["personality"], None),
        ({"personality": "x" * 10_001}, ["personality"], None),
        ({"personality": None}, ["personality"], "Invalid input: expected string, received null"),
        ({"startScript": "x" * 2001}, ["startScript"], None),
        ({"tools": [TOOL] * 21}, ["tools"], "Too big: expected array to have <=20 items"),
        ({"tools": [TOOL, TOOL]}, ["tools", 1, "name"], "Tool names must be unique"),
        ({"tools": [{**TOOL, "name": "1st"}]}, ["tools", 0, "name"], None),
        ({"tools": [{**TOOL, "timeoutSeconds": 4}]}, ["tools", 0], None),
        (
            {"tools": [{**RPC, "timeoutSeconds": 10}]},
            ["tools", 0, "timeoutSeconds"],
            "Too big: expected number to be <=8",
        ),
        (with_parameter(type="string", x=1), ["tools", 0, "parameters", 0], None),
        (with_parameter(type="string", enum=["x" * 65]),
         ["tools", 0, "parameters", 0, "enum", 0], None),
        (with_parameter(type="array"), ["tools", 0, "parameters", 0, "items"], None),
        (with_parameter(type="array", items={"type": "object"}),
         ["tools", 0, "parameters", 0, "items", "type"], None),
        ({"integration": {**LIVEKIT, "token": "x" * 2049}}, ["integration", "token"], None),
        ({"integration": {**LIVEKIT, "url": "here"}}, ["integration", "url"], "Invalid URL"),
        ({"integration": {**LIVEKIT, "name": "x"}}, ["integration"], 'Unrecognized key: "name"'),
        ({"integration": {"type": "livekit"}}, ["integration", "url"], None),
    ],
)  # fmt: skip
async def test_body_outside_the_published_limits_is_refused(
    runway: Caller, extra: dict[str, Any], path: list[Any] | None, message: str | None
) -> None:
    status, answer = await runway.call("POST", SESSIONS, body={**BODY, **extra})
    assert status == 400
    if path is not None:
        assert answer["error"] == "Validation of body failed"
        assert answer["docUrl"].startswith("https://")
        issue = next(issue for issue in answer["issues"] if issue["path"] == path)
        assert set(issue) == {"code", "message", "path"}
        assert message in (None, issue["message"])
    assert not runway.sim.sessions


@pytest.mark.parametrize("body", [[], "x", None, {}, {"model": "gwm1_avatars"}])
async def test_body_without_what_is_required_is_refused(runway: Caller, body: Any) -> None:
    headers = {"Content-Type": "application/json"}
    raw = json.dumps(body)
    status, answer = await runway.call("POST", SESSIONS, raw=raw, headers=headers)
    assert (status, answer["error"]) == (400, "Validation of body failed")


async def test_body_that_uses_everything_is_accepted(runway: Caller) -> None:
    parameters = [
        {**ITEM, "type": "string", "enum": ["a", ""], "required": False},
        {**ITEM, "type": "array", "items": {"type": "number"}},
        {**ITEM, "type": "object", "properties": [{**ITEM, "type": "integer"}]},
    ]
    await runway.create(
        avatar={"type": "custom", "avatarId": CUSTOM.upper()},
        maxDuration=1800,
        personality="x" * 10_000,
        startScript="Hello",
        tools=[
            {**TOOL, "parameters": parameters},
            {**RPC, "name": "look_up", "timeoutSeconds": 1.5},
        ],
        integration={**LIVEKIT, "agentIdentity": "agent"},
    )


async def test_deprecated_livekit_key_is_accepted_only_on_request() -> None:
    body = {name: value for name, value in LIVEKIT.items() if name != "type"}
    async with simulated(accept_deprecated_livekit=True) as runway:
        await runway.create(livekit=body)
        status, _ = await runway.call("POST", SESSIONS, body={**BODY, "livekit": LIVEKIT})
        assert status == 400


@pytest.mark.parametrize("url", ["ws://a.example.com", "wss://127.0.0.1", "wss://localhost"])
async def test_private_livekit_url_is_refused_on_request(url: str) -> None:
    async with simulated(allow_private_livekit_url=False) as runway:
        await runway.create(integration=LIVEKIT)
        body = {**BODY, "integration": {**LIVEKIT, "url": url}}
        assert (await runway.call("POST", SESSIONS, body=body))[0] == 400


async def test_avatar_of_another_project_is_not_found() -> None:
    theirs = {"type": "custom", "avatarId": CUSTOM.replace("6f", "5f")}
    async with simulated(custom_avatars=frozenset({CUSTOM})) as runway:
        await runway.create(avatar={"type": "custom", "avatarId": CUSTOM})
        status, answer = await runway.call("POST", SESSIONS, body={**BODY, "avatar": theirs})
        assert (status, answer["error"]) == (404, "Could not find Avatar")
    async with simulated(custom_avatars=None) as runway:
        await runway.create(avatar=theirs)


async def test_an_avatar_that_is_not_ready_is_refused() -> None:
    async with simulated() as runway:
        for status_of_it in ("PROCESSING", "FAILED"):
            entry = runway.sim.account.add_avatar("Ada", status=status_of_it)
            theirs = {"type": "custom", "avatarId": entry["id"]}
            status, answer = await runway.call("POST", SESSIONS, body={**BODY, "avatar": theirs})
            assert status == 400
            assert entry["status"] in answer["error"]
        assert not runway.sim.sessions


async def test_create_without_credits_is_a_400() -> None:
    async with simulated(credits=1) as runway:
        status, answer = await runway.call("POST", SESSIONS, body=BODY)
        assert status == 400
        assert answer["error"] == "You do not have enough credits to run this task."


async def test_create_beyond_the_daily_quota_is_a_429() -> None:
    async with simulated(daily_quota=1) as runway:
        await runway.create()
        status, answer = await runway.call("POST", SESSIONS, body=BODY)
        assert (status, answer["error"]) == (429, "Your daily task limit has been reached.")


@pytest.mark.parametrize("tells_when", [True, False])
async def test_more_requests_than_a_minute_may_have_are_a_429(tells_when: bool) -> None:
    # A minute of the service is 0.6 s.
    limit = {"requests_per_minute": 2, "tells_retry_after": tells_when}
    async with simulated(time_scale=0.01, **limit) as runway:
        await runway.create()
        session = await runway.create()
        headers = {
            "Authorization": f"Bearer {runway.sim.api_secret}",
            "X-Runway-Version": "2024-11-06",
        }
        url = f"{runway.sim.url}{SESSIONS}/{session.id}"
        async with runway.http.get(url, headers=headers) as answer:
            assert answer.status == 429
            assert answer.headers.get("Retry-After") == ("1" if tells_when else None)
        await asyncio.sleep(0.7)
        await runway.create()


# Consume.


async def test_consume_hands_out_the_users_credentials_once(runway: Caller) -> None:
    session = await runway.create()
    await runway.sim.wait_for(session, "READY")
    status, answer = await runway.consume(session)
    assert status == 200
    assert set(answer) == {"url", "token", "roomName"}
    assert answer["roomName"] == session.id
    assert (await runway.consume(session))[0] == 410


async def test_consume_needs_no_version_header_but_a_content_type(runway: Caller) -> None:
    session = await runway.create()
    await runway.sim.wait_for(session, "READY")
    path = f"{SESSIONS}/{session.id}/consume"
    key = session.session_key
    no_version: dict[str, Any] = {"X-Runway-Version": None}
    status, answer = await runway.call("POST", path, key=key, headers=no_version)
    assert (status, answer["error"]) == (400, "Incorrect content type")
    status, _ = await runway.call("POST", path, key=key, body={}, headers=no_version)
    assert status == 200


async def test_consume_with_the_account_secret_is_not_found(runway: Caller) -> None:
    session = await runway.create()
    await runway.sim.wait_for(session, "READY")
    assert (await runway.consume(session, runway.sim.api_secret))[0] == 404
    assert session.consumed_at is None


async def test_consume_before_ready_is_not_found(runway: Caller) -> None:
    session = await runway.create()
    assert (await runway.consume(session))[0] == 404


async def test_second_consume_can_be_a_404() -> None:
    async with simulated(second_consume_status=404) as runway:
        session = await runway.create()
        await runway.sim.wait_for(session, "READY")
        await runway.consume(session)
        assert (await runway.consume(session))[0] == 404


# The life of a session.


async def test_session_is_queued_then_ready(runway: Caller) -> None:
    session = await runway.create()
    first = await runway.get(session)
    assert (first["status"], first["queued"]) == ("NOT_READY", True)
    assert first["createdAt"].endswith("Z")
    await runway.sim.wait_for(session, "READY")
    ready = await runway.get(session)
    assert set(ready) == {"id", "createdAt", "status", "expiresAt", "sessionKey"}
    assert ready["sessionKey"].startswith("stk_")
    assert 260 <= len(ready["sessionKey"]) <= 290


@pytest.mark.slow
async def test_unconsumed_session_dies_unbilled(runway: Caller) -> None:
    session = await runway.create()
    await runway.sim.wait_for(session, "FAILED")
    answer = await runway.get(session)
    assert answer["failureCode"] == "TALKING_AVATAR.NO_PARTICIPANT"
    assert session.credits == 0
    assert [status for status, _ in session.history] == ["NOT_READY", "READY", "FAILED"]
    (_, ready), (_, failed) = session.history[1:]
    assert failed - ready >= 21 * QUICK


@pytest.mark.slow
async def test_consumed_session_runs_and_dies_for_two_credits_when_nobody_joins(
    runway: Caller,
) -> None:
    session = await runway.create()
    await runway.sim.wait_for(session, "READY")
    await runway.consume(session)
    await runway.sim.wait_for(session, "FAILED")
    assert "RUNNING" in [status for status, _ in session.history]
    assert session.failure_code == "TALKING_AVATAR.NO_PARTICIPANT"
    assert session.credits == 2
    assert runway.sim.credit_balance == 598


async def test_delete_cancels_in_each_state_and_spares_the_ended(runway: Caller) -> None:
    for state in ("NOT_READY", "READY", "RUNNING"):
        session = await runway.create()
        if state != "NOT_READY":
            await runway.sim.wait_for(session, "READY")
        if state == "RUNNING":
            await runway.consume(session)
            await runway.sim.wait_for(session, "RUNNING")
        path = f"{SESSIONS}/{session.id}"
        for _ in range(2):
            assert await runway.call("DELETE", path) == (204, "")
            assert (await runway.get(session))["status"] == "CANCELLED"
        assert len(session.history) == ["NOT_READY", "READY", "RUNNING"].index(state) + 2


async def test_delete_of_a_completed_session_changes_nothing(runway: Caller) -> None:
    session = await runway.create()
    await runway.sim.wait_for(session, "READY")
    await runway.consume(session)
    await runway.sim.wait_for(session, "RUNNING")
    session.hit_cap()
    assert (await runway.call("DELETE", f"{SESSIONS}/{session.id}"))[0] == 204
    answer = await runway.get(session)
    assert (answer["status"], type(answer["duration"])) == ("COMPLETED", int)


async def test_session_over_the_concurrency_limit_waits_for_its_place() -> None:
    async with simulated(concurrency=1, unconsumed_ttl=600) as runway:
        first, second = await runway.create(), await runway.create()
        await runway.sim.wait_for(first, "READY")
        assert (await runway.get(second))["queued"] is True
        first.cancel()
        await runway.sim.wait_for(second, "READY")


@pytest.mark.slow
async def test_session_cancelled_before_ready_keeps_its_place_for_a_while() -> None:
    async with simulated(concurrency=1, cancelled_slot_hold=20) as runway:
        first, second = await runway.create(), await runway.create()
        first.cancel()
        await runway.sim.wait_for(second, "READY")
        assert second.ready_at is not None
        assert second.ready_at - first.history[-1][1] >= 20 * QUICK


async def test_session_cancelled_while_queued_takes_no_place() -> None:
    async with simulated(concurrency=1, unconsumed_ttl=600, cancelled_slot_hold=600) as runway:
        first, second, third = [await runway.create() for _ in range(3)]
        await runway.sim.wait_for(first, "READY")
        second.cancel()
        first.cancel()
        await runway.sim.wait_for(third, "READY")


async def test_leaked_names_the_sessions_that_have_not_ended(runway: Caller) -> None:
    first, second = await runway.create(), await runway.create()
    assert runway.sim.leaked() == [first, second]
    first.cancel()
    assert runway.sim.leaked() == [second]


async def test_waiting_for_a_status_that_does_not_come_times_out(runway: Caller) -> None:
    session = await runway.create()
    with pytest.raises(TimeoutError):
        await runway.sim.wait_for(session, SessionStatus.RUNNING, timeout=0.05)
    with pytest.raises(TimeoutError):
        await runway.sim.wait_for(None, "COMPLETED", timeout=0.05)


async def test_organization_tells_balance_and_limits(runway: Caller) -> None:
    await runway.create()
    status, answer = await runway.call("GET", "/v1/organization")
    assert status == 200
    assert answer["creditBalance"] == 600
    assert answer["tier"]["models"]["gwm1_avatars"]["maxConcurrentGenerations"] == 2
    assert answer["usage"]["models"]["gwm1_avatars"]["dailyGenerations"] == 1


# Faults.


async def test_planned_statuses_are_answered_one_per_call(runway: Caller) -> None:
    busy = CallFault(status=429, error="busy", retry_after="1")
    runway.sim.faults.for_next_session(Faults(create=[503, busy], get=[502], delete=[504]))
    assert (await runway.call("POST", SESSIONS, body=BODY))[0] == 503
    assert await runway.call("POST", SESSIONS, body=BODY) == (
        429,
        {"error": "busy", "docUrl": "https://docs.dev.runwayml.com/api"},
    )
    assert not runway.sim.sessions
    session = await runway.create()
    path = f"{SESSIONS}/{session.id}"
    assert [(await runway.call("GET", path))[0] for _ in range(2)] == [502, 200]
    assert (await runway.call("DELETE", path))[0] == 504
    assert session.status is SessionStatus.NOT_READY
    untouched = await runway.create()
    assert (await runway.get(untouched))["status"] == "NOT_READY"


@pytest.mark.parametrize(("stage", "made"), [("before_effect", 0), ("after_effect", 1)])
async def test_cut_connection_leaves_the_effect_done_or_not(
    runway: Caller, stage: Any, made: int
) -> None:
    runway.sim.faults.for_next_session(Faults(create=[CallFault(cut=stage)]))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await runway.call("POST", SESSIONS, body=BODY)
    assert len(runway.sim.sessions) == made
    assert runway.sim.requests[-1].status is None


@pytest.mark.parametrize(("stage", "made"), [("before_effect", 0), ("after_effect", 1)])
async def test_unanswered_call_hangs_until_the_client_gives_up(
    runway: Caller, stage: Any, made: int
) -> None:
    runway.sim.faults.for_next_session(Faults(create=[CallFault(hang=stage)]))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await runway.call("POST", SESSIONS, body=BODY)
    assert len(runway.sim.sessions) == made


async def test_slow_create_takes_effect_although_the_client_gave_up() -> None:
    async with simulated(create_delay=4) as runway:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await runway.call("POST", SESSIONS, body=BODY)
        await runway.sim.wait_until(lambda: len(runway.sim.sessions) == 1)


async def test_malformed_answer_is_a_success_that_is_not_json(runway: Caller) -> None:
    runway.sim.faults.for_next_session(Faults(create=[CallFault(malformed=True)]))
    with pytest.raises(json.JSONDecodeError):
        await runway.call("POST", SESSIONS, body=BODY)
    assert runway.sim.requests[-1].status == 200


async def test_fields_of_an_answer_can_be_other_than_usual(runway: Caller) -> None:
    odd = CallFault(changes={"id": 7, "more": None})
    runway.sim.faults.for_next_session(
        Faults(create=[odd], get=[CallFault(without=["createdAt"], changes={"status": "PAUSED"})])
    )
    assert await runway.call("POST", SESSIONS, body=BODY) == (200, {"id": 7, "more": None})
    (session,) = runway.sim.sessions.values()
    assert await runway.get(session) == {"id": session.id, "status": "PAUSED", "queued": True}
    assert (await runway.get(session))["status"] == "NOT_READY"


async def test_a_body_can_be_any_text_with_or_without_a_status(runway: Caller) -> None:
    faults = [CallFault(body="[["), CallFault(body="{}", status=418, retry_after="soon")]
    runway.sim.faults.for_next_session(Faults(delete=faults))
    session = await runway.create()
    path = runway.sim.url + f"{SESSIONS}/{session.id}"
    headers = {"X-Runway-Version": "2024-11-06", "Authorization": f"Bearer {runway.sim.api_secret}"}
    seen = []
    for _ in faults:
        async with runway.http.delete(path, headers=headers) as answer:
            seen.append((answer.status, await answer.text(), answer.headers.get("Retry-After")))
    assert seen == [(200, "[[", None), (418, "{}", "soon")]
    assert session.status is SessionStatus.CANCELLED


@pytest.mark.parametrize("status", [None, 500])
async def test_a_body_can_be_without_an_end(runway: Caller, status: int | None) -> None:
    runway.sim.faults.for_next_session(Faults(get=[CallFault(endless=True, status=status)]))
    session = await runway.create()
    headers = {"X-Runway-Version": "2024-11-06", "Authorization": f"Bearer {runway.sim.api_secret}"}
    url = runway.sim.url + f"{SESSIONS}/{session.id}"
    async with runway.http.get(url, headers=headers) as answer:
        assert answer.status == (status or 200)
        assert len(await answer.content.readexactly(3_000_000)) == 3_000_000


async def test_the_back_ends_credentials_can_be_refused(runway: Caller) -> None:
    runway.sim.faults.for_next_session(Faults(connect_backend=[503]))
    session = await runway.create()
    await runway.sim.wait_for(session, "READY")
    path = f"{SESSIONS}/{session.id}/connect_backend"
    assert [(await runway.call("POST", path, body={}))[0] for _ in range(2)] == [503, 200]


async def test_session_can_fail_while_provisioning(runway: Caller) -> None:
    runway.sim.faults.for_next_session(Faults(fail_while_provisioning="INTERNAL.BAD_OUTPUT"))
    session = await runway.create()
    await runway.sim.wait_for(session, "FAILED")
    assert (await runway.get(session))["failureCode"] == "INTERNAL.BAD_OUTPUT"
    assert session.ready_at is None


async def test_live_faults_need_a_worker(runway: Caller) -> None:
    session = await runway.create()
    with pytest.raises(RuntimeError):
        session.freeze()


# What it shows, and what it keeps to itself.


async def test_requests_are_recorded_without_secrets(runway: Caller) -> None:
    secret_token = "room-token-of-a-stranger"
    session = await runway.create(integration={**LIVEKIT, "token": secret_token})
    record = runway.sim.requests[0]
    assert (record.method, record.path, record.status) == ("POST", SESSIONS, 200)
    assert record.headers["Authorization"] == "Bearer <account secret>"
    assert record.headers["X-Runway-Version"] == "2024-11-06"
    assert record.body["integration"]["token"] == secret_token
    shown = repr([runway.sim, runway.sim.requests, session])
    for secret in (runway.sim.api_secret, session.session_key, secret_token):
        assert secret not in shown
    assert len(runway.sim.api_secret) == 4 + 128


async def test_closing_ends_hanging_calls_and_sessions() -> None:
    async with aiohttp.ClientSession() as http:
        sim = RunwaySimulator()
        await sim.start()
        runway = Caller(sim, http)
        await runway.create()
        sim.faults.for_next_session(Faults(create=[CallFault(hang="before_effect")]))
        call = asyncio.ensure_future(runway.call("POST", SESSIONS, body=BODY))
        await sim.wait_until(lambda: len(sim.requests) == 2)
        async with asyncio.timeout(5):
            await sim.aclose()
        with pytest.raises(aiohttp.ClientError):
            await call
        await sim.aclose()


@pytest.mark.parametrize(
    "options",
    [
        {"time_scale": 0},
        {"concurrency": 0},
        {"requests_per_minute": 0},
        {"fps": 0},
        {"full_size": (15, 16)},
        {"speech": "x"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        SimulatorOptions(**options)


def test_half_a_livekit_server_is_refused() -> None:
    with pytest.raises(ValueError, match="livekit"):
        RunwaySimulator(livekit_url="ws://127.0.0.1:1")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_process_says_where_it_is_and_ends_on_a_signal(how: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "livekit_plugins_runway.testing", "--api-secret", "key_x",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(30):
        ready = json.loads(await process.stdout.readline())
        assert set(ready) == {"url", "api_secret", "control"}
        assert ready["api_secret"] == "key_x"
        headers = {"Authorization": "Bearer key_x", "X-Runway-Version": "2024-11-06"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(ready["url"] + SESSIONS, json=BODY, headers=headers) as response,
        ):
            assert response.status == 200
        process.send_signal(how)
        rest, errors = await process.communicate()
    assert (process.returncode, rest, errors) == (0, b"", b"")
