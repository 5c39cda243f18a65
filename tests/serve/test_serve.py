"""`runway-avatar serve` over REST: what front ends get, and what becomes of each session."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any
from unittest import mock

import aiohttp
import pytest

from livekit_plugins_runway.errors import ConfigurationError
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import CreateRealtimeSession
from livekit_plugins_runway.serve import sessions as sessions_module
from livekit_plugins_runway.serve.options import ServeOptions
from livekit_plugins_runway.serve.server import run
from livekit_plugins_runway.serve.sessions import Sessions
from livekit_plugins_runway.testing import CallFault, Faults, RunwaySimulator
from livekit_plugins_runway.testing.simulator.session import SessionStatus
from tests.support.serving import FRONT_END, NEVER, SESSIONS, Served, quick, served

UUID = "0f7a6a1e-93c1-4b43-9d2b-0d1b6b2f6a11"
SLOW = quick(provisioning_delay=NEVER)


def only(served: Served) -> Any:
    (session,) = served.runway.sessions.values()
    return session


async def nothing_left(server: Served) -> None:
    await server.runway.wait_until(lambda: server.runway.leaked() == [])


# -- what a front end gets --


async def test_a_front_end_gets_the_key_of_a_session_that_it_consumes_by_itself() -> None:
    async with served() as server:
        answer = await server.join()
        session = only(server)
        assert answer.status == 200
        assert answer.body["sessionId"] == session.id
        assert answer.body["sessionKey"] == session.session_key
        assert session.create_body["avatar"] == {"type": "runway-preset", "presetId": "influencer"}
        assert (session.consumed_at, session.credits) == (None, 0)
        # As Runway's SDKs do it, with what is in the answer.
        url = f"{answer.body['baseUrl']}/v1/realtime_sessions/{session.id}/consume"
        headers = {
            "Authorization": f"Bearer {answer.body['sessionKey']}",
            "Content-Type": "application/json",
        }
        async with server.http.post(url, headers=headers) as consumed:
            assert consumed.status == 200
        assert session.consumed_at is not None


@pytest.mark.parametrize("how", ["option", "query"])
async def test_a_front_end_gets_credentials_of_a_consumed_session_where_asked_for(how: str) -> None:
    options: dict[str, Any] = {"response": "credentials"} if how == "option" else {}
    async with served(**options) as server:
        path = FRONT_END if how == "option" else f"{FRONT_END}?response=credentials"
        answer = await server.post(path, {"avatarId": "influencer"})
        session = only(server)
        assert answer.body.keys() == {"sessionId", "serverUrl", "token", "roomName"}
        assert answer.body["sessionId"] == answer.body["roomName"] == session.id
        assert answer.body["serverUrl"].startswith("ws")
        assert session.consumed_at is not None
        assert not session.status.is_terminal


async def test_the_query_outranks_the_option() -> None:
    async with served(response="credentials") as server:
        answer = await server.post(f"{FRONT_END}?response=session-key", {"avatarId": "influencer"})
        assert "sessionKey" in answer.body


async def test_at_runways_production_host_a_front_end_looks_by_itself() -> None:
    async with RunwaySimulator(options=quick()) as runway:
        client = RunwayClient(runway.api_secret, base_url=runway.url)
        with mock.patch.object(sessions_module, "DEFAULT_BASE_URL", runway.url):
            sessions = Sessions(client, ServeOptions())
            with sessions.caller("somebody") as caller:
                body = CreateRealtimeSession.model_validate(CREATE)
                made = await sessions.make_ready(body, None, caller)
                caller.sent(json.dumps(made).encode())
        await sessions.aclose()
        await client.aclose(1)
        assert made.keys() == {"sessionId", "sessionKey"}


async def test_what_it_asks_for_reaches_runway() -> None:
    async with served(quick(custom_avatars=frozenset({UUID}))) as server:
        answer = await server.join(
            avatarId=UUID, maxDuration=60, personality="Kind.", startScript="Hello!"
        )
        assert answer.status == 200
        body = only(server).create_body
        assert body["avatar"] == {"type": "custom", "avatarId": UUID}
        assert (body["maxDuration"], body["personality"]) == (60, "Kind.")
        assert body["startScript"] == "Hello!"


async def test_the_first_allowed_avatar_is_the_default_and_others_are_refused() -> None:
    theirs = quick(custom_avatars=frozenset({UUID}))
    async with served(theirs, avatars=("tennis-coach", UUID)) as server:
        assert (await server.post(FRONT_END, {})).status == 200
        assert only(server).create_body["avatar"]["presetId"] == "tennis-coach"
        assert (await server.join(avatarId=UUID.upper())).status == 200
        refused = await server.join(avatarId="influencer")
        assert refused.status == 400
        assert "tennis-coach" in refused.body["error"]
        create = {"model": "gwm1_avatars", "avatar": {"type": "runway-preset"}}
        create["avatar"]["presetId"] = "influencer"  # type: ignore[index]
        assert (await server.post(SESSIONS, create)).status == 400


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, "avatarId is missing"),
        ({"avatarId": 7}, "must be a string, not int"),
        ({"avatarId": "influencr"}, "'influencr' is neither"),
        ({"avatarId": "influencer", "avatar": {}}, "Unknown field 'avatar'"),
        ({"avatarId": "influencer", "maxDuration": 301}, "maxDuration 301 is more"),
        ({"avatarId": "influencer", "maxDuration": "long"}, "maxDuration: "),
        ({"avatarId": "influencer", "personality": ""}, "personality: "),
        ([1], "must be a JSON object, not list"),
    ],
)
async def test_a_bad_body_is_refused_with_what_is_wrong_and_costs_nothing(
    body: Any, names: str
) -> None:
    async with served() as server:
        answer = await server.post(FRONT_END, body)
        assert answer.status == 400
        assert names in answer.body["error"]
        assert not server.runway.requests


@pytest.mark.parametrize("content", [b"", b"{", b'{"maxDuration": NaN}', b"\xff", b"[" * 50_000])
async def test_what_is_not_json_is_refused(content: bytes) -> None:
    async with served() as server:
        json_type = {"Content-Type": "application/json"}
        answer = await server.call("POST", FRONT_END, data=content, headers=json_type)
        assert (answer.status, answer.body) == (400, {"error": "The body is not valid JSON."})


async def test_an_unknown_response_shape_is_refused() -> None:
    async with served() as server:
        answer = await server.post(f"{FRONT_END}?response=all", {"avatarId": "influencer"})
        assert answer.status == 400
        assert "credentials, session-key, not 'all'" in answer.body["error"]


@pytest.mark.parametrize(("method", "path"), [("GET", FRONT_END), ("GET", "/")])
async def test_unknown_paths_and_methods_are_answered_as_json(method: str, path: str) -> None:
    async with served() as server:
        answer = await server.call(method, path)
        assert answer.status == (405 if path == FRONT_END else 404)
        assert answer.body["error"]


# -- when it does not come about --


async def test_not_ready_in_time_is_a_504_and_the_session_is_ended() -> None:
    async with served(SLOW, ready_timeout=0.3) as server:
        answer = await server.join()
        assert answer.status == 504
        assert answer.body["status"] == "NOT_READY"
        assert "not READY after 0.3 s" in answer.body["error"]
        await nothing_left(server)


async def test_a_session_that_fails_is_a_500_with_its_status() -> None:
    async with served(faults=Faults(fail_while_provisioning="INTERNAL")) as server:
        answer = await server.join()
        assert answer.status == 500
        assert (answer.body["status"], answer.body["failureCode"]) == ("FAILED", "INTERNAL")


async def test_a_session_that_is_cancelled_from_elsewhere_is_a_500_with_its_status() -> None:
    async with served(SLOW) as server:
        joining = asyncio.create_task(server.join())
        session = await server.runway.wait_for(None, SessionStatus.NOT_READY)
        session.cancel()
        answer = await joining
        assert (answer.status, answer.body["status"]) == (500, "CANCELLED")


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (CallFault(status=401, error="No."), 401),
        (CallFault(status=400, error="You do not have enough credits to run this task."), 400),
        (CallFault(status=429, error="Your daily task limit has been reached."), 429),
        (CallFault(cut="after_effect"), 502),
    ],
)
async def test_a_refusal_of_runway_is_passed_on(fault: CallFault, status: int) -> None:
    async with served(faults=Faults(create=[fault])) as server:
        answer = await server.join()
        assert answer.status == status
        if fault.status is not None:
            assert answer.body["source"] == "runway"
            assert fault.error.rstrip(".") in answer.body["error"]


async def test_a_refused_consume_ends_the_session() -> None:
    gone = Faults(consume=[CallFault(status=404, error="Gone.")])
    async with served(faults=gone, response="credentials") as server:
        answer = await server.join()
        assert answer.status == 404
        await nothing_left(server)


@pytest.mark.parametrize("path", [FRONT_END, SESSIONS])
async def test_a_caller_that_hangs_up_leaves_no_session(path: str) -> None:
    slow_create = quick(provisioning_delay=NEVER, create_delay=0.2 if path == SESSIONS else 0.0)
    async with served(slow_create) as server:
        body = CREATE if path == SESSIONS else {"avatarId": "influencer"}
        call = asyncio.create_task(server.post(path, body))
        if path == SESSIONS:
            await server.runway.wait_until(lambda: bool(server.runway.requests))
        else:
            await server.runway.wait_for(None, SessionStatus.NOT_READY)
        call.cancel()
        await asyncio.wait({call})
        await server.runway.wait_until(lambda: bool(server.runway.sessions))
        await nothing_left(server)


async def test_a_caller_that_hangs_up_while_its_session_is_consumed_leaves_none() -> None:
    slow = Faults(consume=[CallFault(answer_delay=0.3)])
    async with served(faults=slow, response="credentials") as server:
        call = asyncio.create_task(server.join())
        await server.runway.wait_until(
            lambda: any(s.consumed_at for s in server.runway.sessions.values())
        )
        call.cancel()
        await asyncio.wait({call})
        await nothing_left(server)


async def test_at_shutdown_what_was_not_handed_over_is_ended_and_what_was_goes_on() -> None:
    async with served() as server:
        assert (await server.join()).status == 200
        mine = only(server)
        server.runway.options.__dict__["provisioning_delay"] = NEVER
        joining = asyncio.create_task(server.join())
        await server.runway.wait_until(lambda: len(server.runway.sessions) == 2)
        await server.end()
        answer = await joining
        assert answer.status == 503
        assert "shutting down" in answer.body["error"]
        assert server.runway.leaked() == [mine]


# -- the pass-through --

CREATE: dict[str, Any] = {
    "model": "gwm1_avatars",
    "avatar": {"type": "runway-preset", "presetId": "influencer"},
}


async def test_a_pass_through_create_gives_the_id_and_get_and_delete_know_it() -> None:
    async with served() as server:
        made = await server.post(SESSIONS, {**CREATE, "maxDuration": 42})
        session = only(server)
        assert (made.status, made.body) == (200, {"id": session.id})
        assert session.create_body == {**CREATE, "maxDuration": 42}
        await server.runway.wait_for(session, SessionStatus.READY)
        seen = await server.call("GET", f"{SESSIONS}/{session.id}")
        assert (seen.body["status"], seen.body["sessionKey"]) == ("READY", session.session_key)
        for _ in range(2):
            assert (await server.call("DELETE", f"{SESSIONS}/{session.id}")).status == 204
        assert session.status is SessionStatus.CANCELLED
        seen = await server.call("GET", f"{SESSIONS}/{session.id}")
        assert seen.body["status"] == "CANCELLED"


async def test_a_body_outside_the_published_schema_is_refused() -> None:
    async with served() as server:
        answer = await server.post(SESSIONS, {**CREATE, "livekit": {}})
        assert answer.status == 400
        assert "livekit" in answer.body["error"]
        assert not server.runway.requests


async def test_sessions_of_others_are_neither_shown_nor_ended() -> None:
    async with served() as server:
        path = f"{SESSIONS}/{UUID}"
        for method in ("GET", "DELETE"):
            answer = await server.call(method, path)
            assert answer.status == 404
        assert not server.runway.requests


async def test_without_a_duration_it_asks_for_no_more_than_it_allows() -> None:
    async with served(max_duration=90) as server:
        await server.post(SESSIONS, CREATE)
        assert only(server).create_body["maxDuration"] == 90


# -- limits --


async def test_no_more_sessions_than_allowed_are_alive_and_an_ended_one_makes_room() -> None:
    async with served(max_sessions=2) as server:
        first = (await server.post(SESSIONS, CREATE)).body["id"]
        assert (await server.join()).status == 200
        refused = await server.join()
        assert refused.status == 503
        assert "--max-sessions" in refused.body["error"]
        assert refused.headers["Retry-After"] == "10"
        assert len(server.runway.sessions) == 2
        server.runway.sessions[first].cancel()
        assert (await server.join()).status == 200


async def test_sessions_that_are_being_made_count_too() -> None:
    async with served(SLOW, max_sessions=1, ready_timeout=0.5) as server:
        answers = await asyncio.gather(server.join(), server.join())
        assert sorted(answer.status for answer in answers) == [503, 504]
        assert len(server.runway.sessions) == 1


async def test_a_client_that_makes_too_many_is_told_when_to_come_back() -> None:
    async with served(rate=2, max_sessions=10) as server:
        statuses = [(await server.post(SESSIONS, CREATE)).status for _ in range(2)]
        refused = await server.join()
        assert (statuses, refused.status) == ([200, 200], 429)
        assert 25 <= int(refused.headers["Retry-After"]) <= 30
        assert len(server.runway.sessions) == 2


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ServeOptions(port=port, mcp_port=None)
        with pytest.raises(ConfigurationError, match=f"port {port}"):
            await run(options, "key_x", stop=asyncio.Event(), ready=lambda *_: None)


async def test_a_body_that_is_too_long_is_a_413() -> None:
    async with served() as server:
        answer = await server.join(personality="x" * 300_000)
        assert answer.status == 413
        assert "65536" in answer.body["error"]

        async def endless() -> Any:
            yield b'{"avatarId": "'
            while True:
                yield b"x" * 65536

        headers = {"Content-Type": "application/json"}
        url = server.rest + FRONT_END
        try:
            async with server.http.post(url, data=endless(), headers=headers) as response:
                assert response.status == 413
        except aiohttp.ClientError:
            pass  # it may close while more is being sent
        assert not server.runway.requests
