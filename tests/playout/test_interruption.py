"""After a barge-in the next words wait until nothing of the old ones can come back: and no longer.

Time goes on in steps of 10 ms, as sound comes back.
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from livekit_plugins_runway.playout.ear import Heard
from livekit_plugins_runway.playout.interruption import Interruption, OwnWords, Settled
from tests.support.virtual_clock import timers_only

HOP = 0.01


class Delivery:
    """Confirms, or not, after `delay` seconds that the worker has dropped all it had."""

    lead = 2.0
    batch = 4800
    room = 96_000

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


class Words:
    """What was being said; its next word is due at `due` (loop time)."""

    def __init__(self, due: float, heard_at: float | None, latency: float | None = None) -> None:
        self._due = due
        self.heard_at = heard_at
        self.latency = latency

    def hear(self, heard: Heard) -> None:
        assert len(heard) == 1

    def missing_for(self, now: float) -> float:
        return now - self._due


def hop(audible: bool, at: float) -> Heard:
    """10 ms that came back from the avatar."""
    level = -20.0 if audible else -90.0
    samples = np.zeros(480, np.int16)
    return Heard(samples, np.array([level], np.float32), np.array([audible]), [at])


async def over_after(
    *,
    confirms: bool = True,
    delay: float = 0.0,
    latency: float | None = 0.3,
    theirs: float | None = None,
    audible: tuple[float, float] = (0.0, 0.0),
    frames_until: float = 60.0,
    next_word: float = 0.0,
    heard: bool = True,
) -> float:
    """Seconds from the barge-in until it is over.

    Args:
        confirms: whether the worker confirms, `delay` seconds after the barge-in.
        latency: seconds from sending speech to hearing it; None: not known.
        theirs: the same, of the words that were interrupted.
        audible: from when until when the avatar is heard, in seconds after the barge-in.
        frames_until: nothing at all comes back any more from then on.
        next_word: when the next of the old words would come, in seconds after the barge-in.
        heard: whether anything of them was heard before it.
    """
    loop = asyncio.get_running_loop()
    await asyncio.sleep(5.0)
    since = loop.time()
    words = Words(since + next_word, since - 1.0 if heard else None, theirs)
    interruption = Interruption(since, words)
    telling = asyncio.create_task(
        interruption.notify(Delivery(confirms=confirms, delay=delay)), name="notify"
    )
    for step in range(1, 3000):
        await asyncio.sleep(since + step * HOP - loop.time())
        at = step * HOP
        if at <= frames_until:
            interruption.hear(hop(audible[0] <= at < audible[1], loop.time()))
        if interruption.settled(loop.time(), latency) is Settled.AVATAR:
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
async def test_of_an_avatar_that_was_never_heard_for_long_the_interrupted_words_tell() -> None:
    assert await over_after(confirms=False, latency=None, theirs=0.6) == soon(0.75)
    assert await over_after(confirms=False, latency=0.3, theirs=0.6) == soon(0.45)


@timers_only
async def test_with_a_confirmation_the_latency_does_not_matter() -> None:
    assert await over_after(latency=3.0) == soon(0.15)


@timers_only
async def test_as_long_as_the_avatar_is_heard_it_is_not_over() -> None:
    assert await over_after(audible=(0.0, 0.8)) == soon(0.95)


@timers_only
async def test_a_sound_after_a_gap_begins_the_quiet_anew() -> None:
    assert await over_after(audible=(0.14, 0.5)) == soon(0.65)


@timers_only
async def test_in_a_pause_of_the_old_words_the_next_of_them_is_waited_for() -> None:
    assert await over_after(audible=(0.0, 0.5), next_word=1.2) == soon(1.35)
    assert await over_after(next_word=0.6) == soon(0.75)  # the barge-in was in the pause


@timers_only
async def test_of_words_that_were_not_heard_yet_only_those_under_way_are_waited_for() -> None:
    assert await over_after(next_word=9.0, heard=False) == soon(0.15)


@timers_only
async def test_a_relay_that_brings_nothing_any_more_is_silent_too() -> None:
    assert await over_after(audible=(0.0, 9.0), frames_until=0.3) == soon(0.46)
    assert await over_after(frames_until=0.0) == soon(0.16)


@timers_only
async def test_an_avatar_that_was_heard_for_long_must_be_quiet_for_longer() -> None:
    assert await over_after(audible=(0.0, 2.34)) == soon(2.49)
    assert await over_after(audible=(0.0, 2.48)) == soon(2.98)
    assert await over_after(audible=(0.0, 4.0)) == soon(4.5)


def test_the_next_words_wait_for_two_and_a_half_seconds_at_most() -> None:
    interruption = Interruption(100.0, Words(100.0, 99.0))
    assert interruption.settled(102.5, 0.3) is Settled.NOT_YET
    assert interruption.settled(102.51, 0.3) is Settled.VOICE


@timers_only
async def test_a_worker_that_cannot_be_told_to_stop_is_waited_for_like_one_that_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Delivery):
        async def clear(self) -> bool:
            raise ValueError("no such call")

    interruption = Interruption(0.0, Words(0.0, None))
    await interruption.notify(Broken(confirms=False))
    assert "could not be told to stop" in caplog.text
    assert interruption.settled(0.44, 0.3) is Settled.NOT_YET
    assert interruption.settled(0.46, 0.3) is Settled.AVATAR


# -- the start script -----------------------------------------------------------------------------


def script_over_after(audible: tuple[float, float], limit: float = 20.0) -> float:
    """Seconds from when the avatar may say its start script until the agent's words follow."""
    words = OwnWords(0.0, limit)
    for step in range(1, 3000):
        at = step * HOP
        words.hear(hop(audible[0] <= at < audible[1], at))
        if words.settled(at, None) is Settled.AVATAR:
            return at
    raise AssertionError("it is never over")


def test_a_start_script_is_over_when_the_avatar_has_been_silent_for_a_while() -> None:
    assert script_over_after((1.0, 4.0)) == soon(4.8)


def test_an_avatar_that_does_not_say_its_start_script_is_not_waited_for() -> None:
    assert script_over_after((0.0, 0.0)) == soon(2.5)


def test_a_start_script_that_does_not_end_is_not_waited_for() -> None:
    assert script_over_after((0.5, 99.0), limit=6.0) == soon(6.0)
