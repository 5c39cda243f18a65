"""A user's ear and an avatar worker in virtual time, around a real `AvatarAudioOutput`."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents.voice.io import (
    PlaybackFinishedEvent,
    PlaybackProgressedEvent,
    PlaybackStartedEvent,
)
from numpy.typing import NDArray

from bench.ear import sounds
from livekit_plugins_runway._common.tasks import cancel_and_wait
from livekit_plugins_runway.errors import LossReason
from livekit_plugins_runway.playout.output import AvatarAudioOutput
from livekit_plugins_runway.playout.ports import PlayoutReport
from livekit_plugins_runway.testing.tones import HeardTone, ToneScript, hear

RATE = 48_000
HOP = 480
SILENCE = bytes(2 * HOP)
_LONGEST_HOLE = 0.06


class Ear:
    """The user's end of the microphone track: every 10 ms that was put on it, on one time line."""

    def __init__(self) -> None:
        self.subscribed = True
        self._reachable = True
        self.was_reachable = True
        """At all times."""
        self.frames: list[tuple[float, bytes]] = []
        self.kept_alive: list[float] = []
        """When it was told that nobody else writes."""

    @property
    def reachable(self) -> bool:
        return self._reachable

    @reachable.setter
    def reachable(self, reachable: bool) -> None:
        self._reachable = reachable
        self.was_reachable &= reachable

    async def push_audio(self, pcm: bytes) -> None:
        assert len(pcm) == len(SILENCE)
        self.frames.append((asyncio.get_running_loop().time(), pcm))

    def keep_alive(self) -> None:
        self.kept_alive.append(asyncio.get_running_loop().time())

    def pcm(self, since: float = 0.0) -> Any:
        """What was heard from `since` on, as one recording without the holes."""
        return np.frombuffer(b"".join(p for t, p in self.frames if t >= since), np.int16)

    def tones(self, since: float = 0.0) -> list[HeardTone]:
        return hear(self.pcm(since), RATE)

    def loud_after(self, t: float) -> float | None:
        """Seconds after `t` at which something was last audible; None if nothing was."""
        loud = [at for at, pcm in self.frames if at >= t and _is_loud(pcm)]
        return loud[-1] - t if loud else None


def _is_loud(pcm: bytes) -> bool:
    return bool(np.abs(np.frombuffer(pcm, np.int16)).max(initial=0) > 300)


class Worker:
    """Speaks what it is sent, `latency` seconds later, in real time, as a data stream worker does.

    It can freeze (and then neither speaks nor answers), ignore `clear`, or answer it late.

    Args:
        keeps_back: seconds of speech that it keeps until more comes or the segment ends.
        residue: seconds of what it has rendered already that it says after it has confirmed a
            `clear`; None: nothing.
    """

    def __init__(
        self,
        output: AvatarAudioOutput,
        ear: Ear,
        *,
        latency: float = 0.25,
        lead: float = 2.0,
        clear: str = "obeys",
        clear_delay: float = 0.02,
        keeps_back: float = 0.0,
        residue: float | None = None,
    ) -> None:
        self._output = output
        self._ear = ear
        self._latency = latency
        self.lead = lead
        self.batch = 9600 if lead > 1 else 4800
        self._clear = clear
        self._clear_delay = clear_delay
        self._keeps_back = round(keeps_back / 0.01)
        self._residue = residue
        self._kept: deque[bytes] = deque()  # 10 ms each, until more comes or the segment ends
        self._queue: deque[tuple[float, bytes]] = deque()  # due, 10 ms
        self._rest = bytearray()
        self.frozen = False
        self.starved = False
        """Silent, until it goes on where it was."""
        self._fading: list[bytes] | None = None
        self._stretch = 0
        self.hidden = False
        """Its relay does not pass anything on."""
        self.was_silent = False
        """At some time nothing came from it, not even silence."""
        self.losses: list[LossReason] = []
        """Why the sink has given it up."""
        self.own_words: bytes | None = None
        """What it says instead of what it was told."""
        self.end_is_late: tuple[float, float] | None = None
        """The last so many seconds reach it so many seconds late."""
        self.sent = 0
        self.sends = 0
        self.first_speech = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._play())

    def freeze_and_fade(self, seconds: float) -> None:
        """Freeze; the receiver of its voice repeats the last period for 0.1 s, then fades it out
        by 1.5 dB per 10 ms (as measured)."""
        heard = b"".join(pcm for _, pcm in self._ear.frames[-6:])
        self._fade(sounds.held(np.frombuffer(heard, np.int16), seconds))

    def freeze_and_hiss(self, seconds: float) -> None:
        """Freeze; of a word that has only begun its receiver makes noise, which fades at once by
        1.7 dB per 10 ms (as measured)."""
        self._fade(sounds.hissed(seconds))

    def _fade(self, sound: NDArray[np.int16]) -> None:
        self._fading = [hop.tobytes() for hop in sound.reshape(-1, HOP)]
        self.frozen = True

    def stretch_the_start(self, seconds: float) -> None:
        """A receiver that expects much jitter draws out the first sound that it gets."""
        self._stretch = round(seconds / 0.01)

    @property
    def delivery(self) -> Worker:
        """It takes speech by itself."""
        return self

    @property
    def room(self) -> int:
        return 10 * RATE

    doubts_first_words = False

    def show(self) -> None:
        self.hidden = False

    def hide(self) -> None:
        self.hidden = True

    def report_loss(self, reason: LossReason) -> None:
        self.losses.append(reason)

    def send(self, pcm: bytes) -> None:
        self.sent += len(pcm) // 2
        self.sends += 1
        self.first_speech.set()
        if self.own_words is not None:
            pcm, self.own_words = self.own_words[: len(pcm)], self.own_words[len(pcm) :]
        self._rest += pcm
        while len(self._rest) >= len(SILENCE):
            self._kept.append(bytes(self._rest[: 2 * HOP]))
            del self._rest[: 2 * HOP]
        self._let_go(self._keeps_back)

    def _let_go(self, keep: int) -> None:
        while len(self._kept) > keep:
            self._queue.append((self._loop.time() + self._latency, self._kept.popleft()))

    def finish(self) -> None:
        if self._rest:
            self.send(bytes(len(SILENCE) - len(self._rest)))
        self._let_go(0)
        if self.end_is_late is not None:
            seconds, late = self.end_is_late
            on_time = len(self._queue) - round(seconds / 0.01)
            last = self._queue[-1][0] + late  # what was held up comes all at once
            self._queue = deque(
                (due if index < on_time else last, pcm)
                for index, (due, pcm) in enumerate(self._queue)
            )

    async def clear(self) -> bool:
        await asyncio.sleep(self._clear_delay if self._clear != "ignores" else 2.0)
        if self._clear == "ignores" or self.frozen:
            return False
        if self._clear == "obeys":
            said_yet = 0 if self._residue is None else round(self._residue / 0.01)
            rendered = [entry for entry in self._queue if entry[0] <= self._loop.time()]
            self._queue = deque(rendered[:said_yet])
            self._kept.clear()
            self._rest.clear()
            return True
        # "unsupported": a track has no such call. What was not sent yet is dropped, and the worker
        # says what it has heard.
        while len(self._queue) > round(self._latency / 0.01):
            self._queue.pop()
        return False

    async def _play(self) -> None:
        due = self._loop.time()
        while True:
            if not self.frozen or self._fading is not None:
                due_by = self._loop.time()
                ready = self._queue and self._queue[0][0] <= due_by and not self.starved
                stretched = ready and self._stretch > 0 and _is_loud(self._queue[0][1])
                pcm = SILENCE
                if stretched:
                    pcm = self._queue[0][1]
                    self._stretch -= 1
                elif ready:
                    pcm = self._queue.popleft()[1]
                if self._fading is not None:
                    pcm = self._fading.pop(0) if self._fading else SILENCE
                heard = None if self.hidden else self._output.relayed(pcm)
                self.was_silent |= self.hidden
                if heard is not None:
                    await self._ear.push_audio(heard)
            else:
                self.was_silent = True
            due += 0.01
            await asyncio.sleep(due - self._loop.time())

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@dataclass
class World:
    output: AvatarAudioOutput
    ear: Ear
    reports: list[PlayoutReport]
    started: list[float] = field(default_factory=list)
    finished: list[PlaybackFinishedEvent] = field(default_factory=list)
    finished_at: list[float] = field(default_factory=list)
    progressed: list[PlaybackProgressedEvent] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    changes: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def worker(self) -> Worker:
        return self.workers[-1]

    def attach(self, *, seen: bool = True, **options: Any) -> Worker:
        worker = Worker(self.output, self.ear, **options)
        self.workers.append(worker)
        self.output.attach_avatar(worker, seen=seen)
        return worker

    async def stand_by(self, **options: Any) -> tuple[Worker, list[float]]:
        """Another avatar that is to take over, and when it did."""
        worker = Worker(self.output, self.ear, **options)
        worker.hidden = True
        self.workers.append(worker)
        return worker, await self.hand_over(worker)

    async def hand_over(self, worker: Worker | None) -> list[float]:
        """Let another one speak; when it took over."""
        switched: list[float] = []

        async def until_switched() -> None:
            await self.output.hand_over(worker)
            switched.append(self.now)

        self.changes.append(asyncio.create_task(until_switched(), name="hand_over"))
        await asyncio.sleep(0)  # until it is asked for
        return switched

    async def withdraw(self) -> None:
        """None of those that stand by is to take over any more."""
        await cancel_and_wait(*self.changes)

    @property
    def losses(self) -> list[LossReason]:
        """Why avatars were given up, in the order of their attachment."""
        return [reason for worker in self.workers for reason in worker.losses]

    async def say(self, script: ToneScript, *, rate: int = RATE, realtime: bool = False) -> None:
        """Capture and flush a segment as the framework does; returns before it was heard."""
        for frame in script.frames(rate, 20):
            await self.output.capture_frame(frame)
            if realtime:
                await asyncio.sleep(0.02)
        self.output.flush()

    async def say_pcm(self, pcm: NDArray[np.int16], *, rate: int = RATE) -> None:
        """Capture speech, and do not flush it."""
        for start in range(0, len(pcm), rate // 50):
            piece = pcm[start : start + rate // 50]
            frame = rtc.AudioFrame(piece.astype(np.int16).tobytes(), rate, 1, len(piece))
            await self.output.capture_frame(frame)

    async def spoken(self, timeout: float = 120.0) -> PlaybackFinishedEvent:
        async with asyncio.timeout(timeout):
            return await self.output.wait_for_playout()

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def holes(self) -> list[tuple[float, float]]:
        """When nobody wrote to the track, which was not told to be silent by itself either, and for
        how many seconds. A receiver plays what comes next later, by as much."""
        written = [(at, False) for at, _ in self.ear.frames]
        told = sorted([*written, *((at, True) for at in self.ear.kept_alive), (self.now, False)])
        pairs = itertools.pairwise(told)
        gaps = [(at, then - at) for (at, is_kept), (then, _) in pairs if not is_kept]
        return [(at, seconds) for at, seconds in gaps if seconds > _LONGEST_HOLE]

    @property
    def _is_without_holes(self) -> bool:
        """Avatars and the user's connection have done nothing that makes one."""
        silent = any(worker.was_silent for worker in self.workers)
        return self.ear.was_reachable and not silent and bool(self.ear.frames)


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    ear = Ear()
    reports: list[PlayoutReport] = []
    output = AvatarAudioOutput(ear, report=reports.append, **options)
    offset = output._player._reporter.wall_offset
    w = World(output, ear, reports)

    def on_started(event: PlaybackStartedEvent) -> None:
        w.started.append(event.created_at - offset)

    output.on("playback_started", on_started)
    output.on("playback_finished", w.finished.append)
    output.on("playback_finished", lambda _: w.finished_at.append(w.now))
    output.on("playback_progressed", w.progressed.append)
    try:
        yield w
        if w._is_without_holes and not output._queue.is_closed:
            assert not w.holes()
    finally:
        await w.withdraw()
        await output.aclose()
        for worker in w.workers:
            await worker.aclose()
