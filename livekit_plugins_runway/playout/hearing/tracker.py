"""How far into a segment the avatar is, and whose words it says, from what is heard of it.

Short-time spectra are compared instead of counting what was sent, because what was sent is not yet
heard and may never be. Whose words they are is told by their waveform (coherence.py).

Measured once on 10 voices (eSpeak, Pico, Piper, Flite), and sentences, that no number was chosen
on, with the treatments of bench/ear and a TTS from bursts to half of real time; 817 cases. Own
words were judged foreign in 0 of 440, and in 9 of 53 whose pitch was shifted with their pace, by 5
or 10 %. Other words were noticed within 1.5 s of sound in 202 of 204, within 2 s in all; while the
TTS was no faster than speech, within 3 s in 42 of 45. Words of the segment before were told in 52
of 55 (34 of 34 from 0.5 s of them on), after 0.25 s on the median; in one they began the new one,
and in 19 it counted as begun more than 0.5 s late. The place was right to 0.10 s in 95 % (0.15 s
while the TTS was slow).
"""

from __future__ import annotations

import enum
from collections import deque

import numpy as np
from numpy.typing import NDArray

from ..audio import HOP, HOP_SECONDS
from ..segment import Segment
from .alignment import STRAINED, Alignment
from .coherence import BLOCK, END_HOPS, STRIDE, Block, Sounds, Trace
from .features import AUDIBLE_DB, SILENT_DB, SPOKEN_DB, Hops, Levels, hop_bands

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
_KEPT_HOPS = 200  # of what was said
_HISTORY_HOPS = 400  # of what was heard; a multiple of _MATCH_EVERY_HOPS
_ALONG_HOPS = 100

# -- whose words they are --
# Chosen on the tuning voices and sentences of bench/ear; evidence as in `Trace`.
_NEAR_HOPS = 100, 220  # of the speech, before and after the place, that a sound may be of
_NEAREST_HOPS = 48, 80  # the same, from `_SURE` on
_OWN, _LOCKED, _SURE = 13.0, 15.0, 25.0
_STILL_OWN, _PEAK_FADE = 0.88, 0.99  # of the most evidence, which fades so with each block
_STALE, _STALE_MARGIN = 9.0, 5.0
_IDLE_BLOCKS = 3  # without gain, after which the words of the former segment have ended
_DOUBT_HOPS = 40  # of sound that is not taken for the beginning, where it may be stale
_JUDGED_HOPS, _JUDGED_WAITING_HOPS = 90, 220  # of sound without own words
_RECENT_BLOCKS = 8
_UNLIKE, _UNLIKE_TRUSTED, _UNLIKE_WAITING = 10.5, 11.5, 8.0
_AGREEMENT_GAIN, _DISAGREEMENT = 5.0, 0.6
_ALONG, _ALONG_WAITING, _ALIKE = 0.72, 0.6, 0.85  # likeness of spectra along the places
_NEAR_BY_HOPS, _AGREEMENT_WEIGHT = 8, 0.06
_SPARE_HOPS, _WAITS_HOPS = 10, 250
# -- where the waveform corrects the place --
_ASTRAY_HOPS = 5
_PLACED, _SURER = 7.0, 5.0
_PIECES_HOPS = 16


class Words(enum.Enum):
    """Whose words are heard."""

    UNKNOWN = "unknown"
    OWN = "own"  # of the segment
    FOREIGN = "foreign"  # of the avatar's own, or of anybody else
    STALE = "stale"  # of the segment before


class SpeechTracker:
    """Follows one delivery of a segment to the avatar, from what is heard of it.

    Args:
        segment: what is being said; it may still grow.
        start: sample of the segment at which this delivery begins.
        former: the segment before, if words of it may still be heard.
        trusted: the avatar has said its words before, so that its waveform alone tells them.
    """

    def __init__(
        self,
        segment: Segment,
        start: int,
        *,
        former: Segment | None = None,
        trusted: bool = False,
    ) -> None:
        self._segment = segment
        self._start_hop = start // HOP
        self._trusted = trusted
        self._heard = Hops()
        self._dropped = 0  # hops heard that are no longer in `_heard`
        self._places: list[int] = []  # hops of the segment heard, for each hop since the onset
        self._loud_run = 0
        self._silent_run = 0
        self._armed = False
        self._alignment: Alignment | None = None
        self._provisional = former is not None  # it is not known yet that they are not stale words
        self._disarmed_at = 0  # hop heard
        self._sound_hops = 0  # since the onset
        self._sounds = Sounds()
        self._onset_hop = 0  # heard
        self._own = Trace(segment.waveform)
        self._former = None if former is None else Trace(former.waveform)
        self._former_place = 0 if former is None else former.heard // HOP
        self._judged = 0  # hops of sound since its own words were last heard
        self._own_place = self._start_hop
        self._own_peak = 0.0
        self._astray = 0
        self._along: float | None = None
        self._waits_until = 0  # hop heard
        self._agreement = 0.0  # 0 to 1: of the places by waveform and by spectra
        self._recent: deque[float] = deque(maxlen=_RECENT_BLOCKS)  # evidence
        self.words = Words.UNKNOWN
        """Whose words are heard, as far as can be told."""
        self.confidence: float | None = None
        """Likeness of what is heard to what was said, -1 to 1; None until compared. An avatar that
        speaks its own words instead stays near 0."""
        self.alike = False
        """True if its own words were heard at any time."""

    @property
    def onset(self) -> bool:
        """True once the avatar has begun to speak. Where a former segment was given, not before it
        is known (0.2 to 0.4 s later) that it is not its words."""
        return self._alignment is not None and not self._provisional

    @property
    def began_ago(self) -> float:
        """Seconds since the avatar has begun to speak, up to now; 0 before."""
        if not self.onset:
            return 0.0
        return (self._dropped + self._heard.count - self._onset_hop) * HOP_SECONDS

    @property
    def likeness(self) -> float | None:
        """Of the last second of sounds to the speech at their places, by spectra, -1 to 1; None
        before there were enough."""
        return self._along

    @property
    def foreign_since(self) -> int:
        """Samples of the segment that counted as heard when the foreign words began."""
        return self._own_place * HOP

    @property
    def lead_in(self) -> int:
        """Samples of silence at the start of the delivery, before the first spoken hop."""
        first = self._first_spoken()
        return 0 if first is None else (first - self._start_hop) * HOP

    @property
    def position(self) -> int:
        """Samples of the segment that were heard, counted from the segment's start."""
        if self._alignment is None or self._provisional:
            return self._start_hop * HOP
        return max(self._start_hop, self._alignment.place) * HOP

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

    def hear(
        self, samples: NDArray[np.int16], levels: Levels, sounds: NDArray[np.bool_]
    ) -> int | None:
        """Account for what came back from the avatar: hops in a row, 10 ms each.

        Args:
            samples: of 48 kHz, whole hops.
            levels: of each hop, in dBFS.
            sounds: which hops are more than noise.

        Returns:
            Which of them it was at which the avatar was noticed to speak, counted from 0; None if
            it was none of them.
        """
        levels = np.where(sounds, np.maximum(levels, AUDIBLE_DB + 0.1), SILENT_DB)
        levels = levels.astype(np.float32)
        bands = hop_bands(samples)
        self._watch_for_waits()
        onset = None
        first = 0
        while first < len(levels):
            count = self._heard.count % _MATCH_EVERY_HOPS
            hops = slice(first, first + _MATCH_EVERY_HOPS - count)
            pcm = samples[hops.start * HOP : hops.stop * HOP]
            found = self._hear(pcm, levels[hops], bands[hops])
            onset = onset if found is None else first + found
            first = hops.stop
        return onset

    def _hear(self, samples: NDArray[np.int16], levels: Levels, bands: Levels) -> int | None:
        since = self._heard.count
        self._heard.append(levels, bands)
        blocks = self._sounds.push(samples, levels > AUDIBLE_DB)
        was_heard, begun = self.onset, None
        if self._alignment is None:
            begun = self._listen_for_onset(levels, since)
            if begun is not None:
                since += begun + 1 - self._loud_run
                self._onset_hop = self._dropped + since
        if self._alignment is not None:
            self._follow(self._alignment, since)
        for block in blocks:
            self._hear_block(block)
        if self._provisional:
            self._decide()
        if self._heard.count % _MATCH_EVERY_HOPS == 0:
            self._look_back()
        if not self.onset or was_heard:
            return None
        return len(levels) - 1 if begun is None else begun

    def _follow(self, alignment: Alignment, since: int) -> None:
        self._places += alignment.hear(self._heard, since, self._segment.hops)
        loud = np.flatnonzero(self._heard.levels[since:] > AUDIBLE_DB)
        self._sound_hops += len(loud)
        if len(loud):
            self._silent_run, since = 0, since + int(loud[-1]) + 1
        self._silent_run += self._heard.count - since

    def _look_back(self) -> None:
        if self._alignment is not None:
            self._match(self._alignment)
        self._forget()

    def _forget(self) -> None:
        """Keep of what was heard, and said, only what is looked back at."""
        self._segment.waveform.forget(self._own_place - _KEPT_HOPS)
        surplus = self._heard.count - _HISTORY_HOPS
        if surplus >= _HISTORY_HOPS:
            self._heard.forget(surplus)
            del self._places[: max(0, len(self._places) - _HISTORY_HOPS)]
            self._dropped += surplus

    def _listen_for_onset(self, levels: Levels, since: int) -> int | None:
        for hop, loud in enumerate((levels > AUDIBLE_DB).tolist()):
            if loud:
                self._loud_run += 1
                self._silent_run = 0
            else:
                self._loud_run = 0
                self._silent_run += 1
                self._armed = self._armed or self._silent_run >= _ONSET_HOPS
            self._alignment = self._begin(self._dropped + since + hop + 1)
            if self._alignment is not None:
                return hop
        return None

    def _begin(self, heard: int) -> Alignment | None:
        """An alignment if the avatar has begun to speak, `heard` hops on. The end of the segment
        before may still sound; speech begins after a silence."""
        armed = self._armed or heard - self._disarmed_at > _ARM_HOPS
        if not armed or self._loud_run < _ONSET_HOPS:
            return None
        first = self._first_spoken()
        return None if first is None else Alignment(first)

    def _first_spoken(self) -> int | None:
        spoken = np.flatnonzero(self._segment.hops.levels[self._start_hop :] > SPOKEN_DB)
        return self._start_hop + int(spoken[0]) if len(spoken) else None

    # -- whose words they are --------------------------------------------------------------------

    def _hear_block(self, block: Block) -> None:
        own, former = self._own, self._former
        if self._alignment is None and self.words is not Words.STALE:
            return
        if block.last <= self._onset_hop:
            return
        near = own.place if own.evidence > _LOCKED else self._place_at(block.last)
        before, after = _NEAREST_HOPS if own.evidence > _SURE else _NEAR_HOPS
        last = self._after_pause(near) + after
        own.hear(block, max(self._start_hop - BLOCK, near - before), last)
        if former is not None:
            near = former.place if former.evidence > _STALE else self._former_place
            former.hear(block, near - _NEAR_HOPS[0], near + _NEAR_HOPS[1])
        near_by = abs(own.place - self._place_at(block.last)) <= _NEAR_BY_HOPS
        self._agreement += _AGREEMENT_WEIGHT * (near_by - self._agreement)
        # A block from both sides of a pause may be found on either.
        if own.evidence >= _PLACED and block.last - block.first <= _PIECES_HOPS:
            self._correct(block.last)
        self._judged += STRIDE
        self._judge(block.last)

    def _after_pause(self, place: int) -> int:
        """Where the speech goes on after a pause that is said at this hop."""
        spoken = self._segment.hops.levels[place:] > SPOKEN_DB
        return place + int(np.argmax(spoken)) if spoken.any() else place

    def _decide(self) -> None:
        """Whether what has begun is of this segment at all."""
        own, stale = self._own.evidence, self._stale
        ended = self._silent_run >= END_HOPS
        if self._alignment is None:
            if own >= _PLACED and own > stale:
                self._alignment, self._provisional = Alignment(self._own.place), False
                self._places = [self._own.place]
        elif self.words is Words.OWN:
            self._provisional = False
        elif ended and stale > own:
            self._retract()
        elif stale < _STALE and (
            ended or self._sound_hops >= _DOUBT_HOPS or (own >= _PLACED and own > stale)
        ):
            self._provisional = False
            self.words = Words.UNKNOWN if self.words is Words.STALE else self.words

    @property
    def _stale(self) -> float:
        """Evidence for words of the former segment that still go on."""
        former = self._former
        return 0.0 if former is None or former.idle >= _IDLE_BLOCKS else former.evidence

    def _retract(self) -> None:
        """What was heard was not the beginning."""
        self.words = Words.STALE
        self._alignment, self._places, self._sound_hops = None, [], 0
        self._armed, self._loud_run = False, 0
        self._disarmed_at = self._dropped + self._heard.count
        self._provisional = True

    def _place_at(self, hop: int) -> int:
        back = self._dropped + self._heard.count - hop
        if not self._places:
            return self._start_hop
        return self._places[max(0, len(self._places) - back)]

    def _judge(self, hop: int) -> None:
        own, stale = self._own.evidence, self._stale
        self._recent.append(own)
        if stale >= _STALE and stale >= own + _STALE_MARGIN:
            self._judged = 0
            self.words = Words.STALE
            if not self.alike:
                self._retract()
        elif own >= _OWN:
            self.words = Words.OWN
            self.alike = True
            self._judged = 0
            self._own_peak = max(own, _PEAK_FADE * self._own_peak)
            if own >= _STILL_OWN * self._own_peak:
                self._own_place = self._own.place
        elif self._judged >= _JUDGED_HOPS and self._is_unlike(hop < self._waits_until):
            self.words = Words.FOREIGN

    def _watch_for_waits(self) -> None:
        """A worker that waits for more to say is silent in mid-word, maybe every 20 ms. What words
        have been through that leaves too little of them to judge by soon."""
        segment = self._segment
        spare = segment.pushed - segment.hops.count * HOP
        if not segment.flushed and spare < _SPARE_HOPS * HOP:
            self._waits_until = self._dropped + self._heard.count + _WAITS_HOPS

    def _is_unlike(self, waits: bool) -> bool:
        """Whether all that tells its own words is missing: their waveform, a place that both the
        waveform and the spectra give, and spectra that change as the words' do."""
        evidence, along = max(self._recent), self._along
        if waits:
            return (
                self._judged >= _JUDGED_WAITING_HOPS
                and evidence < _UNLIKE_WAITING
                and self._agreement < _DISAGREEMENT
                and (along is None or along < _ALONG_WAITING)
            )
        limit = _UNLIKE_TRUSTED if self._trusted or self._own_peak else _UNLIKE
        unlike = evidence + _AGREEMENT_GAIN * self._agreement < limit
        return unlike and (along is None or along < _ALONG)

    def _correct(self, hop: int) -> None:
        """The waveform knows better where the avatar is."""
        if self._alignment is None:
            return
        place = self._place_at(hop)
        off = self._own.place - place
        # In a sound that does not change no place is surer than another.
        surer = self._own.evidence - self._own.evidence_at(place) >= _SURER
        self._astray = self._astray + 1 if abs(off) > _ASTRAY_HOPS and surer else 0
        if self._astray >= (1 if self._own.evidence >= _LOCKED else 2):
            self._astray = 0
            since = self._heard.levels[max(0, hop + 1 - self._dropped) :]
            gone_on = int(np.count_nonzero(since > AUDIBLE_DB))
            self._move_to(self._own.place + gone_on)

    def _move_to(self, place: int) -> None:
        assert self._alignment is not None
        place = min(max(self._start_hop, place), self._segment.hops.count)
        self._alignment.move_to(place)
        self._places[-1:] = [place]

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
        self._along = self._likeness_along()
        # Sounds that do not change, as tones, have no waveform by which to know their place.
        self.alike = self.alike or (self._along or 0.0) >= _ALIKE
        if self._own.evidence > _SURE and self.confidence is not None:
            return  # it takes long, and would tell nothing new
        said = self._segment.hops.bands
        place = self._places[end - 1] - count
        first = max(self._start_hop, place - _MATCH_REACH_HOPS)
        last = min(len(said) - count, place + _MATCH_REACH_HOPS)
        if last < first:
            return
        scores = _likeness(self._heard.bands[heard], said[first : last + count])
        best = int(np.argmax(scores))
        self.confidence = float(scores[best])
        lost = alignment.strain > STRAINED and self._silent_run == 0
        if lost and self.confidence >= _MATCH_MIN_SCORE:
            self._move_to(first + best + count)

    def _likeness_along(self) -> float | None:
        """Of the last sounds to the speech at their places, whatever the voice: of each band only
        its changes are compared."""
        count = min(len(self._places), self._heard.count)
        levels = self._heard.levels[self._heard.count - count :]
        places = np.array(self._places[len(self._places) - count :], dtype=int) - 1
        sounds = np.flatnonzero((levels > AUDIBLE_DB) & (places >= 0))[-_ALONG_HOPS:]
        if len(sounds) < _MIN_SOUND_HOPS:
            return None
        heard = self._heard.bands[self._heard.count - count + sounds]
        said = self._segment.hops.bands[np.minimum(places[sounds], self._segment.hops.count - 1)]
        heard, said = heard - heard.mean(axis=0), said - said.mean(axis=0)
        norm = float(np.sqrt((heard * heard).sum() * (said * said).sum())) + 1e-6
        return float((heard * said).sum()) / norm


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
