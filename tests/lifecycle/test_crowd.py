"""Many agents with one Runway account: who has an avatar, who waits for how long, what it costs,
and what Runway is asked meanwhile.

In virtual time, with the simulator over HTTP; the figures of longer calls are those of
`python -m bench.crowd`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from livekit_plugins_runway import AvatarState, RecoveryOptions
from livekit_plugins_runway.errors import (
    AvatarLostError,
    ConfigurationError,
    QueueTimeoutError,
    QuotaError,
)
from livekit_plugins_runway.testing import SimulatedSession
from livekit_plugins_runway.testing.tones import ToneScript
from tests.support.crowd import Caller, Crowd, crowd, in_a_crowd, now

WAIT = 10.0
"""`wait_for_avatar`, by default."""
LATENCY = 0.5
"""Of an avatar that comes in the last moment."""
SHORT = RecoveryOptions(session_cap=60.0)


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        in_a_crowd(lambda: test(*args, **kwargs))

    return run


async def all_of(everybody: Crowd, count: int, **options: Any) -> list[Caller]:
    """So many calls that begin at once; each says something at once."""
    callers = [everybody.add(**options) for _ in range(count)]

    async def begin(caller: Caller) -> None:
        await caller.start()
        await caller.say(ToneScript(4))

    await asyncio.gather(*(begin(caller) for caller in callers))
    return callers


async def until(condition: Callable[[], object], timeout: float) -> None:
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110  of many things
            await asyncio.sleep(0.1)


def nothing_was_lost(everybody: Crowd) -> None:
    for caller in everybody.callers:
        assert [said.missing for said in caller.said if said.missing] == []
        assert not any(said.hung for said in caller.said)
        assert caller.close_took <= 8.0
    assert everybody.simulator.leaked() == []


def live(callers: list[Caller]) -> list[Caller]:
    return [caller for caller in callers if caller.avatar.state is AvatarState.LIVE]


def session_of(everybody: Crowd, caller: Caller) -> SimulatedSession:
    assert caller.avatar.session_id is not None
    return everybody.simulator.sessions[caller.avatar.session_id]


@virtual
async def test_of_twenty_calls_on_five_places_all_are_heard_in_time_and_five_are_seen() -> None:
    async with crowd() as everybody:
        callers = await all_of(everybody, 20)
        for caller in callers:
            first = caller.said[0].after
            assert first is not None
            assert first <= WAIT + LATENCY
        await asyncio.sleep(200.0)
        assert len(live(callers)) == 5
        for caller in callers:
            await caller.say(ToneScript(4))
        assert [len(everybody.simulator.sessions), everybody.account.refused(429)] == [20, []]
        waiting = [c for c in callers if c not in live(callers)]
        assert {c.avatar.state for c in waiting} == {AvatarState.VOICE_ONLY}
        await asyncio.gather(*(caller.close() for caller in callers))
        assert {c.avatar.usage.credits for c in waiting} == {0}
    nothing_was_lost(everybody)


@virtual
async def test_the_first_words_do_not_wait_for_an_avatar_that_is_queued() -> None:
    async with crowd(concurrency=1) as everybody:
        await all_of(everybody, 2)
        first = sorted(caller.said[0].after or 99.0 for caller in everybody.callers)
        assert first[0] <= 4.0
    nothing_was_lost(everybody)


@virtual
async def test_who_wants_the_avatar_first_of_all_waits_for_it_in_the_queue_too() -> None:
    async with crowd(concurrency=1) as everybody:
        ahead, patient = everybody.add(), everybody.add(wait_for_avatar=120.0)
        await ahead.start()
        await patient.start()
        saying = asyncio.create_task(patient.say(ToneScript(4), limit=100.0))
        await asyncio.sleep(30.0)
        await ahead.close()
        said = await saying
        assert said.after is not None
        assert 40.0 <= said.after <= 60.0
    nothing_was_lost(everybody)


@virtual
async def test_a_place_that_becomes_free_goes_to_who_waits_longest() -> None:
    async with crowd(concurrency=1) as everybody:
        callers = []
        for _ in range(4):
            callers.append(everybody.add())
            await callers[-1].start()
        for caller in callers:
            await until(lambda one=caller: live([one]), 60.0)  # type: ignore[misc]
            assert live(callers) == [caller]
            await caller.say(ToneScript(4))
            await caller.close()
        assert [caller.sessions for caller in callers] == [1, 1, 1, 1]
    nothing_was_lost(everybody)


@virtual
async def test_a_user_who_leaves_the_queue_gives_up_the_place_at_once() -> None:
    async with crowd(concurrency=1) as everybody:
        first, second, third = [everybody.add() for _ in range(3)]
        for caller in (first, second, third):
            await caller.start()
        await asyncio.sleep(60.0)
        gone = session_of(everybody, second)
        closed_at = now()
        await second.close()
        assert gone.status == "CANCELLED"
        assert gone.history[-1][1] <= closed_at + 0.5
        await first.close()
        await until(lambda: live([third]), 30.0)
    nothing_was_lost(everybody)


@virtual
async def test_with_pause_a_queued_session_ends_when_the_user_has_left() -> None:
    recovery = RecoveryOptions(on_user_left="pause", user_left_grace=5.0)
    async with crowd(concurrency=1) as everybody:
        _, waiting = await all_of(everybody, 2, recovery=recovery)
        session = session_of(everybody, waiting)
        for user in list(waiting.room.remote_participants.values()):
            waiting.room.leave(user)
        await asyncio.sleep(6.0)
        assert session.status == "CANCELLED"
        assert waiting.avatar.state is AvatarState.PAUSED
    nothing_was_lost(everybody)


@virtual
async def test_after_queue_timeout_the_call_goes_on_by_voice_and_makes_no_other_session() -> None:
    async with crowd(concurrency=1) as everybody:
        callers = await all_of(everybody, 2, queue_timeout=30.0)
        await asyncio.sleep(120.0)
        (waiting,) = (c for c in callers if c not in live(callers))
        (error,) = waiting.gave_up
        assert isinstance(error, QueueTimeoutError)
        assert (error.queued, error.waited) == (True, 30.0)
        assert waiting.avatar.state is AvatarState.VOICE_ONLY
        assert len(everybody.simulator.sessions) == 2
        await waiting.say(ToneScript(4))
        # It may be asked for again.
        resuming = asyncio.create_task(waiting.avatar.resume())
        await next(c for c in callers if c is not waiting).close()
        await resuming
        assert live([waiting])
    nothing_was_lost(everybody)


def test_a_queue_timeout_that_no_start_would_keep_is_refused() -> None:
    async def construct() -> None:
        async with crowd() as everybody:
            with pytest.raises(ConfigurationError, match="queue_timeout must be 5 or more"):
                everybody.add(queue_timeout=2.0)

    in_a_crowd(construct)


@pytest.mark.parametrize(("calls", "places"), [(1, 1), (3, 3)])
@virtual
async def test_where_all_places_are_taken_all_calls_renew_and_none_waits_for_another(
    calls: int, places: int
) -> None:
    async with crowd(cap=60.0, concurrency=places) as everybody:
        callers = await all_of(everybody, calls, recovery=SHORT)
        await until(lambda: len(live(callers)) == calls, 30.0)
        olds = [session_of(everybody, caller) for caller in callers]
        await until(lambda: all(caller.sessions == 2 for caller in callers), 60.0)
        for caller in callers:
            await caller.say(ToneScript(4))
        await until(lambda: len(live(callers)) == calls, 60.0)
        # Seen until a gap of the speech shortly before the cap, which counts from the start.
        assert all(old.billed_seconds >= 60.0 - 14.0 - 7.0 for old in olds)
        assert all(not caller.errors for caller in callers)
    nothing_was_lost(everybody)


@virtual
async def test_a_renewal_waits_behind_who_waited_longer_and_says_that_the_face_is_gone() -> None:
    async with crowd(cap=60.0, concurrency=1) as everybody:
        callers = await all_of(everybody, 2, recovery=SHORT)
        await until(lambda: live(callers), 30.0)
        (first,) = live(callers)
        (second,) = (c for c in callers if c is not first)
        await until(lambda: live([second]), 90.0)
        assert first.avatar.state is AvatarState.VOICE_ONLY
        await first.say(ToneScript(4))
        await until(lambda: live([first]), 90.0)
        assert second.avatar.state is AvatarState.VOICE_ONLY
        assert [caller.errors for caller in callers] == [[], []]
    nothing_was_lost(everybody)


@virtual
async def test_many_that_wait_do_not_ask_at_the_same_time_and_ask_less_and_less() -> None:
    async with crowd() as everybody:
        await all_of(everybody, 20)
        await asyncio.sleep(60.0)
        begin = now()
        await asyncio.sleep(60.0)
        asked = [at for at in everybody.account.requests("GET") if at > begin]
        assert len(asked) <= 15 * 25 + 5 * 10  # 15 wait, 5 are live
        assert most_within(0.02, asked) <= 5
    nothing_was_lost(everybody)


@virtual
async def test_calls_that_began_together_do_not_renew_together() -> None:
    async with crowd(concurrency=50) as everybody:
        callers = await all_of(everybody, 20)
        begin = now()
        await until(lambda: all(caller.sessions == 2 for caller in callers), 300.0)
        renewals = [at for at in everybody.account.requests("POST") if at > begin]
        assert len(renewals) == 20
        assert most_within(1.0, renewals) <= 6
    nothing_was_lost(everybody)


def most_within(window: float, times: list[float]) -> int:
    return max(sum(0 <= other - at < window for other in times) for at in times)


@pytest.mark.parametrize("tells_when", [True, False])
@virtual
async def test_too_many_requests_at_the_start_cost_no_words_and_no_avatar(tells_when: bool) -> None:
    limit: dict[str, Any] = {"requests_per_minute": 20, "tells_retry_after": tells_when}
    async with crowd(**limit) as everybody:
        caller = everybody.add()
        for _ in range(20):  # somebody else has used them up
            await caller.avatar._client.request("GET", "/v1/organization")
        await caller.start()
        assert caller.refused is None
        said = await caller.say(ToneScript(4))
        assert said.after is not None
        assert said.after <= 1.0  # there is no avatar to wait for
        await until(lambda: live([caller]), 200.0)
        assert caller.gave_up == []
        await caller.say(ToneScript(4))
    nothing_was_lost(everybody)


@virtual
async def test_who_was_told_the_same_time_does_not_come_back_at_the_same_moment() -> None:
    async with crowd(concurrency=50, requests_per_minute=10) as everybody:
        await all_of(everybody, 20)
        begin = now()
        await asyncio.sleep(100.0)
        later = [at for at in everybody.account.requests("POST") if at > begin]
        assert len(later) >= 8
        assert most_within(0.02, later) <= 3
    nothing_was_lost(everybody)


@virtual
async def test_near_the_daily_limit_the_present_avatar_stays_and_the_call_is_told_in_time() -> None:
    async with crowd(daily_quota=1, cap=60.0) as everybody:
        (caller,) = await all_of(everybody, 1, recovery=SHORT)
        await until(lambda: caller.errors, 90.0)
        told_at = now()
        assert isinstance(caller.errors[0], QuotaError)
        assert caller.avatar.state is AvatarState.LIVE
        await until(lambda: caller.gave_up, 90.0)
        assert now() - told_at >= 10.0
        assert [type(e) for e in caller.errors] == [QuotaError, AvatarLostError, QuotaError]
        assert len(everybody.simulator.sessions) == 1
        await caller.say(ToneScript(4))
    nothing_was_lost(everybody)
