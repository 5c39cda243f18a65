"""The picture waits in the relay for the voice that belongs to it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_args, get_type_hints

import pytest
from livekit import rtc

from livekit_plugins_runway.media.lip_sync import MAX_HOLD, ONWARD, LipSync
from tests.support.virtual_clock import timers_only

[RtcStats] = get_args(get_type_hints(rtc.RemoteAudioTrack.get_stats)["return"])
"""The SDK's own: it refuses a field that it does not have. It is exported nowhere."""


class Track:
    """With a jitter buffer in which everything stays for `delay` seconds."""

    def __init__(self, delay: float, per_second: int) -> None:
        self.delay = delay
        self._per_second = per_second
        self._total, self._count = 7.0, 100

    async def get_stats(self) -> list[Any]:
        self._total += self.delay * self._per_second
        self._count += self._per_second
        other, stats = RtcStats(), RtcStats()
        other.codec.rtc.id = "codec"
        stats.inbound_rtp.inbound.jitter_buffer_delay = self._total
        stats.inbound_rtp.inbound.jitter_buffer_emitted_count = self._count
        return [other, stats]


class Ended:
    async def get_stats(self) -> list[Any]:
        raise Exception("track is gone")


@asynccontextmanager
async def following(lips: LipSync) -> AsyncIterator[None]:
    task = asyncio.create_task(lips.follow())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@timers_only
async def test_a_picture_waits_for_as_long_as_its_voice_is_behind() -> None:
    voice, picture = Track(0.045, 48_000), Track(0.012, 25)
    lips = LipSync(voice, picture)
    async with following(lips):
        await asyncio.sleep(10)
        assert lips.hold == pytest.approx(0.033 + ONWARD, abs=0.001)
        picture.delay = 0.040
        await asyncio.sleep(10)
        assert lips.hold == pytest.approx(0.005 + ONWARD, abs=0.001)


@timers_only
async def test_it_changes_in_steps_that_nobody_sees() -> None:
    voice, picture = Track(0.030, 48_000), Track(0.015, 25)
    lips = LipSync(voice, picture)
    async with following(lips):
        await asyncio.sleep(10)
        voice.delay = 0.075
        holds = []
        for _ in range(8):
            holds.append(lips.hold)
            await asyncio.sleep(1)
    steps = [after - before for before, after in itertools.pairwise(holds)]
    assert max(steps) <= 0.0101
    assert holds[-1] == pytest.approx(0.060 + ONWARD, abs=0.001)


@pytest.mark.parametrize(("voice", "picture", "hold"), [(0.5, 0.01, MAX_HOLD), (0.02, 0.4, ONWARD)])
def test_no_network_makes_it_wait_longer_than_eyes_bear(
    voice: float, picture: float, hold: float
) -> None:
    @timers_only
    async def run() -> None:
        lips = LipSync(Track(voice, 48_000), Track(picture, 25))
        async with following(lips):
            await asyncio.sleep(30)
        assert lips.hold == pytest.approx(hold)

    run()


@timers_only
async def test_pictures_keep_their_order_when_the_wait_becomes_shorter() -> None:
    lips = LipSync(Ended(), Ended())
    lips.lead = 0.05
    first = lips.due(1.0)
    lips.lead = 0.0
    assert lips.due(1.01) >= first
    assert lips.due(2.0) == pytest.approx(2.0 + ONWARD)


@timers_only
async def test_without_statistics_the_usual_wait_stays() -> None:
    lips = LipSync(Ended(), Ended())
    usual = lips.hold
    async with asyncio.timeout(2):
        await lips.follow()
    assert lips.hold == usual


class Slow(Track):
    """Whose answers take `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(0.03, 48_000)
        self._seconds = seconds
        self.asked = self.answered = 0

    async def get_stats(self) -> list[Any]:
        self.asked += 1
        await asyncio.sleep(self._seconds)
        self.answered += 1
        return await super().get_stats()


@timers_only
@pytest.mark.parametrize(("seconds", "answered"), [(0.08, 2), (1e6, 0)])
async def test_nothing_is_asked_any_more_when_it_has_ended(seconds: float, answered: int) -> None:
    track = Slow(seconds)
    task = asyncio.create_task(LipSync(track, track).follow())
    await asyncio.sleep(1.05)
    assert track.asked == 1
    task.cancel()
    async with asyncio.timeout(0.5):
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert track.answered == answered
    assert asyncio.all_tasks() == {asyncio.current_task()}
