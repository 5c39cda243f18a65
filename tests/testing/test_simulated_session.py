"""The life of a simulated Runway session, in virtual time."""

from __future__ import annotations

import asyncio

from livekit_plugins_runway.testing import Faults, SessionStatus, SimulatedSession, SimulatorOptions
from livekit_plugins_runway.testing.faults import FaultPlan
from livekit_plugins_runway.testing.worker.face import Face
from tests.support.virtual_clock import timers_only


@timers_only
async def test_a_session_that_is_cancelled_as_it_becomes_ready_stays_cancelled() -> None:
    options = SimulatorOptions(queue_delay=0.0, provisioning_delay=1.0, cancelled_slot_hold=0.0)
    loop = asyncio.get_running_loop()
    session = SimulatedSession(options, FaultPlan(Faults()).take(), {}, lambda: None)
    loop.call_at(loop.time() + 1.0, session._end, SessionStatus.CANCELLED)
    await session.run(asyncio.Semaphore(1), None, Face())
    assert [status for status, _ in session.history] == ["NOT_READY", "CANCELLED"]
