"""Every ordinary way in which a call ends: Runway is told in time, and no error is logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from livekit import api

from livekit_plugins_runway import AvatarState
from livekit_plugins_runway.testing import SessionStatus
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript
from tests.support.call import TRANSPORTS, Call, calling

GOODBYE = ToneScript(4)


async def delete_room(call: Call) -> None:
    async with call.api() as livekit:
        await livekit.room.delete_room(api.DeleteRoomRequest(room=call.room.name))


async def session_closed(call: Call) -> None:
    await call.session.aclose()


async def session_drained(call: Call) -> None:
    call.say(GOODBYE)
    call.session.shutdown(drain=True)


async def user_leaves(call: Call) -> None:
    await call.user.aclose()


async def room_deleted_as_the_session_closes(call: Call) -> None:
    """As an agent does that wants every caller out, those by phone too."""
    deleting: list[asyncio.Task[None]] = []
    call.session.on("close", lambda _: deleting.append(asyncio.create_task(delete_room(call))))
    await call.session.aclose()
    await asyncio.gather(*deleting)


HangUp = Callable[[Call], Awaitable[None]]


@TRANSPORTS
@pytest.mark.parametrize(
    "hang_up",
    [
        session_closed,
        session_drained,
        user_leaves,
        room_deleted_as_the_session_closes,
        delete_room,
    ],
)
async def test_an_ordinary_end_logs_no_error_and_bills_nothing_more(
    livekit_server: LiveKitServer,
    caplog: pytest.LogCaptureFixture,
    hang_up: HangUp,
    options: dict[str, Any],
) -> None:
    async with calling(livekit_server, **options) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        await call.say(GOODBYE)
        await hang_up(call)
        await call.until(AvatarState.CLOSED)
        await call.until_told("session_ended", lambda: bool(call.ends), 8.0)
        (end,) = call.ends
        assert end.confirmed
        if options and hang_up in (delete_room, room_deleted_as_the_session_closes):
            # A worker that is in the agent's room goes with it: it cannot be told any more, and may
            # be seen to go before the room is.
            await call.simulator.wait_until(lambda: not call.simulator.leaked(), 5.0)
        else:
            await call.simulator.wait_for(call.runway.id, SessionStatus.COMPLETED, 5.0)
            assert call.errors == []
        assert call.history()[0] == (GOODBYE.text, False)
    # The SDK calls it an error (logger "livekit") that a deleted room's connections close.
    wrong = [r for r in caplog.records if r.levelno >= logging.ERROR and r.name != "livekit"]
    assert [(record.name, record.getMessage()) for record in wrong] == []
