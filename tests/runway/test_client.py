"""`RunwayClient` against a scripted server: what goes out, what comes back, what is repeated."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

from livekit_plugins_runway import __version__
from livekit_plugins_runway import errors as e
from livekit_plugins_runway.runway.address import DEFAULT_BASE_URL
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.http import ConnectOptions
from livekit_plugins_runway.runway.models import (
    CreateRealtimeSession,
    LiveKitIntegration,
    PresetAvatar,
    Ready,
)
from tests.support.scripted_runway import Reply, ScriptedRunway, state
from tests.support.virtual_clock import virtual_clock

pytestmark = pytest.mark.sampled

KEY = "key_0123456789abcdef"
TOKEN = "eyJ-a-room-token"
SESSION_KEY = "stk_session-key"
REQUEST = CreateRealtimeSession(
    avatar=PresetAvatar(preset_id="influencer"),
    max_duration=20,
    integration=LiveKitIntegration(url="wss://h.test", token=TOKEN, room_name="r"),  # type: ignore[arg-type]
)


@asynccontextmanager
async def runway(
    *script: Reply, max_retry: int = 3, **options: Any
) -> AsyncIterator[tuple[ScriptedRunway, RunwayClient]]:
    server = ScriptedRunway()
    server.script.extend(script)
    async with server.running():
        client = RunwayClient(
            KEY,
            base_url=server.url,
            conn_options=APIConnectOptions(max_retry=max_retry, retry_interval=1.0, timeout=5.0),
            jitter=options.pop("jitter", lambda: 0.0),
            **options,
        )
        try:
            yield server, client
        finally:
            await client.aclose()


Caller = Callable[[RunwayClient], Awaitable[object]]
CALLS: dict[str, Caller] = {
    "create": lambda client: client.create(REQUEST),
    "get": lambda client: client.get("the-id"),
    "delete": lambda client: client.delete("the-id"),
    "consume": lambda client: client.consume("the-id", SESSION_KEY),
}
each_call = pytest.mark.parametrize("name", CALLS)


def fail_with(server: ScriptedRunway, *replies: Reply) -> None:
    server.script.extend(replies)
    server.delete_script.extend(replies)


def test_the_connect_options_are_those_of_the_framework() -> None:
    # The helper `runway` passes the framework's own.
    assert vars(ConnectOptions()) == vars(DEFAULT_API_CONNECT_OPTIONS)


# -- on the wire --


async def test_create_sends_the_body_as_published_and_returns_the_id() -> None:
    async with runway() as (server, client):
        session_id = await client.create(REQUEST)
        assert [session_id] == server.created
        (seen,) = server.seen
        assert (seen.method, seen.path) == ("POST", "/v1/realtime_sessions")
        assert json.loads(seen.body) == REQUEST.wire()
        assert json.loads(seen.body)["integration"]["token"] == TOKEN
        assert "livekit" not in json.loads(seen.body)
        assert seen.headers["Content-Type"] == "application/json"
        assert seen.headers["Content-Length"] == str(len(seen.body))


@virtual_clock
async def test_a_create_tells_when_its_request_leaves_in_each_attempt() -> None:
    async with runway(Reply(503)) as (server, client):
        seen: list[int] = []
        await client.create(REQUEST, on_sent=lambda: seen.append(len(server.seen)))
        assert seen == [0, 1]


@each_call
async def test_every_call_names_the_version_the_key_and_the_package(name: str) -> None:
    async with runway() as (server, client):
        await CALLS[name](client)
        headers = server.seen[0].headers
        assert headers["X-Runway-Version"] == "2024-11-06"
        bearer = SESSION_KEY if name == "consume" else KEY
        assert headers["Authorization"] == f"Bearer {bearer}"
        assert headers["User-Agent"] == f"livekit-plugins-runway-bridge/{__version__}"


async def test_consume_sends_an_empty_object_and_gives_the_credentials() -> None:
    async with runway() as (server, client):
        credentials = await client.consume("the-id", SESSION_KEY)
        (seen,) = server.seen
        assert (seen.method, seen.path) == ("POST", "/v1/realtime_sessions/the-id/consume")
        assert seen.body == b"{}"
        assert seen.headers["Content-Type"] == "application/json"
        assert credentials.url == "wss://r.test"
        assert credentials.token.get_secret_value() == "room-token"
        assert "room-token" not in repr(credentials)


async def test_get_gives_a_typed_state_and_delete_nothing() -> None:
    async with runway() as (server, client):
        ready = await client.get("the-id")
        assert isinstance(ready, Ready)
        assert SESSION_KEY not in repr(ready)
        await client.delete("the-id")
        assert server.deleted == ["the-id"]


async def test_an_id_cannot_leave_its_place_in_the_path() -> None:
    async with runway() as (server, client):
        await client.get("../avatars?x=")
        assert server.seen[0].path.startswith("/v1/realtime_sessions/")


async def test_a_session_that_is_not_there_counts_as_ended() -> None:
    async with runway() as (server, client):
        server.delete_script.append(Reply(404, {"error": "Could not find session"}))
        await client.delete("the-id")
        assert len(server.seen) == 1


# -- refused at once --


@each_call
@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "Unrecognized key", e.RequestRejectedError),
        (400, "You do not have enough credits to run this task.", e.CreditsError),
        (401, "No API key was provided.", e.AuthenticationError),
        (403, "not available", e.ForbiddenError),
        (404, "Could not find Avatar", e.NotFoundError),
        (405, "", e.RequestRejectedError),
        (429, "Your daily task limit has been reached.", e.QuotaError),
        (500, "oops", e.ServerError),
    ],
)
async def test_what_waiting_does_not_mend_is_raised_at_once(
    name: str, status: int, text: str, kind: type[e.RequestError]
) -> None:
    if (name, status) == ("delete", 404):
        return  # counts as ended: see above
    async with runway() as (server, client):
        fail_with(server, Reply(status, {"error": text}))
        with pytest.raises(kind) as caught:
            await CALLS[name](client)
        assert caught.value.operation == name
        assert text in str(caught.value)
        assert len(server.seen) == 1


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    async with runway(Reply(302, "", {"Location": "/elsewhere"})) as (server, client):
        with pytest.raises(e.ProtocolError, match="302"):
            await client.get("the-id")
        assert len(server.seen) == 1


# -- repeated --


@each_call
@pytest.mark.parametrize("status", [429, 502, 503, 504])
@virtual_clock
async def test_transient_answers_are_repeated_with_growing_waits(name: str, status: int) -> None:
    async with runway() as (server, client):
        fail_with(server, *[Reply(status, "<html>later</html>")] * 3)
        await CALLS[name](client)
        assert server.times == [0, 1, 3, 7]


@virtual_clock
async def test_up_to_half_of_a_wait_is_added_at_random() -> None:
    async with runway(*[Reply(503)] * 2, jitter=lambda: 1.0) as (server, client):
        await client.get("the-id")
        assert server.times == [0, 1.5, 4.5]


@pytest.mark.parametrize("max_retry", [0, 1, 2])
@virtual_clock
async def test_max_retry_counts_what_comes_after_the_first_attempt(max_retry: int) -> None:
    async with runway(*[Reply(503)] * 9, max_retry=max_retry) as (server, client):
        with pytest.raises(e.ServerError):
            await client.create(REQUEST)
        assert len(server.seen) == 1 + max_retry


@virtual_clock
async def test_retry_after_in_seconds_is_obeyed() -> None:
    async with runway(Reply(429, headers={"Retry-After": "6"})) as (server, client):
        await client.create(REQUEST)
        assert server.times == [0, 6]


@virtual_clock
async def test_who_was_told_the_same_time_comes_back_later_by_up_to_a_half_at_random() -> None:
    async with runway(Reply(429, headers={"Retry-After": "6"}), jitter=lambda: 0.8) as (
        server,
        client,
    ):
        await client.create(REQUEST)
        assert server.times == [0, pytest.approx(6 * 1.4)]


@virtual_clock
async def test_retry_after_as_a_date_is_obeyed() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    async with runway(Reply(503, headers={"Retry-After": date})) as (server, client):
        await client.create(REQUEST)
        # The date has whole seconds, and real time goes on a little.
        assert 10 < server.times[1] <= 20


@pytest.mark.parametrize("value", ["soon", "", "-3"])
@virtual_clock
async def test_a_retry_after_that_makes_no_sense_is_ignored(value: str) -> None:
    async with runway(Reply(503, headers={"Retry-After": value})) as (server, client):
        await client.create(REQUEST)
        assert server.times == [0, 1]


@virtual_clock
async def test_a_wait_beyond_the_time_of_the_call_is_not_begun() -> None:
    async with runway(Reply(429, headers={"Retry-After": "3600"})) as (server, client):
        with pytest.raises(e.RateLimitedError) as caught:
            await client.create(REQUEST)
        assert caught.value.retry_after == 3600
        assert asyncio.get_running_loop().time() < 1
        assert len(server.seen) == 1


@each_call
@virtual_clock
async def test_a_call_ends_within_its_total_time(name: str) -> None:
    silent = [Reply(503, delay=3.0)] * 50
    async with runway(max_retry=50, call_timeout=20.0) as (server, client):
        fail_with(server, *silent)
        with pytest.raises(e.RunwayException):
            await CALLS[name](client)
        assert asyncio.get_running_loop().time() <= 21


@each_call
@virtual_clock
async def test_a_connection_that_was_never_made_is_tried_again(name: str) -> None:
    server = ScriptedRunway()
    async with server.running():
        gone = server.url
    client = RunwayClient(
        KEY,
        base_url=gone,
        jitter=lambda: 0.0,
        conn_options=APIConnectOptions(max_retry=2, retry_interval=1.0),
    )
    with pytest.raises(e.UnavailableError):
        await CALLS[name](client)
    assert round(asyncio.get_running_loop().time(), 3) == 3
    assert await client.aclose() == []


async def test_of_a_create_that_finds_no_connection_nothing_has_left() -> None:
    server = ScriptedRunway()
    async with server.running():
        gone = server.url
    client = RunwayClient(KEY, base_url=gone, conn_options=APIConnectOptions(max_retry=0))
    told: list[bool] = []
    with pytest.raises(e.UnavailableError):
        await client.create(REQUEST, on_sent=lambda: told.append(True))
    assert told == []


# -- prewarming --


async def test_the_next_call_takes_the_connection_that_was_prewarmed() -> None:
    async with runway() as (server, client):
        await client.prewarm()
        await client.create(REQUEST)
        warm, create = server.seen
        assert warm.method == "HEAD"
        assert "Authorization" not in warm.headers
        assert create.caller == warm.caller


async def test_prewarming_where_nobody_is_leaves_it_to_the_call_to_say_so() -> None:
    server = ScriptedRunway()
    async with server.running():
        gone = server.url
    client = RunwayClient(KEY, base_url=gone, conn_options=APIConnectOptions(max_retry=0))
    await client.prewarm()
    with pytest.raises(e.UnavailableError):
        await client.create(REQUEST)
    await client.aclose()


@virtual_clock
async def test_prewarming_takes_no_longer_than_connecting_may() -> None:
    async with runway(Reply(delay=300.0)) as (_, client):
        await client.prewarm()
        assert round(asyncio.get_running_loop().time(), 3) == 5


# -- answers that get lost --

LOST = {
    "cut": Reply(cut="request read"),
    "cut in the middle": Reply(payload={"id": "x"}, cut="half an answer"),
    "no answer in time": Reply(delay=300.0),
    "not JSON": Reply(payload="{"),
    "empty": Reply(payload=""),
    "without the fields": Reply(payload={"ID": "x"}),
    "of another type": Reply(payload=[]),
}


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("name", ["create", "consume"])
@virtual_clock
async def test_a_lost_answer_is_told_and_the_call_not_repeated(name: str, how: str) -> None:
    async with runway(LOST[how]) as (server, client):
        with pytest.raises(e.LostAnswerError) as caught:
            await CALLS[name](client)
        assert caught.value.operation == name
        assert caught.value.session_id == ("the-id" if name == "consume" else None)
        assert not caught.value.retryable
        assert len(server.seen) == 1


@pytest.mark.parametrize("how", ["cut", "cut in the middle", "no answer in time"])
@pytest.mark.parametrize("name", ["get", "delete"])
@virtual_clock
async def test_get_and_delete_are_repeated_when_an_answer_is_lost(name: str, how: str) -> None:
    async with runway() as (server, client):
        fail_with(server, LOST[how])
        await CALLS[name](client)
        assert len(server.seen) == 2


@pytest.mark.parametrize("payload", ["{", "", [], {"id": "the-id"}])
async def test_a_state_that_makes_no_sense_is_a_protocol_error(payload: object) -> None:
    async with runway(Reply(payload=payload)) as (server, client):
        with pytest.raises(e.ProtocolError):
            await client.get("the-id")
        assert len(server.seen) == 1


# -- waiting for READY --


@virtual_clock
async def test_polls_are_fast_at_first_and_slow_down_to_one_a_second() -> None:
    waiting = [Reply(payload=state("NOT_READY"))] * 18
    async with runway(*waiting) as (server, client):
        ready = await client.wait_until_ready("the-id")
        assert ready.session_key.get_secret_value() == SESSION_KEY
        times = server.times
        gaps = [round(b - a, 3) for a, b in zip([0.0, *times], times, strict=False)]
        assert gaps[:8] == [0.25] * 8
        assert gaps == sorted(gaps)
        assert gaps[-3:] == [1.0, 1.0, 1.0]


@virtual_clock
async def test_the_time_of_an_answer_is_part_of_the_interval() -> None:
    slow = [Reply(payload=state("NOT_READY"), delay=0.1)] * 3
    async with runway(*slow) as (server, client):
        await client.wait_until_ready("the-id")
        assert server.times == [0.25, 0.5, 0.75, 1.0]


@virtual_clock
async def test_queued_is_reported_when_it_changes() -> None:
    script = [
        Reply(payload=state("NOT_READY", queued=queued))
        for queued in (True, True, False, False, True)
    ]
    async with runway(*script, Reply(payload=state("NOT_READY"))) as (_, client):
        reported: list[bool] = []
        await client.wait_until_ready("the-id", on_queued=reported.append)
        assert reported == [True, False, True, False]


@virtual_clock
async def test_the_queue_has_a_time_of_its_own_and_is_asked_about_less_often() -> None:
    queue = [Reply(payload=state("NOT_READY", queued=True))] * 40
    getting_ready = [Reply(payload=state("NOT_READY"))] * 3
    async with runway(*queue, *getting_ready) as (server, client):
        reported: list[bool] = []
        await client.wait_until_ready(
            "the-id", timeout=5.0, queue_timeout=200.0, on_queued=reported.append
        )
        assert reported == [True, False]
        waits = [round(b - a, 2) for a, b in itertools.pairwise(server.times)]
        assert waits[35:39] == [3.0] * 4
        assert waits[40:] == [0.25] * 3


@pytest.mark.parametrize("queue_timeout", [8.0, 90.0])
@virtual_clock
async def test_a_queue_that_takes_too_long_ends_the_wait(queue_timeout: float) -> None:
    async with runway(*[Reply(payload=state("NOT_READY", queued=True))] * 99) as (_, client):
        with pytest.raises(e.QueueTimeoutError) as caught:
            await client.wait_until_ready("the-id", timeout=60.0, queue_timeout=queue_timeout)
        assert asyncio.get_running_loop().time() == pytest.approx(queue_timeout, abs=0.3)
        assert (caught.value.queued, caught.value.waited) == (True, queue_timeout)


@virtual_clock
async def test_polls_that_are_refused_for_their_number_come_back_when_they_are_wanted() -> None:
    async with runway(Reply(429, headers={"Retry-After": "50"}), max_retry=0) as (server, client):
        await client.wait_until_ready("the-id")
        assert server.times == [0.25, pytest.approx(50.25, abs=0.1)]


@virtual_clock
async def test_many_that_began_together_do_not_poll_together() -> None:
    async with runway(*[Reply(payload=state("NOT_READY"))] * 2, jitter=lambda: 0.8) as (
        server,
        client,
    ):
        await client.wait_until_ready("the-id")
        assert server.times == [pytest.approx(0.3 * n, abs=0.002) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (
            state("FAILED", failure="No one came", failureCode="TALKING_AVATAR.X"),
            "TALKING_AVATAR.X",
        ),
        (state("CANCELLED"), ""),
        (state("COMPLETED", duration=3), ""),
        (state("RUNNING"), ""),
    ],
)
@virtual_clock
async def test_a_session_that_cannot_become_ready_ends_the_wait(
    payload: dict[str, Any], code: str
) -> None:
    async with runway(Reply(payload=state("NOT_READY")), Reply(payload=payload)) as (_, client):
        with pytest.raises(e.SessionFailedError, match=payload["status"]) as caught:
            await client.wait_until_ready("the-id")
        assert (caught.value.failure_code, caught.value.session_id) == (code, "the-id")
        assert caught.value.status == payload["status"]


@pytest.mark.parametrize("queued", [True, False])
@pytest.mark.parametrize("last", [Reply(payload=state("NOT_READY")), Reply(delay=99.0)])
@virtual_clock
async def test_the_wait_ends_in_time_and_says_why(queued: bool, last: Reply) -> None:
    script = [Reply(payload=state("NOT_READY", queued=queued))] * 3
    last = Reply(last.status, state("NOT_READY", queued=queued), delay=last.delay)
    async with runway(*script, *[last] * 99) as (_, client):
        with pytest.raises(e.SessionNotReadyError) as caught:
            await client.wait_until_ready("the-id", timeout=12.0)
        assert asyncio.get_running_loop().time() == pytest.approx(12.0)
        assert (caught.value.queued, caught.value.waited) == (queued, 12.0)


@pytest.mark.parametrize(
    "fault",
    [
        Reply(500, {"error": "oops"}),
        Reply(502),
        Reply(520),
        Reply(408),
        Reply(429),
        Reply(404, {"error": "Could not find"}),
        Reply(302, "", {"Location": "/login"}),
        Reply(cut="request read"),
        Reply(delay=6.0),
        Reply(payload="<html>"),
        Reply(payload=[]),
        Reply(payload={"id": "the-id", "createdAt": "t"}),
        Reply(payload=state("READY", sessionKey=None)),
    ],
)
@pytest.mark.parametrize("max_retry", [0, 1])
@virtual_clock
async def test_a_poll_that_fails_for_a_moment_does_not_end_the_wait(
    fault: Reply, max_retry: int
) -> None:
    script = [fault, Reply(payload=state("NOT_READY")), fault]
    if fault.status == 404:
        script.pop()
    async with runway(*script, max_retry=max_retry) as (server, client):
        assert isinstance(await client.wait_until_ready("the-id"), Ready)
        assert len(server.seen) == len(script) + 1


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "Bad", e.RequestRejectedError),
        (401, "No key", e.AuthenticationError),
        (403, "No", e.ForbiddenError),
        (410, "Gone", e.RequestRejectedError),
        (429, "daily limit", e.QuotaError),
    ],
)
@virtual_clock
async def test_a_poll_that_is_refused_for_good_ends_the_wait(
    status: int, text: str, kind: type[e.RequestError]
) -> None:
    script = [Reply(payload=state("NOT_READY")), Reply(status, {"error": text})]
    async with runway(*script) as (server, client):
        with pytest.raises(kind):
            await client.wait_until_ready("the-id")
        assert len(server.seen) == 2


@virtual_clock
async def test_a_session_that_runway_does_not_know_for_seconds_ends_the_wait() -> None:
    async with runway(*[Reply(404, {"error": "Could not find"})] * 99) as (_, client):
        with pytest.raises(e.NotFoundError):
            await client.wait_until_ready("the-id")
        assert 5.0 <= asyncio.get_running_loop().time() < 7.0


@virtual_clock
async def test_where_only_the_last_polls_fail_the_wait_tells_why() -> None:
    script = [Reply(payload=state("NOT_READY"))] * 3 + [Reply(500, {"error": "oops"})] * 99
    async with runway(*script) as (_, client):
        with pytest.raises(e.ServerError, match="oops"):
            await client.wait_until_ready("the-id", timeout=8.0)
        assert asyncio.get_running_loop().time() == pytest.approx(8.0)


@pytest.mark.parametrize("status", ["PROVISIONING", "STARTING_UP", "", "x" * 99])
@virtual_clock
async def test_a_status_that_is_not_known_is_waited_out_with_one_warning(
    status: str, caplog: pytest.LogCaptureFixture
) -> None:
    script = [Reply(payload=state(status))] * 5
    async with runway(*script) as (server, client):
        assert isinstance(await client.wait_until_ready("the-id"), Ready)
        assert len(server.seen) == 6
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert vars(record)["status"] == status[:40]


@virtual_clock
async def test_a_status_that_stays_unknown_is_named_when_the_time_is_over() -> None:
    async with runway(*[Reply(payload=state("PAUSED"))] * 99) as (_, client):
        with pytest.raises(e.SessionNotReadyError, match=r"'PAUSED' is not known.*newer") as caught:
            await client.wait_until_ready("the-id", timeout=8.0)
        assert caught.value.session_id == "the-id"
        assert asyncio.get_running_loop().time() == pytest.approx(8.0)


@virtual_clock
async def test_a_worker_that_joins_by_itself_needs_no_key() -> None:
    async with runway(Reply(payload={"status": "ready"})) as (_, client):
        assert isinstance(await client.wait_until_under_way("the-id"), Ready)


@virtual_clock
async def test_a_failure_without_a_code_is_a_failure() -> None:
    async with runway(Reply(payload={"status": "FAILED", "failure": None})) as (_, client):
        with pytest.raises(e.SessionFailedError, match=r"FAILED.*\(no failure code\)\.") as caught:
            await client.wait_until_ready("the-id")
        assert (caught.value.failure, caught.value.failure_code) == ("", "")


# -- cancellation --


@virtual_clock
async def test_a_create_that_is_cancelled_before_its_answer_is_deleted_after_it() -> None:
    async with runway(Reply(payload={"id": "late"}, delay=4.0)) as (server, client):
        create = asyncio.create_task(client.create(REQUEST))
        await asyncio.sleep(1)
        create.cancel()
        with pytest.raises(asyncio.CancelledError):
            await create
        assert client.pending_creates == 1
        assert asyncio.get_running_loop().time() < 2
        assert await client.aclose() == []
        assert client.pending_creates == 0
        assert server.deleted == ["late"]


@virtual_clock
async def test_a_create_that_is_cancelled_between_attempts_sends_nothing_more() -> None:
    async with runway(Reply(503), max_retry=5) as (server, client):
        create = asyncio.create_task(client.create(REQUEST))
        await asyncio.sleep(0.5)
        create.cancel()
        await asyncio.wait({create})
        assert await client.aclose(60) == []
        await asyncio.sleep(60)
        assert len(server.seen) == 1


@virtual_clock
async def test_a_refusal_that_comes_after_cancellation_is_not_repeated() -> None:
    async with runway(Reply(503, delay=2.0), max_retry=5) as (server, client):
        create = asyncio.create_task(client.create(REQUEST))
        await asyncio.sleep(1)
        create.cancel()
        await asyncio.wait({create})
        assert await client.aclose(60) == []
        assert len(server.seen) == 1


async def test_whatever_the_moment_of_cancellation_no_session_is_left() -> None:
    cancelled = answered = 0
    for steps in range(60):
        async with runway() as (server, client):
            create = asyncio.create_task(client.create(REQUEST))
            for _ in range(steps):
                await asyncio.sleep(0)
            create.cancel()
            await asyncio.wait({create})
            assert await client.aclose() == []
            assert client.pending_creates == 0
            if create.cancelled():
                cancelled += 1
                assert server.created == server.deleted
            else:
                answered += 1
                assert server.created == [create.result()]
                assert server.deleted == []
    assert cancelled > 5
    assert answered > 0


@virtual_clock
async def test_a_cancelled_create_that_fails_leaves_no_trace_but_a_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with runway(Reply(delay=2.0, cut="request read")) as (_, client):
        create = asyncio.create_task(client.create(REQUEST))
        await asyncio.sleep(1)
        create.cancel()
        await asyncio.wait({create})
        assert await client.aclose() == []
    assert "the answer to an abandoned Runway create was lost" in caplog.messages


@pytest.mark.parametrize(
    "reply", [Reply(500, {"error": KEY}), Reply(delay=99.0), Reply(503)], ids=["500", "slow", "503"]
)
@virtual_clock
async def test_a_session_that_could_not_be_ended_is_named_with_what_to_do(
    reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    async with runway(Reply(payload={"id": "late"}, delay=2.0)) as (server, client):
        server.delete_script.extend([reply] * 20)
        create = asyncio.create_task(client.create(REQUEST))
        await asyncio.sleep(1)
        create.cancel()
        await asyncio.wait({create})
        assert await client.aclose(timeout=6.0) == ["late"]
        assert asyncio.get_running_loop().time() <= 8
        assert await client.aclose() == ["late"]
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "DELETE /v1/realtime_sessions/<id>" in record.getMessage()
    assert vars(record)["lk.pii.session_id"] == "late"
    assert KEY not in repr(vars(record))


async def create_and_close(client: RunwayClient, left: list[str]) -> None:
    try:
        await client.create(REQUEST)
    except asyncio.CancelledError:
        left.extend(await client.aclose(timeout=0))
        raise


async def test_closing_without_time_still_accounts_for_every_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    named = unknown = 0
    for steps in range(40):
        caplog.clear()
        async with runway() as (server, client):
            left: list[str] = []
            caller = asyncio.create_task(create_and_close(client, left))
            for _ in range(steps):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait({caller})
            if not caller.cancelled():
                continue
            assert client.pending_creates == 0
            lost = any("whose id is unknown" in message for message in caplog.messages)
            accounted = {*left, *server.deleted}
            assert lost or accounted == set(server.created)
            named, unknown = named + bool(left), unknown + lost
    assert named
    assert unknown


@virtual_clock
async def test_closing_gives_up_a_create_without_an_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with runway(*[Reply(delay=99.0)] * 2) as (_, client):
        awaited = asyncio.create_task(client.create(REQUEST))
        abandoned = asyncio.create_task(client.create(REQUEST))
        await asyncio.sleep(1)
        abandoned.cancel()
        await asyncio.wait({abandoned})
        assert client.pending_creates == 2
        assert await client.aclose(timeout=3.0) == []
        assert asyncio.get_running_loop().time() == pytest.approx(4.0)
        assert client.pending_creates == 0
        with pytest.raises(e.LostAnswerError, match="closed"):
            await awaited
    assert any("given up" in message for message in caplog.messages)


# -- HTTP sessions --


async def test_a_given_session_is_used_and_not_closed() -> None:
    async with runway() as (server, own), aiohttp.ClientSession() as http:
        await own.aclose()
        for given in (http, lambda: http):
            client = RunwayClient(KEY, base_url=server.url, http_session=given)
            await client.get("the-id")
            await client.aclose()
            assert not http.closed
        assert len(server.seen) == 2


async def test_a_session_can_be_ended_after_the_given_http_session_was_closed() -> None:
    async with runway() as (server, own), aiohttp.ClientSession() as http:
        await own.aclose()
        client = RunwayClient(KEY, base_url=server.url, http_session=http)
        await http.close()
        await client.delete("the-id")
        await client.aclose()
        assert server.deleted == ["the-id"]


async def test_a_session_that_brings_another_authorization_is_refused() -> None:
    auth = aiohttp.BasicAuth("user", "pass-word")
    async with runway() as (server, own), aiohttp.ClientSession(auth=auth) as http:
        await own.aclose()
        with pytest.raises(e.ConfigurationError, match="auth=") as caught:
            RunwayClient(KEY, base_url=server.url, http_session=http)
        assert "pass-word" not in str(caught.value)
        client = RunwayClient(KEY, base_url=server.url, http_session=lambda: http)
        await client.prewarm()
        with pytest.raises(e.ConfigurationError, match="auth="):
            await client.get("the-id")
        assert server.seen == []


async def test_a_session_that_cannot_be_had_is_a_configuration_error() -> None:
    def outside_of_a_job() -> aiohttp.ClientSession:
        raise RuntimeError("no job")

    client = RunwayClient(KEY, http_session=outside_of_a_job)
    await client.prewarm()
    for call in CALLS.values():
        with pytest.raises(e.ConfigurationError, match=r"no job\).*http_session"):
            await call(client)
    await client.aclose()


async def test_what_aiohttp_refuses_to_send_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with runway() as (server, _), aiohttp.ClientSession() as http:

        def refuse(*_: object, **__: object) -> object:
            raise ValueError(f"Cannot combine {KEY} with that")

        monkeypatch.setattr(http, "request", refuse)
        odd = RunwayClient(KEY, base_url=server.url, http_session=http)
        with pytest.raises(e.ConfigurationError, match="Cannot combine") as caught:
            await odd.create(REQUEST)
        assert KEY not in str(caught.value)
        assert server.seen == []


async def test_a_closed_client_opens_nothing_again() -> None:
    async with runway() as (server, client):
        await client.get("the-id")
        await asyncio.gather(client.aclose(), client.aclose())
        with pytest.raises(e.ConfigurationError, match="closed"):
            await client.get("the-id")
        assert len(server.seen) == 1


# -- arguments and secrets --


@pytest.mark.parametrize("secret", ["", " \n", "key 1", "ключ", "key\n1"])
def test_a_key_that_cannot_be_one_is_refused_without_naming_it(secret: str) -> None:
    with pytest.raises(e.ConfigurationError) as caught:
        RunwayClient(secret)
    assert not secret.strip() or secret not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "does not begin"),
        ("api.dev.runwayml.com", "does not begin"),
        ("127.0.0.1:1", "does not begin"),
        ("ftp://h", "does not begin"),
        ("https://", "does not begin"),
        ("https://:443", "a host or a port that cannot be"),
        ("https://h?a", "a query"),
        ("https://h?", "a query"),
        ("https://h#a", "a fragment"),
        ("https://a..b", "a host or a port that cannot be"),
        (f"https://{'a' * 64}.com", "a host or a port that cannot be"),
        ("https://h:99999", "a host or a port that cannot be"),
        ("https://h:port", "a host or a port that cannot be"),
        ("https://[bad", "is no address"),
        ("https://exa mple.com", "a blank"),
        ("https://h/\nx", "a control character"),
        ("https://user:pass-word@h", "a password"),
        ("https://user:pass-word", "a host or a port that cannot be"),
    ],
)
def test_a_base_url_that_cannot_be_one_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(e.ConfigurationError, match=f"base URL .*{why}") as caught:
        RunwayClient(KEY, base_url=url)
    assert "RUNWAYML_BASE_URL" in str(caught.value)
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://h/", " https://h", "https://h\n", "https://h/ ", "https://h//"]
)
def test_blanks_and_slashes_around_a_base_url_do_no_harm(url: str) -> None:
    assert RunwayClient(KEY, base_url=url).base_url == "https://h"


@pytest.mark.parametrize(
    "url", ["http://[::1]:1", "HTTPS://H:1/x", "http://127.0.0.1:8080", "https://m\u00fcnchen.de"]
)
def test_any_address_of_a_service_is_taken(url: str) -> None:
    assert RunwayClient(KEY, base_url=url).base_url == url


def test_the_default_host_is_runways() -> None:
    assert RunwayClient(KEY).base_url == DEFAULT_BASE_URL == "https://api.dev.runwayml.com"
    assert RunwayClient(KEY, base_url="http://h:1/").base_url == "http://h:1"


@each_call
@pytest.mark.parametrize(
    "reply",
    [
        Reply(400, {"error": f"bad {KEY} {TOKEN} {SESSION_KEY}", "echo": [KEY, TOKEN]}),
        Reply(401, f"<html>{KEY} {TOKEN} {SESSION_KEY}</html>"),
        Reply(503, {"error": KEY, "issues": [{"message": TOKEN, "path": [SESSION_KEY]}]}),
        Reply(200, f"{KEY} {TOKEN} {SESSION_KEY}"),
        Reply(cut="request read"),
    ],
    ids=["400", "401", "503", "200", "cut"],
)
@virtual_clock
async def test_no_secret_of_a_call_is_in_its_error_or_in_the_log(
    name: str, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="livekit.plugins.runway_bridge")
    secrets = {"create": (KEY, TOKEN), "consume": (SESSION_KEY,)}.get(name, (KEY,))
    async with runway(max_retry=1) as (server, client):
        fail_with(server, reply, reply)
        text = repr(client)
        try:
            await CALLS[name](client)
        except e.RunwayException as error:
            chain: BaseException | None = error
            while chain is not None:
                text += f"{chain} {chain!r} {vars(chain)}"
                chain = chain.__cause__ or chain.__context__
        text += "".join(repr(vars(record)) for record in caplog.records)
        assert not [secret for secret in secrets if secret in text]


# -- any other call --


async def test_a_request_goes_out_with_its_query_and_body_and_returns_what_came() -> None:
    async with runway(Reply(payload={"a": 1}), Reply(204), Reply(payload=[])) as (server, client):
        assert await client.request("GET", "/v1/things", query={"cursor": "a b"}) == {"a": 1}
        assert await client.request("PATCH", "/v1/things/1", body={"b": 2}) is None
        await client.request("POST", "/v1/things")
        assert [seen.body for seen in server.seen] == [b"", b'{"b": 2}', b"{}"]
        assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
        assert server.seen[1].headers["Content-Type"] == "application/json"


@virtual_clock
async def test_a_request_that_may_have_been_done_is_not_repeated_and_one_that_reads_is() -> None:
    cut = Reply(cut="request read")
    async with runway(cut, Reply(payload={})) as (server, client):
        assert await client.request("GET", "/v1/things") == {}
        assert len(server.seen) == 2
    async with runway(cut) as (server, client):
        with pytest.raises(e.LostAnswerError, match="may have done what was asked"):
            await client.request("POST", "/v1/things", body={})
        assert len(server.seen) == 1


async def test_a_request_for_what_is_not_there_says_whose_it_may_be() -> None:
    async with runway(Reply(404, {"error": "Could not find Voice"})) as (_, client):
        with pytest.raises(e.NotFoundError, match="belongs to another project"):
            await client.request("GET", "/v1/voices/x")
