"""After a barge-in the next words wait until nothing of the old ones can come back: and no longer.

Time goes on in steps of 10 ms, as sound comes back.
"""

from __future__ import annotations

import asyncio

import pytest

from livekit_plugins_runway.playout.interruption import Interruption
from tests.support.virtual_clock import timers_only

HOP = 0.01


class Delivery:
    """Confirms, or not, after `delay` seconds that the worker has dropped all it had."""

    lead = 2.0
    batch = 4800

    def __init__(self, *, confirms: bool, delay: float = 0.0) -> None:
        self._confirms = confirms
        self._delay = delay

    def send(self, pcm: bytes) -> None:
        raise AssertionError("nothing is said in an interruption")

    def finish(self) -> None:
        raise AssertionError("nothing is said in an interruption")

    async def clear(self) -> bool:
        await asyncio.sleep(self._delay)
        return self._confirms


async def over_after(
    *,
    confirms: bool = True,
    delay: float = 0.0,
    latency: float = 0.3,
    audible: tuple[float, float] = (0.0, 0.0),
    frames_until: float = 60.0,
) -> float:
    """Seconds from the barge-in until it is over.

    Args:
        confirms: whether the worker confirms, `delay` seconds after the barge-in.
        latency: seconds from sending speech to hearing it.
        audible: from when until when the avatar is heard, in seconds after the barge-in.
        frames_until: nothing at all comes back any more from then on.
    """
    loop = asyncio.get_running_loop()
    await asyncio.sleep(5.0)
    since = loop.time()
    interruption = Interruption(since)
    telling = asyncio.create_task(
        interruption.notify(Delivery(confirms=confirms, delay=delay)), name="notify"
    )
    for hop in range(1, 3000):
        await asyncio.sleep(since + hop * HOP - loop.time())
        at = hop * HOP
        if at <= frames_until:
            interruption.hear(audible[0] <= at < audible[1], loop.time())
        if interruption.over(loop.time(), latency):
            await telling
            return at
    raise AssertionError("it is never over")


def soon(seconds: float) -> object:
    """At this time, within one step."""
    return pytest.approx(seconds, abs=HOP + 1e-6)


@timers_only
async def test_a_worker_that_confirms_at_once_is_waited_for_as_long_as_buffers_hold() -> None:
    assert await over_after() == soon(0.15)


@timers_only
async def test_a_confirmation_counts_from_when_it_came_and_not_from_the_barge_in() -> None:
    assert await over_after(delay=0.4) == soon(0.55)


@timers_only
async def test_before_the_worker_was_told_it_is_not_over() -> None:
    assert await over_after(confirms=False, delay=2.0, latency=0.1) == soon(2.0)


@timers_only
async def test_without_a_confirmation_the_old_words_have_their_time_to_come_out() -> None:
    assert await over_after(confirms=False, latency=0.3) == soon(0.45)
    assert await over_after(confirms=False, latency=1.0) == soon(1.15)


@timers_only
async def test_with_a_confirmation_the_latency_does_not_matter() -> None:
    assert await over_after(latency=3.0) == soon(0.15)


@timers_only
async def test_as_long_as_the_avatar_is_heard_it_is_not_over() -> None:
    assert await over_after(audible=(0.0, 0.8)) == soon(0.86)


@timers_only
async def test_a_sound_after_a_gap_begins_the_quiet_anew() -> None:
    assert await over_after(audible=(0.14, 0.5)) == soon(0.56)


@timers_only
async def test_a_relay_that_brings_nothing_any_more_is_silent_too() -> None:
    assert await over_after(audible=(0.0, 9.0), frames_until=0.3) == soon(0.41)
    assert await over_after(frames_until=0.0) == soon(0.15)


@timers_only
async def test_an_avatar_that_was_heard_for_long_must_be_quiet_for_longer() -> None:
    assert await over_after(audible=(0.0, 2.40)) == soon(2.46)
    assert await over_after(audible=(0.0, 2.48)) == soon(2.98)
    assert await over_after(audible=(0.0, 4.0)) == soon(4.5)


def test_the_next_words_wait_for_two_and_a_half_seconds_at_most() -> None:
    interruption = Interruption(100.0)
    assert not interruption.late(102.5)
    assert interruption.late(102.51)
