"""What was said and how much of it was heard: pure accounting in samples, without I/O or clocks.

All audio here is int16 mono PCM at `SAMPLE_RATE`. One rate is used from the agent's speech to the
user's track, so that a position means the same everywhere: a count of samples.

`Segment` keeps the speech that was pushed until it was heard. `SpeechTracker` listens to what comes
back from the avatar and says how far into the segment it is. It compares short-time spectra instead
of counting what was sent, because what was sent is not yet heard and may never be.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 48_000
"""Hz. The rate of WebRTC audio (Opus); the avatar's voice arrives at it."""
HOP = SAMPLE_RATE // 100
"""Samples in 10 ms: the grain of all accounting, and the frame size of a zero-queue AudioSource."""
HOP_SECONDS = HOP / SAMPLE_RATE
BYTES_PER_SAMPLE = 2
SILENCE = bytes(HOP * BYTES_PER_SAMPLE)
"""10 ms."""

# Band edges in FFT bins of 100 Hz, up to 7 kHz: what survives the 16 kHz of a data stream.
_EDGES = np.array([1, 4, 7, 11, 16, 23, 33, 49])
_TOP_BIN = 70
_WINDOW = np.hanning(HOP).astype(np.float32)
_FLOOR_DB = -60.0

AUDIBLE_DB = -55.0
"""dBFS above which a relayed hop counts as sound."""
SPOKEN_DB = -42.0
"""dBFS above which a hop of the agent's own speech must come out audibly. Kept well above
`AUDIBLE_DB`, so that a soft breath never looks like a word that is missing."""

_ONSET_HOPS = 2
_ARM_HOPS = 50
_SILENCE_SLACK_HOPS = 3
_REANCHOR_HOPS = 8
_MATCH_HOPS = 60
_MATCH_EVERY_HOPS = 25
_MATCH_BACK_HOPS = 150
_MATCH_AHEAD_HOPS = 15
_MATCH_MIN_SCORE = 0.75
_MATCH_MARGIN = 0.15
_FADE_DB = 6.0
_FADE_HOPS = 60
_LEVEL_HOPS = 200
_MIN_LEVEL_HOPS = 20
_FOREIGN_SCORE = 0.45
_FOREIGN_MATCHES = 3

_Levels = NDArray[np.float32]


def hop_features(pcm: NDArray[np.int16]) -> tuple[_Levels, _Levels]:
    """Level in dBFS per hop, and the log energy of its bands, of a whole number of hops."""
    x = pcm.reshape(-1, HOP).astype(np.float32) / 32768.0
    levels = 10.0 * np.log10(np.mean(x * x, axis=1) + 1e-10)
    spectrum = np.fft.rfft(x * _WINDOW, axis=1)[:, : _TOP_BIN + 1]
    power = (spectrum.real**2 + spectrum.imag**2) / (HOP * HOP / 4)
    bands = 10.0 * np.log10(np.add.reduceat(power, _EDGES, axis=1) + 1e-7)
    return levels.astype(np.float32), np.maximum(bands, _FLOOR_DB).astype(np.float32)


class _Hops:
    """A growing record of hop features; amortised append, no copy on read."""

    def __init__(self) -> None:
        self.count = 0
        self._levels = np.empty(256, np.float32)
        self._bands = np.empty((256, len(_EDGES)), np.float32)

    def append(self, levels: _Levels, bands: _Levels) -> None:
        end = self.count + len(levels)
        if end > len(self._levels):
            size = max(end, 2 * len(self._levels))
            self._levels = np.resize(self._levels, size)
            self._bands = np.resize(self._bands, (size, len(_EDGES)))
        self._levels[self.count : end] = levels
        self._bands[self.count : end] = bands
        self.count = end

    @property
    def levels(self) -> _Levels:
        return self._levels[: self.count]

    @property
    def bands(self) -> _Levels:
        return self._bands[: self.count]


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
    hops: _Hops = field(default_factory=_Hops, repr=False)

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


class SpeechTracker:
    """Follows one delivery of a segment to the avatar, from what is heard of it.

    Args:
        segment: what is being said; it may still grow.
        start: sample of the segment at which this delivery begins.
    """

    def __init__(self, segment: Segment, start: int) -> None:
        self._segment = segment
        self._start_hop = start // HOP
        self._heard = _Hops()
        self._loud_run = 0
        self._silent_run = 0
        self._armed = False
        self._anchor: tuple[int, int] | None = None  # (hop of the segment, hop heard)
        self._poor_matches = 0
        self._matched = False
        self.confidence: float | None = None
        """Likeness of what is heard to what was said, -1 to 1; None until compared. An avatar that
        speaks its own words instead stays near 0."""

    @property
    def onset(self) -> bool:
        """True once the avatar has begun to speak."""
        return self._anchor is not None

    @property
    def foreign(self) -> bool:
        """True if what is heard was never like what was said: the avatar says words of its own."""
        return not self._matched and self._poor_matches >= _FOREIGN_MATCHES

    @property
    def lead_in(self) -> int:
        """Samples of silence at the start of the delivery, before the first spoken hop."""
        first = self._first_spoken(self._start_hop)
        return 0 if first is None else (first - self._start_hop) * HOP

    def hear(self, level: float, bands: _Levels) -> None:
        """Account for 10 ms that came back from the avatar."""
        self._heard.append(np.array([level], np.float32), bands.reshape(1, -1))
        if level > AUDIBLE_DB:
            self._on_sound()
        else:
            self._loud_run = 0
            self._silent_run += 1
            self._armed = self._armed or self._silent_run >= _ONSET_HOPS
        if self._anchor is not None and self._heard.count % _MATCH_EVERY_HOPS == 0:
            self._match()

    def _on_sound(self) -> None:
        self._loud_run += 1
        if self._anchor is None:
            first = self._first_spoken(self._start_hop)
            # The end of the segment before may still sound; speech begins after a silence.
            armed = self._armed or self._heard.count > _ARM_HOPS
            if first is not None and armed and self._loud_run >= _ONSET_HOPS:
                self._anchor = (first, self._heard.count - self._loud_run)
                self._silent_run = 0
            return
        if self._silent_run >= _REANCHOR_HOPS:
            # Longer than the pause in the speech: the avatar had waited, and goes on from there.
            expected = self._hop_now(self._heard.count - 1)
            if expected < self._clock_hop(self._heard.count - 1):
                self._anchor = (expected, self._heard.count - 1)
        self._silent_run = 0

    def _first_spoken(self, start: int) -> int | None:
        spoken = np.flatnonzero(self._segment.hops.levels[start:] > SPOKEN_DB)
        return start + int(spoken[0]) if len(spoken) else None

    def _clock_hop(self, heard: int) -> int:
        assert self._anchor is not None
        return self._anchor[0] + heard - self._anchor[1]

    def _hop_now(self, heard: int) -> int:
        """The clock's hop, held before the first spoken hop that a silence swallowed."""
        clock = self._clock_hop(heard)
        if self._silent_run <= _SILENCE_SLACK_HOPS:
            return clock
        silent_since = max(clock - self._silent_run + _SILENCE_SLACK_HOPS, self._start_hop)
        missed = np.flatnonzero(self._segment.hops.levels[silent_since:clock] > SPOKEN_DB)
        return silent_since + int(missed[0]) if len(missed) else clock

    @property
    def position(self) -> int:
        """Samples of the segment that were heard, counted from the segment's start."""
        if self._anchor is None:
            return self._start_hop * HOP
        return max(self._start_hop, self._hop_now(self._heard.count)) * HOP

    @property
    def clear_position(self) -> int:
        """`position` without a tail that sounded much softer than it was said: a receiver to which
        nothing comes any more stretches the last sound and fades it out (NetEq of libwebrtc)."""
        if self._anchor is None:
            return self.position
        end = self.position // HOP
        first = max(self._start_hop, self._anchor[0], self._clock_hop(0), end - _LEVEL_HOPS)
        heard_from = first - self._clock_hop(0)
        count = min(end - first, self._heard.count - heard_from)
        said = self._segment.hops.levels[first : first + count]
        spoken = said > SPOKEN_DB
        if np.count_nonzero(spoken) < _MIN_LEVEL_HOPS:
            return self.position
        gain = self._heard.levels[heard_from : heard_from + count][: len(said)] - said
        faded = gain < np.median(gain[spoken]) - _FADE_DB
        clear = end
        for hop in range(len(said) - 1, max(-1, len(said) - _FADE_HOPS), -1):
            if spoken[hop]:
                if not faded[hop]:
                    break
                clear = first + hop
        return clear * HOP

    @property
    def silence(self) -> float:
        """Seconds for which nothing was audible, up to now."""
        return self._silent_run * HOP_SECONDS

    def _match(self) -> None:
        assert self._anchor is not None
        # From the onset on: the silence before it is no part of what was said.
        count = min(_MATCH_HOPS, self._heard.count - self._anchor[1])
        heard = self._heard.bands[-count:]
        said = self._segment.hops.bands
        if np.count_nonzero(self._heard.levels[-count:] > AUDIBLE_DB) < 20:
            return
        current = self._clock_hop(self._heard.count) - count
        first = max(self._start_hop, current - _MATCH_BACK_HOPS)
        last = min(len(said) - count, current + _MATCH_AHEAD_HOPS)
        if last < first:
            return
        scores = _likeness(heard, said[first : last + count])
        here = float(scores[current - first]) if first <= current <= last else -1.0
        best = int(np.argmax(scores))
        self.confidence = float(scores[best])
        self._matched = self._matched or self.confidence >= _FOREIGN_SCORE
        self._poor_matches += not self._matched
        moved = first + best - current
        if (
            abs(moved) > _SILENCE_SLACK_HOPS
            and self.confidence >= _MATCH_MIN_SCORE
            and self.confidence > here + _MATCH_MARGIN
        ):
            self._anchor = (self._anchor[0] + moved, self._anchor[1])


def _likeness(heard: _Levels, said: _Levels) -> NDArray[np.float32]:
    """Normalised correlation of `heard` with each stretch of `said` of its length."""
    count = len(heard)
    pattern = heard - heard.mean()
    pattern_norm = float(np.sqrt(np.sum(pattern * pattern))) + 1e-6
    windows = np.lib.stride_tricks.sliding_window_view(said, count, axis=0)  # (n, bands, count)
    means = windows.mean(axis=(1, 2), keepdims=True)
    dots = np.einsum("nbt,tb->n", windows, pattern)
    norms = np.sqrt(np.maximum(np.sum((windows - means) ** 2, axis=(1, 2)), 1e-6))
    result: NDArray[np.float32] = (dots / (norms * pattern_norm)).astype(np.float32)
    return result
