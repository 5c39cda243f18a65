"""The worker's camera and microphone tracks, fed by the clock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import numpy as np
from livekit import rtc

from .. import barcode
from ..onsets import Onsets
from ..options import SimulatorOptions
from .face import Face
from .performance import SAMPLE_RATE, Performance
from .speech import FRAME, Pcm, loudness

_BLINK_EVERY = 3.1
_BLINK_SECONDS = 0.16


class VoiceThread:
    """An event loop in a thread of its own: a real worker is another machine, whose voice does not
    stand still while the agent's event loop is busy."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self.loop.run_forever, name="simulated-voice", daemon=True
        )
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it there; cancelled, it is cancelled there."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Media:
    """Publishes and feeds both tracks. The voice goes out without a queue, in 10 ms frames; the
    mouth follows the same samples, so picture and sound are as late as each other.

    The voice is fed in a thread of its own, which alone writes `_loudness` and the performance's
    `onsets`, and waits at `_audio_on`; all else is of the event loop's thread."""

    def __init__(
        self,
        voice: Callable[[float], Pcm | None],
        face: Face,
        options: SimulatorOptions,
        performance: Performance,
        publish_audio: bool = True,
    ) -> None:
        """`voice` gives the 10 ms that are due at a loop time, `None` for silence. It is called in
        the thread of the voice."""
        self._voice = voice
        self._face = face
        self._options = options
        self._performance = performance
        self._publish_audio = publish_audio
        self._loudness = 0.0
        self._frozen = False
        self._stalled_audio = False
        self._stalled_video = False
        self._audio_on = threading.Event()
        self._video_on = threading.Event()
        self._publications: list[rtc.LocalTrackPublication] = []
        self._apply()

    def freeze(self, frozen: bool) -> None:
        self._frozen = frozen
        self._apply()

    def stall(self, *, audio: bool | None = None, video: bool | None = None) -> None:
        if audio is not None:
            self._stalled_audio = audio
        if video is not None:
            self._stalled_video = video
        self._apply()

    def _apply(self) -> None:
        for gate, stalled in (
            (self._audio_on, self._stalled_audio),
            (self._video_on, self._stalled_video),
        ):
            if self._frozen or stalled:
                gate.clear()
            else:
                gate.set()

    async def run(self, room: rtc.Room) -> None:
        """Publish, then feed until cancelled."""
        thread = VoiceThread()
        audio = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=0, loop=thread.loop)
        video = rtc.VideoSource(*self._options.start_size)
        try:
            await self._publish(room, audio, video)
            await asyncio.sleep(self._options.first_frame_delay)
            async with asyncio.TaskGroup() as group:
                group.create_task(thread.run(self._feed_audio(audio)), name="simulated-voice")
                group.create_task(self._feed_video(video), name="simulated-face")
        finally:
            await thread.run(audio.aclose())
            thread.close()
            await video.aclose()

    async def _publish(
        self, room: rtc.Room, audio: rtc.AudioSource, video: rtc.VideoSource
    ) -> None:
        camera = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA,
            video_codec=rtc.VideoCodec.H264,
            simulcast=False,
            video_encoding=rtc.VideoEncoding(max_framerate=30, max_bitrate=1_500_000),
        )
        microphone = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        me = room.local_participant
        self._publications = [
            await me.publish_track(
                rtc.LocalVideoTrack.create_video_track("avatar-video", video), camera
            )
        ]
        if self._publish_audio:
            track = rtc.LocalAudioTrack.create_audio_track("avatar-audio", audio)
            self._publications.append(await me.publish_track(track, microphone))

    async def unpublish(self, room: rtc.Room) -> None:
        publications, self._publications = self._publications, []
        for publication in publications:
            await room.local_participant.unpublish_track(publication.sid)

    async def _feed_audio(self, source: rtc.AudioSource) -> None:
        silence = rtc.AudioFrame(bytes(2 * FRAME), SAMPLE_RATE, 1, FRAME)
        onsets = Onsets(SAMPLE_RATE)

        async def put(now: float) -> None:
            samples = self._voice(now)
            if self._options.barcode:
                heard = np.zeros(FRAME, np.int16) if samples is None else samples
                began = asyncio.get_running_loop().time() - FRAME / SAMPLE_RATE
                self._performance.onsets += [began + n / SAMPLE_RATE for n in onsets.push(heard)]
            if samples is None:
                self._loudness *= 0.8
                await source.capture_frame(silence)
                return
            self._loudness = max(loudness(samples), self._loudness * 0.8)
            frame = rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE, 1, FRAME)
            await source.capture_frame(frame)

        await _tick(0.01, self._audio_on, put)

    async def _feed_video(self, source: rtc.VideoSource) -> None:
        began = asyncio.get_running_loop().time()

        async def put(now: float) -> None:
            age = now - began
            full = age >= self._options.upscale_after
            size = self._options.full_size if full else self._options.start_size
            blinking = age % _BLINK_EVERY > _BLINK_EVERY - _BLINK_SECONDS
            frame = self._face.frame(size, self._loudness, blinking)
            if self._options.barcode:
                frame = barcode.stamped(frame, self._performance.video_frames)
                self._performance.captured.append(asyncio.get_running_loop().time())
            source.capture_frame(frame)
            self._performance.video_frames += 1
            if self._performance.first_frame_at is None:
                self._performance.first_frame_at = now
                self._performance.notify()

        await _tick(1 / self._options.fps, self._video_on, put)


async def _tick(
    interval: float, gate: threading.Event, put: Callable[[float], Awaitable[None]]
) -> None:
    """Call `put` at absolute deadlines, while the gate is open. After a pause, or when far behind,
    the deadlines start anew: nothing is made up for in a burst."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        if gate.is_set():
            if (now := loop.time()) > due + 0.25:
                due = now
            await put(now)
        due += interval
        await asyncio.sleep(max(0.0, due - loop.time()))
