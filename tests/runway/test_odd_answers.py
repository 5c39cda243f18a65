"""The real client over sockets, against a simulated Runway whose answers are not as published."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from livekit.agents import APIConnectOptions

from livekit_plugins_runway import errors as e
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import (
    Completed,
    CreateRealtimeSession,
    PresetAvatar,
    Unknown,
)
from livekit_plugins_runway.testing import (
    CallFault,
    Faults,
    RunwaySimulator,
    SessionStatus,
    SimulatorOptions,
)

pytestmark = pytest.mark.sampled

REQUEST = CreateRealtimeSession(avatar=PresetAvatar(preset_id="influencer"))
DEEP = "[" * 50_000


@asynccontextmanager
async def runway(faults: Faults) -> AsyncIterator[tuple[RunwaySimulator, RunwayClient]]:
    options = SimulatorOptions(queue_delay=0.0, provisioning_delay=0.05, faults=faults)
    async with RunwaySimulator(options=options) as simulator:
        client = RunwayClient(
            simulator.api_secret,
            base_url=simulator.url,
            conn_options=APIConnectOptions(max_retry=0, timeout=5.0),
        )
        try:
            yield simulator, client
        finally:
            await client.aclose()


async def test_a_create_whose_id_is_a_number_makes_one_session_that_can_be_ended() -> None:
    async with runway(Faults(create=[CallFault(changes={"id": 7})])) as (simulator, client):
        assert await client.create(REQUEST) == "7"
        assert len(simulator.sessions) == 1


@pytest.mark.parametrize(
    "fault",
    [
        CallFault(changes={"status": "PROVISIONING"}),
        CallFault(changes={"status": "not_ready", "queued": None}),
        CallFault(without=["id", "createdAt", "status"]),
        CallFault(changes={"id": None, "createdAt": 1_700_000_000, "expiresAt": None}),
        CallFault(status=500),
        CallFault(status=404),
        CallFault(status=408, endless=True),
        CallFault(cut="before_effect"),
        CallFault(malformed=True),
        CallFault(body=DEEP),
        CallFault(status=500, body=DEEP),
        CallFault(endless=True),
    ],
)
async def test_an_odd_answer_to_a_poll_does_not_give_the_session_up(fault: CallFault) -> None:
    async with runway(Faults(get=[fault])) as (simulator, client):
        session_id = await client.create(REQUEST)
        ready = await client.wait_until_ready(session_id, timeout=10.0)
        assert ready.session_key.get_secret_value() == simulator.sessions[session_id].session_key


async def test_a_session_that_fails_without_a_reason_is_told_as_failed() -> None:
    faults = Faults(
        fail_while_provisioning="INTERNAL",
        get=[CallFault(without=["failure", "failureCode"])] * 99,
    )
    async with runway(faults) as (_, client):
        session_id = await client.create(REQUEST)
        with pytest.raises(e.SessionFailedError) as caught:
            await client.wait_until_ready(session_id, timeout=10.0)
        assert caught.value.failure_code == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "duration"),
    [
        (CallFault(changes={"duration": 315.4}), 315.4),
        (CallFault(changes={"duration": None}), None),
        (CallFault(without=["duration"]), None),
    ],
)
async def test_a_session_has_ended_whatever_its_duration_looks_like(
    fault: CallFault, duration: float | None
) -> None:
    async with runway(Faults()) as (simulator, client):
        session_id = await client.create(REQUEST)
        ready = await client.wait_until_ready(session_id, timeout=10.0)
        await client.consume(session_id, ready.session_key.get_secret_value())
        session = simulator.sessions[session_id]
        await simulator.wait_for(session, SessionStatus.RUNNING, 10.0)
        session.hit_cap()
        session.faults = Faults(get=[fault])
        state = await client.get(session_id)
        assert isinstance(state, Completed)
        assert state.duration == duration


async def test_credentials_are_taken_without_the_name_of_the_room() -> None:
    async with runway(Faults(consume=[CallFault(without=["roomName"])])) as (_, client):
        session_id = await client.create(REQUEST)
        ready = await client.wait_until_ready(session_id, timeout=10.0)
        credentials = await client.consume(session_id, ready.session_key.get_secret_value())
        assert credentials.token.get_secret_value()


async def test_a_body_without_an_end_is_an_error_of_ours_and_a_delete_that_was_done() -> None:
    endless = CallFault(endless=True)
    async with runway(Faults(get=[endless], delete=[endless])) as (simulator, client):
        session_id = await client.create(REQUEST)
        with pytest.raises(e.ProtocolError, match="longer than 1 MiB"):
            await client.get(session_id)
        await client.delete(session_id)
        assert simulator.leaked() == []


async def test_a_deep_error_to_a_create_is_a_refusal() -> None:
    faults = Faults(create=[CallFault(status=500, body=DEEP), CallFault(status=400, body="{" * 9)])
    async with runway(faults) as (simulator, client):
        with pytest.raises(e.ServerError):
            await client.create(REQUEST)
        with pytest.raises(e.RequestRejectedError):
            await client.create(REQUEST)
        assert simulator.leaked() == []


async def test_a_status_of_a_new_kind_is_no_end() -> None:
    odd = [CallFault(changes={"status": "DRAINING"}), CallFault(body=json.dumps({"status": "x"}))]
    async with runway(Faults(get=odd)) as (_, client):
        session_id = await client.create(REQUEST)
        assert isinstance(await client.get(session_id), Unknown)
        assert isinstance(await client.get(session_id), Unknown)
        assert not isinstance(await client.get(session_id), Unknown)
