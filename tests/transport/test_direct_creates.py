"""`transport="direct"`: a create without a known outcome is repeated as another worker, and the
worker of the first is sent away whenever it comes. In virtual time, without a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import jwt
import pytest
from livekit.agents import APIConnectOptions

from livekit_plugins_runway.errors import AvatarClosedError, LostAnswerError, ServerError
from livekit_plugins_runway.media.fallback_track import FallbackTrack
from livekit_plugins_runway.transport.tokens import ATTRIBUTE_INVITATION
from livekit_plugins_runway.transport.worker_protocol import END_CALL
from tests.support.memory_runway import Fault, MemorySession, now
from tests.support.scripted_call import ScriptedCall, in_virtual_time, make_call
from tests.support.scripted_room import AUDIO, VIDEO, ScriptedParticipant, settle

pytestmark = pytest.mark.sampled

LOST = Fault(lost=True)


@asynccontextmanager
async def calling(max_retry: int = 3) -> AsyncIterator[ScriptedCall]:
    retries = APIConnectOptions(max_retry=max_retry, retry_interval=0.5, timeout=2.0)
    call = make_call(transport="direct", allow_private_livekit_url=True, conn_options=retries)
    with mock.patch.object(FallbackTrack, "publish"):
        try:
            yield call
        finally:
            await call.avatar.aclose()
    for session in call.runway.alive:
        session.end("COMPLETED")
    await asyncio.sleep(200.0)
    assert call.room.listeners == 0
    assert call.avatar._background.pending == 0


def invited(session: MemorySession) -> dict[str, Any]:
    """The claims of the token that its worker got."""
    claims: dict[str, Any] = jwt.decode(
        session.body["integration"]["token"], options={"verify_signature": False}
    )
    return claims


async def worker_comes(call: ScriptedCall, session: MemorySession) -> bool:
    """Whether it was told to go."""
    claims = invited(session)
    before = len(call.room.local_participant.sent)
    worker = call.room.join(claims["sub"])
    worker.told_attributes = claims["attributes"]
    call.room.publish(worker, AUDIO)
    await settle()
    call.room.leave(worker)
    told = call.room.local_participant.sent[before:]
    return [(sent.payload, sent.to) for sent in told] == [(END_CALL, (claims["sub"],))]


@pytest.mark.parametrize("fault", [LOST, Fault(status=504, done=True)])
@in_virtual_time
async def test_each_try_invites_another_worker_with_a_token_of_its_own(fault: Fault) -> None:
    async with calling() as call:
        call.runway.faults["create"] = [fault, fault]
        await call.start()
        first, second, third = call.runway.sessions.values()
        identities = [invited(session)["sub"] for session in (first, second, third)]
        assert identities == [f"runway-avatar-agent{number}" for number in ("", "-2", "-3")]
        assert await worker_comes(call, first)
        assert await worker_comes(call, second)
        assert not await worker_comes(call, third)


@in_virtual_time
async def test_what_was_refused_for_now_is_repeated_with_the_same_token() -> None:
    async with calling() as call:
        call.runway.faults["create"] = [Fault(status=429), Fault(unreached=True)]
        await call.start()
        (session,) = call.runway.sessions.values()
        assert invited(session)["sub"] == "runway-avatar-agent"


@pytest.mark.parametrize(
    ("fault", "error"), [(LOST, LostAnswerError), (Fault(status=502, done=True), ServerError)]
)
@in_virtual_time
async def test_the_worker_of_a_failed_start_is_sent_away_as_long_as_its_token_lives(
    fault: Fault, error: type[Exception]
) -> None:
    async with calling(max_retry=0) as call:
        call.runway.always["create"] = fault
        with pytest.raises(error):
            await call.start()
        (orphan,) = call.runway.sessions.values()
        await asyncio.sleep(140.0)
        assert await worker_comes(call, orphan)


@in_virtual_time
async def test_the_worker_of_a_start_that_was_given_up_is_sent_away() -> None:
    async with calling() as call:
        call.runway.always["create"] = Fault(after=10.0, lost=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.0):
                await call.start()
        await asyncio.sleep(20.0)
        (orphan,) = call.runway.sessions.values()
        assert await worker_comes(call, orphan)


@in_virtual_time
async def test_a_refused_start_leaves_nothing_in_the_room() -> None:
    async with calling() as call:
        call.runway.always["create"] = Fault(status=401)
        with pytest.raises(Exception, match="401"):
            await call.start()
        assert call.room.listeners == 0


@in_virtual_time
async def test_a_second_avatar_may_have_the_name_of_the_first_ones_orphan() -> None:
    async with calling(max_retry=0) as call:
        call.runway.always["create"] = LOST
        with pytest.raises(LostAnswerError):
            await call.start()
        (orphan,) = call.runway.sessions.values()
        worker = call.room.join("runway-avatar-agent")
        worker.told_attributes = {ATTRIBUTE_INVITATION: "of the second one"}
        call.room.publish(worker, AUDIO)
        await settle()
        assert call.room.local_participant.sent == []
        call.room.leave(worker)
        assert await worker_comes(call, orphan)


# -- closed beside the start, with workers that come by themselves


def let_workers_come(call: ScriptedCall, after: float) -> None:
    """Each worker joins so long after its creation, unless its session has ended; it bills from
    then on, and goes when it is told to."""
    room, loop = call.room, asyncio.get_running_loop()
    workers: dict[str, tuple[MemorySession, ScriptedParticipant]] = {}

    def come(session: MemorySession) -> None:
        if session.ended_as:
            return
        claims = invited(session)
        session.run()
        worker = room.join(claims["sub"], told=False)
        worker.told_attributes = claims["attributes"]
        workers[claims["sub"]] = session, worker
        session.on_end = lambda: room.leave(worker)
        room.emit("participant_connected", worker)
        room.publish(worker, AUDIO)
        room.publish(worker, VIDEO)

    async def hear(payload: bytes, *, destination_identities: list[str], **_: object) -> None:
        (identity,) = destination_identities
        session, _worker = workers[identity]
        if payload == END_CALL:
            loop.call_later(0.3, session.end, "COMPLETED")

    def created(session: MemorySession) -> None:
        loop.call_later(after, come, session)

    call.runway.on_created = created
    call.room.local_participant.publish_data = hear  # type: ignore[method-assign]


@pytest.mark.parametrize("create", [Fault(), Fault(before=1.0, after=1.0), Fault(lost=True)])
@pytest.mark.parametrize("comes_after", [0.5, 3.0])
@in_virtual_time
async def test_closed_at_every_moment_of_the_start_no_session_is_left(
    create: Fault, comes_after: float
) -> None:
    for moment in range(30):
        call = make_call(
            transport="direct",
            allow_private_livekit_url=True,
            conn_options=APIConnectOptions(max_retry=1, retry_interval=0.5, timeout=2.0),
        )
        call.runway.faults["create"] = [create]
        let_workers_come(call, comes_after)
        with mock.patch.object(FallbackTrack, "publish"):
            starting = asyncio.create_task(call.start())
            await asyncio.sleep(moment * 0.1)
            was_starting = not starting.done()
            began = now()
            await call.avatar.aclose()
            assert now() - began <= 8.0
            await asyncio.wait({starting})
            assert isinstance(starting.exception(), AvatarClosedError) is was_starting
        await asyncio.sleep(160.0)
        assert [session.id for session in call.runway.alive if session.running_at] == [], moment
        assert call.room.remote_participants.keys() <= {"user-0"}
        for session in call.runway.alive:
            session.end("COMPLETED")
        assert call.room.listeners == 0
        assert call.avatar._background.pending == 0
