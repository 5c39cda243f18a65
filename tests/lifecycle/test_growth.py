"""A call of hours keeps nothing of the sessions that are over."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys

import pytest

from livekit_plugins_runway import RecoveryOptions
from tests.support.scripted_call import LOGGER, ScriptedCall, in_virtual_time, live

WARM_UP, RENEWALS = 40, 360
"""One each 20 s: 360 of them are two hours."""
RECOVERY = RecoveryOptions(
    session_cap=22.0, renew_before=2.0, max_sessions=None, max_billed_seconds=None
)


async def renewed(call: ScriptedCall, times: int) -> None:
    told = asyncio.Event()

    def on_replaced(_: object) -> None:
        told.set()

    call.avatar.on("replaced", on_replaced)
    while call.avatar.usage.renewals < times:
        async with asyncio.timeout(60.0):
            await told.wait()
        told.clear()
        forget(call)
    call.avatar.off("replaced", on_replaced)
    await asyncio.sleep(5.0)  # the one before has ended
    forget(call)
    gc.collect()


def forget(call: ScriptedCall) -> None:
    """What the stage of this test keeps."""
    call.told.clear()
    call.transport.end_calls.clear()
    call.runway.asked.clear()
    call.runway.tried.clear()
    del call.transport.connections[:-1]
    alive = {session.id for session in call.runway.alive}
    for over in call.runway.sessions.keys() - alive:
        del call.runway.sessions[over]


@in_virtual_time
async def test_in_two_hours_of_renewals_memory_and_tasks_do_not_grow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, LOGGER)  # pytest keeps what is logged
    async with live(recovery=RECOVERY) as call:
        await renewed(call, WARM_UP)
        began, tasks = asyncio.get_running_loop().time(), len(asyncio.all_tasks())
        objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
        await renewed(call, RENEWALS)
        sessions = RENEWALS - WARM_UP
        assert asyncio.get_running_loop().time() - began > sessions * 15
        assert len(asyncio.all_tasks()) == tasks
        # Caches of the interpreter take a block now and then, and no object.
        assert len(gc.get_objects()) - objects < sessions / 10
        assert sys.getallocatedblocks() - blocks < sessions * 2
