"""One attempt at speaking a segment by the agent's own voice. Pure; times are loop times in
seconds.
"""

from __future__ import annotations

from ..audio import HOP, HOP_SECONDS, SAMPLE_RATE, SILENCE
from ..segment import Segment
from .runs import Run, Runs


class VoiceRoute:
    """Speaks from `segment.heard` on, and advances that."""

    def __init__(self, segment: Segment, now: float) -> None:
        self.segment = segment
        self._start = segment.heard
        self._runs = Runs(segment.heard, now)
        self.has_spoken = False

    def speak(self, now: float) -> bytes:
        """10 ms, int16 mono PCM at 48 kHz: silence while the source is slower than real time."""
        segment = self.segment
        end = min(segment.heard + HOP, segment.pushed)
        if end == segment.heard or (end - segment.heard < HOP and not segment.flushed):
            return SILENCE
        if not self.has_spoken:
            self.has_spoken = True
            self._runs.begin(now)
        pcm = segment.read(segment.heard, end)
        segment.heard = end
        self._runs.advance(end, now + HOP_SECONDS)
        segment.describe(end, start=end)  # its features are not needed: no avatar says it
        segment.forget(end - SAMPLE_RATE)
        return pcm.ljust(len(SILENCE), b"\0")

    @property
    def is_done(self) -> bool:
        return self.segment.flushed and self.segment.heard == self.segment.pushed

    def stop(self, on_its_way: float) -> list[Run]:
        """As `finish()`, if the user has not heard the last so many seconds."""
        unheard = round(on_its_way / HOP_SECONDS) * HOP
        self.segment.heard = max(self._start, self.segment.heard - unheard)
        return self.finish()

    def finish(self) -> list[Run]:
        return self._runs.finish(self.segment.heard)
