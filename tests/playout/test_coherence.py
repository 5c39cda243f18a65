"""A waveform is found where it was said, whatever its pieces and the silences between them."""

from __future__ import annotations

import numpy as np
import pytest

from livekit_plugins_runway.playout.hearing.coherence import (
    BLOCK,
    Block,
    Decimator,
    Signal,
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


class Counted(Waveform):
    compared = 0

    def match(self, block: Signal, first: int, last: int) -> tuple[int, Signal]:
        self.compared += 1
        return super().match(block, first, last)


def heard_blocks(pcm: Pcm) -> list[Block]:
    return Sounds().push(pcm, np.ones(len(pcm) // HOP, np.bool_))


def test_words_that_go_on_are_followed_as_surely_without_comparing_all_of_them() -> None:
    known = Counted()
    known.append(SAID)
    full, quick, count = Trace(waveform(SAID)), Trace(known), 0
    for count, block in enumerate(heard_blocks(part(SAID, 50, 350))):
        full.hear(block, 0, 400)
        if count < 10 or not quick.go_on(block):
            quick.hear(block, 0, 400)
        assert abs(quick.place - full.place) <= 1
    assert quick.evidence > 0.9 * full.evidence
    assert known.compared < 0.7 * count


def test_what_does_not_go_on_leaves_no_trace_until_it_is_searched_for() -> None:
    own, other = heard_blocks(part(SAID, 50, 110)), heard_blocks(chords(20, seed=8))
    trace = Trace(waveform(SAID))
    for block in own:
        trace.hear(block, 0, 400)
    strange = Block(own[-1].last - 7, own[-1].last + 4, other[0].signal)
    place, evidence = trace.place, trace.evidence
    assert not trace.go_on(strange)
    assert (trace.place, trace.evidence) == (place, evidence)


def test_a_block_that_was_skipped_is_searched_for_when_the_next_does_not_go_on() -> None:
    blocks = heard_blocks(np.concatenate([part(SAID, 50, 110), part(SAID, 200, 260)]))
    trace, plain = Trace(waveform(SAID)), Trace(waveform(SAID))
    for count, block in enumerate(blocks):
        plain.hear(block, 0, 400)
        if count < 8 or not trace.go_on(block):
            trace.hear(block, 0, 400)
    assert trace.place == plain.place
    assert abs(trace.place - 260) <= BLOCK + 4
