"""The helpers for races and for the end of tasks: who is awaited, and whose error is whose."""

from __future__ import annotations

import asyncio
import logging

import pytest

from livekit_plugins_runway._common.tasks import cancel_and_wait, first_of, watched
from tests.support.virtual_clock import timers_only

LOGGER = "livekit.plugins.runway_bridge"


class Life:
    """A coroutine that notes how it ended, and may take its time to clean up."""

    def __init__(
        self, seconds: float, *, error: Exception | None = None, cleanup: float = 0.0
    ) -> None:
        self._seconds = seconds
        self._error = error
        self._cleanup = cleanup
        self.end = "not begun"
        self.ended_at: float | None = None
        self.cancels = 0

    async def run(self) -> str:
        self.end = "running"
        try:
            await asyncio.sleep(self._seconds)
            self.end = "whole"
        except asyncio.CancelledError:
            self.cancels += 1
            self.end = "cancelled"
            try:
                await asyncio.sleep(self._cleanup)
            except asyncio.CancelledError:
                self.cancels += 1
            if self._error is None:
                raise
        finally:
            self.ended_at = asyncio.get_running_loop().time()
        if self._error is not None:
            raise self._error
        return self.end


def now() -> float:
    return asyncio.get_running_loop().time()


# -- first_of --------------------------------------------------------------------------------------


@timers_only
async def test_the_first_wins_and_the_others_have_ended_when_it_returns() -> None:
    slow, quick = Life(5.0, cleanup=0.5), Life(1.0)
    assert await first_of(slow.run(), quick.run()) == 1
    assert (slow.end, slow.ended_at, quick.end) == ("cancelled", 1.5, "whole")
    assert now() == 1.5


@timers_only
async def test_of_two_that_end_at_once_the_first_in_order_is_told() -> None:
    assert await first_of(asyncio.sleep(9.0), asyncio.sleep(1.0), asyncio.sleep(1.0)) == 1


@timers_only
async def test_the_winners_error_is_raised_and_the_losers_are_ended() -> None:
    loser = Life(5.0)
    with pytest.raises(ValueError, match="mine"):
        await first_of(loser.run(), Life(1.0, error=ValueError("mine")).run())
    assert loser.end == "cancelled"


@timers_only
async def test_an_error_among_those_that_end_at_once_is_raised() -> None:
    with pytest.raises(ValueError, match="mine"):
        await first_of(asyncio.sleep(1.0), Life(1.0, error=ValueError("mine")).run())


@timers_only
async def _race_with_a_loser_that_breaks() -> None:
    assert await first_of(asyncio.sleep(1.0), Life(5.0, error=ValueError("late")).run()) == 0


def test_a_losers_error_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        _race_with_a_loser_that_breaks()
    told = [(r.levelname, r.__dict__["error"]) for r in caplog.records if r.name == LOGGER]
    assert told == [("DEBUG", "ValueError")]


@timers_only
async def test_what_the_caller_owns_is_watched_and_not_cancelled() -> None:
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(asyncio.sleep(2.0, "done"))
    assert await first_of(asyncio.sleep(1.0), lost, task) == 0
    assert not lost.done()
    assert await task == "done"
    lost.set_result("gone")
    assert await first_of(asyncio.sleep(1.0), lost) == 1
    assert now() == 2.0


@timers_only
async def test_an_error_of_what_the_caller_owns_is_raised() -> None:
    task = asyncio.create_task(Life(1.0, error=ValueError("its own")).run())
    with pytest.raises(ValueError, match="its own"):
        await first_of(asyncio.sleep(5.0), task)


@timers_only
async def test_none_keeps_its_place() -> None:
    assert await first_of(None, asyncio.sleep(5.0), None, asyncio.sleep(1.0)) == 3


@timers_only
async def test_after_the_timeout_nobody_has_won_and_all_have_ended() -> None:
    life = Life(5.0, cleanup=0.25)
    assert await first_of(life.run(), timeout=1.0) is None
    assert (life.end, life.ended_at) == ("cancelled", 1.25)


@timers_only
async def test_a_timeout_of_zero_lets_what_is_done_win() -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    assert await first_of(asyncio.sleep(5.0), done, timeout=0.0) == 1


@timers_only
async def test_the_callers_cancellation_goes_on_after_the_children_have_ended() -> None:
    one, two = Life(5.0, cleanup=0.5), Life(6.0, cleanup=0.75)
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    race = asyncio.create_task(first_of(one.run(), two.run(), lost))
    await asyncio.sleep(1.0)
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    assert (one.ended_at, two.ended_at) == (1.5, 1.75)
    assert not lost.done()


@timers_only
async def test_the_callers_time_limit_is_not_mistaken_for_a_child() -> None:
    life = Life(5.0, cleanup=0.5)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await first_of(life.run())
    assert life.ended_at == 1.5


# -- cancel_and_wait -------------------------------------------------------------------------------


@timers_only
async def test_all_are_cancelled_at_once_and_awaited() -> None:
    lives = [Life(5.0, cleanup=0.5), Life(5.0, cleanup=1.0)]
    tasks = [asyncio.create_task(life.run()) for life in lives]
    await asyncio.sleep(1.0)
    await cancel_and_wait(tasks[0], None, tasks[1])
    assert [life.ended_at for life in lives] == [1.5, 2.0]
    assert all(task.cancelled() for task in tasks)


@timers_only
async def test_nothing_to_cancel_is_no_fault() -> None:
    await cancel_and_wait()
    await cancel_and_wait(None)


@timers_only
async def test_one_that_had_ended_before_is_no_fault() -> None:
    task = asyncio.create_task(asyncio.sleep(1.0, "kept"))
    await asyncio.sleep(2.0)
    await cancel_and_wait(task)
    assert task.result() == "kept"


@timers_only
async def _end_one_that_breaks() -> None:
    task = asyncio.create_task(Life(5.0, error=ValueError("broken")).run(), name="the_task")
    await asyncio.sleep(1.0)
    await cancel_and_wait(task)


def test_an_error_is_logged_at_debug_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        _end_one_that_breaks()
    told = [(r.__dict__["task"], r.__dict__["error"]) for r in caplog.records if r.name == LOGGER]
    assert told == [("the_task", "ValueError")]


@timers_only
async def test_cancelled_itself_it_cancels_once_more_and_still_waits() -> None:
    life = Life(9.0, cleanup=5.0)
    task = asyncio.create_task(life.run())
    await asyncio.sleep(1.0)
    ending = asyncio.create_task(cancel_and_wait(task))
    await asyncio.sleep(1.0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert (life.cancels, life.ended_at) == (2, 2.0)
    assert task.done()


# -- watched ---------------------------------------------------------------------------------------


async def _break() -> None:
    raise ValueError("unseen")


@timers_only
async def _watch_three() -> None:
    breaks = watched(asyncio.create_task(_break(), name="the_task"))
    ends = watched(asyncio.create_task(asyncio.sleep(1.0), name="another"))
    is_cancelled = watched(asyncio.create_task(asyncio.sleep(9.0), name="a_third"))
    await asyncio.sleep(2.0)
    is_cancelled.cancel()
    await asyncio.wait([breaks, ends, is_cancelled])


def test_an_error_that_nobody_awaits_is_logged_with_the_tasks_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _watch_three()
    (record,) = [record for record in caplog.records if record.name == LOGGER]
    assert (record.levelname, record.__dict__["task"]) == ("ERROR", "the_task")
    assert "unseen" in caplog.text
