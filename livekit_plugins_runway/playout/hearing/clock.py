"""The avatar's position by the clock, for avatars whose voice differs from what they are sent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..audio import HOP, HOP_SECONDS
from ..segment import Segment
from .features import Levels
from .tracker import Words


class PlayoutClock:
    """Replaces a `SpeechTracker`: any sound counts as the agent's words, and 10 ms of it, or of
    silence after it, as 10 ms of the segment. Believes the worker's reports.

    Args:
        segment: what is being said; it may still grow.
        start: sample of the segment at which this delivery begins.
    """

    believes_reports = True
    is_in_doubt = False
    others_go_on = False
    likeness: float | None = None
    words = Words.UNKNOWN
    """Unknown by the clock."""
    seems_own = True

    def __init__(self, segment: Segment, start: int) -> None:
        self._segment = segment
        self._start_hop = start // HOP
        self._place: int | None = None
        """Hops of the segment that were heard; None before the onset."""
        self._silent_run = 0
        self._heard = 0
        """Hops since the onset."""

    @property
    def onset(self) -> bool:
        return self._place is not None

    @property
    def alike(self) -> bool:
        return self.onset

    @property
    def lead_in(self) -> int:
        """Samples of silence at the start of the delivery, before the first spoken hop."""
        first = self._segment.next_spoken(self._start_hop)
        return 0 if first is None else (first - self._start_hop) * HOP

    @property
    def position(self) -> int:
        """Samples of the segment that were heard, counted from the segment's start."""
        return (self._start_hop if self._place is None else self._place) * HOP

    clear_position = position
    last_own = position
    foreign_since = position

    @property
    def began_ago(self) -> float:
        """Seconds since the avatar has begun to speak, up to now; 0 before."""
        return self._heard * HOP_SECONDS

    @property
    def silence(self) -> float:
        """Seconds for which nothing was audible, up to now."""
        return self._silent_run * HOP_SECONDS

    def note_started(self) -> None:
        """The worker reports that it has begun to play."""
        if self._place is None:
            self._place = self._start_hop + self.lead_in // HOP

    def hear(
        self, samples: NDArray[np.int16], levels: Levels, sounds: NDArray[np.bool_]
    ) -> int | None:
        """See `SpeechTracker.hear`."""
        onset = None
        for hop, audible in enumerate(sounds.tolist()):
            self._silent_run = 0 if audible else self._silent_run + 1
            if self._place is None and audible and self._segment.hops.count > self._start_hop:
                self.note_started()
                onset = hop
            if self._place is not None:
                self._heard += 1
                self._place = min(self._place + 1, self._segment.hops.count)
        return onset
