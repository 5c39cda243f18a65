"""How far into a segment the avatar is, from what is heard of it.

Short-time spectra are compared instead of counting what was sent, because what was sent is not yet
heard and may never be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..audio import HOP, HOP_SECONDS
from ..segment import Segment
from .alignment import STRAINED, Alignment
from .features import AUDIBLE_DB, SPOKEN_DB, Hops, Levels

_ONSET_HOPS = 2
_ARM_HOPS = 50
_MATCH_HOPS = 60
_MATCH_EVERY_HOPS = 25
_MATCH_REACH_HOPS = 150
_MATCH_MIN_SCORE = 0.75
_FADE_DB = 6.0
_FADE_HOPS = 60
_MIN_FADE_HOPS = 6  # a word's own end is shorter, and may be placed a little wrong
_HELD_HOPS = 10
_LEVEL_HOPS = 200
_MIN_SOUND_HOPS = 20
_FOREIGN_SCORE = 0.45
_FOREIGN_MATCHES = 3


class SpeechTracker:
    """Follows one delivery of a segment to the avatar, from what is heard of it.

    Args:
        segment: what is being said; it may still grow.
        start: sample of the segment at which this delivery begins.
    """

    def __init__(self, segment: Segment, start: int) -> None:
        self._segment = segment
        self._start_hop = start // HOP
        self._heard = Hops()
        self._places: list[int] = []  # hops of the segment heard, for each hop since the onset
        self._loud_run = 0
        self._silent_run = 0
        self._armed = False
        self._alignment: Alignment | None = None
        self._poor_matches = 0
        self._matched = False
        self._alike = False
        self.confidence: float | None = None
        """Likeness of what is heard to what was said, -1 to 1; None until compared. An avatar that
        speaks its own words instead stays near 0."""

    @property
    def onset(self) -> bool:
        """True once the avatar has begun to speak."""
        return self._alignment is not None

    @property
    def foreign(self) -> bool:
        """True if what is heard was never like what was said: the avatar says words of its own."""
        return not self._matched and self._poor_matches >= _FOREIGN_MATCHES

    @property
    def alike(self) -> bool:
        """True if what is heard was at any time very much like what was said: the avatar says what
        it is told, in the voice that it is told in."""
        return self._alike

    @property
    def lead_in(self) -> int:
        """Samples of silence at the start of the delivery, before the first spoken hop."""
        first = self._first_spoken()
        return 0 if first is None else (first - self._start_hop) * HOP

    @property
    def position(self) -> int:
        """Samples of the segment that were heard, counted from the segment's start."""
        place = self._start_hop if self._alignment is None else self._alignment.place
        return max(self._start_hop, place) * HOP

    @property
    def clear_position(self) -> int:
        """`position` without a tail that is not the avatar's: a receiver to which nothing comes any
        more holds the last sound for about 0.1 s and fades it out (NetEq of libwebrtc, measured
        with livekit 1.1.21)."""
        end = len(self._places) - self._silent_run
        places = np.array(self._places[max(0, end - _LEVEL_HOPS) : end], dtype=int) - 1
        heard_until = self._heard.count - self._silent_run
        levels = self._heard.levels[heard_until - len(places) : heard_until]
        said = self._segment.hops.levels[np.maximum(places, 0)]
        spoken = said > SPOKEN_DB
        if np.count_nonzero(spoken) < _MIN_SOUND_HOPS:
            return self.position
        gain = levels - said
        faded = gain < np.median(gain[spoken]) - _FADE_DB
        fade = 0
        fades_from = len(said)
        for hop in range(len(said) - 1, max(-1, len(said) - _FADE_HOPS), -1):
            if spoken[hop]:
                if not faded[hop]:
                    break
                fade += 1
                fades_from = hop
        if fade < _MIN_FADE_HOPS:
            return self.position
        # By then what was held may already have been taken for the word that comes next.
        before = int(places[max(0, fades_from - _HELD_HOPS) : fades_from + 1].min()) + 1
        return max(self._start_hop, min(before * HOP, self.position))

    @property
    def silence(self) -> float:
        """Seconds for which nothing was audible, up to now."""
        return self._silent_run * HOP_SECONDS

    def hear(self, levels: Levels, bands: Levels) -> int | None:
        """Account for what came back from the avatar: hops in a row, 10 ms each.

        Returns:
            Which of them it was at which the avatar was noticed to speak, counted from 0; None if
            it was none of them.
        """
        onset = None
        first = 0
        while first < len(levels):
            until = first + _MATCH_EVERY_HOPS - self._heard.count % _MATCH_EVERY_HOPS
            found = self._hear(levels[first:until], bands[first:until])
            onset = onset if found is None else first + found
            first = until
        return onset

    def _hear(self, levels: Levels, bands: Levels) -> int | None:
        since, onset = self._heard.count, None
        self._heard.append(levels, bands)
        if self._alignment is None:
            onset = self._listen_for_onset(levels, since)
            if self._alignment is None or onset is None:
                return None
            since += onset + 1 - self._loud_run
        self._places += self._alignment.hear(self._heard, since, self._segment.hops)
        loud = np.flatnonzero(self._heard.levels[since:] > AUDIBLE_DB)
        if len(loud):
            self._silent_run, since = 0, since + int(loud[-1]) + 1
        self._silent_run += self._heard.count - since
        if self._heard.count % _MATCH_EVERY_HOPS == 0:
            self._match(self._alignment)
        return onset

    def _listen_for_onset(self, levels: Levels, since: int) -> int | None:
        for hop, loud in enumerate((levels > AUDIBLE_DB).tolist()):
            if loud:
                self._loud_run += 1
            else:
                self._loud_run = 0
                self._silent_run += 1
                self._armed = self._armed or self._silent_run >= _ONSET_HOPS
            self._alignment = self._begin(since + hop + 1)
            if self._alignment is not None:
                return hop
        return None

    def _begin(self, heard: int) -> Alignment | None:
        """An alignment if the avatar has begun to speak, `heard` hops on. The end of the segment
        before may still sound; speech begins after a silence."""
        armed = self._armed or heard > _ARM_HOPS
        if not armed or self._loud_run < _ONSET_HOPS:
            return None
        first = self._first_spoken()
        return None if first is None else Alignment(first)

    def _first_spoken(self) -> int | None:
        spoken = np.flatnonzero(self._segment.hops.levels[self._start_hop :] > SPOKEN_DB)
        return self._start_hop + int(spoken[0]) if len(spoken) else None

    def _match(self, alignment: Alignment) -> None:
        """Compare the last sounds with all that was said near by: is this our speech at all, and
        where is it, if the alignment has lost its place?"""
        if self._silent_run >= _MATCH_EVERY_HOPS:
            return  # has been compared already
        # From the onset to the last sound: a silence may be a wait, and no part of what was said.
        end = len(self._places) - self._silent_run
        count = min(_MATCH_HOPS, end)
        until = self._heard.count - self._silent_run
        heard = slice(until - count, until)
        if np.count_nonzero(self._heard.levels[heard] > AUDIBLE_DB) < _MIN_SOUND_HOPS:
            return
        said = self._segment.hops.bands
        place = self._places[end - 1] - count
        first = max(self._start_hop, place - _MATCH_REACH_HOPS)
        last = min(len(said) - count, place + _MATCH_REACH_HOPS)
        if last < first:
            return
        scores = _likeness(self._heard.bands[heard], said[first : last + count])
        best = int(np.argmax(scores))
        self.confidence = float(scores[best])
        self._matched = self._matched or self.confidence >= _FOREIGN_SCORE
        self._poor_matches += not self._matched
        self._alike = self._alike or self.confidence >= _MATCH_MIN_SCORE
        lost = alignment.strain > STRAINED and self._silent_run == 0
        if lost and self.confidence >= _MATCH_MIN_SCORE:
            alignment.move_to(first + best + count)


def _likeness(heard: Levels, said: Levels) -> NDArray[np.float32]:
    """Normalised correlation of `heard` with each stretch of `said` of its length."""
    count = len(heard)
    pattern = heard - heard.mean()
    pattern_norm = float(np.sqrt(np.sum(pattern * pattern))) + 1e-6
    windows = np.lib.stride_tricks.sliding_window_view(said, count, axis=0)  # (n, bands, count)
    dots = np.einsum("nbt,tb->n", windows, pattern)
    sums, squares = (_running(x.sum(axis=1), count) for x in (said, said * said))
    norms = np.sqrt(np.maximum(squares - sums * sums / heard.size, 1e-6))
    result: NDArray[np.float32] = (dots / (norms * pattern_norm)).astype(np.float32)
    return result


def _running(values: Levels, count: int) -> NDArray[np.float64]:
    """The sum of each `count` values in a row."""
    total = np.cumsum(np.concatenate(([0.0], values)), dtype=np.float64)
    return total[count:] - total[:-count]
