"""From speech that arrives in bursts to a voice that comes out in 10 ms frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..options import WorkerManners
from .performance import SAMPLE_RATE, HeardSegment, Performance

Pcm = npt.NDArray[np.int16]
"""int16 mono samples at `SAMPLE_RATE`."""

FRAME = SAMPLE_RATE // 100
"""Samples in 10 ms."""

_LOUD = 0.004
"""RMS above which a microphone is taken to carry speech (-48 dBFS)."""
_LARGEST_BACKLOG = FRAME * 8
_ANSWER_HZ = (523.25, 659.25, 783.99, 659.25)
_ANSWER_SECONDS = 0.3


def loudness(samples: Pcm) -> float:
    """RMS, 1.0 = full scale."""
    if not len(samples):
        return 0.0
    return float(np.sqrt(np.mean((samples / 32768.0) ** 2)))


def answer_tones() -> Pcm:
    """What the avatar says of its own accord in `conversation`: four tones, 1.2 s."""
    time = np.arange(int(SAMPLE_RATE * _ANSWER_SECONDS)) / SAMPLE_RATE
    envelope = np.minimum(1.0, np.minimum(time, time[::-1]) / 0.01) * 0.3
    tones = [np.sin(2 * np.pi * hz * time) * envelope for hz in _ANSWER_HZ]
    return (np.concatenate(tones) * 32767).astype(np.int16)


def in_another_voice(samples: Pcm, pace: float) -> Pcm:
    """The same words, so much faster and higher; piece by piece, so not without a click."""
    if pace == 1.0 or not len(samples):
        return samples
    at = np.arange(0, len(samples), pace)
    changed: Pcm = np.interp(at, np.arange(len(samples)), samples).astype(np.int16)
    return changed


class _Line:
    """Samples on their way through the renderer; each comes out `latency` after it came in."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._chunks: deque[tuple[float, Pcm]] = deque()
        self.waiting = 0

    def feed(self, samples: Pcm, now: float) -> None:
        if len(samples):
            self._chunks.append((now, samples))
            self.waiting += len(samples)

    def take(self, most: int, now: float) -> list[Pcm]:
        """Up to `most` samples that are due."""
        taken = []
        while most and self._chunks:
            arrived, samples = self._chunks[0]
            if arrived + self._latency > now:
                break
            taken.append(samples[:most])
            if len(samples) > most:
                self._chunks[0] = (arrived, samples[most:])
            else:
                self._chunks.popleft()
            most -= len(taken[-1])
            self.waiting -= len(taken[-1])
        return taken

    def due(self, now: float) -> int:
        """Samples that are due and still here."""
        return sum(len(part) for arrived, part in self._chunks if arrived + self._latency <= now)

    def drop(self, most: int) -> None:
        self.take(most, float("inf"))


class SegmentVoice:
    """Plays segments one after the other, each no sooner than `latency` seconds after it arrived.

    `on_started` and `on_finished` are called in the frame that holds a segment's first or last
    sample, and `on_finished` with `interrupted` true when it is cleared. Starved in mid-segment it
    puts out silence and goes on when more arrives. What is taken may be taken in another thread
    than what is fed; the two callbacks are called in either."""

    def __init__(
        self,
        latency: float,
        performance: Performance,
        on_started: Callable[[HeardSegment], None],
        on_finished: Callable[[HeardSegment, bool], None],
        manners: WorkerManners | None = None,
    ) -> None:
        manners = manners or WorkerManners()
        self._pace = manners.pace
        self._kept_back = int(manners.keeps_back * SAMPLE_RATE)
        self._latency = latency
        self._performance = performance
        self._on_started = on_started
        self._on_finished = on_finished
        self._queue: deque[tuple[HeardSegment, _Line]] = deque()
        self._lock = threading.Lock()
        """Of the queue and of all that is in it."""

    def open(self, now: float) -> HeardSegment:
        segment = HeardSegment(started_at=now)
        self._performance.segments.append(segment)
        with self._lock:
            self._queue.append((segment, _Line(self._latency)))
        return segment

    def feed(self, segment: HeardSegment, samples: Pcm, now: float) -> None:
        """More of a segment; ignored if it was cleared or closed."""
        with self._lock:
            if segment.cleared or segment.ended:
                return
            segment.received += len(samples)
            for queued, line in self._queue:
                if queued is segment:
                    line.feed(in_another_voice(samples, self._pace), now)

    def close(self, segment: HeardSegment) -> None:
        """No more of this segment will come."""
        with self._lock:
            segment.ended = True

    def clear(self) -> None:
        """Drop everything, what is being rendered too."""
        with self._lock:
            dropped = list(self._queue)
            self._queue.clear()
            for segment, _ in dropped:
                segment.cleared = True
                self._on_finished(segment, True)

    def take(self, now: float) -> Pcm | None:
        """The next 10 ms; `None` for silence."""
        with self._lock:
            return self._take(now)

    def _take(self, now: float) -> Pcm | None:
        taken: list[Pcm] = []
        room = FRAME
        while self._queue and room:
            segment, line = self._queue[0]
            kept = 0 if segment.ended else self._kept_back
            parts = line.take(min(room, max(0, line.waiting - kept)), now)
            count = sum(map(len, parts))
            if count and not segment.played:
                self._on_started(segment)
            segment.played += count
            room -= count
            taken += parts
            if line.waiting or not segment.ended:
                break
            self._queue.popleft()
            self._on_finished(segment, False)
        if not taken:
            return None
        return np.concatenate([*taken, np.zeros(room, np.int16)])


class EchoVoice:
    """Speaks what is heard on a microphone, `latency` seconds later. A backlog, which bursts on the
    network leave behind, is cut down in the pauses. From any thread."""

    def __init__(self, latency: float, pace: float = 1.0) -> None:
        self._line = _Line(latency)
        self._pace = pace
        self._lock = threading.Lock()
        """Of the line."""

    def feed(self, samples: Pcm, now: float) -> None:
        samples = in_another_voice(samples, self._pace)
        with self._lock:
            for start in range(0, len(samples), FRAME):
                self._line.feed(samples[start : start + FRAME], now)

    def clear(self) -> None:
        with self._lock:
            self._line.drop(self._line.waiting)

    def take(self, now: float) -> Pcm | None:
        """The next 10 ms; `None` for silence."""
        with self._lock:
            return self._take(now)

    def _take(self, now: float) -> Pcm | None:
        while True:
            parts = self._line.take(FRAME, now)
            if not parts:
                return None
            samples = np.concatenate(parts)
            if self._line.due(now) < _LARGEST_BACKLOG or loudness(samples) > _LOUD:
                missing = FRAME - len(samples)
                return np.pad(samples, (0, missing)) if missing else samples


class Ear:
    """Tells utterances on a microphone track apart and keeps the record of them."""

    def __init__(self, pause: float, performance: Performance) -> None:
        self._pause = pause
        self._performance = performance
        self._current: HeardSegment | None = None
        self._quiet = 0.0

    def listen(self, samples: Pcm, now: float) -> bool:
        """Hear the next samples; true when an utterance has just ended."""
        if loudness(samples) > _LOUD:
            if self._current is None:
                self._current = HeardSegment(started_at=now)
                self._performance.segments.append(self._current)
            self._current.received += len(samples)
            self._quiet = 0.0
            return False
        self._quiet += len(samples) / SAMPLE_RATE
        if self._current is None or self._quiet < self._pause:
            return False
        self._current.ended = True
        self._current = None
        return True
