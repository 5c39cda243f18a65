"""A face that comes back within a long segment goes on with it, instead of waiting for its end."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from livekit_plugins_runway.testing.tones import ToneScript, in_order, missing, repeated_seconds
from tests.support.speech_world import Worker, World, world
from tests.support.virtual_clock import timers_only

pytestmark = pytest.mark.sampled

STORY = ToneScript(40, slot_s=0.5, gap_s=0.15)  # 20 s, with gaps between words
SHORT = ToneScript(4, offset=50)
OTHER = ToneScript(6, offset=60)


async def lose_the_face(w: World, *, latency: float = 0.25, for_seconds: float = 3.0) -> float:
    """A call whose face is lost at 2 s of a long segment; the loop time at which the next one is
    ready."""
    w.attach(latency=latency)
    await w.say(SHORT)
    await w.spoken()  # its latency is known
    await w.say(STORY)
    await asyncio.sleep(2.0)
    w.worker.frozen = True
    w.output.detach_avatar()
    await asyncio.sleep(for_seconds)
    return w.now


def longest_pause(w: World, since: float, until: float) -> float:
    """Seconds without a sound between two tones, beyond the gap that is said."""
    times = [at for at, pcm in w.ear.frames if since <= at <= until and pcm.strip(b"\0")]
    return max(b - a for a, b in itertools.pairwise(times)) - STORY.gap_s


async def given_speech(worker: Worker) -> None:
    """Until something was sent to it."""
    async with asyncio.timeout(10.0):
        await worker.first_speech.wait()


def speaks_from(w: World) -> float:
    """Loop time at which the last speaker of the segment began."""
    return w.progressed[-1].started_at - w.output._player._reporter.wall_offset


@pytest.mark.slow
@timers_only
@pytest.mark.parametrize("latency", [0.1, 0.25, 0.8])
@pytest.mark.parametrize("for_seconds", [3.0, 3.2, 3.4])
async def test_the_avatar_goes_on_at_a_gap_soon_after_it_is_ready(
    for_seconds: float, latency: float
) -> None:
    async with world() as w:
        ready = await lose_the_face(w, latency=latency, for_seconds=for_seconds)
        new, switched = await w.stand_by(latency=latency)
        end = await w.spoken()
        assert not end.interrupted
        assert switched == [pytest.approx(ready, abs=0.05)]  # the picture is there at once
        assert new.sent > 0
        assert speaks_from(w) - ready <= 2.0
        tones = [tone for tone in w.ear.tones() if tone.index < 50]
        assert missing(STORY, tones, fraction=0.9) == []
        assert repeated_seconds(STORY, w.ear.tones(ready), tolerance=0.01) == 0
        assert longest_pause(w, ready, w.now - 0.5) <= 0.3
        assert w.losses == []


@pytest.mark.slow
@timers_only
@pytest.mark.parametrize("latency", [0.05, 0.15, 0.45, 0.9])
async def test_an_avatar_that_answers_sooner_or_later_than_the_one_before_costs_no_word(
    latency: float,
) -> None:
    async with world() as w:
        ready = await lose_the_face(w, latency=0.4)
        await w.stand_by(latency=latency)
        await w.spoken()
        tones = [tone for tone in w.ear.tones() if tone.index < 50]
        assert missing(STORY, tones, fraction=0.85) == []
        assert in_order(STORY, w.ear.tones(ready))
        assert w.losses == []


@timers_only
async def test_of_an_avatar_whose_latency_is_not_known_nothing_is_risked() -> None:
    async with world(wait_for_avatar=0.0) as w:
        await w.say(STORY)
        await asyncio.sleep(2.0)
        worker = w.attach()
        await w.spoken()
        assert worker.sent == 0
        assert missing(STORY, w.ear.tones()) == []


@timers_only
async def test_what_is_about_to_end_is_left_to_the_voice() -> None:
    async with world() as w:
        w.attach()
        await w.say(SHORT)
        await w.spoken()
        await w.say(OTHER)
        await asyncio.sleep(0.3)
        w.output.detach_avatar()
        await asyncio.sleep(0.1)
        new, _ = await w.stand_by()
        await w.spoken()
        assert new.sent == 0
        assert missing(OTHER, w.ear.tones(), fraction=0.9) == []


@timers_only
@pytest.mark.parametrize("before_the_gap", [True, False])
async def test_a_barge_in_around_the_gap_is_silent_at_once_and_leaves_nothing_over(
    before_the_gap: bool,
) -> None:
    async with world() as w:
        await lose_the_face(w)
        new, _ = await w.stand_by()
        await given_speech(new)
        await asyncio.sleep(0.05 if before_the_gap else 1.5)
        cut = w.now
        w.output.clear_buffer()
        end = await w.spoken()
        assert end.interrupted
        assert (w.ear.loud_after(cut) or 0.0) <= 0.011
        await w.say(OTHER)
        await w.spoken()
        assert [tone.index for tone in w.ear.tones(cut + 0.02)] == list(OTHER.indices)


@timers_only
@pytest.mark.parametrize("after", [0.05, 0.15, 0.6])
async def test_an_avatar_that_is_lost_again_as_it_goes_on_costs_no_word(after: float) -> None:
    async with world() as w:
        await lose_the_face(w)
        new, _ = await w.stand_by()
        await given_speech(new)
        await asyncio.sleep(after)
        new.frozen = True
        w.output.detach_avatar(new)
        await w.spoken()
        tones = [tone for tone in w.ear.tones() if tone.index < 50]
        assert missing(STORY, tones, fraction=0.85) == []
        assert repeated_seconds(STORY, tones, tolerance=0.01) <= 0.64


@timers_only
async def test_a_segment_that_is_still_being_captured_is_taken_over_as_well() -> None:
    async with world() as w:
        w.attach()
        await w.say(SHORT)
        await w.spoken()
        w.output.detach_avatar()
        speaking = asyncio.create_task(w.say(STORY, realtime=False), name="say")
        await asyncio.sleep(1.0)
        new, _ = await w.stand_by()
        await speaking
        await w.spoken()
        assert new.sent > 0
        assert missing(STORY, [t for t in w.ear.tones() if t.index < 50], fraction=0.9) == []
