"""Sees and hears what an avatar worker sends, and tells its words from others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from livekit import rtc

from ..._common.tasks import cancel_and_wait
from ...media.video import MIN_FRAME_SIDE, is_blank
from ...playout.audio import BYTES_PER_SAMPLE, HOP, HOP_SECONDS, SAMPLE_RATE
from ...playout.hearing.features import AUDIBLE_DB, hop_levels
from ...playout.hearing.tracker import SpeechTracker, Words
from ...playout.ports import SpeechDelivery
from ...playout.segment import Segment

_AUDIBLE_REPLY = 0.3
_END_OF_REPLY = 1.2
_LONGEST_REPLY = 5.0
_TICK = 0.25

Reaction = Literal["speaks", "answers", "silent"]


@dataclass(frozen=True)
class Heard:
    """How a worker reacted to a phrase.

    Attributes:
        reaction: "speaks" the phrase itself, "answers" with other sounds, or is "silent".
        latency: seconds from the phrase's first sound to the first that came back.
        seconds: how long it was audible.
    """

    reaction: Reaction
    latency: float | None
    seconds: float


class Witness:
    """Made by `watching`. Times are those of the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._hop = asyncio.Event()
        self._tracker: SpeechTracker | None = None
        self._onset_at: float | None = None
        self._loud_hops = 0
        self._silent_hops = 0
        self.first_frame = asyncio.Event()
        self.first_frame_at: float | None = None
        self.frames = 0
        self.sizes: list[tuple[int, int]] = []
        """Of the pictures, each once, in order."""

    @property
    def frame_rate(self) -> float | None:
        """Pictures a second since the first one."""
        if self.first_frame_at is None or self.frames < 2:
            return None
        return (self.frames - 1) / (self._loop.time() - self.first_frame_at)

    @property
    def silence(self) -> float:
        """Seconds for which nothing was audible."""
        return self._silent_hops * HOP_SECONDS

    @property
    def audible(self) -> float:
        """Seconds of sound since the last phrase began, or since the start."""
        return self._loud_hops * HOP_SECONDS

    async def moment(self) -> None:
        """Until more was heard, but not for long: a worker may have stopped to send."""
        self._hop.clear()
        try:
            async with asyncio.timeout(_TICK):
                await self._hop.wait()
        except TimeoutError:
            self._silent_hops += round(_TICK / HOP_SECONDS)

    async def listen(self, track: rtc.RemoteAudioTrack) -> None:
        stream = rtc.AudioStream(
            track, capacity=300, sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=10
        )
        async with aclosing(stream):
            async for event in stream:
                pcm = np.frombuffer(event.frame.data, np.int16)
                if len(pcm) == HOP:
                    self._hear(pcm)

    async def look(self, track: rtc.RemoteVideoTrack) -> None:
        stream = rtc.VideoStream(track, capacity=2)
        async with aclosing(stream):
            async for event in stream:
                frame = event.frame
                tiny = min(frame.width, frame.height) < MIN_FRAME_SIDE
                if tiny or (self.first_frame_at is None and is_blank(frame)):
                    continue
                if self.first_frame_at is None:
                    self.first_frame_at = self._loop.time()
                    self.first_frame.set()
                self.frames += 1
                if (frame.width, frame.height) not in self.sizes:
                    self.sizes.append((frame.width, frame.height))

    def _hear(self, pcm: np.ndarray[tuple[int], np.dtype[np.int16]]) -> None:
        levels = hop_levels(pcm)
        level = float(levels[0])
        if level > AUDIBLE_DB:
            self._loud_hops += 1
            self._silent_hops = 0
        else:
            self._silent_hops += 1
        if (tracker := self._tracker) is not None:
            tracker.hear(pcm, levels, levels > AUDIBLE_DB)
            if tracker.onset and self._onset_at is None:
                self._onset_at = self._loop.time()
        self._hop.set()

    async def wait_for_quiet(self, seconds: float, timeout: float) -> bool:
        """False if it was not quiet for so long within `timeout` seconds."""
        deadline = self._loop.time() + timeout
        while self.silence < seconds:
            if self._loop.time() > deadline:
                return False
            await self.moment()
        return True

    async def try_phrase(
        self,
        delivery: SpeechDelivery,
        pcm: bytes,
        patience: float,
        check: Callable[[], None],
    ) -> Heard:
        """Send a phrase, and listen to what comes back.

        Args:
            patience: seconds after its end in which a worker must begin to be heard.
            check: called now and then; raises what ends the trial.
        """
        segment = Segment()
        segment.push(pcm)
        segment.flush()
        segment.describe(segment.pushed)
        tracker = SpeechTracker(segment, 0)
        self._onset_at, self._loud_hops = None, 0
        self._tracker = tracker
        began = self._loop.time()
        length = len(pcm) / BYTES_PER_SAMPLE / SAMPLE_RATE
        delivery.send(pcm)
        delivery.finish()
        while True:
            await self.moment()
            check()
            elapsed = self._loop.time() - began
            onset = self._onset_at
            if onset is None and elapsed > length + patience:
                break
            if onset is not None and self.silence >= _END_OF_REPLY:
                break
            if elapsed > 2 * length + patience + _LONGEST_REPLY:
                break
        self._tracker = None
        latency = None
        if self._onset_at is not None:
            latency = self._onset_at - began - tracker.lead_in / SAMPLE_RATE
        return Heard(self._reaction(tracker), latency, self.audible)

    def _reaction(self, tracker: SpeechTracker) -> Reaction:
        if tracker.alike or tracker.words is Words.OWN:
            return "speaks"
        return "answers" if self.audible >= _AUDIBLE_REPLY else "silent"


@asynccontextmanager
async def watching(
    audio: rtc.RemoteAudioTrack, video: rtc.RemoteVideoTrack
) -> AsyncIterator[Witness]:
    """A witness of both tracks for the length of the block."""
    witness = Witness()
    tasks = [
        asyncio.create_task(witness.listen(audio), name="doctor_listen"),
        asyncio.create_task(witness.look(video), name="doctor_look"),
    ]
    try:
        yield witness
    finally:
        await cancel_and_wait(*tasks)
