"""Every session ends, on every path: beside a start, behind rooms that do not answer, whatever
fails on the way. In virtual time, with a scripted Runway.
"""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

import pytest
from livekit.agents.voice.avatar import QueueAudioOutput
from livekit.agents.voice.io import AgentOutput

from livekit_plugins_runway import AvatarState, RecoveryOptions
from livekit_plugins_runway._common.tasks import BackgroundTasks
from livekit_plugins_runway.errors import (
    AvatarClosedError,
    ConfigurationError,
    LossReason,
    LostAnswerError,
    RunwayException,
    ServerError,
    TimedOutError,
    UnavailableError,
)
from livekit_plugins_runway.lifecycle.agent.presence import UserPresence
from livekit_plugins_runway.lifecycle.call import ClosingStack
from livekit_plugins_runway.lifecycle.ending import Endings
from livekit_plugins_runway.lifecycle.supervisor import Phase
from livekit_plugins_runway.lifecycle.telemetry import Telemetry
from livekit_plugins_runway.playout.output import AvatarAudioOutput
from tests.support.memory_runway import Fault, now
from tests.support.scripted_call import (
    NEVER,
    Manners,
    Scripted,
    ScriptedCall,
    calling,
    in_virtual_time,
    live,
)
from tests.support.virtual_clock import timers_only

pytestmark = pytest.mark.sampled

MOMENTS = [n * 0.05 for n in range(60)]
"""Seconds: an undisturbed start takes 0.4, and the face is there after 3."""
SLOW = Fault(before=1.0, after=1.0)


async def started(call: ScriptedCall, *, after: float) -> asyncio.Task[None]:
    starting = asyncio.create_task(call.start())
    await asyncio.sleep(after)
    return starting


def ended_within(call: ScriptedCall, session: str, since: float) -> float:
    """Seconds until its end was on the wire."""
    said = [at for at, of in call.transport.end_calls if of == session]
    return min(at for at in (*said, *call.runway.deletes(session)) if at >= since) - since


# -- beside the start


@pytest.mark.slow
@pytest.mark.parametrize("create", [Fault(), SLOW])
@pytest.mark.parametrize("how", ["aclose", "agent session"])
@in_virtual_time
async def test_closed_at_every_moment_of_the_start_no_session_is_left(
    create: Fault, how: str
) -> None:
    for moment in MOMENTS:
        async with calling() as call:
            call.runway.always["create"] = create
            starting = await started(call, after=moment)
            was_done = starting.done()
            if how == "aclose":
                await call.avatar.aclose()
            else:
                call.agent.emit("close", None)
            await asyncio.wait({starting})
            if was_done:
                await starting
            else:
                with pytest.raises(AvatarClosedError):
                    await starting
            await call.avatar.aclose()
            assert call.avatar.state is AvatarState.CLOSED
            assert call.supervisor.phase in (Phase.NEW, Phase.OVER)
            assert call.agent.output.audio is None


@in_virtual_time
async def test_closed_in_the_very_step_in_which_it_has_started_start_raises() -> None:
    async with calling() as call:
        call.transport.agent_room = Manners(connect=0.0)
        call.avatar.on("stage_reached", lambda _: asyncio.ensure_future(call.avatar.aclose()))
        with pytest.raises(AvatarClosedError):
            await call.start()


@in_virtual_time
async def test_what_a_create_brings_after_the_close_is_ended_at_once() -> None:
    async with calling() as call:
        call.runway.always["create"] = Fault(after=20.0)
        starting = await started(call, after=1.0)
        began = now()
        await call.avatar.aclose()
        assert now() - began <= 8.0
        with pytest.raises(AvatarClosedError):
            await starting
        await call.until(lambda: not call.runway.alive)
        assert now() == pytest.approx(20.5, abs=1.0)
        assert call.runway.deletes("s0") != []


@in_virtual_time
async def test_start_after_the_close_is_refused() -> None:
    async with calling() as call:
        await call.avatar.aclose()
        with pytest.raises(ConfigurationError, match="closed"):
            await call.start()


@pytest.mark.parametrize("moment", MOMENTS[::4])
@in_virtual_time
async def test_a_start_that_is_cancelled_leaves_nothing_and_takes_no_longer_than_a_close(
    moment: float,
) -> None:
    async with calling() as call:
        call.runway.always["create"] = SLOW
        call.transport.agent_room = Manners(connect=NEVER)
        began = now()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(moment):
                await call.start()
        assert now() - began <= moment + 8.0


# -- rooms that do not answer

DEAF = [
    pytest.param(Manners(connect=NEVER), id="never joined"),
    pytest.param(Manners(leave=NEVER), id="never left"),
    pytest.param(Manners(goodbye=NEVER), id="END_CALL is not sent"),
    pytest.param(Manners(fails_to_leave=True), id="fails to leave"),
    pytest.param(Manners(worker=NEVER), id="no worker"),
]


@pytest.mark.parametrize("manners", DEAF)
@pytest.mark.parametrize("agents_own", [False, True])
@in_virtual_time
async def test_the_end_is_on_the_wire_within_a_second_whatever_a_room_does(
    manners: Manners, agents_own: bool
) -> None:
    async with calling() as call:
        if agents_own:
            call.transport.agent_room = manners
        else:
            call.transport.manners = manners
        starting = await started(call, after=5.0)
        began = now()
        assert len(call.runway.alive) == 1
        await call.avatar.aclose()
        assert now() - began <= 8.0
        assert ended_within(call, "s0", began) <= 1.0
        await asyncio.wait({starting})
        if (error := starting.exception()) is not None:
            assert isinstance(error, AvatarClosedError)


@in_virtual_time
async def test_what_cannot_be_cancelled_holds_up_neither_the_end_nor_the_start() -> None:
    async def join(_: object) -> None:
        try:
            await asyncio.sleep(NEVER)
        except asyncio.CancelledError:
            await asyncio.sleep(30.0)

    async with calling() as call:
        with mock.patch.object(call.transport, "join", join):
            starting = await started(call, after=2.0)
            began = now()
            await call.avatar.aclose()
            assert ended_within(call, "s0", began) <= 1.0
            assert now() - began <= 8.0
            with pytest.raises(AvatarClosedError):
                await starting
            assert now() - began <= 8.0


@pytest.mark.parametrize("manners", [Manners(leave=NEVER), Manners(connect=NEVER)])
@in_virtual_time
async def test_a_room_that_does_not_answer_is_not_waited_for_to_the_limit(
    manners: Manners,
) -> None:
    async with calling() as call:
        call.transport.agent_room = manners
        starting = await started(call, after=5.0)
        began = now()
        await call.avatar.aclose()
        assert now() - began <= 5.0
        await asyncio.wait({starting})


@in_virtual_time
async def test_a_pause_is_not_held_up_by_a_room_that_does_not_answer() -> None:
    recovery = RecoveryOptions(on_user_left="pause", user_left_grace=1.0)
    async with calling(recovery=recovery) as call:
        call.transport.manners = Manners(connect=NEVER)
        await call.start()
        await asyncio.sleep(3.0)
        left_at = now()
        call.room.leave(call.room.remote_participants["user-0"])
        await call.until(lambda: call.avatar.state is AvatarState.PAUSED)
        assert now() - left_at <= 1.5
        await asyncio.sleep(1.0)
        assert ended_within(call, "s0", left_at) <= 2.0


# -- whatever fails on the way


STEPS: dict[str, tuple[type, str]] = {
    "output": (AvatarAudioOutput, "aclose"),
    "presence": (UserPresence, "close"),
    "sessions": (Endings, "ended"),
    "telemetry": (Telemetry, "end"),
    "former output": (AgentOutput, "replace_audio_tail"),
}


@pytest.mark.parametrize("step", STEPS)
@in_virtual_time
async def test_a_close_goes_on_to_its_end_whatever_one_step_does(step: str) -> None:
    where, name = STEPS[step]
    spared = getattr(where, name)
    async with calling() as call:
        if step == "former output":
            call.agent.output.audio = QueueAudioOutput()
            await call.start()
        with mock.patch.object(where, name, side_effect=Scripted(step)):
            if step != "former output":
                await call.start()
            await call.until_live()
            await call.avatar.aclose()
        assert call.avatar.state is AvatarState.CLOSED
        assert call.transport.people == set()
        assert call.of("session_ended")[0].confirmed
        made: Any = call.avatar._call
        if step == "output":
            await spared(made.output)
        elif step == "presence":
            spared(made._presence)
        elif step == "telemetry":
            spared(made._telemetry, call.avatar.usage)


@in_virtual_time
async def test_a_worker_that_ignores_end_call_costs_a_delete() -> None:
    async with live() as call:
        call.connection.manners = Manners(obeys=NEVER)
        await call.avatar.aclose()
        assert [end.how for end in call.of("session_ended")] == ["deleted"]


async def has_ended_by_itself(call: ScriptedCall) -> None:
    """The first session, and Runway was not asked to end it."""
    await call.until(lambda: call.of("session_ended"))
    (end,) = call.of("session_ended")
    assert (end.how, end.status) == ("already ended", "COMPLETED")
    assert call.transport.end_calls == []
    assert call.runway.deletes("s0") == []


@pytest.mark.parametrize("tracks_first", [0.0, 0.2])
@in_virtual_time
async def test_what_has_ended_by_itself_is_not_told_to_end(tracks_first: float) -> None:
    async with live(recovery=RecoveryOptions(on_loss="audio")) as call:
        call.connection.manners = Manners(tracks_first=tracks_first)
        call.runway.sessions["s0"].end("COMPLETED")
        await has_ended_by_itself(call)


@in_virtual_time
async def test_a_worker_that_only_takes_back_its_tracks_is_told_to_end() -> None:
    async with live(recovery=RecoveryOptions(on_loss="audio")) as call:
        call.connection.manners = Manners(tracks_first=NEVER)
        lost_at = now()
        call.connection.lose(LossReason.TRACKS_UNPUBLISHED)
        await call.until(lambda: call.of("session_ended"))
        ((told_at, _),) = call.transport.end_calls
        assert told_at - lost_at < 0.5


@in_virtual_time
async def test_what_runway_says_has_ended_is_not_told_to_end() -> None:
    async with live(recovery=RecoveryOptions(on_loss="audio")) as call:
        made = call.runway.sessions["s0"]
        made.on_end = lambda: None  # the worker stays on
        made.end("COMPLETED")
        await has_ended_by_itself(call)


@in_virtual_time
async def test_a_delete_that_is_never_answered_is_told_as_unconfirmed_in_time() -> None:
    async with live() as call:
        call.connection.manners = Manners(goodbye=NEVER)
        call.runway.always["delete"] = Fault(unreached=True)
        began = now()
        await call.avatar.aclose()
        assert now() - began <= 8.0
        (end,) = call.of("session_ended")
        assert not end.confirmed
        assert call.avatar.usage.unconfirmed == 1
        call.runway.sessions["s0"].end("CANCELLED")  # by hand


@in_virtual_time
async def test_a_session_whose_end_fails_of_itself_is_told_as_unconfirmed() -> None:
    async with live() as call:
        with mock.patch.object(call.instance.session, "end", side_effect=ZeroDivisionError):
            await call.avatar.aclose()
        (end,) = call.of("session_ended")
        assert (end.session_id, end.confirmed) == ("s0", False)
        call.runway.sessions["s0"].end("CANCELLED")


@in_virtual_time
async def test_a_room_that_fails_as_it_is_told_goodbye_is_no_reason_to_bill_on() -> None:
    async with live() as call:
        with mock.patch.object(call.connection, "send_end_call", side_effect=Scripted):
            await call.avatar.aclose()
        assert [end.how for end in call.of("session_ended")] == ["deleted"]


@in_virtual_time
async def test_what_ended_sessions_have_cost_is_asked_for_later() -> None:
    async with live() as call:
        call.connection.manners = Manners(settles=5.0)
        await asyncio.sleep(10.4)
        await call.avatar.swap_avatar(preset_id="cat-character")
        await call.until(lambda: len(call.of("usage_updated")) == 2)
        first, corrected = call.of("usage_updated")
        assert first.sessions == corrected.sessions == 1
        assert corrected.billed_seconds == int(corrected.billed_seconds)


# -- creates


@in_virtual_time
async def test_a_runway_that_takes_creates_and_never_answers_is_given_up_after_45_s() -> None:
    async with calling() as call:
        call.runway.always["create"] = Fault(after=1000.0)
        began = now()
        await call.start()
        assert now() - began <= 10.5  # as long as the first words would wait for an avatar
        await call.until(lambda: call.of("error"))
        (error,) = call.of("error")
        assert isinstance(error, TimedOutError)
        assert "45 s" in str(error)
        assert now() - began <= 45.0 + 1.0
        for session in call.runway.alive:
            session.end("CANCELLED")
        await asyncio.sleep(100.0)


@in_virtual_time
async def test_create_timeout_is_the_limit_over_all_tries() -> None:
    async with calling(create_timeout=3.0) as call:
        call.runway.always["create"] = Fault(status=503, retry_after=2.0)
        with pytest.raises((TimedOutError, ServerError)):
            await call.start()
        assert now() <= 3.0 + 8.0


@in_virtual_time
async def test_agents_that_were_told_the_same_time_do_not_create_again_at_the_same_moment() -> None:
    waits = []
    for _ in range(3):
        async with calling() as call:
            call.runway.faults["create"] = [Fault(status=503, retry_after=4.0)]
            await call.start()
            first, second = [at for at, kind, _ in call.runway.tried if kind == "create"]
            waits.append(second - first)
    assert min(waits) >= 4.0
    assert max(waits) - min(waits) > 0.02


@pytest.mark.parametrize(
    "fault", [Fault(lost=True), Fault(status=502), Fault(status=504, done=True)]
)
@in_virtual_time
async def test_a_create_without_a_known_outcome_is_another_session_on_a_way_of_its_own(
    fault: Fault,
) -> None:
    async with calling() as call:
        call.runway.faults["create"] = [fault]
        await call.start()
        await call.until_live()
        first, second = call.transport.connections
        assert first.rejected
        assert not second.rejected


@pytest.mark.parametrize(
    ("fault", "error", "tries"),
    [
        (Fault(lost=True), LostAnswerError, 2),
        (Fault(nameless=True), LostAnswerError, 1),
        (Fault(status=503), ServerError, 2),
        (Fault(status=500), ServerError, 1),
        (Fault(unreached=True), UnavailableError, 1),
        (Fault(status=401), RunwayException, 1),
    ],
)
@in_virtual_time
async def test_creates_are_repeated_so_often_and_no_more(
    fault: Fault, error: type[RunwayException], tries: int
) -> None:
    async with calling() as call:  # with max_retry=1
        call.runway.always["create"] = fault
        with pytest.raises(error):
            await call.start()
        assert len(call.transport.connections) == tries
        may_exist = fault.lost or fault.nameless or fault.status >= 500
        assert all(made.rejected is may_exist for made in call.transport.connections)


# -- the closing stack


@timers_only
async def test_the_last_is_closed_first_and_none_waits_longer_than_the_deadline() -> None:
    background = BackgroundTasks()
    closing = ClosingStack(background)
    order: list[tuple[str, float]] = []

    def step(name: str, seconds: float, error: Exception | None = None) -> Any:
        async def run() -> None:
            order.append((name, now()))
            await asyncio.sleep(seconds)
            if error is not None:
                raise error

        return run

    closing.push("fourth", step("fourth", 0.5))
    closing.push("third", step("third", 100.0))
    closing.push("second", step("second", 1.0, Scripted()))
    closing.push("first", step("first", 1.0))
    await closing.aclose(8.0)
    assert order == [("first", 0.0), ("second", 1.0), ("third", 2.0), ("fourth", 8.0)]
    assert now() == 8.0
    assert not await background.settle(20.0)
    assert repr(background) == "BackgroundTasks(['runway_close_third'])"
    assert await background.settle(1000.0)
    assert background.pending == 0
