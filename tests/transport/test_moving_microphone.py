"""Where the plain voice speaks moves between two words, and loses none."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from livekit_plugins_runway.transport.auto.microphone import MovingMicrophone
from tests.support.virtual_clock import timers_only

WORD, PAUSE = np.full(480, 5000, np.int16).tobytes(), bytes(960)


class Track:
    subscribed = reachable = True

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.kept_alive = 0

    async def push_audio(self, pcm: bytes) -> None:
        self.heard.append(pcm)

    def keep_alive(self) -> None:
        self.kept_alive += 1


async def moving(
    patience: float = 3.0,
) -> tuple[MovingMicrophone, Track, Track, asyncio.Task[None]]:
    former, other = Track(), Track()
    microphone = MovingMicrophone(former)
    task = asyncio.create_task(microphone.move_to(other, patience))
    await asyncio.sleep(0)
    return microphone, former, other, task


async def test_it_moves_with_the_first_pause_and_not_within_a_word() -> None:
    microphone, former, other, task = await moving()
    said = [WORD] * 5 + [PAUSE] * 3 + [WORD] * 3 + [PAUSE] * 6 + [WORD] * 2
    for piece in said:
        await microphone.push_audio(piece)
    await task
    assert former.heard + other.heard == said
    assert other.heard == [PAUSE] * 3 + [WORD] * 2
    assert former.kept_alive == 1


async def test_where_nothing_is_said_it_moves_at_once() -> None:
    microphone, former, other, task = await moving()
    microphone.keep_alive()
    await task
    assert (former.kept_alive, other.kept_alive) == (1, 1)
    await microphone.push_audio(WORD)
    assert other.heard == [WORD]


@timers_only
async def test_without_a_pause_it_moves_in_mid_word_at_last() -> None:
    microphone, former, other, task = await moving(patience=0.5)
    for _ in range(60):
        await microphone.push_audio(WORD)
        await asyncio.sleep(0.01)
    await task
    assert len(former.heard) == pytest.approx(50, abs=2)
    assert len(former.heard) + len(other.heard) == 60


@pytest.mark.parametrize("moved", [False, True])
async def test_cancelled_it_stays_where_it_was(moved: bool) -> None:
    microphone, former, other, task = await moving()
    if moved:
        microphone.keep_alive()  # in the same step in which it is cancelled
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    await microphone.push_audio(PAUSE)
    assert former.heard == [PAUSE]
    assert other.heard == []
