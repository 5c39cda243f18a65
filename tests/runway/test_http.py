"""What an answer of Runway means, and how long one is waited for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest
from livekit.agents import APIConnectOptions

from livekit_plugins_runway import errors as e
from livekit_plugins_runway.runway.answers import error_from_response
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import (
    ClientEventTool,
    CreateRealtimeSession,
    ObjectParameter,
    PresetAvatar,
    Running,
)
from tests.support.scripted_runway import Reply, ScriptedRunway, state
from tests.support.virtual_clock import virtual_clock

KEY = "key_0123456789abcdef"
REQUEST = CreateRealtimeSession(avatar=PresetAvatar(preset_id="influencer"))


@asynccontextmanager
async def runway(
    *script: Reply, max_retry: int = 0, **options: Any
) -> AsyncIterator[tuple[ScriptedRunway, RunwayClient]]:
    server = ScriptedRunway()
    server.script.extend(script)
    async with server.running():
        client = RunwayClient(
            KEY,
            base_url=server.url,
            conn_options=APIConnectOptions(max_retry=max_retry, retry_interval=1.0, timeout=5.0),
            jitter=lambda: 0.0,
            **options,
        )
        try:
            yield server, client
        finally:
            await client.aclose()


def now() -> float:
    return asyncio.get_running_loop().time()


# -- how long --

Caller = Callable[[RunwayClient], Awaitable[object]]
LIMITS: list[tuple[str, Caller, float]] = [
    ("create", lambda client: client.create(REQUEST), 30.0),
    ("get", lambda client: client.get("the-id"), 5.0),
    ("delete", lambda client: client.delete("the-id"), 10.0),
    ("consume", lambda client: client.consume("the-id", "stk"), 15.0),
    ("request", lambda client: client.request("GET", "/v1/things"), 30.0),
]


@pytest.mark.parametrize(
    ("call", "limit"), [case[1:] for case in LIMITS], ids=[c[0] for c in LIMITS]
)
@virtual_clock
async def test_an_answer_is_waited_for_as_long_as_this_call_may_take(
    call: Caller, limit: float
) -> None:
    late = Reply(delay=99.0)
    async with runway(late) as (server, client):
        server.delete_script.append(late)
        with pytest.raises((e.TimedOutError, e.LostAnswerError)):
            await call(client)
        assert now() == pytest.approx(limit)


@virtual_clock
async def test_a_call_takes_three_quarters_of_a_minute_at_most() -> None:
    async with runway(*[Reply(delay=99.0)] * 20, max_retry=20) as (_, client):
        with pytest.raises(e.TimedOutError):
            await client.get("the-id")
        assert 39.0 < now() <= 45.0


@virtual_clock
async def test_a_wait_doubles_up_to_eight_seconds() -> None:
    async with runway(*[Reply(503)] * 6, max_retry=6) as (server, client):
        await client.get("the-id")
        assert server.times == [0, 1, 3, 7, 15, 23, 31]


@virtual_clock
async def test_a_retry_after_that_is_sooner_than_the_next_try_changes_nothing() -> None:
    replies = [Reply(503), Reply(503, headers={"Retry-After": "1"})]
    async with runway(*replies, max_retry=3) as (server, client):
        await client.get("the-id")
        assert server.times == [0, 1, 3]


@pytest.mark.parametrize(("value", "seconds"), [("0", 0.0), (" 7 ", 7.0), ("90", 90.0)])
async def test_the_time_that_runway_asked_to_wait_is_told(value: str, seconds: float) -> None:
    async with runway(Reply(429, headers={"Retry-After": value})) as (_, client):
        with pytest.raises(e.RateLimitedError) as caught:
            await client.get("the-id")
        assert caught.value.retry_after == seconds


@pytest.mark.parametrize("past", [True, False])
async def test_a_time_that_runway_asked_to_wait_until_is_told_in_seconds(past: bool) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=-100 if past else 100)
    date = format_datetime(moment, usegmt=True)
    for value in (date, date.replace(" GMT", " -0000")):  # -0000: without a zone
        async with runway(Reply(429, headers={"Retry-After": value})) as (_, client):
            with pytest.raises(e.RateLimitedError) as caught:
                await client.get("the-id")
            assert caught.value.retry_after == pytest.approx(0.0 if past else 100.0, abs=10.0)


@pytest.mark.parametrize(
    "value",
    [
        "Mon, 01 Jan 2024 00:00:00 +9999999999999999",
        "Mon, 32 Foo 99999 99:99:99 GMT",
        "Mon, 01 Jan 99999 00:00:00 GMT",
        "nan",
        "inf",
        "1e3",
        "2.5",
        "-5",
        ",",
        "(",
        "\u00b2",
    ],
)
async def test_a_time_to_wait_that_makes_no_sense_is_none(value: str) -> None:
    async with runway(Reply(429, headers={"Retry-After": value})) as (_, client):
        with pytest.raises(e.RateLimitedError) as caught:
            await client.get("the-id")
        assert caught.value.retry_after is None


@pytest.mark.parametrize(
    "value",
    ["9" * 20, "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 +0000"],
)
async def test_a_time_to_wait_is_told_as_a_day_at_most(value: str) -> None:
    async with runway(Reply(429, headers={"Retry-After": value})) as (_, client):
        with pytest.raises(e.RateLimitedError) as caught:
            await client.get("the-id")
        assert caught.value.retry_after == 86_400.0


@virtual_clock
async def test_closing_waits_for_five_seconds_if_nothing_else_is_said() -> None:
    async with runway(Reply(delay=29.0)) as (_, client):
        task = asyncio.create_task(client.create(REQUEST))
        await asyncio.sleep(1.0)
        await client.aclose()
        assert now() == pytest.approx(6.0)
        with pytest.raises(e.LostAnswerError):
            await task


@virtual_clock
async def test_polls_become_slower_by_three_tenths_each() -> None:
    async with runway(*[Reply(payload=state("NOT_READY"))] * 14) as (server, client):
        await client.wait_until_ready("the-id")
        gaps = [round(b - a, 3) for a, b in zip(server.times, server.times[1:], strict=False)]
        assert gaps[6:] == pytest.approx(
            [0.25, 0.325, 0.4225, 0.54925, 0.714, 0.928, 1, 1], abs=2e-3
        )


@virtual_clock
async def test_a_minute_is_waited_for_a_session_to_become_ready() -> None:
    for wait in (RunwayClient.wait_until_ready, RunwayClient.wait_until_under_way):
        async with runway(*[Reply(payload=state("NOT_READY"))] * 99) as (_, client):
            began = now()
            with pytest.raises(e.SessionNotReadyError):
                await wait(client, "the-id")
            assert now() - began == pytest.approx(60.0)


@virtual_clock
async def test_a_poll_that_gets_no_answer_is_told_as_that_and_not_as_a_wait_that_is_over() -> None:
    async with runway(*[Reply(delay=99.0)] * 9) as (_, client):
        with pytest.raises(e.TimedOutError):
            await client.wait_until_ready("the-id", timeout=30.0)
        assert now() == pytest.approx(30.0)


@pytest.mark.parametrize("status", [302, 404, 503])
async def test_prewarming_asks_once_and_whatever_the_answer_says_nothing_is_wrong(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="livekit.plugins.runway_bridge")
    async with runway(Reply(status, "", {"Location": "/elsewhere"})) as (server, client):
        await client.prewarm()
        (seen,) = server.seen
        assert (seen.method, seen.path) == ("HEAD", "/")
        assert "Authorization" not in seen.headers
        assert caplog.records == []


async def test_calls_go_by_the_session_that_is_given_or_that_the_function_gives() -> None:
    async with runway() as (server, own), aiohttp.ClientSession(headers={"X-Given": "1"}) as http:
        for given in (http, lambda: http):
            client = RunwayClient(KEY, base_url=server.url, http_session=given)
            await client.get("the-id")
            await client.aclose()
        await own.get("the-id")
        assert ["X-Given" in seen.headers for seen in server.seen] == [True, True, False]


# -- answers without measure --

MIB = 1024 * 1024
DEEP = "[" * 100_000 + "]" * 100_000


def padded(size: int) -> str:
    """A create's answer of so many bytes."""
    return '{"id": "made"' + " " * (size - len('{"id": "made"}')) + "}"


async def test_an_answer_is_read_up_to_a_mebibyte() -> None:
    async with runway(Reply(payload=padded(MIB)), Reply(payload=padded(MIB + 1))) as (_, client):
        assert await client.create(REQUEST) == "made"
        with pytest.raises(e.LostAnswerError, match="longer than 1 MiB"):
            await client.create(REQUEST)


async def test_lists_may_be_longer() -> None:
    script = [Reply(payload=padded(size)) for size in (2 * MIB, 17 * MIB)]
    async with runway(*script) as (_, client):
        assert await client.request("GET", "/v1/things") == {"id": "made"}
        with pytest.raises(e.ProtocolError, match="longer than 16 MiB"):
            await client.request("GET", "/v1/things")


async def test_of_an_error_without_measure_its_status_counts() -> None:
    async with runway(Reply(400, "x" * 2 * MIB), Reply(500, DEEP)) as (server, client):
        with pytest.raises(e.RequestRejectedError) as caught:
            await client.get("the-id")
        assert caught.value.runway_message == "x" * 500
        with pytest.raises(e.ServerError) as failed:
            await client.create(REQUEST)
        assert failed.value.runway_message == ""
        server.delete_script += [Reply(200, DEEP), Reply(200, "x" * 2 * MIB)]
        await client.delete("the-id")
        await client.delete("the-id")
        assert len(server.seen) == 4


@pytest.mark.parametrize("text", [DEEP, "[" * 100_000, '{"a":' * 70 + "1" + "}" * 70])
async def test_an_answer_that_is_nested_without_measure_makes_no_sense(text: str) -> None:
    async with runway(*[Reply(payload=text)] * 4) as (_, client):
        with pytest.raises(e.ProtocolError):
            await client.get("the-id")
        with pytest.raises(e.ProtocolError):
            await client.request("GET", "/v1/things")
        with pytest.raises(e.LostAnswerError):
            await client.create(REQUEST)
        with pytest.raises(e.LostAnswerError):
            await client.consume("the-id", "stk")


async def test_an_answer_may_be_nested_as_no_answer_of_runway_is() -> None:
    async with runway(Reply(payload="[" * 64 + "1" + "]" * 64)) as (_, client):
        assert await client.request("GET", "/v1/things")


async def test_half_a_character_in_an_error_can_be_printed() -> None:
    half = Reply(400, '{"error": "a \\ud800 b", "issues": [{"path": [], "message": "\\udfff"}]}')
    async with runway(half) as (_, client):
        with pytest.raises(e.RequestRejectedError, match=r"a \? b.*: \?") as caught:
            await client.get("the-id")
        str(caught.value).encode()


# -- a delete that is asked to wait --


def busy(after: int, status: int = 429) -> Reply:
    return Reply(status, {"error": "slow down"}, {"Retry-After": str(after)})


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("after", [7, 10, 3600])
@pytest.mark.parametrize("max_retry", [0, 3])
@virtual_clock
async def test_a_delete_that_is_to_wait_too_long_is_repeated_a_second_before_its_time_is_over(
    status: int, after: int, max_retry: int
) -> None:
    async with runway(max_retry=max_retry) as (server, client):
        server.delete_script.append(busy(after, status))
        await client.delete("the-id", within=7.0)
        assert server.times == [0, 6]
        assert server.deleted == ["the-id"]


@virtual_clock
async def test_a_delete_that_is_to_wait_for_a_while_is_repeated_when_it_is_over() -> None:
    async with runway() as (server, client):
        server.delete_script += [busy(2), busy(3)]
        await client.delete("the-id", within=7.0)
        assert server.times == [0, 2, 5]


@virtual_clock
async def test_a_delete_has_one_last_try_and_then_says_why_it_failed() -> None:
    async with runway() as (server, client):
        server.delete_script += [busy(10)] * 9
        with pytest.raises(e.RateLimitedError):
            await client.delete("the-id", within=7.0)
        assert server.times == [0, 6]
        assert now() == pytest.approx(6.0)


@virtual_clock
async def test_a_delete_without_a_limit_of_its_own_ends_with_that_of_each_call() -> None:
    async with runway(max_retry=3) as (server, client):
        server.delete_script += [busy(60)] * 9
        with pytest.raises(e.RateLimitedError):
            await client.delete("the-id")
        assert server.times == [0]


@virtual_clock
async def test_a_late_session_is_deleted_before_closing_gives_up_though_runway_asks_to_wait() -> (
    None
):
    async with runway(Reply(payload={"id": "late"}, delay=1.0)) as (server, client):
        server.delete_script.append(busy(30))
        create = asyncio.create_task(client.create(REQUEST))
        await asyncio.sleep(0.5)
        create.cancel()
        await asyncio.wait({create})
        assert await client.aclose(5.0) == []
        assert server.deleted == ["late"]
        assert [round(seen.at, 1) for seen in server.asked("DELETE")] == [1.0, 4.5]
        assert now() < 5.5


@virtual_clock
async def test_a_late_session_is_deleted_without_closing_too() -> None:
    async with runway(Reply(payload={"id": "late"}, delay=1.0)) as (server, client):
        server.delete_script.append(busy(3600))
        create = asyncio.create_task(client.create(REQUEST))
        await asyncio.sleep(0.5)
        create.cancel()
        await asyncio.wait({create})
        await asyncio.sleep(46.0)
        assert server.deleted == ["late"]
        assert client.pending_creates == 0


# -- what an answer means --


@virtual_clock
async def test_a_worker_that_runs_already_is_as_good_as_ready_where_it_joins_by_itself() -> None:
    replies = [Reply(payload=state("NOT_READY", queued=True)), Reply(payload=state("RUNNING"))]
    queued: list[bool] = []
    async with runway(*replies) as (_, client):
        found = await client.wait_until_under_way("the-id", on_queued=queued.append)
        assert isinstance(found, Running)
        assert queued == [True]


async def test_the_credentials_of_the_back_end_come_for_the_key_of_the_project() -> None:
    granted = {"url": "wss://r.test", "token": "backend-token", "roomName": "r"}
    async with runway(Reply(payload=granted), Reply(payload={"url": 1})) as (server, client):
        credentials = await client.connect_backend("a/b")
        assert credentials.token.get_secret_value() == "backend-token"
        (seen,) = server.seen
        assert seen.headers["Authorization"] == f"Bearer {KEY}"
        assert (seen.method, seen.body) == ("POST", b"{}")
        assert seen.path.endswith("/connect_backend")
        with pytest.raises(e.ProtocolError, match="Unexpected fields"):
            await client.connect_backend("the-id")


async def test_a_number_that_json_does_not_have_is_refused_before_anything_is_sent() -> None:
    tool = ClientEventTool(
        name="t",
        description="d",
        parameters=(
            ObjectParameter(name="o", description="d", properties=({"minimum": float("nan")},)),
        ),
    )
    request = CreateRealtimeSession(avatar=REQUEST.avatar, tools=(tool,))
    async with runway() as (server, client):
        with pytest.raises(e.ConfigurationError, match="NaN"):
            await client.create(request)
        assert server.seen == []


def error(status: int, payload: object, operation: e.Operation = "get") -> e.RequestError:
    found = error_from_response(status, payload, operation=operation, request_id="req_1")
    assert isinstance(found, e.RequestError)
    return found


def test_what_runway_says_is_wrong_is_told_by_place() -> None:
    issues = [
        {"path": ["tools", 0, "name"], "message": "Too\n  long", "code": "too_big"},
        {"path": "no list", "message": 3, "code": 4},
        {"path": [1.5, None]},
        "no issue",
    ]
    payload = {"error": "Bad", "issues": issues, "docUrl": "https://docs.test/x", "other": "echo"}
    found = error(400, payload, "create")
    assert found.issues == (
        e.Issue(("tools", 0, "name"), "Too long", "too_big"),
        e.Issue((), "", None),
        e.Issue(("1.5", "None"), "", None),
    )
    assert (found.doc_url, found.request_id) == ("https://docs.test/x", "req_1")
    assert found.body == {
        "error": "Bad",
        "issues": [
            {"code": "too_big", "message": "Too long", "path": ["tools", 0, "name"]},
            {"code": None, "message": "", "path": []},
            {"code": None, "message": "", "path": ["1.5", "None"]},
        ],
        "docUrl": "https://docs.test/x",
    }


@pytest.mark.parametrize("payload", [None, [], 7, {"issues": {}, "docUrl": 5, "error": 1}])
def test_an_answer_of_another_form_is_told_by_its_status_alone(payload: object) -> None:
    found = error(400, payload)
    assert (found.runway_message, found.issues, found.doc_url) == ("", (), None)
    assert found.body == {"error": "", "issues": [], "docUrl": None}


def test_runways_text_is_told_in_one_line_and_not_without_end() -> None:
    assert error(500, "<html>\n <b>no</b>\t x").runway_message == "<html> <b>no</b> x"
    assert len(error(500, "x" * 900).runway_message) == 500
    assert error(400, {"message": "why", "error": "what"}).runway_message == "why"
    assert error(400, {"error": "what"}).runway_message == "what"


@pytest.mark.parametrize("status", [199, 302, 399, 600])
def test_what_is_neither_success_nor_error_points_to_the_address(status: int) -> None:
    found = error_from_response(status, "", operation="get")
    assert isinstance(found, e.ProtocolError)
    assert str(status) in str(found)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "You do not have enough credits.", e.CreditsError),
        (402, "Insufficient credits", e.CreditsError),
        (400, "You are out of\ncredits", e.CreditsError),
        (400, "Not a credit card number: 'accredited'", e.CreditsError),
        (400, "The notice must not be accredited", e.RequestRejectedError),
        (403, "not enough credits", e.ForbiddenError),
        (429, "not enough credits", e.RateLimitedError),
        (429, "Daily limit", e.QuotaError),
        (429, "Too many sessions at once", e.RateLimitedError),
        (499, "daily", e.RequestRejectedError),
        (500, "daily", e.ServerError),
        (599, "", e.ServerError),
    ],
)
def test_the_kind_goes_by_status_and_where_that_is_not_enough_by_text(
    status: int, text: str, kind: type[e.RequestError]
) -> None:
    assert type(error(status, {"error": text})) is kind


def test_a_body_with_issues_is_no_lack_of_credits() -> None:
    payload = {"error": "no credits", "issues": [{"path": ["credits"], "message": "unknown"}]}
    assert type(error(400, payload)) is e.RequestRejectedError


@pytest.mark.parametrize(
    ("status", "operation", "hint"),
    [
        (401, "consume", "make a new session"),
        (404, "consume", "make a new session"),
        (404, "get", "keys of the project that made it"),
        (404, "delete", "keys of the project that made it"),
        (404, "request", "belongs to another project"),
        (408, "create", "try again"),
    ],
)
def test_the_hint_goes_by_what_was_asked(status: int, operation: e.Operation, hint: str) -> None:
    assert hint in str(error(status, {}, operation))


@pytest.mark.parametrize(("status", "operation"), [(401, "get"), (404, "create"), (403, "consume")])
def test_else_the_hint_is_that_of_the_kind(status: int, operation: e.Operation) -> None:
    found = error(status, {}, operation)
    assert found.hint == type(found).default_hint
