"""What a call may cost: oddities of Runway in ten minutes in which nobody speaks, and limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from livekit_plugins_runway import AvatarState, RecoveryOptions
from livekit_plugins_runway.errors import AvatarJoinError, CallLimitError
from livekit_plugins_runway.lifecycle.supervisor import Phase
from tests.support.memory_runway import Fault, now
from tests.support.scripted_call import (
    NEVER,
    Manners,
    ScriptedCall,
    calling,
    in_virtual_time,
    live,
)

pytestmark = pytest.mark.sampled

TEN_MINUTES = 600.0


async def pass_by(call: ScriptedCall, seconds: float, dies_at: float | None = None) -> None:
    """Time. Each session dies as it comes of age."""
    end = now() + seconds
    while now() < end:
        await asyncio.sleep(0.5)
        for session in call.runway.alive:
            if dies_at is not None and session.billed >= dies_at:
                session.end("FAILED")


# -- oddities


@in_virtual_time
async def test_a_call_in_which_nothing_is_odd() -> None:
    async with live() as call:
        await pass_by(call, TEN_MINUTES)
        assert len(call.runway.sessions) == 3
        assert call.of("error") == []


@pytest.mark.parametrize("age", [15.0, 70.0, 110.0, 200.0])
@in_virtual_time
async def test_one_session_that_ended_by_itself_is_no_cap_for_the_rest_of_the_call(
    age: float,
) -> None:
    async with live() as call:
        await asyncio.sleep(age)
        call.runway.sessions["s0"].end("COMPLETED")
        await pass_by(call, TEN_MINUTES - age)
        assert len(call.runway.sessions) <= 6
        assert call.avatar.state in (AvatarState.LIVE, AvatarState.RENEWING)


@in_virtual_time
async def test_a_cap_of_runways_that_is_shorter_than_expected_is_learned() -> None:
    async with calling() as call:
        call.runway.cap = 130.0
        await call.start()
        await pass_by(call, 900.0)
        # Lost, renewed, lost as it was put to the test; renewed from then on.
        causes = [replaced.cause for replaced in call.of("replaced")]
        assert causes[:3] == ["restart", "renewal", "restart"]
        assert set(causes[3:]) == {"renewal"}


@in_virtual_time
async def test_renewals_that_fail_are_not_paid_for_without_end() -> None:
    async with live(max_duration=1800) as call:
        call.transport.manners = Manners(worker=NEVER)
        await pass_by(call, TEN_MINUTES)
        assert 2 <= len(call.runway.sessions) <= 6
        assert {type(error) for error in call.of("error")} == {AvatarJoinError}
        assert call.avatar.state is AvatarState.LIVE
        assert call.avatar.session_id == "s0"
        made = len(call.runway.sessions)
        await pass_by(call, TEN_MINUTES)
        assert len(call.runway.sessions) == made


@pytest.mark.parametrize("max_duration", [10, 60])
@in_virtual_time
async def test_max_duration_below_the_cap_is_what_the_call_may_cost(max_duration: int) -> None:
    async with calling(max_duration=max_duration) as call:
        call.runway.cap = float(max_duration)
        await call.start()
        await pass_by(call, TEN_MINUTES)
        assert len(call.runway.sessions) <= 2
        assert call.avatar.usage.billed_seconds <= max_duration + 1.0
        (gave_up,) = call.of("gave_up")
        assert isinstance(gave_up, CallLimitError)
        assert gave_up.limit == "max_duration"
        assert call.avatar.state is AvatarState.VOICE_ONLY


@pytest.mark.parametrize("lasts", [20.0, 61.0, 119.0, 121.0, 180.0])
@in_virtual_time
async def test_faces_that_are_lost_again_and_again_make_six_sessions_at_most(lasts: float) -> None:
    async with live() as call:
        await pass_by(call, TEN_MINUTES, dies_at=lasts)
        assert len(call.runway.sessions) <= 6
        gave_up = bool(call.of("gave_up"))
        assert gave_up is (lasts < 120.0)


# -- limits


@in_virtual_time
async def test_after_so_many_sessions_the_call_says_why_it_makes_no_more() -> None:
    recovery = RecoveryOptions(max_sessions=3, max_restarts=100, backoff=0.1)
    async with live(recovery=recovery) as call:
        await pass_by(call, TEN_MINUTES, dies_at=5.0)
        assert len(call.runway.sessions) == 3
        (gave_up,) = call.of("gave_up")
        assert isinstance(gave_up, CallLimitError)
        assert (gave_up.limit, gave_up.allowed, gave_up.used) == ("max_sessions", 3, 3)
        assert call.supervisor.phase is Phase.AT_VOICE
        with pytest.raises(CallLimitError):
            await call.avatar.swap_avatar(preset_id="cat-character")
        assert len(call.runway.sessions) == 3


@in_virtual_time
async def test_sessions_that_may_have_been_made_count() -> None:
    async with calling(recovery=RecoveryOptions(max_sessions=2)) as call:
        call.runway.faults["create"] = [Fault(lost=True)]
        await call.start()
        await call.until_live()
        with pytest.raises(CallLimitError):
            await call.avatar.swap_avatar(preset_id="cat-character")
        assert call.avatar.state is AvatarState.LIVE


@in_virtual_time
async def test_at_the_limit_a_session_is_not_renewed_and_stays_until_it_ends() -> None:
    recovery = RecoveryOptions(max_sessions=1, session_cap=60.0)
    async with calling(recovery=recovery) as call:
        call.runway.cap = 60.0
        await call.start()
        await call.until_live()
        await call.until(lambda: call.of("error"))
        assert isinstance(call.of("error")[0], CallLimitError)
        assert call.avatar.state is AvatarState.LIVE
        assert now() < 60.0
        await call.until(lambda: call.of("gave_up"))
        assert now() >= 60.0
        assert isinstance(call.of("gave_up")[0], CallLimitError)


@pytest.mark.parametrize("on_loss", ["restart", "close"])
@in_virtual_time
async def test_after_so_many_billed_seconds_the_face_goes(on_loss: Any) -> None:
    recovery = RecoveryOptions(max_billed_seconds=100.0, session_cap=60.0, on_loss=on_loss)
    async with live(recovery=recovery) as call:
        await pass_by(call, TEN_MINUTES)
        (gave_up,) = call.of("gave_up")
        assert isinstance(gave_up, CallLimitError)
        assert gave_up.limit == "max_billed_seconds"
        assert 100.0 <= call.avatar.usage.billed_seconds <= 103.0
        expected = AvatarState.VOICE_ONLY if on_loss == "restart" else AvatarState.CLOSED
        assert call.avatar.state is expected


# -- accounting


@in_virtual_time
async def test_a_session_that_was_consumed_and_whose_worker_never_came_counts_two_credits() -> None:
    async with calling(recovery=RecoveryOptions(on_loss="audio"), join_timeout=5.0) as call:
        call.transport.manners = Manners(worker=NEVER)
        await call.start()
        await call.until(lambda: call.of("session_ended"))
        (end,) = call.of("session_ended")
        assert end.consumed_at is not None
        assert end.billed_seconds == 0.0
        assert call.avatar.usage.credits == 2


@in_virtual_time
async def test_a_session_that_nobody_consumed_counts_none() -> None:
    async with calling(recovery=RecoveryOptions(on_loss="audio")) as call:
        call.runway.faults["consume"] = [Fault(status=404)]
        await call.start()
        await call.until(lambda: call.of("session_ended"))
        assert call.avatar.usage.credits == 0


# -- nobody there


PAUSE = RecoveryOptions(on_user_left="pause", user_left_grace=1.0)


@in_virtual_time
async def test_with_pause_nothing_is_paid_for_until_somebody_is_there() -> None:
    async with calling(users=0, recovery=PAUSE) as call:
        await call.start()
        await asyncio.sleep(1.0)
        assert call.avatar.state is AvatarState.PAUSED
        assert call.supervisor.phase is Phase.PAUSED
        assert call.transport in call.transport.people
        await pass_by(call, TEN_MINUTES)
        assert call.runway.count("create") == 0
        call.room.join("user")
        await call.until_live()
        assert call.avatar.usage.resumes == 0
    states = [state.value for state in call.states]
    assert states == ["starting", "paused", "starting", "live", "closed"]


@in_virtual_time
async def test_with_pause_and_somebody_there_start_makes_the_session() -> None:
    async with calling(users=1, recovery=PAUSE) as call:
        await call.start()
        assert len(call.runway.sessions) == 1
        assert AvatarState.PAUSED not in call.states


@in_virtual_time
async def test_what_runway_refuses_after_such_a_start_is_told() -> None:
    async with calling(users=0, recovery=PAUSE) as call:
        call.runway.always["create"] = Fault(status=401)
        await call.start()
        call.room.join("user")
        await call.until(lambda: call.of("gave_up"))
        assert call.avatar.state is AvatarState.VOICE_ONLY


@in_virtual_time
async def test_without_pause_a_session_is_made_for_whoever_will_come() -> None:
    async with calling(users=0) as call:
        await call.start()
        assert len(call.runway.sessions) == 1
