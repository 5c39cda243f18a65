"""A waveform is found where it was said, whatever its pieces and the silences between them."""

from __future__ import annotations

import numpy as np
import pytest

from livekit_plugins_runway.playout.hearing.coherence import (
    BLOCK,
    Decimator,
    Sounds,
    Trace,
    Waveform,
    Whitener,
)
from livekit_plugins_runway.testing.tones import Pcm
from tests.support.chords import HOP, chords, part, silence

SAID = chords(400)


def waveform(pcm: Pcm, pieces: int = 40) -> Waveform:
    known = Waveform()
    for first in range(0, len(pcm) // HOP, pieces):
        known.append(part(pcm, first, first + pieces))
    return known


def blocks(pcm: Pcm, pieces: int = 7) -> list[tuple[int, int, bytes]]:
    sounds, found = Sounds(), []
    for first in range(0, len(pcm) // HOP, pieces):
        samples = part(pcm, first, first + pieces)
        audible = np.abs(samples.reshape(-1, HOP)).max(axis=1) > 50
        found += sounds.push(samples, audible)
    return [(one.first, one.last, np.round(one.signal, 3).tobytes()) for one in found]


@pytest.mark.parametrize("pieces", [2, 6, 50])
def test_a_waveform_is_the_same_in_whatever_pieces_it_is_whitened(pieces: int) -> None:
    low = Decimator().push(SAID)
    whole = Whitener().push(low)
    whitener = Whitener()
    step = pieces * HOP // 6
    parts = [whitener.push(low[at : at + step]) for at in range(0, len(low), step)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-3)


@pytest.mark.parametrize("gain", [0.1, 1.0, 2.0])
def test_whitened_it_is_as_strong_however_loud_it_was(gain: float) -> None:
    loud = Whitener().push(Decimator().push((SAID * gain).astype(np.int16)))
    usual = Whitener().push(Decimator().push(SAID))
    strength = float(np.std(loud[8000:]) / np.std(usual[8000:]))
    assert strength == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("at", [0, 37, 160, 300])
@pytest.mark.parametrize("pieces", [1, 7, 40])
def test_a_block_is_found_at_the_hop_at_which_it_was_said(at: int, pieces: int) -> None:
    known = waveform(SAID, pieces)
    (block, *_) = Sounds().push(part(SAID, at, at + 20), np.ones(20, np.bool_))
    first, likeness = known.match(block.signal, 0, 400)
    best = first + int(np.argmax(likeness))
    assert abs(best - at) <= 1
    others = np.delete(likeness, range(max(0, best - first - 2), best - first + 3))
    assert float(likeness.max()) > 0.7 > 0.4 > float(others.max())


def test_what_was_forgotten_is_not_found_and_the_rest_is_where_it_was() -> None:
    known = waveform(SAID)
    known.forget(200)
    assert 180 <= known.first <= 200
    (block, *_) = Sounds().push(part(SAID, 300, 320), np.ones(20, np.bool_))
    first, likeness = known.match(block.signal, 0, 400)
    assert first == known.first
    assert abs(first + int(np.argmax(likeness)) - 300) <= 1


@pytest.mark.parametrize("pieces", [1, 3, 25, 60])
def test_sounds_are_the_same_in_whatever_pieces_they_are_heard(pieces: int) -> None:
    heard = np.concatenate(
        [silence(9), part(SAID, 0, 33), silence(2), part(SAID, 33, 80), silence(40), SAID]
    )
    places = [(first, last) for first, last, _ in blocks(heard, pieces)]
    assert places == [(first, last) for first, last, _ in blocks(heard, 7)]
    assert len(places) > 80


def test_silences_in_mid_word_are_no_part_of_what_is_heard() -> None:
    pieces = [piece for at in range(0, 60, 4) for piece in (part(SAID, at, at + 4), silence(3))]
    heard = np.concatenate(pieces)
    audible = np.abs(heard.reshape(-1, HOP)).max(axis=1) > 50
    trace = Trace(waveform(SAID))
    for block in Sounds().push(heard, audible):
        assert block.last - block.first > BLOCK
        trace.hear(block, 0, 400)
    assert trace.evidence > 15.0
    assert trace.place in range(60 - BLOCK - 4, 61)


def test_its_own_words_gain_evidence_block_by_block_and_others_do_not() -> None:
    for heard, own in ((part(SAID, 50, 110), True), (chords(60, seed=8), False)):
        trace = Trace(waveform(SAID))
        for block in Sounds().push(heard, np.ones(60, np.bool_)):
            trace.hear(block, 0, 400)
        assert (trace.evidence > 15.0) == own
        if own:
            assert trace.place in range(50 + 60 - BLOCK - 4, 50 + 60 + 1)
            assert trace.idle == 0
