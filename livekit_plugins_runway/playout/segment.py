"""What was said and how much of it was heard: pure accounting in samples, without I/O or clocks.

All audio here is int16 mono PCM at `SAMPLE_RATE`. One rate is used from the agent's speech to the
user's track, so that a position means the same everywhere: a count of samples.

`Segment` keeps the speech that was pushed until it was heard, and its short-time spectra, by which
`SpeechTracker` (tracker.py) finds it again in what comes back from the avatar.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.float32]

SAMPLE_RATE = 48_000
"""Hz. The rate of WebRTC audio (Opus); the avatar's voice arrives at it."""
HOP = SAMPLE_RATE // 100
"""Samples in 10 ms: the grain of all accounting, and the frame size of a zero-queue AudioSource."""
HOP_SECONDS = HOP / SAMPLE_RATE
PACKET = 2 * HOP
"""Samples that an encoder takes before it sends any: 20 ms, libwebrtc's frame of Opus."""
BYTES_PER_SAMPLE = 2
SILENCE = bytes(HOP * BYTES_PER_SAMPLE)
"""10 ms."""

# Band edges in FFT bins of 100 Hz, up to 7 kHz: what survives the 16 kHz of a data stream. Tones of
# tests, 60 Hz apart, share a band from 1 kHz on: there only the pauses tell one from the next.
_EDGES = np.array(
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22, 25, 28, 31, 35, 39, 44, 50, 57]
)
_TOP_BIN = 70
_WINDOW = np.hanning(HOP).astype(np.float32)
_FLOOR_DB = -60.0
SHAPE_DB = 30.0
"""Below its loudest band, a band of a sound does not count."""

AUDIBLE_DB = -55.0
"""dBFS above which a relayed hop counts as sound."""
SPOKEN_DB = -42.0
"""dBFS above which a hop of the agent's own speech must come out audibly. Kept well above
`AUDIBLE_DB`, so that a soft breath never looks like a word that is missing."""


def _hops(pcm: NDArray[np.int16]) -> Levels:
    x: Levels = pcm.reshape(-1, HOP).astype(np.float32) / 32768.0
    return x


def hop_levels(pcm: NDArray[np.int16]) -> Levels:
    """Level in dBFS of each hop, of a whole number of them."""
    x = _hops(pcm)
    power = np.einsum("ht,ht->h", x, x) / HOP
    levels: Levels = (10.0 * np.log10(power + 1e-10)).astype(np.float32)
    return levels


def hop_bands(pcm: NDArray[np.int16]) -> Levels:
    """Log energy of each hop's bands, of a whole number of hops."""
    spectrum = np.fft.rfft(_hops(pcm) * _WINDOW, axis=1)[:, : _TOP_BIN + 1]
    power = (spectrum.real**2 + spectrum.imag**2) / (HOP * HOP / 4)
    bands = 10.0 * np.log10(np.add.reduceat(power, _EDGES, axis=1) + 1e-7)
    return np.maximum(bands, _FLOOR_DB).astype(np.float32)


def hop_features(pcm: NDArray[np.int16]) -> tuple[Levels, Levels]:
    """`hop_levels` and `hop_bands`."""
    return hop_levels(pcm), hop_bands(pcm)


def shape_of(bands: Levels) -> Levels:
    """What distinguishes sounds whatever their level: how far each band, in dB, is above what does
    not count, for one hop or many."""
    shape: Levels = np.maximum(bands - bands.max(axis=-1, keepdims=True) + SHAPE_DB, 0.0)
    return shape


class Hops:
    """A growing record of hop features; amortised append, no copy on read."""

    def __init__(self) -> None:
        self.count = 0
        self._levels = np.empty(256, np.float32)
        self._bands = np.empty((256, len(_EDGES)), np.float32)
        self._shapes = np.empty((256, len(_EDGES)), np.float32)

    def append(self, levels: Levels, bands: Levels) -> None:
        end = self.count + len(levels)
        if end > len(self._levels):
            size = max(end, 2 * len(self._levels))
            self._levels = np.resize(self._levels, size)
            self._bands = np.resize(self._bands, (size, len(_EDGES)))
            self._shapes = np.resize(self._shapes, (size, len(_EDGES)))
        self._levels[self.count : end] = levels
        self._bands[self.count : end] = bands
        self._shapes[self.count : end] = shape_of(bands)
        self.count = end

    @property
    def levels(self) -> Levels:
        return self._levels[: self.count]

    @property
    def bands(self) -> Levels:
        return self._bands[: self.count]

    @property
    def shapes(self) -> Levels:
        """Of the bands; see `shape_of`."""
        return self._shapes[: self.count]


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
