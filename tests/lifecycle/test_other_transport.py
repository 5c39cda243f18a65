"""What the supervisor does where another way of the transport may give a face."""

from __future__ import annotations

import pytest

from livekit_plugins_runway import AvatarState, RecoveryOptions
from livekit_plugins_runway.errors import (
    AvatarJoinError,
    LossReason,
    RequestRejectedError,
    TransportsFailedError,
)
from tests.support.memory_runway import Fault, now
from tests.support.scripted_call import NEVER, Manners, calling, in_virtual_time, live

RESTART = RecoveryOptions(session_cap=None, backoff=1.0, max_restarts=2)


@in_virtual_time
async def test_a_face_that_is_lost_for_good_comes_back_by_another_way() -> None:
    async with live(recovery=RESTART) as call:
        call.transport.goes_over = [None]
        lost_at = now()
        call.connection.lose(LossReason.SPEECH_FOREIGN)
        await call.until(lambda: call.of("replaced"))
        assert now() - lost_at < 5.0
        assert [(told.attempt, told.delay) for told in call.of("restarting")] == [(1, 0.0)]
        assert call.of("gave_up") == []


@in_virtual_time
async def test_what_failed_before_does_not_count_against_another_way() -> None:
    async with live(recovery=RESTART) as call:
        call.transport.manners = Manners(worker=NEVER)
        error = AvatarJoinError(missing="participant")
        call.transport.goes_over = [error, error, None]
        call.connection.crash()
        await call.until(lambda: len(call.of("restarting")) == 4, 300.0)
        assert [told.attempt for told in call.of("restarting")] == [1, 2, 1, 2]
        await call.until(lambda: call.of("gave_up"), 300.0)


@in_virtual_time
async def test_where_no_way_gives_a_face_the_voice_goes_on_and_says_why() -> None:
    neither = TransportsFailedError(bridge=AvatarJoinError(), direct=AvatarJoinError())
    async with live(recovery=RESTART) as call:
        call.transport.goes_over = [neither]
        call.connection.crash()
        await call.until(lambda: call.of("gave_up"))
        assert call.of("gave_up") == [neither]
        assert call.of("restarting") == []
        assert call.avatar.state is AvatarState.VOICE_ONLY


@pytest.mark.parametrize("on_loss", ["audio", "close"])
@in_virtual_time
async def test_who_wants_no_more_sessions_gets_none_by_another_way(on_loss: str) -> None:
    options = RecoveryOptions(on_loss=on_loss)  # type: ignore[arg-type]
    async with live(recovery=options) as call:
        call.transport.goes_over = [None]
        call.connection.lose(LossReason.SPEECH_FOREIGN)
        await call.until(lambda: call.of("gave_up"))
        assert call.transport.failures == []


@in_virtual_time
async def test_a_first_session_that_is_refused_is_made_by_another_way_within_start() -> None:
    async with calling(recovery=RESTART) as call:
        call.runway.faults["create"] = [Fault(status=400)]
        call.transport.goes_over = [None]
        await call.start()
        await call.until_live()
        assert [type(error) for error in call.transport.failures] == [RequestRejectedError]
        assert call.runway.count("create") == 2


@in_virtual_time
async def test_a_first_session_that_is_refused_by_the_only_way_is_an_error_of_start() -> None:
    async with calling(recovery=RESTART) as call:
        call.runway.always["create"] = Fault(status=400)
        with pytest.raises(RequestRejectedError):
            await call.start()
        assert call.runway.count("create") == 1
