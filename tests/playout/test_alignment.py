"""Which hop of the speech is heard now, where receivers repeat, fade, skip, wait or change it.

Each hop of the speech is a chord of its own, so that its place is known exactly.
"""

from __future__ import annotations

import numpy as np
import pytest

from livekit_plugins_runway.playout.hearing.alignment import STRAINED, Alignment
from livekit_plugins_runway.playout.hearing.features import Hops, hop_features
from livekit_plugins_runway.testing.tones import Pcm
from tests.support.chords import HOP, chords, faded, part, silence


def recorded(*parts: Pcm) -> Hops:
    hops = Hops()
    hops.append(*hop_features(np.concatenate(parts)))
    return hops


def places(said: Pcm, *heard: Pcm, first: int = 0) -> list[int]:
    """After each hop of `heard`, how many hops of `said` that is."""
    return Alignment(first).hear(recorded(*heard), 0, recorded(said))


SAID = chords(400)


def test_each_hop_as_it_was_said_is_one_hop_further() -> None:
    assert places(SAID, SAID) == list(range(1, 401))


def test_nothing_was_heard_before_the_first_hop() -> None:
    assert Alignment(0).place == 0
    assert Alignment(30).place == 30
    assert places(SAID, part(SAID, 30, 60), first=30) == list(range(31, 61))


@pytest.mark.parametrize("pieces", [1, 7, 25, 60])
def test_it_does_not_matter_in_which_pieces_it_is_told(pieces: int) -> None:
    heard, said, alignment = Hops(), recorded(SAID), Alignment(0)
    walk = np.concatenate([part(SAID, 0, 90), silence(20), part(SAID, 90, 150)])
    told: list[int] = []
    for start in range(0, 170, pieces):
        since = heard.count
        heard.append(*hop_features(walk[start * HOP : min(170, start + pieces) * HOP]))
        told += alignment.hear(heard, since, said)
    assert told == [*range(1, 91), *[90] * 20, *range(91, 151)]


@pytest.mark.parametrize("at", [1, 40, 180, 300])
@pytest.mark.parametrize("times", [2, 6])
def test_a_hop_that_a_receiver_repeats_counts_once(at: int, times: int) -> None:
    repeated = np.tile(part(SAID, at - 1, at), times)
    told = places(SAID, part(SAID, 0, at), repeated, part(SAID, at, 400))
    assert told[: at + times] == [*range(1, at + 1), *[at] * times]
    assert told[at + times :] == list(range(at + 1, 401))


def test_a_sound_that_is_held_and_fades_counts_once() -> None:
    fade = faded(part(SAID, 99, 100), 20, held=10)
    told = places(SAID, part(SAID, 0, 100), fade, silence(30), part(SAID, 100, 400))
    assert told[:150] == [*range(1, 101), *[100] * 50]
    assert told[150:] == list(range(101, 401))


def test_a_hop_that_was_dropped_to_catch_up_is_left_behind_at_once() -> None:
    told = places(SAID, part(SAID, 0, 100), part(SAID, 101, 400))
    assert told[:100] == list(range(1, 101))
    assert told[100:] == list(range(102, 401))


def test_while_the_avatar_waits_the_place_stays_however_long() -> None:
    told = places(SAID, part(SAID, 0, 50), silence(500), part(SAID, 50, 60))
    assert told == [*range(1, 51), *[50] * 500, *range(51, 61)]


def test_a_pause_that_was_said_is_heard_as_it_goes() -> None:
    said = np.concatenate([part(SAID, 0, 50), silence(30), part(SAID, 50, 400)])
    assert places(said, said)[100:] == list(range(101, 431))
    # A pause that a receiver cut short is left behind with the next word.
    shorter = np.concatenate([part(SAID, 0, 50), silence(25), part(SAID, 50, 400)])
    assert places(said, shorter)[85:] == list(range(91, 431))


def test_a_wait_shortly_before_a_pause_is_not_taken_for_that_pause() -> None:
    said = np.concatenate([part(SAID, 0, 55), silence(30), part(SAID, 55, 100)])
    told = places(said, part(SAID, 0, 50), silence(30), part(SAID, 50, 55))
    assert told == [*range(1, 51), *[50] * 30, *range(51, 56)]


def test_speech_that_was_not_sent_yet_is_not_heard() -> None:
    told = places(part(SAID, 0, 60), part(SAID, 0, 60), chords(30, seed=9))
    assert told[:60] == list(range(1, 61))
    assert max(told) == 60


@pytest.mark.parametrize("gain", [0.2, 3.0])
def test_an_avatar_that_is_softer_or_louder_is_followed_all_the_same(gain: float) -> None:
    heard = (part(SAID, 0, 300) * gain).astype(np.int16)
    assert places(SAID, heard)[20:] == list(range(21, 301))


def test_how_loud_the_avatar_is_is_learned_and_strains_nothing_then() -> None:
    alignment = Alignment(0)
    alignment.hear(recorded(part(SAID, 0, 300) * np.int16(3)), 0, recorded(SAID))
    assert alignment.strain < 0.05


def test_how_well_it_goes_shows_in_the_strain() -> None:
    said, alignment = recorded(SAID), Alignment(0)
    alignment.hear(recorded(part(SAID, 0, 200)), 0, said)
    assert alignment.strain < 0.05
    alignment = Alignment(0)
    alignment.hear(recorded(chords(200, seed=9)), 0, said)
    lost = alignment.strain
    assert STRAINED < lost <= 2.0
    # Silence says nothing about it.
    alignment.hear(recorded(silence(100)), 0, said)
    assert alignment.strain == lost


def test_strain_is_that_of_the_last_half_second() -> None:
    said, alignment = recorded(SAID), Alignment(0)
    alignment.hear(recorded(chords(100, seed=9)), 0, said)
    strained = alignment.strain
    place = alignment.place
    rest = recorded(part(SAID, place, place + 50))
    alignment.move_to(place)
    assert alignment.strain == 0.0
    alignment.strain = strained
    alignment.hear(rest, 0, said)
    assert alignment.strain == pytest.approx(strained * 0.96**50, abs=0.05)


def test_moved_to_another_place_it_goes_on_from_there() -> None:
    said, alignment = recorded(SAID), Alignment(0)
    alignment.hear(recorded(part(SAID, 0, 20)), 0, said)
    alignment.move_to(250)
    assert alignment.place == 250
    told = alignment.hear(recorded(part(SAID, 250, 300)), 0, said)
    assert told == list(range(251, 301))


def test_moved_to_another_place_only_what_follows_it_can_be_heard_next() -> None:
    said, alignment = recorded(SAID), Alignment(0)
    alignment.hear(recorded(part(SAID, 0, 20)), 0, said)
    alignment.move_to(250)
    alignment.hear(recorded(part(SAID, 270, 271)), 0, said)
    assert 250 <= alignment.place <= 252
