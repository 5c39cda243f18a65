"""Where an avatar may take over in a segment that the voice speaks: at the next gap between words.
Pure.

Otherwise an avatar that comes back in the middle of a long segment would show a closed mouth until
its end. The speech after the gap is sent so early that it is heard when the voice reaches the gap.
"""

from __future__ import annotations

import numpy as np

from ..audio import HOP, HOP_SECONDS, SAMPLE_RATE
from ..hearing.features import SPOKEN_DB, hop_levels
from ..segment import Segment

_GAP = 0.12
"""Seconds without a word at which the speakers change."""
_LATE = 0.04
"""Seconds by which the avatar may come later than the voice, so that it does not come earlier."""
_LOOK_AHEAD = 4 * SAMPLE_RATE
_REST = 1.5
"""Minimum seconds of speech after the gap; with less, the avatar waits for the segment's end."""
_LOOK_EVERY = SAMPLE_RATE // 5
EARLY = 0.05
"""If the avatar's first sound comes so many seconds before the gap, no word is lost."""


class Takeover:
    """One per segment and avatar. Positions are samples of the segment.

    Args:
        latency: of the avatar, in seconds.
    """

    def __init__(self, segment: Segment, latency: float) -> None:
        self.segment = segment
        self._reach = int((latency - _LATE) * SAMPLE_RATE)
        self._looked_at = -_LOOK_EVERY
        self.gap: int | None = None
        """The sample at which the avatar takes over; None until one was found."""

    def is_due(self, position: int) -> bool:
        """True if the speech after the gap must be sent now that the voice is at `position`."""
        if self.gap is None and position - self._looked_at >= _LOOK_EVERY:
            self._looked_at = position
            self.gap = self._next_gap(position + max(0, self._reach) + _LOOK_EVERY)
        return self.gap is not None and position >= self.gap - self._reach

    def _next_gap(self, earliest: int) -> int | None:
        """The first sample, a whole number of hops, of a gap from `earliest` on."""
        first = -(-earliest // HOP)
        latest = min(self.segment.pushed - int(_REST * SAMPLE_RATE), earliest + _LOOK_AHEAD)
        hops = latest // HOP - first
        if hops <= 0:
            return None
        pcm = self.segment.read(first * HOP, (first + hops) * HOP)
        spoken = hop_levels(np.frombuffer(pcm, np.int16)) > SPOKEN_DB
        start = _first_quiet(spoken, round(_GAP / HOP_SECONDS))
        return None if start is None else (first + start) * HOP


def _first_quiet(spoken: np.ndarray[tuple[int], np.dtype[np.bool_]], hops: int) -> int | None:
    """The begin of the first run of so many quiet hops after a spoken one."""
    quiet = 0
    after_word = False
    for hop, is_spoken in enumerate(spoken.tolist()):
        quiet = 0 if is_spoken else quiet + 1
        after_word = after_word or is_spoken
        if quiet >= hops and after_word:
            return hop - hops + 1
    return None
