"""What an avatar worker heard, said and reported, for tests to assert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

SAMPLE_RATE = 48_000
"""Hz of the worker's voice; also the rate at which heard samples are counted."""


@dataclass
class HeardSegment:
    """One segment of speech as it arrived. Counts are in samples at `SAMPLE_RATE`."""

    started_at: float
    """Loop time at which it began to arrive."""
    received: int = 0
    played: int = 0
    ended: bool = False
    cleared: bool = False

    @property
    def received_seconds(self) -> float:
        return self.received / SAMPLE_RATE

    @property
    def played_seconds(self) -> float:
        """Seconds of it that came out as voice."""
        return self.played / SAMPLE_RATE


@dataclass
class Performance:
    """The record of one worker. Times are those of the event loop's clock."""

    clock: Callable[[], float] = field(repr=False)
    notify: Callable[[], None] = field(repr=False)
    """Called after each change that a test may wait for."""
    joined_at: float | None = None
    left_at: float | None = None
    first_frame_at: float | None = None
    speaker_left_at: float | None = None
    end_calls: int = 0
    clears: int = 0
    """How many `lk.clear_buffer` calls it obeyed."""
    segments: list[HeardSegment] = field(default_factory=list)
    finished: list[tuple[float, bool]] = field(default_factory=list)
    """Position in seconds and `interrupted` of each `lk.playback_finished`, lost ones too."""
    video_frames: int = 0
    captured: list[float] = field(default_factory=list)
    """When each picture was captured, by the number in its barcode; empty without
    `SimulatorOptions.barcode`."""
    onsets: list[float] = field(default_factory=list)
    """When sound began after a pause of 0.1 s; a frame's samples are taken for captured by the time
    at which it was. Empty without `SimulatorOptions.barcode`."""
