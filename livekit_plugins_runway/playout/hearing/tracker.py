"""Finds the avatar's position in a segment, and whose words it says, from its voice.

Short-time spectra are compared, because speech that was sent is not heard yet, and may never be.
The waveform shows whose words they are (coherence.py).

Measured on 11 voices (eSpeak, Pico, Piper, Flite), and sentences, that no number was chosen on,
with the treatments of bench/ear and a TTS from bursts to half of real time, in batches of 0.15 s;
1600 cases. Own words were judged foreign in 0 of 803, and in 25 of 87 whose pitch was shifted with
their pace, by 5 or 10 %. Words of the segment before were told in 158 of 169 (119 of 121 from 0.5 s
of them on), after 0.34 s on the median; in 5 they began the new one, and in 63 it counted as begun
more than 0.5 s late. The place was right to 0.105 s in 95 %. Other words were noticed within 1.5 s
of sound in 302 of 308, and in 176 of 180 while the TTS was no faster than speech, from the begin
on. After words of the agent, and at the end of a reply, judge.py has rules of its own since: in the
sample of bench/ear 44 of 45 were noticed within 1.5 s, where it had been 22, and none of 255 that
said the agent's words was given up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..audio import HOP, HOP_SECONDS
from ..segment import Segment
from .alignment import STRAINED, Alignment
from .coherence import BLOCK, END_HOPS, STRIDE, Block, Sounds, Trace
from .fades import place_before_fade
from .features import AUDIBLE_DB, SILENT_DB, Levels, hop_bands
from .history import History
from .judge import STALE, WordJudge
from .judge import Words as Words
from .onset import Onset
from .spectra import find_place, likeness_at_places

_LOOK_BACK_EVERY_HOPS = 25
_KEPT_HOPS = 200  # of what was said
_SPARE_HOPS = 10  # of speech that was pushed and not sent; with less, the avatar may have to wait

# Chosen on the tuning voices and sentences of bench/ear; evidence as in `Trace`.
_NEAR_HOPS = 100, 220  # of the speech, before and after the place, that a sound may be of
_NEAREST_HOPS = 48, 80  # the same, from `_SURE` on
_LOCKED, _SURE = 15.0, 25.0
_IDLE_BLOCKS = 3  # without gain, after which the words of the former segment have ended
_DOUBT_HOPS = 40  # of sound that is not taken for the beginning, where it may be stale
_NEAR_BY_HOPS = 8
_LINGERING_HOPS = 30  # by which its own words may have ended before they were last heard
_WORD_WINDOW_HOPS, _WORD_HOPS = 50, 20  # of the last, so many are as loud as words
# -- where the waveform corrects the place --
_ASTRAY_HOPS = 5
_PLACED, _SURER = 7.0, 5.0
_PIECES_HOPS = 16
_PAUSE_IS_NEXT = 12 * HOP  # samples of speech, at most, before a pause that follows


class SpeechTracker:
    """Follows one delivery of a segment to the avatar, by the avatar's voice. Its state is written
    by `hear` and the methods that it calls.

    Args:
        segment: what is being said; it may still grow.
        start: sample of the segment at which this delivery begins.
        former: the segment before, if words of it may still be heard.
        trusted: the avatar has said its words before, so that its waveform alone tells them.
    """

    believes_reports = False
    """The worker's reports are not needed: begin and end are heard."""

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
        self._history = History()
        self._onset = Onset(segment, self._start_hop)
        self._sounds = Sounds()
        self._own = Trace(segment.waveform, self._went_on)
        self._former = None if former is None else Trace(former.waveform)
        self._former_place = 0 if former is None else former.heard // HOP
        self._judge = WordJudge(self._start_hop, trusted=trusted)
        self._alignment: Alignment | None = None
        """None before a sound that may be the beginning."""
        self._provisional = former is not None
        """True while the sound that has begun may be stale words."""
        self._onset_hop = 0
        """Hop heard with which `_alignment` begins."""
        self._astray = 0
        """Blocks in a row of which the waveform knew another place."""

    @property
    def words(self) -> Words:
        """Whose words are heard, as far as known."""
        return self._judge.words

    @property
    def alike(self) -> bool:
        """True if its own words were heard at any time."""
        return self._judge.alike

    @property
    def seems_own(self) -> bool:
        """See `WordJudge.seems_own`."""
        return self._judge.seems_own

    @property
    def onset(self) -> bool:
        """True once the avatar has begun to speak. If a former segment was given, only once it is
        known (0.2 to 0.4 s later) that these are not its words.
        """
        return self._alignment is not None and not self._provisional

    @property
    def began_ago(self) -> float:
        """Seconds since the avatar has begun to speak, up to now; 0 before."""
        return (self._history.count - self._onset_hop) * HOP_SECONDS if self.onset else 0.0

    @property
    def likeness(self) -> float | None:
        """Similarity by spectra of the last second of sound to the speech at its places, -1 to 1;
        None before there was enough.
        """
        return self._judge.along

    @property
    def is_in_doubt(self) -> bool:
        """See `WordJudge.is_in_doubt`."""
        return self._judge.is_in_doubt

    @property
    def others_go_on(self) -> bool:
        """See `WordJudge.others_go_on`. Noise and breaths are softer than words."""
        loud = self._history.loud_hops(_WORD_WINDOW_HOPS) >= _WORD_HOPS
        return loud and self._judge.others_go_on

    @property
    def last_own(self) -> int:
        """Samples of the segment that counted as heard when its own words were last heard."""
        return self._judge.own_place * HOP

    @property
    def foreign_since(self) -> int:
        """Samples of the segment that counted as heard when the foreign words began: the evidence
        for its own takes a while to fade, over the first of the others."""
        last = self._judge.own_place
        return min(last, max(self._own.sure_place, last - _LINGERING_HOPS)) * HOP

    @property
    def lead_in(self) -> int:
        """Samples of silence at the start of the delivery, before the first spoken hop."""
        first = self._onset.first_spoken
        return 0 if first is None else (first - self._start_hop) * HOP

    @property
    def position(self) -> int:
        """Samples of the segment that were heard, counted from the segment's start."""
        if self._alignment is None or self._provisional:
            return self._start_hop * HOP
        return max(self._start_hop, self._alignment.place) * HOP

    @property
    def clear_position(self) -> int:
        """`position` without a tail that is a receiver's concealment: see fades.py."""
        if not self.onset:
            return self.position
        place = place_before_fade(self._history, self._segment, self._own.sure_place)
        if place is None:
            return self.position
        return max(self._start_hop * HOP, min(place * HOP, self.position))

    @property
    def silence(self) -> float:
        """Seconds for which nothing was audible, up to now."""
        return self._history.silent_run * HOP_SECONDS

    def note_started(self) -> None:
        """The worker reports that it has begun to play: see `believes_reports`."""

    # -- hearing ---------------------------------------------------------------------------------

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
            count = self._history.count % _LOOK_BACK_EVERY_HOPS
            hops = slice(first, first + _LOOK_BACK_EVERY_HOPS - count)
            pcm = samples[hops.start * HOP : hops.stop * HOP]
            found = self._hear(pcm, levels[hops], bands[hops])
            onset = onset if found is None else first + found
            first = hops.stop
        return onset

    def _watch_for_waits(self) -> None:
        segment = self._segment
        spare = segment.pushed - segment.hops.count * HOP
        if not segment.flushed and spare < _SPARE_HOPS * HOP:
            self._judge.note_wait(self._history.count)

    def _hear(self, samples: NDArray[np.int16], levels: Levels, bands: Levels) -> int | None:
        was_heard, since = self.onset, self._history.count
        self._history.append(levels, bands)
        blocks = self._sounds.push(samples, levels > AUDIBLE_DB)
        begun = self._follow(levels, since)
        for block in blocks:
            self._hear_block(block)
        if self._provisional:
            self._decide()
        if self._history.count % _LOOK_BACK_EVERY_HOPS == 0:
            self._look_back()
        if not self.onset or was_heard:
            return None
        return len(levels) - 1 if begun is None else begun

    def _follow(self, levels: Levels, since: int) -> int | None:
        """The place of these hops, of which the first is hop `since` heard. Returns which of them
        tells that the avatar speaks; None if none does, or it was known before."""
        begun = None
        if self._alignment is None:
            found = self._onset.listen(levels, since)
            first_spoken = self._onset.first_spoken
            if found is None or first_spoken is None:
                return None
            begun, first = found
            since += first
            self._onset_hop = since
            self._alignment = Alignment(first_spoken)
        history = self._history
        places = self._alignment.hear(history.hops, since - history.dropped, self._segment.hops)
        history.follow(places)
        return begun

    def _look_back(self) -> None:
        if self._alignment is not None and self._history.silent_run < _LOOK_BACK_EVERY_HOPS:
            self._compare(self._alignment)
        self._segment.waveform.forget(self._judge.own_place - _KEPT_HOPS)
        self._history.forget()

    # -- whose words they are, and of which segment ----------------------------------------------

    def _hear_block(self, block: Block) -> None:
        if self._alignment is None and self.words is not Words.STALE:
            return
        if block.last <= self._onset_hop:
            return
        own = self._own
        self._trace(block)
        place = self._history.place_at(block.last, self._start_hop)
        self._judge.note_agreement(abs(own.place - place) <= _NEAR_BY_HOPS)
        # A block that spans a pause may be found on either side.
        if own.evidence >= _PLACED and block.last - block.first <= _PIECES_HOPS:
            self._correct(block.last)
        if self._judge.judge(block, own, self._stale) and not self.alike:
            self._retract()

    def _trace(self, block: Block) -> None:
        own, place = self._own, self._history.place_at(block.last, self._start_hop)
        goes_on = own.evidence > _SURE and abs(own.place + STRIDE - place) <= _ASTRAY_HOPS
        if not (goes_on and own.go_on(block)):
            near = own.place if own.evidence > _LOCKED else place
            # The place by the spectra may be wrong since the waveform last gave one.
            known = own.place if own.evidence >= _PLACED else near
            before, after = _NEAREST_HOPS if own.evidence > _SURE else _NEAR_HOPS
            first = max(self._start_hop - BLOCK, min(near, known) - before)
            own.hear(block, first, _reach(self._segment, max(near, known), after))
        if (former := self._former) is not None:
            near = former.place if former.evidence > STALE else self._former_place
            former.hear(block, near - _NEAR_HOPS[0], near + _NEAR_HOPS[1])

    def _went_on(self, place: int, since: int, elapsed: int) -> int:
        """As `Trace` asks: sounds that were heard, and silences that are said."""
        sounds = self._history.sounds_since(since + 1)
        return sounds + self._segment.silent_hops(place, elapsed)

    @property
    def _stale(self) -> float:
        """Evidence for words of the former segment that still go on."""
        former = self._former
        return 0.0 if former is None or former.idle >= _IDLE_BLOCKS else former.evidence

    def _decide(self) -> None:
        """True if the sound that has begun is of this segment."""
        own, stale = self._own.evidence, self._stale
        ended = self._history.silent_run >= END_HOPS
        is_own = own >= _PLACED and own > stale
        if self._alignment is None:
            if is_own:
                self._alignment, self._provisional = Alignment(self._own.place), False
                self._history.begin([self._own.place])
        elif self.words is Words.OWN:
            self._provisional = False
        elif ended and stale > own:
            self._judge.note_stale()
            self._retract()
        elif stale < STALE and (ended or is_own or self._history.sound_hops >= _DOUBT_HOPS):
            self._provisional = False
            self._judge.dismiss_stale()

    def _retract(self) -> None:
        """The sound so far was not the beginning."""
        self._alignment, self._provisional = None, True
        self._history.begin([])
        self._onset.listen_again(self._history.count, self._history.silent_run)

    # -- corrections of the place -----------------------------------------------------------------

    def _correct(self, hop: int) -> None:
        """Correct the place by the waveform."""
        if self._alignment is None:
            return
        own, place = self._own, self._history.place_at(hop, self._start_hop)
        # Within a sound that does not change, all places are equally likely.
        surer = own.evidence - own.evidence_at(place) >= _SURER
        self._astray = self._astray + 1 if abs(own.place - place) > _ASTRAY_HOPS and surer else 0
        if self._astray >= (1 if own.evidence >= _LOCKED else 2):
            self._astray = 0
            self._move_to(self._alignment, own.place + self._history.sounds_since(hop + 1))

    def _move_to(self, alignment: Alignment, place: int) -> None:
        place = min(max(self._start_hop, place), self._segment.hops.count)
        alignment.move_to(place)
        self._history.correct(place)

    def _compare(self, alignment: Alignment) -> None:
        """Check whether the spectra match the place; if not, find the place that they match."""
        found = likeness_at_places(self._history, self._segment)
        at_the_end = self._segment.flushed and alignment.place >= self._segment.hops.count
        if found is not None and not at_the_end:
            along, steady = found
            self._judge.note_along(along, steady=steady)
        if alignment.strain <= STRAINED or self._history.silent_run:
            return
        place = find_place(self._history, self._segment, self._start_hop)
        if place is not None:
            self._move_to(alignment, place)


def _reach(segment: Segment, place: int, hops: int) -> int:
    """Up to which hop what is heard may be, so many hops of speech after `place`: where only a
    pause follows, which may be followed by a word at any time, also those after it."""
    last = _after_pause(segment, place) + hops
    going_on = _after_pause(segment, last - END_HOPS)
    if going_on <= last or segment.spoken_after(place * HOP, last * HOP) > _PAUSE_IS_NEXT:
        return last
    return going_on + hops // 2


def _after_pause(segment: Segment, place: int) -> int:
    """Where the speech goes on after a pause that is said at this hop."""
    following = segment.next_spoken(place)
    return place if following is None else following
