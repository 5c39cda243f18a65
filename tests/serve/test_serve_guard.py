"""Who may call `runway-avatar serve`: token, pages, rate; and what it never tells."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from livekit_plugins_runway.errors import ConfigurationError
from livekit_plugins_runway.serve.guard import RateLimit
from livekit_plugins_runway.serve.options import ServeOptions
from livekit_plugins_runway.testing import CallFault, Faults
from tests.support.serving import FRONT_END, SESSIONS, TOKEN, served

PAGE = "https://app.example.com"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
UUID = "0f7a6a1e-93c1-4b43-9d2b-0d1b6b2f6a11"
CREATE = {"model": "gwm1_avatars", "avatar": {"type": "runway-preset", "presetId": "influencer"}}


# -- the token --


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "avatars.example.com"])
def test_a_public_address_is_refused_without_a_token(host: str) -> None:
    with pytest.raises(ConfigurationError, match="RUNWAY_AVATAR_TOKEN"):
        ServeOptions(host=host)
    assert ServeOptions(host=host, token=TOKEN).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert ServeOptions(host=host).token is None


@pytest.mark.parametrize("token", ["short", "with a space in the middle", "ümlaut-" * 5, "\n" * 20])
def test_a_weak_or_impossible_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ServeOptions(token=token)
    assert token not in str(refused.value)


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong-token-0123456789", f"Basic {TOKEN}"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", FRONT_END),
        ("POST", SESSIONS),
        ("GET", f"{SESSIONS}/{UUID}"),
        ("DELETE", f"{SESSIONS}/{UUID}"),
        ("GET", "/"),
    ],
)
async def test_nothing_is_done_without_the_token(method: str, path: str, given: str) -> None:
    async with served(token=TOKEN) as server:
        headers = {"Authorization": given} if given else {}
        answer = await server.call(method, path, CREATE, headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "oken" in answer.body["error"]
        assert not server.runway.requests


async def test_with_the_token_it_is_done() -> None:
    async with served(token=TOKEN) as server:
        answer = await server.post(FRONT_END, {"avatarId": "influencer"}, headers=BEARER)
        assert answer.status == 200


# -- pages --


async def test_a_page_that_is_allowed_may_call_and_is_told_so() -> None:
    async with served(allowed_origins=(PAGE,), token=TOKEN) as server:
        asking = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        preflight = await server.call("OPTIONS", FRONT_END, headers=asking)
        assert preflight.status == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        body = {"avatarId": "influencer"}
        answer = await server.post(FRONT_END, body, headers={"Origin": PAGE, **BEARER})
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Origin" in answer.headers["Vary"]
        # It can read a refusal, too.
        refused = await server.post(FRONT_END, body, headers={"Origin": PAGE})
        assert refused.status == 401
        assert refused.headers["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize("origin", ["https://evil.example", f"{PAGE}.evil.example", "null"])
async def test_other_pages_make_no_session(origin: str) -> None:
    async with served(allowed_origins=(PAGE,)) as server:
        asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        for method in ("OPTIONS", "POST"):
            answer = await server.call(
                method, FRONT_END, {"avatarId": "influencer"}, headers=asking
            )
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
        assert not server.runway.requests


async def test_a_page_cannot_send_what_a_browser_sends_without_asking() -> None:
    async with served() as server:
        answer = await server.call("POST", FRONT_END, data='{"avatarId": "influencer"}')
        assert answer.status == 415
        assert not server.runway.requests


async def test_without_a_token_it_answers_only_as_this_machine() -> None:
    async with served() as server:
        body = {"avatarId": "influencer"}
        answer = await server.post(FRONT_END, body, headers={"Host": "rebound.example:8080"})
        assert answer.status == 403
        assert not server.runway.requests
        assert (await server.post(FRONT_END, body, headers={"Host": "localhost"})).status == 200


async def test_with_a_token_it_answers_under_any_name() -> None:
    async with served(token=TOKEN) as server:
        headers = {"Host": "avatars.example.com", **BEARER}
        answer = await server.post(FRONT_END, {"avatarId": "influencer"}, headers=headers)
        assert answer.status == 200


def test_every_page_is_allowed_with_a_token_only() -> None:
    with pytest.raises(ConfigurationError, match="RUNWAY_AVATAR_TOKEN"):
        ServeOptions(allowed_origins=("*",))
    assert ServeOptions(allowed_origins=("*",), token=TOKEN)


# -- rate --


async def test_all_calls_of_a_client_count_and_refused_ones_too() -> None:
    async with served(rate=1, token=TOKEN) as server:
        statuses = [(await server.call("GET", "/")).status for _ in range(31)]
        assert statuses == [401] * 30 + [429]


@pytest.mark.parametrize("trust_proxy", [True, False])
async def test_behind_a_trusted_proxy_each_of_its_clients_has_a_rate_of_its_own(
    trust_proxy: bool,
) -> None:
    async with served(rate=1, trust_proxy=trust_proxy) as server:

        async def create(forwarded: str) -> int:
            headers = {"X-Forwarded-For": forwarded}
            return (await server.post(SESSIONS, CREATE, headers=headers)).status

        assert await create("10.0.0.1") == 200
        assert await create("10.0.0.2") == (200 if trust_proxy else 429)
        # What the client itself wrote there does not make it another one.
        assert await create("9.9.9.9, 10.0.0.1") == 429


def test_a_rate_comes_back_evenly() -> None:
    now = 0.0
    limit = RateLimit(6, lambda: now)
    assert [limit.take("a") for _ in range(6)] == [0.0] * 6
    assert limit.take("a") == pytest.approx(10)
    assert limit.take("b") == 0
    now = 4
    assert limit.take("a") == pytest.approx(6)
    now = 10.1
    assert limit.take("a") == 0
    assert limit.take("a") > 0


def test_the_memory_of_clients_is_bounded_and_a_flood_clears_no_recent_one() -> None:
    limit = RateLimit(1, lambda: 0.0)
    for number in range(5000):
        limit.take(str(number))
    assert len(limit._buckets) <= 1024
    assert limit.take("4999") > 0


# -- wrong options --


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"host": ""}, "host is empty"),
        ({"port": 70000}, "port must be 0 to 65535, not 70000"),
        ({"port": 8080, "mcp_port": 8080}, "both 8080"),
        ({"allowed_origins": ("https://a.example/",)}, "'https://a.example/'"),
        ({"allowed_origins": ("localhost:3000",)}, "'localhost:3000'"),
        ({"avatars": ("nobody",)}, "'nobody'"),
        ({"response": "all"}, "'credentials', 'session-key', not 'all'"),
        ({"rate": 0}, "rate must be 1 to 1000"),
        ({"max_sessions": 0}, "max_sessions must be 1"),
        ({"max_duration": 5}, "max_duration must be 10 to 1800, not 5"),
        ({"ready_timeout": 0}, "ready_timeout must be more than 0"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ServeOptions(**options)
    assert names in str(refused.value)


# -- secrets --


async def test_no_secret_is_in_an_answer_of_no_business_with_it_nor_in_any_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    async with served(token=TOKEN, ready_timeout=0.5, allowed_origins=(PAGE,)) as server:
        secret = server.runway.api_secret
        echo = CallFault(status=400, error=f"The key {secret} is bad.")
        hang = CallFault(hang="before_effect")
        server.runway.faults.for_next_session(Faults(create=[echo], get=[echo]))
        server.runway.faults.for_next_session(Faults(get=[hang]))
        server.runway.faults.for_next_session(Faults(fail_while_provisioning="INTERNAL"))
        for _ in range(5):
            body = {"avatarId": "influencer"}
            answer = await server.post(f"{FRONT_END}?response=credentials", body, headers=BEARER)
            told.append(f"{answer.status} {answer.body} {dict(answer.headers)}")
        assert [text[:3] for text in told] == ["400", "400", "504", "500", "200"]
        keys = [session.session_key for session in server.runway.sessions.values()]
        room_token = answer.body["token"]
        for headers in ({}, {"Authorization": f"Bearer {secret}"}):
            wrong = await server.call("GET", "/", headers=headers)
            told.append(f"{wrong.body} {dict(wrong.headers)}")
    captured = capfd.readouterr()
    logs = caplog.text + str([vars(record) for record in caplog.records])
    output = logs + captured.out + captured.err
    assert secret not in "".join(told)
    assert TOKEN not in "".join(told)
    assert "was answered with 400" in output
    for hidden in (secret, TOKEN, room_token, *keys):
        assert hidden not in output


@pytest.mark.parametrize("request_line", ["GET /healthz HTTP/1.1", "GET /x HTTP/1.1", "\x00 ?"])
async def test_no_answer_tells_versions_and_no_log_a_traceback(
    request_line: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as server:
        host, port = server.rest.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{request_line}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        assert "Server: runway-avatar\r\n" in head
        assert "aiohttp" not in answer
        assert json.loads(body)
    assert not [record for record in caplog.records if record.exc_info]
