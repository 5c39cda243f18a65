"""What was said and how much of it was heard: pure accounting in samples, without I/O or clocks.

`Segment` keeps the speech that was pushed until it was heard, and its short-time spectra, by which
`SpeechTracker` (tracker.py) finds it again in what comes back from the avatar.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from .audio import BYTES_PER_SAMPLE, HOP, HOP_SECONDS, SAMPLE_RATE
from .hearing.features import SPOKEN_DB, Hops, hop_features


class SegmentState(enum.Enum):
    WAITING = "waiting"  # nothing of it was heard yet
    PLAYING = "playing"  # the user hears it
    FINISHED = "finished"


_ALLOWED = {
    SegmentState.WAITING: {SegmentState.PLAYING, SegmentState.FINISHED},
    SegmentState.PLAYING: {SegmentState.FINISHED},
    SegmentState.FINISHED: set[SegmentState](),
}


@dataclass(eq=False)
class Segment:
    """Speech between two flushes, kept whole until it was heard or given up.

    `heard`, `pushed` and all positions are samples from the segment's start.
    """

    pcm: bytearray = field(default_factory=bytearray, repr=False)
    flushed: bool = False
    cleared: bool = False
    heard: int = 0
    state: SegmentState = SegmentState.WAITING
    hops: Hops = field(default_factory=Hops, repr=False)

    @property
    def pushed(self) -> int:
        return len(self.pcm) // BYTES_PER_SAMPLE

    def move_to(self, state: SegmentState) -> None:
        """The one place that changes the state; `RuntimeError` on a step that is not allowed."""
        if state not in _ALLOWED[self.state]:
            raise RuntimeError(f"a segment cannot go from {self.state.value} to {state.value}")
        self.state = state

    def push(self, pcm: bytes) -> None:
        self.pcm += pcm

    def flush(self) -> None:
        self.flushed = True

    def describe(self, end: int) -> None:
        """Look at the samples before `end`: `hops` and what uses them cover only those.

        For speech that is about to be sent, not for speech that comes in: a TTS delivers bursts of
        many seconds, and all that time nothing could be relayed.
        """
        whole = self.flushed and end >= self.pushed
        hops = -(-end // HOP) if whole else end // HOP
        if hops <= self.hops.count:
            return
        start = self.hops.count * HOP * BYTES_PER_SAMPLE
        raw = np.frombuffer(bytes(self.pcm[start : hops * HOP * BYTES_PER_SAMPLE]), dtype=np.int16)
        missing = (hops - self.hops.count) * HOP - len(raw)
        self.hops.append(*hop_features(np.pad(raw, (0, missing)) if missing else raw))

    def read(self, start: int, end: int) -> bytes:
        """PCM of the samples [start, end)."""
        return bytes(self.pcm[start * BYTES_PER_SAMPLE : end * BYTES_PER_SAMPLE])

    def spoken_after(self, start: int, end: int | None = None) -> int:
        """Samples of audible speech in [start, end)."""
        stop = None if end is None else end // HOP
        return int(np.count_nonzero(self.hops.levels[start // HOP : stop] > SPOKEN_DB)) * HOP

    def restart_point(self, position: int, *, margin: float, reach: float = 0.12) -> int:
        """Where to speak on after a loss at `position`: at least `margin` seconds before it, and at
        the quietest 10 ms of the `reach` seconds before that, so that a syllable is not cut."""
        latest = (position - int(margin * SAMPLE_RATE)) // HOP
        if latest <= 0:
            return 0
        earliest = max(0, latest - round(reach / HOP_SECONDS))
        window = self.hops.levels[earliest : latest + 1]
        return (earliest + int(np.argmin(window))) * HOP if len(window) else latest * HOP
