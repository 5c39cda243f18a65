"""The framework around the sink, in virtual time: its wrappers, what they report, and its own sink
over a simulated sound device, as the control.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
from livekit import rtc
from livekit.agents.voice.io import (
    AudioOutput,
    AudioOutputCapabilities,
    PlaybackFinishedEvent,
    PlaybackProgressedEvent,
    TextOutput,
)
from livekit.agents.voice.room_io._output import _ParticipantAudioOutput

from livekit_plugins_runway.testing.tones import HeardTone, ToneScript, hear, words_to_tones
from tests.support.speech_world import HOP, RATE, Ear, World, world
from tests.support.virtual_clock import VirtualClockLoop

EPOCH = 1_700_000_000.0
UNPAUSABLE = "resume_false_interruption is enabled but audio output does not support pause"


class _Complaints(logging.Handler):
    """The framework warns of a segment that is finished twice, late, or out of order."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if not message.startswith(UNPAUSABLE):
            self.messages.append(message)


def scripted(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs an async test on a virtual clock that the framework's `time.time()` follows.

    Fails it if the framework, or this plugin, logged a warning.
    """

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        complaints = _Complaints()
        logger = logging.getLogger("livekit")
        logger.addHandler(complaints)
        try:
            with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(0.0)) as runner:
                clock = runner.get_loop().time
                with mock.patch.object(time, "time", side_effect=lambda: EPOCH + clock()):
                    runner.run(test(*args, **kwargs))
        finally:
            logger.removeHandler(complaints)
        assert complaints.messages == []

    return run


@contextmanager
def time_for_threads() -> Iterator[None]:
    """The clock does not jump while another thread is given the time to answer."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    with mock.patch.object(loop._virtual, "_grace", 0.05):
        yield


def now() -> float:
    return asyncio.get_running_loop().time()


class Sink(enum.Enum):
    """What stands at the tail of the chain."""

    STREAM = "avatar by data stream"
    TRACK = "avatar by track"
    VOICE = "voice only"
    FRAMEWORK = "the framework's own"


OURS = (Sink.STREAM, Sink.TRACK, Sink.VOICE)
WITH_AVATAR = (Sink.STREAM, Sink.TRACK)
LATENCY = 0.25
_WORKERS: dict[Sink, dict[str, Any]] = {
    Sink.STREAM: {"latency": LATENCY},
    Sink.TRACK: {"latency": LATENCY, "lead": 0.3, "clear": "unsupported"},
}


class Device:
    """In place of `rtc.AudioSource`: what is queued is heard in virtual time."""

    def __init__(self, ear: Ear) -> None:
        self._ear = ear
        self._dry_at = 0.0

    @property
    def queued_duration(self) -> float:
        return max(0.0, self._dry_at - now())

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        pcm = bytes(frame.data)
        start = max(now(), self._dry_at)
        for n, at in enumerate(range(0, len(pcm), 2 * HOP)):
            piece = pcm[at : at + 2 * HOP].ljust(2 * HOP, b"\0")
            self._ear.frames.append((start + n * 0.01, piece))
        self._dry_at = start + frame.duration
        await asyncio.sleep(max(0.0, self.queued_duration - 0.2))

    def clear_queue(self) -> None:
        self._ear.frames[:] = [(t, pcm) for t, pcm in self._ear.frames if t < now()]
        self._dry_at = now()

    async def wait_for_playout(self) -> None:
        await asyncio.sleep(self.queued_duration)

    async def aclose(self) -> None:
        self.clear_queue()


@dataclass
class Stage:
    """A sink and who hears it."""

    kind: Sink
    sink: AudioOutput
    ear: Ear
    world: World | None
    _tones: tuple[tuple[float, float, int], list[HeardTone]] | None = None

    def tones(self, since: float = 0.0) -> list[HeardTone]:
        """What was heard from `since` up to now, placed in time: `start_s` is loop time."""
        key = (since, now(), len(self.ear.frames))
        if self._tones is None or self._tones[0] != key:
            pcm = self.timeline()[round(since * RATE) :]
            self._tones = (
                key,
                [
                    replace(tone, start_s=tone.start_s + since, end_s=tone.end_s + since)
                    for tone in hear(pcm, RATE)
                ],
            )
        return self._tones[1]

    def silent(self, since: float, until: float | None = None) -> bool:
        """Whether nothing was audible between the two loop times; `until` now by default."""
        end = now() if until is None else until
        pcm = self.timeline()[round(since * RATE) : round(end * RATE)]
        return bool(np.abs(pcm).max(initial=0) <= 300)

    def timeline(self) -> Any:
        """All that was heard up to now as one recording that begins at loop time 0."""
        out = np.zeros(round((now() + 0.02) * RATE), np.int16)
        for at, pcm in self.ear.frames:
            start = round(at * RATE)
            if start + HOP <= len(out):
                out[start : start + HOP] = np.frombuffer(pcm, np.int16)
        return out

    def subscribe(self) -> None:
        self.ear.subscribed = True
        if isinstance(self.sink, _ParticipantAudioOutput) and not self.sink.subscribed.done():
            self.sink.subscribed.set_result(None)

    def lose(self) -> None:
        """The avatar dies, which is noticed 0.3 s later."""
        assert self.world is not None
        self.world.worker.frozen = True
        asyncio.get_running_loop().call_later(0.3, self.world.output.detach_avatar)


@asynccontextmanager
async def stage(
    kind: Sink, *, subscribed: bool = True, worker: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Stage]:
    if kind is Sink.FRAMEWORK:
        ear = Ear()
        with mock.patch.object(rtc, "AudioSource", return_value=Device(ear)):
            sink = _ParticipantAudioOutput(
                mock.Mock(spec=rtc.Room),
                sample_rate=RATE,
                num_channels=1,
                track_publish_options=rtc.TrackPublishOptions(),
            )
        sink._forwarding_task = asyncio.create_task(sink._forward_audio())
        s = Stage(kind, sink, ear, None)
        if subscribed:
            s.subscribe()
        try:
            yield s
        finally:
            await sink.aclose()
        return
    wait = 0.0 if kind is Sink.VOICE else 10.0
    async with world(wait_for_avatar=wait, **options) as w:
        w.ear.subscribed = subscribed
        if kind in _WORKERS:
            w.attach(**_WORKERS[kind] | (worker or {}))
        yield Stage(kind, w.output, w.ear, w)


class Captions(TextOutput):
    """The text as the user's screen gets it, with the time of each piece."""

    def __init__(self) -> None:
        super().__init__(label="Captions", next_in_chain=None)
        self.shown: list[tuple[float, str]] = []

    async def capture_text(self, text: str) -> None:
        self.shown.append((now(), str(text)))

    def flush(self) -> None:
        pass

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.shown)

    def words(self, until: float) -> list[int]:
        return words_to_tones("".join(text for at, text in self.shown if at <= until))


@dataclass
class Listener:
    """The events of one sink or wrapper."""

    finished: list[PlaybackFinishedEvent] = field(default_factory=list)
    progressed: list[PlaybackProgressedEvent] = field(default_factory=list)

    def listen(self, output: AudioOutput) -> Listener:
        output.on("playback_finished", self.finished.append)
        output.on("playback_progressed", self.progressed.append)
        return self


class Passthrough(AudioOutput):
    """The least that a wrapper of the framework is: it counts before it hands on."""

    def __init__(self, tail: AudioOutput) -> None:
        super().__init__(
            label="Passthrough",
            capabilities=AudioOutputCapabilities(pause=True),
            next_in_chain=tail,
        )

    @property
    def _next(self) -> AudioOutput:
        assert self.next_in_chain is not None
        return self.next_in_chain

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        await self._next.capture_frame(frame)

    def flush(self) -> None:
        super().flush()
        self._next.flush()

    def clear_buffer(self) -> None:
        self._next.clear_buffer()


async def capture(output: AudioOutput, script: ToneScript, *, realtime: bool = False) -> None:
    for frame in script.frames(RATE, 20):
        await output.capture_frame(frame)
        if realtime:
            await asyncio.sleep(frame.duration)


async def speak(output: AudioOutput, script: ToneScript) -> PlaybackFinishedEvent:
    await capture(output, script)
    output.flush()
    async with asyncio.timeout(60.0):
        return await output.wait_for_playout()
