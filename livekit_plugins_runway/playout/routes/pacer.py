"""How much speech may be sent now, given how much can still be unspoken. Pure."""

from __future__ import annotations

from ..audio import SAMPLE_RATE
from ..ports import SpeechDelivery

MOST_AT_ONCE = SAMPLE_RATE // 5
"""Samples that are sent in one step, so that the first words do not wait until all is prepared."""


class Pacer:
    """One per attempt. It assumes a receiver that speaks its speech in real time, and waits when it
    has none: after a pause of the source no more is sent at once than before.

    Args:
        start: sample of the segment at which the attempt begins.
        now: loop time in seconds.
    """

    def __init__(self, start: int, now: float) -> None:
        self.sent = start
        """Samples of the segment that were sent, counted from the segment's start."""
        self._spoken_by = now
        """Loop time at which all sent speech can have been spoken. In the past once the source has
        run dry; the next samples are counted from then on.
        """
        self._turns: list[tuple[int, float]] = []
        """First sample of each sent piece, and the loop time at which it is due to be spoken."""

    def ahead(self, now: float) -> float:
        """Seconds of speech that were sent and cannot have been spoken yet."""
        return max(0.0, self._spoken_by - now)

    def next_end(self, pushed: int, delivery: SpeechDelivery, now: float) -> int:
        """The sample up to which speech may be sent now; `sent` if none may.

        Args:
            pushed: samples of the segment that were captured.
        """
        most = int((delivery.lead - self.ahead(now)) * SAMPLE_RATE)
        most = max(0, min(most, delivery.room, MOST_AT_ONCE))
        left = pushed - self.sent
        if most < left:  # as far ahead as it may be: no hurry
            most -= most % delivery.batch
        return self.sent + min(most, left)

    def note_sent(self, end: int, now: float) -> None:
        """Note that the samples before `end` were sent."""
        turn = max(self._spoken_by, now)
        self._turns.append((self.sent, turn))
        self._spoken_by = turn + (end - self.sent) / SAMPLE_RATE
        self.sent = end

    def turn_of(self, sample: int) -> float:
        """Loop time at which a sent sample is due to be spoken by a receiver without delay. An
        estimate, if its piece was forgotten. Only after `note_sent()`.
        """
        earlier = (piece for piece in reversed(self._turns) if piece[0] <= sample)
        start, turn = next(earlier, self._turns[0])
        return turn + (sample - start) / SAMPLE_RATE

    def forget_turns(self, before: int) -> None:
        """Forget when the samples before this one are due."""
        while len(self._turns) > 1 and self._turns[1][0] <= before:
            del self._turns[0]
