"""The relay's pictures: which are shown, when, and how often each is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
from livekit import rtc

from livekit_plugins_runway import VideoOptions
from livekit_plugins_runway.media.lip_sync import LipSync
from livekit_plugins_runway.media.participant import AvatarParticipant
from livekit_plugins_runway.media.relay import Relay
from livekit_plugins_runway.media.video import VideoFitter
from livekit_plugins_runway.media.ways import MediaWay, Picture
from tests.support.virtual_clock import timers_only

SIDE = 64
MS = 1000
"""Microseconds."""
LEAD = round(LipSync(cast(Any, None), cast(Any, None)).lead * 1e6)
"""By which the relay moves timestamps before anything is measured; taken off again here."""


class NoSound:
    """A `ways.Sender`, and a `ways.VoiceTap` of a track that does not end."""

    def __init__(self, *_: object) -> None:
        self._closed = asyncio.Event()

    def send(self, pcm: bytes) -> None: ...

    def clear(self) -> None: ...

    async def wait_until_ended(self) -> None:
        await self._closed.wait()

    async def aclose(self) -> None:
        self._closed.set()


class Film:
    """A `ways.PictureTap` of what a test puts into it."""

    def __init__(self) -> None:
        self._pictures: asyncio.Queue[Picture] = asyncio.Queue()

    def comes(self, timestamp_us: int) -> None:
        """One more picture comes."""
        grey = np.arange(SIDE * SIDE, dtype=np.uint8).tobytes() + bytes(SIDE * SIDE // 2)
        frame = rtc.VideoFrame(SIDE, SIDE, rtc.VideoBufferType.I420, grey)
        self._pictures.put_nowait(Picture(frame, timestamp_us))

    def __aiter__(self) -> Film:
        return self

    async def __anext__(self) -> Picture:
        return await self._pictures.get()

    async def aclose(self) -> None: ...


class Camera:
    """Stands in for `rtc.VideoSource`: keeps when each picture was captured, by its timestamp."""

    def __init__(self, changed: asyncio.Event, width: int, height: int) -> None:
        self.captured: list[tuple[int, float]] = []
        self._changed = changed

    def capture_frame(self, frame: rtc.VideoFrame, *, timestamp_us: int) -> None:
        self.captured.append((timestamp_us - LEAD, asyncio.get_running_loop().time()))
        self._changed.set()

    async def aclose(self) -> None: ...


class Unpublished(AvatarParticipant):
    """In no room: its camera is published to nobody, which takes a while."""

    camera: Camera | None = None

    async def _publish_camera(self, source: rtc.VideoSource) -> None:
        await asyncio.sleep(0.01)
        self.camera = cast(Camera, source)


@dataclass
class Scene:
    relay: Relay
    participant: Unpublished
    film: Film
    fitted: list[int]
    """Timestamps, once for each time that a picture was worked on."""
    changed: asyncio.Event
    running: asyncio.Task[None]
    """`relay.run()`."""
    stalls: list[float]
    """What `on_stall` was told."""

    @property
    def captured(self) -> list[tuple[int, float]]:
        return [] if self.participant.camera is None else self.participant.camera.captured

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5.0):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def relaying(
    monkeypatch: pytest.MonkeyPatch, video: VideoOptions, participant: Unpublished | None = None
) -> AsyncIterator[Scene]:
    film, fitted, stalls, changed = Film(), list[int](), list[float](), asyncio.Event()
    fit = VideoFitter.fit

    def noted(self: VideoFitter, frame: rtc.VideoFrame, timestamp_us: int) -> Any:
        fitted.append(timestamp_us - LEAD)
        changed.set()
        return fit(self, frame, timestamp_us)

    monkeypatch.setattr(VideoFitter, "fit", noted)
    monkeypatch.setattr(rtc, "VideoSource", partial(Camera, changed))
    way = MediaWay("public", NoSound, NoSound, lambda *_: film)
    participant = participant or Unpublished(video, way)
    participant.way = way
    tracks: Any = object()  # asked for statistics after a second only
    relay = Relay(
        audio=tracks,
        video=tracks,
        participant=participant,
        listener=tracks,
        on_first_frame=lambda: None,
        on_stall=stalls.append,
    )
    running = asyncio.create_task(relay.run())
    relay.activate()
    try:
        yield Scene(relay, participant, film, fitted, changed, running, stalls)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await participant.aclose()


async def test_with_a_pace_the_first_picture_is_shown_and_counted_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with relaying(monkeypatch, VideoOptions(max_fps=1)) as scene:
        scene.film.comes(0)
        async with asyncio.timeout(0.5):
            await scene.relay.wait_until_shown()
        assert scene.fitted == [0]
        assert scene.relay.stats.video_frames == 1
        assert (scene.relay.stats.width, scene.relay.stats.height) == (SIDE, SIDE)


async def test_the_first_picture_is_there_before_the_camera_is_published_and_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with relaying(monkeypatch, VideoOptions()) as scene:
        scene.film.comes(0)
        await scene.relay.wait_until_shown()
        assert [timestamp for timestamp, _ in scene.captured] == [0, 0]
        before, after = [at for _, at in scene.captured]
        assert after - before >= 0.005


@pytest.mark.parametrize("max_fps", [None, 8])
async def test_every_picture_but_the_first_waits_for_its_voice(
    monkeypatch: pytest.MonkeyPatch, max_fps: float | None
) -> None:
    async with relaying(monkeypatch, VideoOptions(max_fps=max_fps)) as scene:
        loop, hold = asyncio.get_running_loop(), scene.relay._lips.hold
        scene.film.comes(0)
        scene.film.comes(40 * MS)  # one too many for 8 a second
        await scene.until(lambda: scene.fitted[-1:] == [40 * MS])
        came = loop.time()
        scene.film.comes(120 * MS)
        await scene.until(lambda: scene.captured[-1][0] > 40 * MS)
        assert scene.captured[-1][1] - came >= hold - 0.002
        assert scene.fitted == [0, 40 * MS, 120 * MS]
        assert scene.relay.stats.video_frames == (2 if max_fps else 3)


async def test_the_next_session_finds_a_camera_and_shows_its_first_picture_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with relaying(monkeypatch, VideoOptions()) as first:
        first.film.comes(0)
        await first.relay.wait_until_shown()
        async with relaying(monkeypatch, VideoOptions(), first.participant) as second:
            second.film.comes(40 * MS)
            shown = await second.relay.wait_until_shown()
            assert second.relay.last_frame is not None
            assert shown - second.relay.last_frame < second.relay._lips.hold
            assert [timestamp for timestamp, _ in second.captured] == [0, 0, 40 * MS]


class Breaks(Unpublished):
    """Its camera is published, and takes no picture after the first."""

    def push_video(self, frame: rtc.VideoFrame, timestamp_us: int) -> bool:
        raise ValueError("no room for it")


async def test_a_picture_that_cannot_be_shown_ends_the_relay_with_what_was_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way = MediaWay("public", NoSound, NoSound, lambda *_: Film())
    async with relaying(monkeypatch, VideoOptions(), Breaks(None, way)) as scene:
        scene.film.comes(0)
        await scene.relay.wait_until_shown()
        scene.film.comes(40 * MS)  # it waits for its voice first
        async with asyncio.timeout(5.0):
            await asyncio.wait([scene.running])
        raised = scene.running.exception()
        assert isinstance(raised, ExceptionGroup)
        assert raised.subgroup(ValueError) is not None


class Silence(NoSound):
    """Sound of a track that cannot be listened to."""

    async def wait_until_ended(self) -> None:
        raise ValueError("no stream")


async def test_a_voice_that_cannot_be_heard_ends_the_relay_with_what_was_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.media.test_relay.NoSound", Silence)
    async with relaying(monkeypatch, VideoOptions()) as scene:
        async with asyncio.timeout(5.0):
            await asyncio.wait([scene.running])
        raised = scene.running.exception()
        assert isinstance(raised, ExceptionGroup)
        assert raised.subgroup(ValueError) is not None


class Slow(Unpublished):
    """In a room that is lost at first, and then takes its time to take the camera."""

    asked = 0

    async def open_camera(self, frame: rtc.VideoFrame, timestamp_us: int) -> bool:
        self.asked += 1
        return self.asked > 1 and await super().open_camera(frame, timestamp_us)

    async def _publish_camera(self, source: rtc.VideoSource) -> None:
        await asyncio.sleep(5.0)
        await super()._publish_camera(source)


@timers_only
async def test_a_camera_that_was_not_taken_is_opened_by_a_later_picture_and_is_no_stall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way = MediaWay("public", NoSound, NoSound, lambda *_: Film())
    async with relaying(monkeypatch, VideoOptions(), Slow(None, way)) as scene:
        scene.film.comes(0)
        await asyncio.sleep(0.04)
        assert scene.relay.stats.video_frames == 0
        for number in range(1, 140):
            scene.film.comes(number * 40 * MS)
            await asyncio.sleep(0.04)
        assert [timestamp for timestamp, _ in scene.captured][:2] == [40 * MS] * 2
        assert scene.relay.stats.video_frames > 1
        assert scene.stalls == []
        await asyncio.sleep(2.0)
        assert len(scene.stalls) == 1  # now it is one
