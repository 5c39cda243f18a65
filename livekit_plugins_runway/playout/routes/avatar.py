"""One attempt at speaking a segment by the avatar: what to send, what was heard, and the verdict.

Pure: no clock, no event loop, no I/O. Positions are samples of the segment, counted from its start;
times are loop times in seconds.
"""

from __future__ import annotations

import enum

from ..audio import BYTES_PER_SAMPLE, HOP_SECONDS, SAMPLE_RATE
from ..ear import Heard
from ..hearing.clock import PlayoutClock
from ..hearing.tracker import SpeechTracker, Words
from ..ports import SpeechDelivery
from ..segment import Segment
from .pacer import MOST_AT_ONCE, Pacer
from .progress import Progress
from .runs import Run, Runs

DEADLINE_MARGIN = 5.0
"""Seconds past its own length after which a flushed segment is finished by force."""
_MARGIN = 0.08
"""Seconds before the place of a loss at which the voice begins."""
_DOUBTFUL = 0.6
"""After so many seconds of speech without a sound that is surely the agent's, the words may be the
avatar's own.
"""
_IN_DOUBT = 0.3
"""The same, if the last sounds are not like the agent's words. On the first 700 cases of
bench/ear's sample with a sentence: none of 525 of the agent's words, 16 of 20 of others that had
counted as heard.
"""
_SHORT = 1.2
"""Seconds of speech of a reply that may end before it is known whose words were heard."""
_NOT_AT_ALL_ALIKE = 0.3
_ALIKE = 0.6
"""Likeness from which on sounds may be the agent's, if their waveform does not tell."""
_CLICK = 0.1
"""Up to so many seconds of speech in all are not waited for: an avatar need not make them
audible.
"""
_PART_OF_A_WORD = 0.12
_LAST_WORD = 0.5
"""A missing end of up to so many seconds of speech is no reason to give up the avatar."""
# Seconds for which a word that is due may be missing...
_LAST_WORD_WAIT = 0.6  # ...until somebody else says it,
_END_WAIT = 0.3  # ...until less than a word is not waited for any more,
_CONFIRMED_WAIT = 0.2  # ...and where the worker says that it has finished.
_SOUNDS_ON = 0.5
"""Seconds for which an avatar may sound after its last word, if it is not known to have said that:
reverberation, a breath. Other words last longer.
"""
_WORD_GAP = 0.03
"""Seconds of silence at which the speaker may change."""
_REMEMBERED = SAMPLE_RATE
"""Samples of heard speech that are kept; more than is ever repeated."""


class Phase(enum.Enum):
    SENDING = "sending"  # there is more to come, or to be sent
    SENT = "sent"  # all of it, and the delivery knows
    OVER = "over"  # nothing more is sent; what still comes is listened to


class Verdict(enum.Enum):
    """The state of an attempt, as `step()` judges it."""

    GO_ON = "go_on"
    HEARD = "heard"
    LAST_WORD_LOST = "last_word_lost"
    """Everything but the last word was heard; the voice must say that."""
    FOREIGN = "foreign"
    """The avatar says other words than it was sent."""
    STALLED = "stalled"
    OVERDUE = "overdue"
    """The segment's deadline has passed."""
    UNSEEN_TOO_LONG = "unseen_too_long"
    """Nothing was heard yet, and the video did not come in time."""


class AvatarRoute:
    """Sends from `start` on; `step()` and `stop()` write what was heard to `segment.heard`.

    Args:
        start: the sample of the segment at which it begins.
        latency: of the avatar in seconds, last measured; None if never.
        stall_timeout: seconds without progress, while speech is outstanding, after which the avatar
            counts as lost.
        unseen: the avatar has no video yet, so it may answer late.
        by_clock: find the position by time and the worker's reports, and not by the avatar's voice.
        former: the interrupted segment, whose words may still come.
        trusted: the avatar was found earlier to say the agent's words.
    """

    def __init__(
        self,
        segment: Segment,
        start: int,
        now: float,
        *,
        latency: float | None,
        stall_timeout: float,
        unseen: bool = False,
        by_clock: bool = False,
        former: Segment | None = None,
        trusted: bool = False,
    ) -> None:
        # Written by `note_sent()`, `hear()`, `step()` and `stop()` only, in one thread.
        self.segment = segment
        self.start = start
        self._began = now
        self._silence_delay = latency or 0.0
        self._stall_timeout = stall_timeout
        self._is_patient = unseen
        """The avatar has no video yet."""
        self.phase = Phase.SENDING
        """Goes on from SENDING to SENT and OVER, or at once to OVER."""
        self.pacer = Pacer(self.start, now)
        self.tracker: SpeechTracker | PlayoutClock
        """Finds the avatar's position."""
        if by_clock:
            self.tracker = PlayoutClock(segment, start)
        else:
            self.tracker = SpeechTracker(segment, start, former=former, trusted=trusted)
        self.progress = Progress(
            segment, self.pacer, self.tracker, now, latency=latency, unseen=unseen
        )
        self._runs = Runs(self.start, now)
        self._confirmed = False
        """The worker has reported that it has finished the segment."""
        self._is_judged = False
        """`step()` has found which of the words that came out were the agent's."""
        self._is_foreign = False
        """Its last words were not the agent's, as far as `step()` can tell."""
        self._deadline: float | None = None
        """None until SENT."""

    # -- sending ----------------------------------------------------------------------------------

    @property
    def sent(self) -> int:
        return self.pacer.sent

    def due(self, delivery: SpeechDelivery, now: float) -> bytes:
        """The speech to send now; empty if there is none."""
        end = self.pacer.next_end(self.segment.pushed, delivery, now)
        return self.segment.read(self.sent, end)

    def note_sent(self, pcm: bytes, now: float) -> int:
        """Note that this speech was sent; returns its number of samples."""
        count = len(pcm) // BYTES_PER_SAMPLE
        self.pacer.note_sent(self.sent + count, now)
        return count

    @property
    def is_beginning(self) -> bool:
        """True if so little was sent that the rest of the first words should follow at once."""
        return self.sent - self.start < MOST_AT_ONCE

    @property
    def is_complete(self) -> bool:
        """True if the whole segment was sent, and the delivery was not told yet that it is
        complete.
        """
        done = self.segment.flushed and self.sent == self.segment.pushed
        return done and self.phase is Phase.SENDING

    def note_complete(self) -> None:
        """Note that the delivery was told that the segment is complete."""
        self.phase = Phase.SENT

    # -- hearing ----------------------------------------------------------------------------------

    def describe(self) -> None:
        """Compute features of the sent speech. Deferred, so that sending never waits for it."""
        self.segment.describe(self.sent, start=self.start)
        self.progress.note_described()

    def hear(self, heard: Heard) -> None:
        """Account for what came back. What was sent is to be described first."""
        onset = self.tracker.hear(heard.samples, heard.levels, heard.sounds)
        if onset is not None and self.heard_at is None:
            at = heard.times[-1] - (self.tracker.began_ago - HOP_SECONDS)
            self.progress.note_onset(at)
            self._runs.begin(at - self.tracker.lead_in / SAMPLE_RATE)
        if self.tracker.onset:
            self._note_position(heard.times[-1])

    def _note_position(self, at: float) -> None:
        position = min(self.tracker.position, self.sent)
        if self.progress.note_position(position, at):
            self._runs.advance(position, at)

    def note_started(self) -> None:
        """The worker reports that it has begun to play. Ignored when the position is found by
        listening.
        """
        if self.phase is not Phase.OVER:
            self.tracker.note_started()

    def confirm(self, now: float) -> None:
        """The worker reports that it has played the segment; believed only if the measured position
        agrees, and not before it can be true, because the former segment's report may come late.
        """
        left = (self.segment.pushed - self.start) / SAMPLE_RATE
        if self.phase is Phase.SENT and now - self._began >= left:
            self._confirmed = True

    @property
    def heard_at(self) -> float | None:
        """When the avatar was first heard; None before."""
        return self.progress.heard_at

    @property
    def latency(self) -> float | None:
        """See `Progress.latency`."""
        return self.progress.latency

    @property
    def confirmed_latency(self) -> float | None:
        """`latency`, once the heard words were found to be the agent's."""
        return self.latency if self.tracker.alike else None

    # -- judging ----------------------------------------------------------------------------------

    def step(self, now: float, *, impatient: bool = False) -> Verdict:
        """Judge the attempt; sets `segment.heard` to the position.

        Args:
            impatient: the video should have come by now.
        """
        self.describe()
        self.segment.heard = position = self._position(now)
        self.segment.forget(min(position - _REMEMBERED, self.tracker.foreign_since))
        sounds_on, others = self.progress.sounds_on_for(now), self.tracker.others_go_on
        if sounds_on >= _SOUNDS_ON and others:
            self._is_foreign = True
            return Verdict.FOREIGN
        if self.phase is Phase.SENT:
            waits = 0.0 < sounds_on < _SOUNDS_ON and (others or self.tracker.is_in_doubt)
            if not waits and self._is_heard(position, now):
                self.segment.heard = self.segment.pushed
                return Verdict.HEARD
            if self.tracker.onset and self.missing_for(now) >= _LAST_WORD_WAIT:
                verdict = self._without_the_end()
                if verdict is not Verdict.GO_ON:
                    return verdict
        if self.tracker.words is Words.FOREIGN:
            return Verdict.FOREIGN
        if self._is_patient and not self.tracker.onset:
            return Verdict.UNSEEN_TOO_LONG if impatient else Verdict.GO_ON
        if self.progress.is_stalled(position, now, self._stall_timeout):
            return Verdict.STALLED
        return Verdict.OVERDUE if self._is_overdue(now) else Verdict.GO_ON

    def seen(self) -> None:
        """The avatar has video now. Its answer had to wait for that, so it is no measure of the
        latency.
        """
        self._is_patient = False

    def _position(self, now: float) -> int:
        if self.tracker.onset:
            return min(self.tracker.position, self.sent)
        not_waited_for = _CLICK * SAMPLE_RATE if self.phase is Phase.SENT else 0.0
        if self._spoken(self.start, self.sent) > not_waited_for:
            return self.start
        # Only silence was sent: advance by the clock.
        elapsed = now - self._began - self._silence_delay
        return min(self.sent, self.start + max(0, int(elapsed * SAMPLE_RATE)))

    def _spoken(self, start: int, end: int | None = None) -> int:
        return self.segment.spoken_after(start, end)

    def missing_for(self, now: float) -> float:
        """See `Progress.missing_for`."""
        return self.progress.missing_for(now)

    def _is_heard(self, position: int, now: float) -> bool:
        tracker, pushed = self.tracker, self.segment.pushed
        if not tracker.onset:
            return position >= pushed  # there was nothing to be heard
        if self._confirmed and tracker.believes_reports:
            return True
        if position < pushed and not self._is_silence_over(now):
            return False
        clear = self._clear_position()
        believed = self._confirmed and tracker.silence >= _CONFIRMED_WAIT and clear >= position
        return self._spoken(clear) / SAMPLE_RATE < (_LAST_WORD if believed else _PART_OF_A_WORD)

    def _clear_position(self, *, lost: bool = False) -> int:
        """The position without sounds that may not have been the agent's words: concealment by a
        receiver that has run dry, or the avatar's own words since its voice was last found to match
        the sent speech.

        Args:
            lost: the avatar is given up, so the position of one that never matched is not used.
        """
        tracker = self.tracker
        clear = min(self.progress.position, tracker.clear_position)
        likeness = tracker.likeness
        known = tracker.words is Words.OWN  # by its waveform, which does not work for tones
        limit = _ALIKE if known else _NOT_AT_ALL_ALIKE if lost else -1.0
        unlike = likeness is not None and likeness < limit
        since = tracker.last_own if lost else tracker.foreign_since
        unsure = self._spoken(since, clear) / SAMPLE_RATE
        if tracker.words is Words.FOREIGN or (unlike and unsure >= _DOUBTFUL):
            return since
        if not tracker.is_in_doubt:
            return clear
        if lost:
            never_alike = tracker.words is Words.UNKNOWN and not tracker.alike
            return since if never_alike and unsure >= _DOUBTFUL else clear
        if tracker.words is Words.UNKNOWN:
            return since if unsure <= _SHORT else clear  # for tones nothing else is known
        return since if unsure >= _IN_DOUBT else clear

    def _is_silence_over(self, now: float) -> bool:
        """True if no word has come for so long that none will."""
        missing_for = self.missing_for(now)
        if self._confirmed:
            return missing_for >= _CONFIRMED_WAIT
        waited = missing_for >= _END_WAIT
        return waited and (self.progress.owes_words or self.progress.is_silence_past(now))

    def _without_the_end(self) -> Verdict:
        """True if the end is overdue, by at most the last word: data sent while a connection was
        being restored may come seconds late, or never.
        """
        missing = self._spoken(self._clear_position()) / SAMPLE_RATE
        if missing < _PART_OF_A_WORD:
            return Verdict.GO_ON  # only silence or noise is left
        if missing < _LAST_WORD:
            return self._without_the_last_word()
        if self.progress.owes_words:
            return Verdict.GO_ON
        # Everything came out, but not all of it as the agent's words. An avatar that was never
        # heard before is not given up for that.
        if self.tracker.words is Words.UNKNOWN:
            self._is_judged = True
            return Verdict.LAST_WORD_LOST
        self._is_foreign = True
        return Verdict.FOREIGN

    def _without_the_last_word(self) -> Verdict:
        """An avatar that speaks what it is sent did not say it, nor did one of which too little was
        heard. For any other avatar it cannot be known.
        """
        if self.tracker.alike or self.tracker.words is Words.UNKNOWN:
            self._is_judged = True
            return Verdict.LAST_WORD_LOST
        self.segment.heard = self.segment.pushed
        return Verdict.HEARD

    def _is_overdue(self, now: float) -> bool:
        if self.phase is not Phase.SENT:
            return False
        if self._deadline is None:
            left = (self.segment.pushed - self.segment.heard) / SAMPLE_RATE
            self._deadline = now + left + self.progress.expected + DEADLINE_MARGIN
        return now > self._deadline

    # -- leaving off ------------------------------------------------------------------------------

    @property
    def is_between_words(self) -> bool:
        """True if another speaker may go on from here."""
        return not self.tracker.onset or self.tracker.silence >= _WORD_GAP

    def stop(
        self, now: float, *, lost: bool, on_its_way: float = 0.0, behind: float = 0.0
    ) -> list[Run]:
        """End the attempt, and write the heard position to `segment.heard`.

        Args:
            lost: the voice continues in mid-word, and so repeats a little.
            on_its_way: seconds of received sound that have not reached the user.
            behind: seconds of sound that were held back; the next speaker begins there.
        """
        self.describe()
        position = self._position(now)
        if self.tracker.onset:
            position = max(self.start, position - round(behind * SAMPLE_RATE))
        if self._is_foreign or self.tracker.words is Words.FOREIGN:
            position = max(self.start, min(position, self.tracker.foreign_since))
        elif lost and self.tracker.onset:
            clear = self._clear_position(lost=not self._is_judged)
            margin = _MARGIN + on_its_way + behind
            position = max(self.start, self.segment.restart_point(clear, margin=margin))
        self.segment.heard = position
        self.phase = Phase.OVER
        return self._runs.finish(position)

    def finish(self) -> list[Run]:
        """End the attempt: the whole segment counts as heard, or as much as `step()` has found."""
        self.phase = Phase.OVER
        return self._runs.finish(self.segment.heard)
