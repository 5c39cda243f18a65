"""How one Runway session is ended and what is known of it then, on a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from livekit.agents import APIConnectOptions

from livekit_plugins_runway.events import SessionEnd
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import CreateRealtimeSession, PresetAvatar
from livekit_plugins_runway.runway.session import RealtimeSession, SessionState
from tests.support.scripted_runway import Reply, ScriptedRunway, state
from tests.support.virtual_clock import virtual_clock

REQUEST = CreateRealtimeSession(avatar=PresetAvatar(preset_id="influencer"))
RUNNING = Reply(payload=state("RUNNING"))
CANCELLED = Reply(payload=state("CANCELLED"))
DOWN = Reply(500, {"error": "down"})


def completed(seconds: int) -> Reply:
    return Reply(payload=state("COMPLETED", duration=seconds))


def now() -> float:
    return asyncio.get_running_loop().time()


class Life:
    def __init__(self, session: RealtimeSession, runway: ScriptedRunway) -> None:
        self.session = session
        self.runway = runway
        self.said_goodbye_at: float | None = None
        self.gone = asyncio.Event()

    def asked(self, method: str) -> list[float]:
        """When Runway was asked."""
        return [round(seen.at, 2) for seen in self.runway.asked(method)]

    async def goodbye(self) -> bool:
        self.said_goodbye_at = now()
        return True

    async def no_goodbye(self) -> bool:
        return False

    async def use(self) -> None:
        """Until the worker has joined."""
        ready = await self.session.wait_until_ready(5.0)
        await self.session.consume(ready)
        self.session.worker_joined()
        self.runway.seen.clear()

    async def end(
        self, goodbye: Callable[[], Awaitable[bool]] | None, *, budget: float = 7.0
    ) -> tuple[SessionEnd, float]:
        """The end, and the seconds it took."""
        began = now()
        end = await self.session.end(say_goodbye=goodbye, worker_gone=self.gone, budget=budget)
        return end, now() - began


@asynccontextmanager
async def created() -> AsyncIterator[Life]:
    runway = ScriptedRunway()
    async with runway.running():
        client = RunwayClient(
            "key_1",
            base_url=runway.url,
            conn_options=APIConnectOptions(max_retry=0, timeout=5.0),
            jitter=lambda: 0.0,
        )
        try:
            session = RealtimeSession(client, REQUEST)
            await session.create()
            yield Life(session, runway)
        finally:
            await client.aclose()


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A wall clock that a test sets."""
    clock = SimpleNamespace(now=1000.0)
    clock.time = lambda: clock.now
    monkeypatch.setattr("livekit_plugins_runway.runway.session.time", clock)
    return clock


# -- its states and times --


@virtual_clock
async def test_a_session_goes_through_its_states_in_order_and_notes_when(
    wall: SimpleNamespace,
) -> None:
    async with created() as life:
        session = life.session
        states = [session.state]
        assert session.id == life.runway.created[0]
        wall.now = 1001.0
        ready = await session.wait_until_ready(5.0)
        states.append(session.state)
        wall.now = 1002.0
        credentials = await session.consume(ready)
        states.append(session.state)
        assert credentials.token.get_secret_value() == "room-token"
        (consume,) = [seen for seen in life.runway.seen if seen.path.endswith("/consume")]
        assert consume.headers["Authorization"] == "Bearer stk_session-key"
        assert consume.path == f"/v1/realtime_sessions/{session.id}/consume"
        wall.now = 1003.0
        session.worker_joined()
        assert session.times.consumed == 1002.0
        wall.now = 1045.5
        life.gone.set()
        ending = asyncio.create_task(life.end(life.goodbye))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        states.append(session.state)
        end, _ = await ending
        states.append(session.state)
        assert states == [
            SessionState.CREATED,
            SessionState.READY,
            SessionState.CONSUMED,
            SessionState.ENDING,
            SessionState.ENDED,
        ]
        assert (end.created_at, end.ready_at, end.started_at) == (1000.0, 1001.0, 1003.0)
        assert end.ended_at == session.times.ended == 1045.5


@virtual_clock
async def test_a_worker_that_joins_by_itself_makes_the_session_ready(
    wall: SimpleNamespace,
) -> None:
    async with created() as life:
        life.runway.script.append(RUNNING)
        wall.now = 1004.0
        await life.session.wait_until_under_way(5.0)
        assert life.session.state is SessionState.READY
        assert life.session.times.ready == 1004.0


# -- how it is ended --


@virtual_clock
async def test_after_goodbye_a_terminal_status_is_as_good_as_the_worker_leaving() -> None:
    async with created() as life:
        await life.use()
        life.runway.script += [RUNNING, completed(33)]
        end, took = await life.end(life.goodbye)
        assert (end.how, end.confirmed, end.status) == ("end call", True, "COMPLETED")
        assert (end.billed_seconds, end.estimated) == (33.0, False)
        assert took == pytest.approx(1.0, abs=0.05)  # looked at each half second
        assert life.asked("DELETE") == []


@virtual_clock
async def test_the_worker_leaving_after_goodbye_confirms_the_end_at_once() -> None:
    async with created() as life:
        await life.use()
        life.runway.script += [RUNNING, RUNNING]
        asyncio.get_running_loop().call_later(0.7, life.gone.set)
        end, took = await life.end(life.goodbye)
        assert (end.how, end.confirmed, end.status) == ("worker left", True, None)
        assert took == pytest.approx(0.7, abs=0.05)
        assert life.asked("DELETE") == []


@virtual_clock
async def test_a_goodbye_that_is_not_heeded_leaves_enough_of_the_budget_for_deletes() -> None:
    async with created() as life:
        await life.use()
        life.runway.script += [RUNNING] * 20
        began = now()
        end, took = await life.end(life.goodbye, budget=10.0)
        assert (end.how, end.confirmed, end.status) == ("deleted", True, None)
        assert [at - began for at in life.asked("DELETE")] == [pytest.approx(6.0, abs=0.05)]
        assert took == pytest.approx(6.0, abs=0.05)


@virtual_clock
async def test_a_worker_that_was_gone_before_has_ended_nothing_unless_runway_says_so() -> None:
    for reply, how in ((completed(20), "already ended"), (RUNNING, "deleted"), (DOWN, "deleted")):
        async with created() as life:
            await life.use()
            life.gone.set()
            life.runway.script.append(reply)
            end, took = await life.end(life.goodbye)
            assert end.how == how
            assert life.said_goodbye_at is None
            assert took < (0.1 if how == "already ended" else 0.6)


@virtual_clock
async def test_where_no_goodbye_can_be_sent_runway_is_asked_before_it_is_told() -> None:
    for reply, how in ((CANCELLED, "already ended"), (RUNNING, "deleted")):
        async with created() as life:
            await life.use()
            life.runway.script.append(reply)
            end, _ = await life.end(life.no_goodbye)
            assert end.how == how
            assert len(life.asked("GET")) == 1
            assert len(life.asked("DELETE")) == (how == "deleted")


@pytest.mark.parametrize("known_by", ["consumed", "running"])
@virtual_clock
async def test_what_was_used_is_asked_for_its_end_and_what_was_not_is_deleted_at_once(
    known_by: str,
) -> None:
    async with created() as life:
        end, _ = await life.end(None)
        assert (end.how, life.asked("GET")) == ("deleted", [])
    async with created() as life:
        setattr(life.session.times, known_by, 1.0)
        life.runway.script.append(completed(9))
        end, _ = await life.end(None)
        assert (end.how, end.status) == ("already ended", "COMPLETED")


@virtual_clock
async def test_a_delete_is_repeated_each_half_second_as_long_as_there_is_time() -> None:
    async with created() as life:
        life.runway.delete_script += [DOWN] * 20
        end, took = await life.end(None, budget=2.2)
        assert (end.how, end.confirmed) == ("unconfirmed", False)
        assert life.asked("DELETE") == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0], abs=0.05)
        assert took <= 2.2


@pytest.mark.parametrize("status", [429, 503])
@virtual_clock
async def test_a_delete_that_runway_asks_to_wait_for_is_repeated_before_the_budget_ends(
    status: int,
) -> None:
    async with created() as life:
        life.runway.delete_script.append(Reply(status, {}, {"Retry-After": "10"}))
        end, took = await life.end(None)
        assert (end.how, end.confirmed) == ("deleted", True)
        assert life.asked("DELETE") == pytest.approx([0.0, 6.0], abs=0.05)
        assert took <= 7.0


@virtual_clock
async def test_however_long_it_is_asked_to_wait_an_end_keeps_to_its_budget() -> None:
    async with created() as life:
        life.runway.delete_script += [Reply(429, {}, {"Retry-After": "10"})] * 9
        end, took = await life.end(None)
        assert (end.how, end.confirmed) == ("unconfirmed", False)
        assert len(life.asked("DELETE")) >= 2
        assert took <= 7.0


@virtual_clock
async def test_a_delete_without_an_answer_ends_with_the_budget() -> None:
    async with created() as life:
        life.runway.delete_script.append(Reply(204, delay=60.0))
        end, took = await life.end(None, budget=3.0)
        assert end.how == "unconfirmed"
        assert took == pytest.approx(3.0, abs=0.05)


@virtual_clock
async def test_without_a_budget_given_the_end_takes_seven_seconds_at_most() -> None:
    async with created() as life:
        await life.use()
        life.runway.script += [RUNNING] * 20
        life.runway.delete_script += [DOWN] * 20
        began = now()
        end = await life.session.end(say_goodbye=life.goodbye, worker_gone=life.gone)
        assert end.how == "unconfirmed"
        assert 6.0 < now() - began <= 7.0


@virtual_clock
async def test_the_end_of_a_session_may_follow_its_workers_leaving() -> None:
    async with created() as life:
        await life.use()
        life.gone.set()
        life.runway.script += [RUNNING, RUNNING, completed(42)]
        end, took = await life.end(life.goodbye)
        assert (end.how, end.status, end.billed_seconds) == ("already ended", "COMPLETED", 42.0)
        assert life.said_goodbye_at is None
        assert life.asked("DELETE") == []
        assert took <= 0.6


# -- what it cost --


@virtual_clock
async def test_without_runways_figure_it_is_billed_from_when_the_worker_came(
    wall: SimpleNamespace,
) -> None:
    for jump in (0.0, -3600.0, 3600.0):  # the machine's clock is set in the call
        async with created() as life:
            await life.use()
            await asyncio.sleep(42.0)
            wall.now += 42.0 + jump
            end, _ = await life.end(None)
            assert end.estimated
            assert end.billed_seconds == pytest.approx(42.0, abs=0.1)
            assert end.started_at is not None
            assert end.ended_at - end.started_at == 42.0 + jump  # as the machine told it


@pytest.mark.parametrize("told", [None, -5, "soon"])
@virtual_clock
async def test_an_end_is_an_end_where_runway_does_not_say_how_long_it_was(told: object) -> None:
    ended = Reply(payload={"status": "COMPLETED", "duration": told})
    async with created() as life:
        await life.use()
        await asyncio.sleep(20.0)
        life.runway.script.append(ended)
        assert (await life.session.wait_until_ended()).status == "COMPLETED"
        life.runway.script.append(ended)
        end, _ = await life.end(None)
        assert (end.how, end.status, end.estimated) == ("already ended", "COMPLETED", True)
        assert end.billed_seconds == pytest.approx(30.0, abs=0.1)
        life.runway.script.append(ended)
        settled = await life.session.settled(end, 20.0)
        assert settled == end


@virtual_clock
async def test_a_session_whose_worker_never_came_is_estimated_at_nothing() -> None:
    async with created() as life:
        end, _ = await life.end(None)
        assert (end.billed_seconds, end.estimated, end.started_at) == (0.0, True, None)


@virtual_clock
async def test_runways_figure_comes_some_seconds_later_and_replaces_the_estimate() -> None:
    async with created() as life:
        await life.use()
        end, _ = await life.end(None)
        began = now()
        life.runway.script += [RUNNING, DOWN, completed(12)]
        settled = await life.session.settled(end, 20.0)
        assert settled is not None
        assert (settled.status, settled.billed_seconds) == ("COMPLETED", 12.0)
        assert settled.estimated is False
        assert (settled.how, settled.session_id) == (end.how, end.session_id)
        assert now() - began == pytest.approx(9.0, abs=0.05)  # asked each third second


@pytest.mark.parametrize("last", [RUNNING, CANCELLED])
@virtual_clock
async def test_a_figure_that_does_not_come_is_not_waited_for_beyond_the_time_given(
    last: Reply,
) -> None:
    async with created() as life:
        await life.use()
        end, _ = await life.end(None)
        began = now()
        life.runway.script += [last] * 10
        assert await life.session.settled(end, 7.0) is None
        assert now() - began <= 7.05


# -- watching it --


@virtual_clock
async def test_a_session_is_looked_at_every_ten_seconds_and_trouble_with_asking_is_no_end() -> None:
    async with created() as life:
        began = now()
        life.runway.script += [RUNNING, DOWN, Reply(payload="no json"), completed(40)]
        assert (await life.session.wait_until_ended()).status == "COMPLETED"
        assert now() - began == pytest.approx(40.0, abs=0.1)


@virtual_clock
async def test_a_session_that_goes_on_though_its_worker_was_seen_to_leave_is_deleted() -> None:
    async with created() as life:
        await life.use()
        asyncio.get_running_loop().call_later(0.7, life.gone.set)
        end, _ = await life.end(life.goodbye)
        assert end.how == "worker left"
        assert life.asked("DELETE") == []
        life.runway.script += [RUNNING] * 10
        settled = await life.session.settled(end, 20.0)
        assert len(life.asked("DELETE")) == 1
        assert settled is not None
        assert (settled.how, settled.estimated) == ("deleted", True)
        assert settled.billed_seconds == pytest.approx(end.billed_seconds + 20.0, abs=0.1)
