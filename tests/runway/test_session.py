"""The life of one Runway session, against the REST side of the simulator alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from livekit.agents import APIConnectOptions

from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import CreateRealtimeSession, PresetAvatar
from livekit_plugins_runway.runway.session import RealtimeSession, SessionState
from livekit_plugins_runway.testing import (
    CallFault,
    Faults,
    RunwaySimulator,
    SessionStatus,
    SimulatorOptions,
)

REQUEST = CreateRealtimeSession(avatar=PresetAvatar(preset_id="influencer"))


@asynccontextmanager
async def created(
    **options: Any,
) -> AsyncIterator[tuple[RealtimeSession, RunwaySimulator]]:
    quick = {"queue_delay": 0.0, "provisioning_delay": 0.05}
    async with RunwaySimulator(options=SimulatorOptions(**{**quick, **options})) as simulator:
        client = RunwayClient(
            simulator.api_secret,
            base_url=simulator.url,
            conn_options=APIConnectOptions(max_retry=0, timeout=5.0),
        )
        try:
            session = RealtimeSession(client, REQUEST)
            await session.create()
            yield session, simulator
        finally:
            await client.aclose()


async def goodbye() -> bool:
    return True


async def test_a_worker_that_leaves_after_goodbye_confirms_the_end_without_a_delete() -> None:
    async with created() as (session, simulator):
        gone = asyncio.Event()

        async def say_goodbye() -> bool:
            gone.set()
            return True

        end = await session.end(say_goodbye=say_goodbye, worker_gone=gone, budget=3.0)
        assert (end.how, end.confirmed, end.session_id) == ("worker left", True, session.id)
        assert [r.method for r in simulator.requests if r.method == "DELETE"] == []


@pytest.mark.slow
async def test_a_goodbye_that_nobody_heeds_is_followed_by_a_delete() -> None:
    async with created() as (session, simulator):
        end = await session.end(say_goodbye=goodbye, worker_gone=asyncio.Event(), budget=2.0)
        assert (end.how, end.confirmed) == ("deleted", True)
        assert simulator.leaked() == []


@pytest.mark.slow
async def test_a_delete_that_fails_is_repeated_within_the_budget() -> None:
    faults = Faults(delete=[503, CallFault(cut="before_effect")])
    async with created(faults=faults) as (session, simulator):
        end = await session.end(budget=5.0)
        assert (end.how, end.confirmed) == ("deleted", True)
        assert len([r for r in simulator.requests if r.method == "DELETE"]) >= 2
        assert simulator.leaked() == []


async def test_an_end_that_cannot_be_confirmed_says_how_to_do_it_by_hand(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with created(faults=Faults(delete=[503] * 50)) as (session, _):
        end = await session.end(budget=1.0)
        assert (end.how, end.confirmed) == ("unconfirmed", False)
        (line,) = [r for r in caplog.records if "by hand" in r.getMessage()]
        assert "DELETE /v1/realtime_sessions/" in line.getMessage()
        assert session.id not in line.getMessage()


async def test_everyone_who_ends_a_session_shares_one_end_that_no_one_can_cancel() -> None:
    async with created() as (session, simulator):
        first = asyncio.create_task(session.end(budget=3.0))
        await asyncio.sleep(0)
        first.cancel()
        ends = await asyncio.gather(session.end(), session.end())
        assert ends[0] is ends[1]
        assert len([r for r in simulator.requests if r.method == "DELETE"]) == 1
        assert session.state is SessionState.ENDED


async def test_a_session_that_runway_has_ended_is_noticed() -> None:
    async with created(consumed_running_delay=0.0) as (session, simulator):
        ready = await session.wait_until_ready(5.0)
        await session.consume(ready)
        watching = asyncio.create_task(session.wait_until_ended(0.02))
        running = await simulator.wait_for(session.id, SessionStatus.RUNNING, 5.0)
        running.hit_cap()
        async with asyncio.timeout(5.0):
            assert (await watching).status == "COMPLETED"
        end = await session.end(worker_gone=None, budget=3.0)
        assert (end.how, end.status) == ("already ended", "COMPLETED")


async def test_a_state_is_never_left_backwards() -> None:
    async with created() as (session, _):
        with pytest.raises(RuntimeError, match="created to created"):
            session._move_to(SessionState.CREATED)
        await session.end(budget=3.0)
