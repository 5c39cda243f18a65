"""Judges whose words an avatar says, by waveform, places and spectra."""

from __future__ import annotations

import enum
from collections import deque

from .coherence import BLOCK, STRIDE, Block, Trace

# Chosen on the tuning voices and sentences of bench/ear; evidence as in `Trace`.
_OWN = 13.0
_SURELY_OWN = 18.0  # where none were heard yet, and the spectra tell nothing of the kind
_SPECTRA_UNLIKE, _SPECTRA_OTHER, _PLACES_APART = 0.7, 0.5, 0.7
_STILL_OWN, _PEAK_FADE = 0.88, 0.99  # of the most evidence, which fades so with each block
STALE = 9.0
"""Evidence from which on words may be of the segment before."""
_STALE_MARGIN = 5.0
_JUDGED_HOPS, _JUDGED_WAITING_HOPS = 116, 220  # of sound without own words
_RECENT_BLOCKS = 8
_UNLIKE, _UNLIKE_TRUSTED, _UNLIKE_WAITING = 10.5, 11.5, 8.0
_AGREEMENT_GAIN, _DISAGREEMENT = 5.0, 0.6
_ALONG, _ALONG_WAITING, _ALIKE = 0.72, 0.6, 0.85
# For words that were like its own for a moment, and are not any more. Own words of all 2,751 cases
# of the matrix that say them, and music alone so unlike: 10.7 and more. Of music that begins slowly
# there is less, and it does not become less again.
_UNLIKE_BY_NOW, _FALLEN, _ALONG_BY_NOW = 9.5, 0.8, 0.45
_AGREEMENT_WEIGHT = 0.06
# Of the last second's most evidence. The sample's first 316 replies, words of the agent: 72 hops
# at most, 112 where they come in pieces. Of an avatar's own words after them: 128 and more in 90 %.
_CEASED_HOPS, _CEASED_WAITING_HOPS = 96, 160
_CEASED, _CEASED_ALONG = 0.7, 0.6
_CEASING, _CEASING_ALONG = 0.8, 0.72
_GOES_ON, _RESUMED = 4.0, 8.0  # gained within `_RECENT_BLOCKS`
# Where no own words were found, evidence and likeness tell together. Measured on 945 short replies
# of all voices and treatments, each said with its own words and with others. At their end, tuning
# voices: 13.4 and more of own words where the evidence was less than 11; of others 9.7 and less in
# 132 of 135. Where it sounded on after them: own words 19 and more, others less than 16. In the
# matrix, replies of 0.3 s: evidence 9.3 and more of own words, after a breath with any likeness.
_NEVER_BEGUN, _NEVER_BEGUN_ALONG, _ALONG_GAIN = 9.2, 0.75, 8.0
_OTHERS = 12.2
_BEYOND, _OTHERS_BEYOND = 13.0, 16.5
_CEASED_BEYOND_ALONG = 0.6
# Reached by the agent's words (294 cases of the matrix) after 0.16 s on the median and 0.32 s in
# 90 %, by 1 of 54 others at any time, which soon had less again.
_SEEMS_OWN, _SEEMS_OWN_GROWS, _SEEMS_OWN_SOON_HOPS = 6.0, 0.15, 20
_STEADY_HOPS, _LONGEST_DOUBT_HOPS = 50, 200
_WAITS_HOPS = 250
_LAST_BLOCKS = 25  # a second of sound
_IN_PIECES = 0.4  # of them, interrupted: what does not wait has up to 0.3


class Words(enum.Enum):
    """The owner of the heard words."""

    UNKNOWN = "unknown"
    OWN = "own"  # of the segment
    FOREIGN = "foreign"  # of the avatar's own, or of anybody else
    STALE = "stale"  # of the segment before


class WordJudge:
    """All of it is written by its methods, of which `judge` is called for each block.

    Args:
        start: hop of the speech at which the delivery begins.
        trusted: the avatar has said its words before, so that its waveform alone tells them.
    """

    def __init__(self, start: int, *, trusted: bool) -> None:
        self._trusted = trusted
        self.words = Words.UNKNOWN
        """As far as can be told."""
        self.alike = False
        """True once its own words were heard."""
        self.own_place = start
        """Hops of the speech that were heard when its own words were last heard."""
        self._own_peak = 0.0
        """The most evidence for its own words in the last seconds; 0 before any."""
        self._ceased_for = 0
        """Hops of sound in which the evidence for its own words only fell."""
        self._judged = 0
        """Hops of sound since its own words were last heard."""
        self._recent: deque[float] = deque(maxlen=_RECENT_BLOCKS)
        """Evidence for its own words at the last blocks."""
        self._best = 0.0
        """The most evidence for its own words at any time."""
        self._agreement = 0.0
        """0 to 1: of the places by waveform and by spectra."""
        self.along: float | None = None
        """Likeness of spectra along the places; None while it is not known, or tells nothing."""
        self.steady = False
        """What is said and heard hardly changes, as tones: likeness tells nothing."""
        self._was_unsteady = False
        """True if it was not `steady` at some time."""
        self._waits_until = 0
        """Hop heard, until which the avatar may be waiting for more to say."""
        self._interrupted: deque[bool] = deque(maxlen=_LAST_BLOCKS)
        """True if there were silences in the last blocks."""

    def note_wait(self, heard: int) -> None:
        """Note at hop `heard` that a worker waits for more speech: it may be silent in mid-word,
        every 20 ms. Such words can only be judged later.
        """
        self._waits_until = heard + _WAITS_HOPS

    def note_along(self, along: float, *, steady: bool) -> None:
        """How alike the spectra of the last second are. Sounds that do not change, as tones, have
        no waveform by which to know them, and where they are `steady` their spectra do not tell
        either."""
        self.steady = steady
        self._was_unsteady = self._was_unsteady or not steady
        self.along = None if steady else along
        self.alike = self.alike or along >= _ALIKE

    def note_agreement(self, agree: bool) -> None:
        """True if waveform and spectra give the same place for the last block."""
        self._agreement += _AGREEMENT_WEIGHT * (agree - self._agreement)

    def dismiss_stale(self) -> None:
        """Note that the words of the former segment have ended."""
        if self.words is Words.STALE:
            self.words = Words.UNKNOWN

    def judge(self, block: Block, own: Trace, stale: float) -> bool:
        """Take a block into account; `stale` is the evidence for words of the segment before.

        Returns:
            Whether it is of those.
        """
        self._judged += STRIDE
        self._recent.append(own.evidence)
        self._best = max(self._best, own.evidence)
        self._interrupted.append(block.last - block.first > BLOCK + 1)
        if stale >= STALE and stale >= own.evidence + _STALE_MARGIN:
            self._judged = 0
            self.words = Words.STALE
            return True
        waits = self._waits(block)
        if own.evidence >= self._own_from:
            self._note_own(own)
        else:
            self._ceased_for += STRIDE
            if self._judged >= _JUDGED_HOPS and self._is_unlike(waits):
                self.words = Words.FOREIGN
        if self._has_ceased(waits):
            self.words = Words.FOREIGN
        return False

    @property
    def is_in_doubt(self) -> bool:
        """What was heard last is not its words, as far as so little can tell: for the end of what
        it had to say, where no more will come to judge by."""
        if self.along is None or not self._recent:
            return False
        if self.words is Words.OWN:
            evidence = self._recent[-1]
            goes_on = evidence >= _OWN and evidence - min(self._recent) >= _GOES_ON
            ceasing = evidence < _CEASING * self._own_peak and not goes_on
            return ceasing and self.along < _CEASING_ALONG
        likely_own = self.words is not Words.UNKNOWN or self.along >= _NEVER_BEGUN_ALONG
        return not likely_own and self._is_unfounded(_NEVER_BEGUN, _OTHERS)

    @property
    def seems_own(self) -> bool:
        """True if the sound may be passed on; known sooner than `words`, and less certain. Sounds
        that hardly change, by which nothing is told, may; and so may what is still not known to be
        anything else after two seconds of it, rather than that nobody is heard.
        """
        if self.alike or self._judged >= _LONGEST_DOUBT_HOPS:
            return True
        if self.steady and not self._was_unsteady and self._judged >= _STEADY_HOPS:
            return True
        late = max(0, self._judged - _SEEMS_OWN_SOON_HOPS)
        needed = min(_OWN, _SEEMS_OWN + _SEEMS_OWN_GROWS * late)
        return bool(self._recent) and self._recent[-1] >= needed

    @property
    def others_go_on(self) -> bool:
        """Where it sounds on after all that it had to say: whether those are other words, and not
        the tail of its own."""
        if self.steady:
            return False
        if self.words is Words.OWN:
            return self.along is not None and self.along < _CEASED_BEYOND_ALONG
        return self._is_unfounded(_BEYOND, _OTHERS_BEYOND)

    def _is_unfounded(self, evidence: float, together: float) -> bool:
        """That any of its own words were heard: with less than so much evidence, and less than so
        much of evidence and likeness."""
        told = self._best + _ALONG_GAIN * (self.along or 0.0)
        return self._best < evidence and told < together

    @property
    def _own_from(self) -> float:
        """Evidence from which on words are its own."""
        if self._own_peak or self.along is None:
            return _OWN
        apart = self._agreement < _PLACES_APART
        unlike = self.along < (_SPECTRA_UNLIKE if apart else _SPECTRA_OTHER)
        return _SURELY_OWN if unlike else _OWN

    def note_stale(self) -> None:
        """What was heard was of the segment before."""
        self.words = Words.STALE

    def _note_own(self, own: Trace) -> None:
        self.alike, self._judged = True, 0
        if own.evidence - min(self._recent) >= _RESUMED:  # noise came between
            self._own_peak = own.evidence
        self._own_peak = max(own.evidence, _PEAK_FADE * self._own_peak)
        if own.evidence >= _STILL_OWN * self._own_peak:
            self.words, self.own_place, self._ceased_for = Words.OWN, own.place, 0
        else:
            self._ceased_for += STRIDE

    def _has_ceased(self, waits: bool) -> bool:
        """Its own words were heard, and then none for so long that these are others: the evidence
        for the former takes longer to be forgotten."""
        if self.along is None or not self._own_peak:
            return False
        long = self._ceased_for >= (_CEASED_WAITING_HOPS if waits else _CEASED_HOPS)
        fell = self._recent[-1] < _CEASED * self._own_peak
        return long and fell and self.along < _CEASED_ALONG

    def _waits(self, block: Block) -> bool:
        """True if the sound comes in pieces because there was no more to say."""
        in_pieces = sum(self._interrupted) >= _IN_PIECES * len(self._interrupted)
        return block.last < self._waits_until and in_pieces

    def _is_unlike(self, waits: bool) -> bool:
        """True if nothing indicates its own words: neither their waveform, nor a common place by
        waveform and spectra, nor spectra that change as theirs do.
        """
        if self.along is None:  # of so much sound: it is steady
            return False
        evidence, along = max(self._recent), self.along
        if waits:
            return (
                self._judged >= _JUDGED_WAITING_HOPS
                and evidence < _UNLIKE_WAITING
                and self._agreement < _DISAGREEMENT
                and along < _ALONG_WAITING
            )
        by_now = self._recent[-1]
        was_like = not self._own_peak and by_now < _FALLEN * self._best
        if was_like and by_now < _UNLIKE_BY_NOW and along < _ALONG_BY_NOW:
            return True
        limit = _UNLIKE_TRUSTED if self._trusted or self._own_peak else _UNLIKE
        return evidence + _AGREEMENT_GAIN * self._agreement < limit and along < _ALONG
