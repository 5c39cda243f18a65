"""What was said is kept to the sample, and a restart cuts no syllable."""

from __future__ import annotations

import numpy as np
import pytest

from livekit_plugins_runway.playout.hearing.features import Levels, hop_levels
from livekit_plugins_runway.playout.segment import Segment, SegmentState
from livekit_plugins_runway.testing.tones import Pcm

HOP = 480


def tone(hops: int, amplitude: float = 0.3) -> Pcm:
    time = np.arange(hops * HOP) / 48_000
    return (np.sin(2 * np.pi * 400 * time) * amplitude * 32_767).astype(np.int16)


def silence(hops: int) -> Pcm:
    return np.zeros(hops * HOP, np.int16)


def said(*parts: Pcm, flushed: bool = True) -> Segment:
    """A segment that was described as far as it goes."""
    segment = Segment()
    for part in parts:
        segment.push(part.tobytes())
    if flushed:
        segment.flush()
    segment.describe(segment.pushed)
    return segment


def test_what_was_pushed_is_read_back_to_the_sample() -> None:
    pcm = tone(5)
    segment = said(pcm[:700], pcm[700:])
    assert segment.pushed == 5 * HOP
    assert segment.read(123, 1001) == pcm[123:1001].tobytes()
    assert segment.read(5 * HOP - 1, 5 * HOP + 7) == pcm[-1:].tobytes()


def test_speech_that_may_go_on_is_described_in_whole_hops_and_a_rest_at_its_end() -> None:
    segment = said(tone(3)[: 2 * HOP + 100], flushed=False)
    assert segment.hops.count == 2
    segment.flush()
    segment.describe(segment.pushed)
    assert segment.hops.count == 3


def test_only_the_speech_before_the_end_that_is_asked_for_is_described() -> None:
    segment = Segment()
    segment.push(tone(10).tobytes())
    segment.flush()
    segment.describe(4 * HOP + 1)
    assert segment.hops.count == 4
    segment.describe(2 * HOP)
    assert segment.hops.count == 4
    segment.describe(10 * HOP)
    assert segment.hops.count == 10


def test_described_piece_by_piece_it_is_the_same_as_at_once() -> None:
    rng = np.random.default_rng(3)
    pcm = rng.normal(0, 3000, 40 * HOP + 77).astype(np.int16)
    pieces = Segment()
    for start in range(0, len(pcm), 1111):
        pieces.push(pcm[start : start + 1111].tobytes())
        pieces.describe(pieces.pushed)
    pieces.flush()
    pieces.describe(pieces.pushed)
    whole = said(pcm)
    assert pieces.hops.count == whole.hops.count == 41
    padded = np.pad(pcm, (0, 41 * HOP - len(pcm)))
    levels: Levels = hop_levels(padded)
    np.testing.assert_array_equal(pieces.hops.levels, levels)
    np.testing.assert_array_equal(pieces.hops.levels, whole.hops.levels)
    np.testing.assert_array_equal(pieces.hops.bands, whole.hops.bands)
    np.testing.assert_array_equal(pieces.hops.shapes, whole.hops.shapes)


def test_what_lies_before_the_start_is_not_looked_at_and_counts_as_silence() -> None:
    segment = Segment()
    segment.push(tone(100).tobytes())
    segment.describe(60 * HOP, start=40 * HOP)
    assert segment.hops.count == 60
    assert segment.spoken_after(0) == 20 * HOP
    assert segment.spoken_after(50 * HOP) == 10 * HOP
    np.testing.assert_array_equal(segment.hops.levels[40:], hop_levels(tone(100))[40:60])


def test_what_was_described_is_not_skipped_afterwards() -> None:
    segment = said(tone(50))
    segment.describe(segment.pushed, start=40 * HOP)
    assert segment.spoken_after(0) == 50 * HOP


def test_what_is_forgotten_takes_no_memory_and_moves_nothing() -> None:
    rng = np.random.default_rng(3)
    pcm = rng.normal(0, 3000, 600 * HOP).astype(np.int16)
    segment = said(pcm)
    segment.forget(400 * HOP)
    assert segment.pushed == 600 * HOP
    assert len(segment.pcm) == 2 * 200 * HOP
    assert segment.read(410 * HOP, 430 * HOP) == pcm[410 * HOP : 430 * HOP].tobytes()
    assert segment.read(390 * HOP, 401 * HOP) == pcm[400 * HOP : 401 * HOP].tobytes()
    segment.forget(100 * HOP)
    assert len(segment.pcm) == 2 * 200 * HOP


def test_speech_that_was_not_described_yet_is_not_forgotten() -> None:
    segment = Segment()
    segment.push(tone(300).tobytes())
    segment.describe(100 * HOP)
    segment.forget(300 * HOP)
    assert segment.read(100 * HOP, 300 * HOP) == tone(300)[100 * HOP :].tobytes()
    segment.flush()
    segment.describe(segment.pushed)
    np.testing.assert_array_equal(segment.hops.levels, hop_levels(tone(300)))


def test_only_audible_speech_counts_as_spoken() -> None:
    whisper = tone(4, amplitude=10 ** (-45 / 20))  # of -48 dBFS: a breath
    segment = said(tone(5), silence(3), tone(2), whisper)
    assert segment.spoken_after(0) == 7 * HOP
    assert segment.spoken_after(2 * HOP) == 5 * HOP
    assert segment.spoken_after(5 * HOP) == 2 * HOP
    assert segment.spoken_after(0, 9 * HOP) == 6 * HOP
    assert segment.spoken_after(4 * HOP, 5 * HOP) == HOP
    assert segment.spoken_after(10 * HOP) == 0


def test_a_restart_is_at_the_quietest_place_before_the_margin() -> None:
    segment = said(tone(50), silence(1), tone(49))
    assert segment.restart_point(70 * HOP, margin=0.15) == 50 * HOP
    assert segment.restart_point(62 * HOP, margin=0.12) == 50 * HOP  # the last hop in reach
    assert segment.restart_point(74 * HOP, margin=0.12) == 50 * HOP  # and the first


@pytest.mark.parametrize(("position", "reach"), [(61, 0.12), (75, 0.12), (70, 0.05)])
def test_a_quiet_place_out_of_reach_is_no_place_to_restart(position: int, reach: float) -> None:
    segment = said(tone(50), silence(1), tone(49))
    point = segment.restart_point(position * HOP, margin=0.12, reach=reach)
    latest = (position - 12) * HOP
    assert latest - round(reach * 100) * HOP <= point <= latest
    assert point != 50 * HOP


def test_near_the_start_it_restarts_at_the_start() -> None:
    segment = said(silence(1), tone(49))
    assert segment.restart_point(12 * HOP, margin=0.12) == 0
    assert segment.restart_point(5 * HOP, margin=0.12) == 0
    assert segment.restart_point(20 * HOP, margin=0.12) == 0  # its quietest place
    louder = said(tone(1, 0.9), tone(48), silence(1))
    assert louder.restart_point(13 * HOP, margin=0.12) > 0


def test_beyond_what_was_described_it_restarts_at_the_margin() -> None:
    segment = Segment()
    segment.push(tone(100).tobytes())
    assert segment.restart_point(70 * HOP, margin=0.2) == 50 * HOP


def test_a_state_is_never_left_backwards() -> None:
    waiting, playing, finished = SegmentState
    allowed = {(waiting, playing), (waiting, finished), (playing, finished)}
    for old in SegmentState:
        for new in SegmentState:
            segment = Segment(state=old)
            if (old, new) in allowed:
                segment.move_to(new)
                assert segment.state is new
            else:
                with pytest.raises(RuntimeError, match=f"{old.value} to {new.value}"):
                    segment.move_to(new)
                assert segment.state is old
