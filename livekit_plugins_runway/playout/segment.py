"""A segment of speech, and how much of it was heard: pure accounting in samples, without I/O or
clocks.

`Segment` keeps the speech that was pushed until it was heard, and its short-time spectra, by which
`SpeechTracker` (tracker.py) finds it in the avatar's voice.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from .audio import BYTES_PER_SAMPLE, HOP, HOP_SECONDS, SAMPLE_RATE
from .hearing.coherence import DELAY, Waveform
from .hearing.features import SPOKEN_DB, Hops, hop_features

_LEAST_FORGOTTEN = SAMPLE_RATE // 2


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
    """Speech between two flushes, kept until it was heard or given up.

    `heard`, `pushed` and all positions are samples from the segment's start.
    """

    pcm: bytearray = field(default_factory=bytearray, repr=False)
    """The samples from `kept_from` on."""
    kept_from: int = 0
    flushed: bool = False
    cleared: bool = False
    heard: int = 0
    state: SegmentState = SegmentState.WAITING
    hops: Hops = field(default_factory=Hops, repr=False)
    waveform: Waveform = field(default_factory=Waveform, repr=False)
    """Features of the described hops, without the skipped ones."""

    @property
    def pushed(self) -> int:
        return self.kept_from + len(self.pcm) // BYTES_PER_SAMPLE

    def move_to(self, state: SegmentState) -> None:
        """The one place that changes the state; `RuntimeError` on a step that is not allowed."""
        if state not in _ALLOWED[self.state]:
            raise RuntimeError(f"a segment cannot go from {self.state.value} to {state.value}")
        self.state = state

    def push(self, pcm: bytes) -> None:
        self.pcm += pcm

    def flush(self) -> None:
        self.flushed = True

    def describe(self, end: int, *, start: int = 0) -> None:
        """Compute the features of the samples before `end`; `hops` covers only those. Done for
        speech that is about to be sent, and not when it is captured: a TTS delivers bursts of many
        seconds, and the relay would have to wait.

        Args:
            start: sample before which the features are not needed any more; if they were not
                computed, they count as silence.
        """
        whole = self.flushed and end >= self.pushed
        last = -(-end // HOP) if whole else end // HOP
        self._skip(min(start // HOP, last))
        if last <= self.hops.count:
            return
        raw = np.frombuffer(self.read(self.hops.count * HOP, last * HOP), dtype=np.int16)
        missing = (last - self.hops.count) * HOP - len(raw)
        samples = np.pad(raw, (0, missing)) if missing else raw
        self.hops.append(*hop_features(samples))
        self.waveform.append(samples)
        if whole:
            self.waveform.append(np.zeros((DELAY + 1) * HOP, np.int16))

    def _skip(self, first: int) -> None:
        if first > self.hops.count:
            self.hops.append_silence(first - self.hops.count)
            self.waveform = Waveform(first)

    def read(self, start: int, end: int) -> bytes:
        """PCM of the samples [start, end), without the forgotten ones."""
        first, last = (at - self.kept_from for at in (start, end))
        return bytes(self.pcm[max(0, first) * BYTES_PER_SAMPLE : max(0, last) * BYTES_PER_SAMPLE])

    def forget(self, before: int) -> None:
        """Drop the PCM before a sample, if its features were computed: it will not be spoken again.
        Up to half a second is kept, so that frequent calls are cheap.
        """
        count = min(before, self.hops.count * HOP) - self.kept_from
        if count >= _LEAST_FORGOTTEN:
            del self.pcm[: count * BYTES_PER_SAMPLE]
            self.kept_from += count

    def next_spoken(self, first: int) -> int | None:
        """The first hop from hop `first` on that must be audible; None if there is none among the
        described ones.
        """
        spoken = self.hops.levels[first:] > SPOKEN_DB
        return first + int(np.argmax(spoken)) if spoken.any() else None

    def spoken_after(self, start: int, end: int | None = None) -> int:
        """Samples of audible speech in [start, end)."""
        stop = None if end is None else end // HOP
        return int(np.count_nonzero(self.hops.levels[start // HOP : stop] > SPOKEN_DB)) * HOP

    def silent_hops(self, first: int, count: int) -> int:
        """How many of `count` hops from hop `first` on need not be audible."""
        return int(np.count_nonzero(self.hops.levels[first : first + count] <= SPOKEN_DB))

    def restart_point(self, position: int, *, margin: float, reach: float = 0.12) -> int:
        """Where to resume after a loss at `position`: at least `margin` seconds before it, and at
        the quietest 10 ms of the `reach` seconds before that, so that a syllable is not cut.
        """
        latest = (position - int(margin * SAMPLE_RATE)) // HOP
        if latest <= 0:
            return 0
        earliest = max(0, latest - round(reach / HOP_SECONDS))
        window = self.hops.levels[earliest : latest + 1]
        return (earliest + int(np.argmin(window))) * HOP if len(window) else latest * HOP
