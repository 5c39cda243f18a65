"""Which session comes next, and when: a whole call in virtual time, with a scripted Runway."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest

from livekit_plugins_runway import AvatarState, RecoveryOptions
from livekit_plugins_runway.errors import (
    AuthenticationError,
    AvatarClosedError,
    AvatarJoinError,
    AvatarLostError,
    ConfigurationError,
    NotFoundError,
    ServerError,
)
from livekit_plugins_runway.lifecycle.supervisor import Phase
from livekit_plugins_runway.playout.ports import Avatar
from livekit_plugins_runway.runway.requests import realtime_request
from tests.support.memory_runway import Fault, now
from tests.support.scripted_call import (
    NEVER,
    Manners,
    ScriptedCall,
    calling,
    in_virtual_time,
    live,
)

RESTART = RecoveryOptions(session_cap=None, backoff=1.0)
CAPPED = RecoveryOptions(session_cap=60.0)
LIVE, VOICE, RENEWING = AvatarState.LIVE, AvatarState.VOICE_ONLY, AvatarState.RENEWING
STARTING, PAUSED, CLOSED = AvatarState.STARTING, AvatarState.PAUSED, AvatarState.CLOSED


@in_virtual_time
async def test_a_call_comes_to_its_face_and_ends() -> None:
    async with calling() as call:
        await call.start()
        await asyncio.sleep(0)
        assert repr(call.supervisor) == "Supervisor(phase='opening')"
        await call.until_live()
        assert repr(call.supervisor) == "Supervisor(phase='holding')"
        assert call.avatar.session_id == "s0"
        assert call.avatar.delivery == "datastream"
    assert call.states == [STARTING, LIVE, CLOSED]
    assert [end.how for end in call.of("session_ended")] == ["worker left"]
    assert call.supervisor.phase is Phase.OVER


@in_virtual_time
async def test_a_lost_face_comes_back_at_once_and_is_counted() -> None:
    async with live(recovery=RESTART) as call:
        lost_at = now()
        call.connection.crash()
        await call.until(lambda: call.of("replaced"))
        assert now() - lost_at < 5.0
        assert [replaced.cause for replaced in call.of("replaced")] == ["restart"]
        error = call.of("error")[0]
        assert isinstance(error, AvatarLostError)
        assert error.way_out == f"Against {error.reason}, call us."
        assert str(error).endswith(error.way_out)
        assert [told.delay for told in call.of("restarting")] == [0.0]
        await call.until_live()
        assert call.avatar.usage.restarts == 1
    assert call.states == [STARTING, LIVE, VOICE, LIVE, CLOSED]


@in_virtual_time
async def test_failures_in_a_row_are_waited_after_and_end_in_the_voice() -> None:
    async with live(recovery=RESTART) as call:
        call.transport.manners = Manners(worker=NEVER)
        call.connection.crash()
        await call.until(lambda: call.of("gave_up"), 300.0)
        assert call.supervisor.phase is Phase.AT_VOICE
        assert len(call.runway.sessions) == 4
        delays = [told.delay for told in call.of("restarting")]
        assert delays[0] == 0.0
        assert 0.5 <= delays[1] <= 1.0 <= delays[2] <= 2.0
        assert isinstance(call.of("gave_up")[0], AvatarJoinError)
        assert call.avatar.state is VOICE


@pytest.mark.parametrize("status", [400, 401, 404])
@in_virtual_time
async def test_what_another_session_would_not_mend_is_not_tried_again(status: int) -> None:
    async with live(recovery=RESTART) as call:
        call.runway.always["create"] = Fault(status=status)
        call.connection.crash()
        await call.until(lambda: call.of("gave_up"))
        assert call.runway.count("create") == 2


@in_virtual_time
async def test_on_loss_audio_makes_no_other_session() -> None:
    async with live(recovery=RecoveryOptions(on_loss="audio")) as call:
        call.connection.crash()
        await call.until(lambda: call.of("gave_up"))
        await asyncio.sleep(100.0)
        assert len(call.runway.sessions) == 1


@in_virtual_time
async def test_on_loss_close_closes_the_avatar() -> None:
    async with live(recovery=RecoveryOptions(on_loss="close")) as call:
        call.connection.crash()
        await call.until(lambda: call.avatar.state is CLOSED)
        assert len(call.of("gave_up")) == 1


@in_virtual_time
async def test_media_that_fails_brings_another_session() -> None:
    async with live(recovery=RESTART) as call:
        media = call.connection.media
        assert media is not None
        media.fails.set_exception(ValueError("no camera"))
        await call.until(lambda: call.of("replaced"))
        assert call.of("error")[0].reason == "media_failed"


# -- renewal


@in_virtual_time
async def test_a_session_is_renewed_before_its_cap_and_ended_after_the_change() -> None:
    async with live(recovery=CAPPED) as call:
        first = call.runway.sessions["s0"]
        await call.until(lambda: call.of("replaced"))
        assert now() < 60.0
        assert [replaced.cause for replaced in call.of("replaced")] == ["renewal"]
        assert not call.of("replaced")[0].by_voice
        assert call.of("replaced")[0].overlap >= 0.0
        await call.until(lambda: not first.alive)
        assert call.avatar.session_id == "s1"
        assert call.avatar.usage.renewals == 1
    assert call.states == [STARTING, LIVE, RENEWING, LIVE, CLOSED]


@in_virtual_time
async def test_a_face_that_is_lost_while_the_next_is_made_leaves_the_voice_until_then() -> None:
    async with live(recovery=CAPPED) as call:
        first = call.connection
        await call.until(lambda: call.supervisor.phase is Phase.REPLACING)
        await asyncio.sleep(0.5)
        first.crash()
        await call.until(lambda: call.of("replaced"))
        assert call.of("replaced")[0].by_voice
        assert call.of("replaced")[0].overlap == 0.0
    assert call.states == [STARTING, LIVE, RENEWING, VOICE, LIVE, CLOSED]


@in_virtual_time
async def test_a_renewal_that_fails_leaves_the_present_face() -> None:
    async with live(recovery=CAPPED) as call:
        call.runway.faults["create"] = [Fault(status=500)]
        await call.until(lambda: call.of("error"))
        assert isinstance(call.of("error")[0], ServerError)
        assert call.avatar.state is LIVE
        assert call.runway.sessions["s0"].alive
        await call.until(lambda: call.of("replaced"))


@in_virtual_time
async def test_the_session_of_a_renewal_that_fails_does_not_bill_on() -> None:
    async with live(recovery=CAPPED, join_timeout=5.0) as call:
        call.transport.rooms = [Manners(first_frame=NEVER)]
        await call.until(lambda: call.of("error"))
        await call.until(lambda: not call.runway.sessions["s1"].alive, 5.0)
        assert call.runway.sessions["s0"].alive


@in_virtual_time
async def test_both_lost_at_once_is_a_loss() -> None:
    async with live(recovery=CAPPED) as call:
        first = call.connection
        call.transport.manners = Manners(worker=NEVER)
        await call.until(lambda: call.supervisor.phase is Phase.REPLACING)
        await asyncio.sleep(2.5)
        call.transport.manners = Manners()
        first.crash()
        await call.until(lambda: call.of("restarting"))
        await call.until_live()
        assert call.avatar.session_id == "s2"


@in_virtual_time
async def test_where_the_account_has_one_place_the_old_session_is_ended_first() -> None:
    async with calling(recovery=CAPPED) as call:
        call.runway.places = 1
        await call.start()
        await call.until_live()
        await call.until(lambda: not call.runway.sessions["s0"].alive)
        assert now() < 60.0
        assert call.avatar.session_id is None
        await call.until(lambda: call.of("replaced"))
        assert call.of("replaced")[0].by_voice
        assert call.of("error") == []
        first = now()
        await call.until(lambda: len(call.of("replaced")) == 2)
        assert now() - first < 60.0


# -- swap


@in_virtual_time
async def test_a_swap_returns_when_the_new_avatar_is_there() -> None:
    async with live() as call:
        await call.avatar.swap_avatar(preset_id="cat-character")
        assert call.avatar.session_id == "s1"
        assert call.runway.sessions["s1"].body["avatar"]["presetId"] == "cat-character"
        assert [replaced.cause for replaced in call.of("replaced")] == ["swap"]
        assert call.avatar.usage.swaps == 1
        call.connection.crash()
        await call.until(lambda: len(call.of("replaced")) == 2)
        assert call.runway.sessions["s2"].body["avatar"]["presetId"] == "cat-character"


@in_virtual_time
async def test_a_swap_that_is_refused_changes_nothing() -> None:
    async with live() as call:
        call.runway.faults["create"] = [Fault(status=404)]
        with pytest.raises(NotFoundError):
            await call.avatar.swap_avatar(preset_id="cat-character")
        assert call.avatar.session_id == "s0"
        assert call.avatar.state is LIVE
        assert call.of("error") == []


@in_virtual_time
async def test_a_swap_is_made_when_the_first_face_is_there_and_not_instead_of_it() -> None:
    async with calling() as call:
        starting = asyncio.create_task(call.start())
        await asyncio.sleep(0.01)
        assert call.avatar._call is not None
        request = realtime_request(None, "cat-character", None, None, None, None)
        await call.avatar._call.swap(request)
        await starting
        assert [s.body["avatar"]["presetId"] for s in call.runway.sessions.values()] == [
            "influencer",
            "cat-character",
        ]


@in_virtual_time
async def test_a_swap_brings_the_face_back_after_it_was_given_up() -> None:
    async with live(recovery=RecoveryOptions(on_loss="audio")) as call:
        call.connection.crash()
        await call.until(lambda: call.of("gave_up"))
        await call.avatar.swap_avatar(preset_id="cat-character")
        assert call.avatar.state is LIVE


@in_virtual_time
async def test_a_swap_while_the_call_is_paused_is_turned_down_by_the_close() -> None:
    async with live(recovery=RecoveryOptions(on_user_left="pause", user_left_grace=1.0)) as call:
        call.room.leave(call.room.remote_participants["user-0"])
        await call.until(lambda: call.avatar.state is PAUSED)
        swapping = asyncio.create_task(call.avatar.swap_avatar(preset_id="cat-character"))
        await asyncio.sleep(1.0)
        await call.avatar.aclose()
        with pytest.raises(AvatarClosedError):
            await swapping
        with pytest.raises(ConfigurationError):
            await call.avatar.swap_avatar(preset_id="cat-character")


@in_virtual_time
async def test_the_start_script_is_said_once_in_a_call() -> None:
    async with live(start_script="Hello.", recovery=RESTART) as call:
        call.connection.crash()
        await call.until(lambda: call.of("replaced"))
        scripts = [s.body.get("startScript") for s in call.runway.sessions.values()]
        assert scripts == ["Hello.", None]


# -- who is there


@in_virtual_time
async def test_nothing_bills_while_the_user_is_away() -> None:
    recovery = RecoveryOptions(on_user_left="pause", user_left_grace=5.0)
    async with live(recovery=recovery) as call:
        call.room.leave(call.room.remote_participants["user-0"])
        await call.until(lambda: call.avatar.state is PAUSED)
        assert call.supervisor.phase is Phase.PAUSED
        await call.until(lambda: not call.runway.alive)
        await asyncio.sleep(600.0)
        call.room.join("user-1")
        await call.until_live()
        assert len(call.runway.sessions) == 2
        await call.until(lambda: call.of("replaced"))
        assert call.avatar.usage.resumes == 1
    assert call.states == [STARTING, LIVE, PAUSED, STARTING, LIVE, CLOSED]


@in_virtual_time
async def test_on_user_left_close_closes_the_avatar() -> None:
    recovery = RecoveryOptions(on_user_left="close", user_left_grace=5.0)
    async with live(recovery=recovery) as call:
        call.room.leave(call.room.remote_participants["user-0"])
        await call.until(lambda: call.avatar.state is CLOSED)


@in_virtual_time
async def test_a_fault_of_ours_leaves_the_voice_and_ends_the_session() -> None:
    async with live() as call:

        def broken(_: float) -> float:
            raise ZeroDivisionError

        with mock.patch.object(call.supervisor._cap, "renew_at", broken):
            await call.avatar.swap_avatar(preset_id="cat-character")
            await call.until(lambda: call.avatar.state is VOICE)
        assert call.supervisor.phase is Phase.OVER
        await call.until(lambda: not call.runway.alive)


# -- face off, face on


@in_virtual_time
async def test_paused_nothing_bills_and_resumed_another_session_is_the_face() -> None:
    async with live(recovery=RESTART) as call:
        await call.avatar.pause()
        assert call.avatar.state is PAUSED
        await call.avatar.pause()
        await asyncio.sleep(10.0)
        assert call.runway.alive == []
        await asyncio.sleep(600.0)
        assert len(call.runway.sessions) == 1
        await call.avatar.resume()
        assert call.avatar.state is LIVE
        await call.avatar.resume()
        assert len(call.runway.sessions) == 2
        await call.until(lambda: call.of("replaced"))
        assert [replaced.cause for replaced in call.of("replaced")] == ["resume"]
        assert call.avatar.usage.resumes == 1
    assert call.states == [STARTING, LIVE, PAUSED, STARTING, LIVE, CLOSED]
    assert call.of("error") == []


@in_virtual_time
async def test_a_face_is_paused_ten_times_in_a_row() -> None:
    async with live(recovery=RESTART) as call:
        for _ in range(10):
            await call.avatar.pause()
            await call.avatar.resume()
        assert call.avatar.state is LIVE
        await asyncio.sleep(30.0)
        assert len(call.runway.alive) == 1


@in_virtual_time
async def test_paused_before_the_face_is_there() -> None:
    async with calling(recovery=RESTART) as call:
        await call.start()
        await call.avatar.pause()
        await asyncio.sleep(10.0)
        assert call.runway.alive == []
        await call.avatar.resume()
        assert call.avatar.state is LIVE


@in_virtual_time
async def test_paused_while_another_session_is_waited_for_or_made() -> None:
    for seconds in (0.0, 1.0, 5.0, 20.0):
        async with live(recovery=RecoveryOptions(session_cap=60.0, backoff=3.0)) as call:
            call.transport.manners = Manners(worker=6.0)
            await call.until(lambda: call.supervisor.phase is Phase.REPLACING)
            await asyncio.sleep(seconds)
            await call.avatar.pause()
            await asyncio.sleep(10.0)
            assert call.runway.alive == []


@in_virtual_time
async def test_resumed_a_face_that_does_not_come_is_told_to_who_has_asked() -> None:
    async with live(recovery=RESTART) as call:
        await call.avatar.pause()
        call.runway.always["create"] = Fault(status=401)
        with pytest.raises(AuthenticationError):
            await call.avatar.resume()
        assert call.avatar.state is VOICE
        call.runway.always.clear()
        await call.avatar.resume()
        assert call.avatar.state is LIVE


@in_virtual_time
async def test_a_pause_and_a_resume_that_are_overtaken_say_so() -> None:
    async with live(recovery=RESTART) as call:
        await call.avatar.pause()
        call.transport.manners = Manners(worker=6.0)
        resuming = asyncio.create_task(call.avatar.resume())
        await asyncio.sleep(1.0)
        await call.avatar.pause()
        with pytest.raises(AvatarClosedError):
            await resuming
        resuming = asyncio.create_task(call.avatar.resume())
        await asyncio.sleep(1.0)
        await call.avatar.aclose()
        with pytest.raises(AvatarClosedError):
            await resuming
        for switch in (call.avatar.pause, call.avatar.resume):
            with pytest.raises(ConfigurationError, match="closed"):
                await switch()


@pytest.mark.parametrize("gap_after", [0.5, 5.0])
@in_virtual_time
async def test_resumed_before_a_gap_for_the_pause_has_come_there_is_a_face(
    gap_after: float,
) -> None:
    async with live(recovery=RESTART) as call:
        output = call.avatar._call.output  # type: ignore[union-attr]
        hand_over = output.hand_over

        async def at_the_gap(avatar: Avatar | None) -> None:
            await asyncio.sleep(gap_after)
            await hand_over(avatar)

        with mock.patch.object(output, "hand_over", at_the_gap):
            pausing = asyncio.create_task(call.avatar.pause())
            await asyncio.sleep(gap_after - 0.25)
            await call.avatar.resume()
            with pytest.raises(AvatarClosedError):
                await pausing
            await asyncio.sleep(30.0)
        assert call.avatar.state is LIVE
        assert len(call.runway.alive) == 1


@in_virtual_time
async def test_resumed_with_nobody_there_it_waits_for_a_user() -> None:
    async with live(recovery=RecoveryOptions(on_user_left="pause", user_left_grace=0.0)) as call:
        await call.avatar.pause()
        call.room.leave(call.room.remote_participants["user-0"])
        resuming = asyncio.create_task(call.avatar.resume())
        await asyncio.sleep(60.0)
        assert not resuming.done()
        assert len(call.runway.sessions) == 1
        call.room.join("user-1")
        await resuming
        assert call.avatar.state is LIVE


# -- the participant is put out of the room --------------------------------------------------------


@in_virtual_time
async def test_a_participant_that_was_replaced_keeps_its_face_and_tells() -> None:
    async with live(recovery=RESTART) as call:
        call.transport.evict("replaced")
        await asyncio.sleep(30.0)
        assert [error.reason for error in call.of("error")] == ["replaced"]
        assert call.states == [STARTING, LIVE]
        assert len(call.runway.sessions) == 1


async def _remove(call: ScriptedCall) -> None:
    """And see that nothing is paid for any more, and that the voice is left."""
    call.transport.evict("removed")
    call.transport.evict("removed")
    await asyncio.sleep(10.0)
    assert [error.reason for error in call.of("error")] == ["removed"]
    assert call.of("gave_up") == call.of("error")
    assert call.avatar.state is VOICE
    assert call.supervisor.phase is Phase.AT_VOICE
    assert call.runway.alive == []
    made = len(call.runway.sessions)
    with pytest.raises(AvatarClosedError):
        await call.avatar.swap_avatar(preset_id="cat-character")
    await asyncio.sleep(600.0)
    assert len(call.runway.sessions) == made


@in_virtual_time
async def test_of_a_participant_that_was_removed_the_session_ends_and_none_follows() -> None:
    async with live(recovery=RESTART) as call:
        await _remove(call)


@in_virtual_time
async def test_removed_before_the_face_is_there() -> None:
    async with calling(recovery=RESTART) as call:
        await call.start()
        await _remove(call)


@in_virtual_time
async def test_removed_while_the_next_session_is_waited_for() -> None:
    async with live(recovery=RecoveryOptions(session_cap=None, backoff=50.0)) as call:
        call.transport.manners = Manners(worker=NEVER)
        call.connection.crash()
        await call.until(lambda: len(call.of("restarting")) == 2)
        call.told[:] = [told for told in call.told if told[0] != "error"]
        await _remove(call)


@in_virtual_time
async def test_removed_during_a_renewal() -> None:
    async with live(recovery=CAPPED) as call:
        call.transport.manners = Manners(worker=6.0)
        await call.until(lambda: call.supervisor.phase is Phase.REPLACING)
        await _remove(call)


@in_virtual_time
async def test_removed_while_the_call_is_paused() -> None:
    async with live(recovery=RecoveryOptions(on_user_left="pause", user_left_grace=0.0)) as call:
        for participant in list(call.room.remote_participants.values()):
            call.room.leave(participant)
        await call.until(lambda: call.supervisor.phase is Phase.PAUSED)
        await _remove(call)


@in_virtual_time
async def test_removed_with_on_loss_close_the_avatar_closes() -> None:
    async with live(recovery=RecoveryOptions(on_loss="close")) as call:
        call.transport.evict("removed")
        await call.until(lambda: call.avatar.state is CLOSED)


@in_virtual_time
async def test_a_room_that_is_over_closes_the_avatar_without_an_error() -> None:
    async with live(recovery=RESTART) as call:
        call.transport.evict("room_over")
        await call.until(lambda: call.avatar.state is CLOSED)
        assert call.of("error") == []
