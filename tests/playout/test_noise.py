"""The noise of an avatar is no sound, and soft speech is."""

from __future__ import annotations

import numpy as np
import pytest

from livekit_plugins_runway.playout.hearing.features import AUDIBLE_DB, Levels
from livekit_plugins_runway.playout.hearing.noise import NoiseFloor


def noise(db: float, seconds: float = 3.0) -> Levels:
    levels = np.random.default_rng(1).normal(db, 0.4, round(seconds * 100))
    return levels.astype(np.float32)


def test_before_anything_was_heard_the_threshold_is_that_of_silence() -> None:
    assert NoiseFloor().threshold == AUDIBLE_DB


@pytest.mark.parametrize("db", [-100.0, -75.0, -62.0])
def test_noise_that_nobody_hears_changes_nothing(db: float) -> None:
    floor = NoiseFloor()
    floor.hear(noise(db))
    assert floor.threshold == AUDIBLE_DB


@pytest.mark.parametrize("db", [-58.0, -54.0, -50.0, -46.0])
@pytest.mark.parametrize(("spoken", "needed"), [(False, 0.2), (True, 2.0)])
def test_noise_is_below_the_threshold_soon_at_first_and_later_after_two_seconds_of_it(
    spoken: bool, needed: float, db: float
) -> None:
    floor = NoiseFloor()
    if spoken:
        floor.note_speech()
    floor.hear(noise(db, needed - 0.1))
    assert floor.threshold == AUDIBLE_DB
    floor.hear(noise(db, 0.1))
    assert float(noise(db).max()) < floor.threshold <= db + 8.0


def test_soft_speech_is_above_it_in_a_quiet_call() -> None:
    floor = NoiseFloor()
    floor.hear(noise(-65.0))
    assert floor.threshold < -46.0


def test_a_noise_as_loud_as_speech_is_taken_for_sound() -> None:
    floor = NoiseFloor()
    floor.hear(noise(-25.0))
    assert floor.threshold == -38.0


def test_sounds_between_do_not_raise_it() -> None:
    floor = NoiseFloor()
    floor.hear(noise(-65.0))
    for _ in range(5):
        floor.hear(noise(-20.0, 1.0))
        floor.hear(noise(-65.0, 0.6))
    assert floor.threshold == AUDIBLE_DB


def test_a_noise_that_ends_is_forgotten() -> None:
    floor = NoiseFloor()
    floor.hear(noise(-45.0))
    floor.hear(noise(-80.0, 1.0))
    assert floor.threshold == AUDIBLE_DB
