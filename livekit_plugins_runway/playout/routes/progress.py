"""How far an avatar was heard to be in a segment, and since when more of it is missing. Pure."""

from __future__ import annotations

from ..audio import HOP, SAMPLE_RATE
from ..hearing.clock import PlayoutClock
from ..hearing.tracker import SpeechTracker, Words
from ..segment import Segment
from .pacer import Pacer

FIRST_LATENCY = 2.5
"""Seconds that an avatar may take to answer, if it was never heard before; Runway states a
turn-around of 1.75 s (runwayml.com, "Building Runway Characters").
"""
_KEPT_BACK = 0.8
"""Seconds of speech that a worker may keep until more comes or the segment is complete: LiveKit's
reference worker keeps what does not fill a picture, others look ahead."""
_OWED = 3 * HOP
"""Up to so many missing samples of speech are not waited for."""
_PAUSE = 0.1
"""Seconds of silence that end a sound."""
_JUST_NOW = 0.01
"""Minimum seconds for which a sound has lasted."""


class Progress:
    """One per attempt. Written by the methods that begin with `note`, `is_stalled()` and
    `sounds_on_for()`. Positions are samples of the segment; times are loop times in seconds.

    Args:
        pacer: knows when each sent sample is due to be spoken.
        latency: of the avatar in seconds, last measured; None if never.
        unseen: the avatar has no video yet, so this attempt is no measure of its latency.
    """

    def __init__(
        self,
        segment: Segment,
        pacer: Pacer,
        tracker: SpeechTracker | PlayoutClock,
        now: float,
        *,
        latency: float | None,
        unseen: bool,
    ) -> None:
        self._segment = segment
        self._start = pacer.sent
        self._pacer = pacer
        self._tracker = tracker
        self.expected = FIRST_LATENCY if latency is None else latency
        """Seconds that the avatar may take to answer."""
        self._unseen = unseen
        self._first_turn: float | None = None
        """When the first spoken sample is due; None until it was sent."""
        self.heard_at: float | None = None
        """When the avatar was first heard; None before."""
        self._place: tuple[int, float] = (self._start, now)
        """The position, and since when it has not changed."""
        self._owed_since: float | None = None
        """Since when the next word is missing; None if none is. In the future while it is not due
        yet.
        """
        self._ended_at: float | None = None
        """When its last word was heard, or counts as heard; None while words are outstanding."""

    @property
    def position(self) -> int:
        return self._place[0]

    @property
    def latency(self) -> float | None:
        """Seconds, as `Ear.latency`; None while unknown, and always None if the video had to be
        waited for.
        """
        if self._unseen or self.heard_at is None or self._first_turn is None:
            return None
        latency = self.heard_at - self._first_turn
        return latency if latency > 0.0 else None

    def note_described(self) -> None:
        """Features of more of the segment were computed."""
        if self._first_turn is None:
            first = self._next_spoken(self._start)
            self._first_turn = None if first is None else self._pacer.turn_of(first)
        self._pacer.forget_turns(self.position)

    def note_onset(self, at: float) -> None:
        """The avatar has begun to speak."""
        self.heard_at = at

    def note_position(self, position: int, at: float) -> bool:
        """Set the position at a time. False if it has not changed."""
        if position == self.position:
            return False
        self._place = (position, at)
        return True

    def _next_spoken(self, position: int) -> int | None:
        """The first sample from `position` on that must be heard."""
        hop = self._segment.next_spoken(position // HOP)
        return None if hop is None else hop * HOP

    @property
    def owes_words(self) -> bool:
        """True if there are words that were not heard yet."""
        return self._next_spoken(self.position) is not None

    def missing_for(self, now: float) -> float:
        """Seconds for which nothing was heard although a word was due. Negative until it is due; if
        there are no more words, the silence up to now.
        """
        following = self._next_spoken(self.position)
        silence = self._tracker.silence
        return silence if following is None else min(silence, now - self._due(following))

    def sounds_on_for(self, now: float) -> float:
        """Seconds for which it has sounded after its last word, if that may not have been the
        agent's word; 0 if it is silent, or is known to have said it.
        """
        tracker = self._tracker
        if tracker.believes_reports or not tracker.onset or self.owes_words:
            self._ended_at = None
            return 0.0
        if self._ended_at is None:
            self._ended_at = now - _JUST_NOW
        doubtful = tracker.words is Words.UNKNOWN or tracker.is_in_doubt
        return now - self._ended_at if doubtful and tracker.silence < _PAUSE else 0.0

    def _due(self, following: int) -> float:
        """When the next word must be heard: after the pause before it, and not before speech that
        was sent late can have come.
        """
        position, since = self._place
        # Use its last sample, because the hop may have begun before the source ran dry.
        turn = self._pacer.turn_of(following + HOP - 1)
        return max(since + (following - position) / SAMPLE_RATE, turn + self._delay)

    @property
    def _delay(self) -> float:
        """Seconds within which an answer may come."""
        return self.expected if self.latency is None else self.latency

    def is_silence_past(self, now: float) -> bool:
        """True if the silence or noise at the end of the segment, which cannot be heard, has passed
        by the clock.
        """
        position, since = self._place
        return now - since >= (self._segment.pushed - position) / SAMPLE_RATE

    def is_stalled(self, position: int, now: float, timeout: float) -> bool:
        """True if speech after `position` has been missing for longer than `timeout` seconds."""
        segment, owed = self._segment, self._pacer.sent
        if not segment.flushed and owed == segment.pushed:
            owed -= int(_KEPT_BACK * SAMPLE_RATE)
        if segment.spoken_after(position, max(position, owed)) < _OWED:
            self._owed_since = None
            return False
        if self._owed_since is None:
            # Speech that the worker had kept back comes with the newly sent speech, or with the
            # end.
            self._owed_since = max(now + self._delay, self._owed_from(position, now))
        elif self._place[1] > self._owed_since:
            self._owed_since = max(now, self._owed_from(position, now))
        return now - self._owed_since > timeout

    def _owed_from(self, position: int, now: float) -> float:
        if not self._tracker.onset:
            return now + self.expected
        following = self._next_spoken(position)
        return now if following is None else self._due(following)
