"""Relays the avatar's picture and voice from the Runway room to the avatar participant.

The voice is neither queued nor paced here: the worker paces, and every queue would add to the
latency. The picture waits for the voice, two frames at most (`lip_sync.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from livekit import rtc

from ..playout.ports import AvatarListener
from .lip_sync import LipSync
from .participant import AvatarParticipant
from .video import MIN_FRAME_SIDE, is_blank
from .ways import Picture

_VIDEO_CAPACITY = 2

MUTE_AFTER = 1.0
"""Seconds without a frame after which the camera is muted."""


@dataclass
class RelayStats:
    """Counters of the relay."""

    video_frames: int = 0
    audio_frames: int = 0
    unfit_video_frames: int = 0
    """Frames of 2x2 pixels that end a track, and empty ones before the first picture."""
    width: int = 0
    height: int = 0
    resolution_changes: int = 0


class Relay:
    """Relays one worker's tracks until it is cancelled or both tracks have ended.

    Until `activate()` it is on standby: it reads the frames, but sends nothing to the user.

    Args:
        on_first_frame: called once, when the first picture has come.
        on_stall: called once if no frame came for `stall_timeout` seconds; with the seconds.
    """

    def __init__(
        self,
        *,
        audio: rtc.RemoteAudioTrack,
        video: rtc.RemoteVideoTrack,
        participant: AvatarParticipant,
        listener: AvatarListener,
        on_first_frame: Callable[[], None],
        on_stall: Callable[[float], None],
        stall_timeout: float = 1.5,
    ) -> None:
        self._audio = audio
        self._video = video
        self._participant = participant
        self._listener = listener
        self._on_first_frame = on_first_frame
        self._on_stall = on_stall
        self._stall_timeout = stall_timeout
        self._last_frame: float | None = None
        self._active = False
        self._opened = False
        """True once a picture was shown; later ones wait for their voice."""
        self._opening = False
        """True while the first picture is being shown: pictures are not read meanwhile, which is no
        stall.
        """
        self._lips = LipSync(audio, video)
        self._shown: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception of the first delayed picture that could not be shown."""
        self.stats = RelayStats()

    def activate(self) -> None:
        """Let the user see and hear this avatar."""
        self._active = True

    def deactivate(self) -> None:
        """Let the user see and hear nothing more of it."""
        self._active = False

    async def wait_until_shown(self) -> float:
        """Wait until the first picture after `activate()` was handed to the user's track. Returns
        its loop time in seconds.
        """
        return await asyncio.shield(self._shown)

    @property
    def last_frame(self) -> float | None:
        """Loop time in seconds at which the last picture came; None before the first."""
        return self._last_frame

    async def run(self) -> None:
        """Relay until cancelled, or until the worker's tracks end. Raises an `ExceptionGroup` of
        the errors that stop it.
        """
        try:
            async with asyncio.TaskGroup() as group:
                watches = [
                    group.create_task(self._watch(), name="runway_relay_watch"),
                    group.create_task(self._lips.follow(), name="runway_lip_sync"),
                    group.create_task(self._until_failed(), name="runway_relay_failure"),
                ]
                media = [
                    group.create_task(self._relay_audio(), name="runway_relay_audio"),
                    group.create_task(self._relay_video(), name="runway_relay_video"),
                ]
                await asyncio.wait(media)
                for watch in watches:
                    watch.cancel()
        finally:
            self._active = False  # delayed pictures are not shown either

    async def _relay_audio(self) -> None:
        voice = self._participant.way.voice_tap(self._audio, self._pass_on)
        try:
            await voice.wait_until_ended()
        finally:
            await voice.aclose()

    def _pass_on(self, pcm: bytes) -> None:
        """Called in a thread of the SDK, or in the event loop's."""
        if not self._active:
            return
        self.stats.audio_frames += 1
        heard = self._listener.relayed(pcm)
        if heard is not None:
            self._participant.microphone.write(heard)

    async def _relay_video(self) -> None:
        loop = asyncio.get_running_loop()
        pictures = self._participant.way.picture_tap(self._video, _VIDEO_CAPACITY)
        stats = self.stats
        try:
            async for picture in pictures:
                frame = picture.frame
                tiny = min(frame.width, frame.height) < MIN_FRAME_SIDE
                if tiny or (self._last_frame is None and is_blank(frame)):
                    stats.unfit_video_frames += 1
                    continue
                first, self._last_frame = self._last_frame is None, loop.time()
                if first:
                    self._on_first_frame()
                if not self._active:
                    continue
                if self._opened:
                    loop.call_at(self._lips.due(self._last_frame), self._show_later, picture)
                else:
                    self._opened = await self._show_first(picture)
        finally:
            await pictures.aclose()

    async def _show_first(self, picture: Picture) -> bool:
        """Show the first picture at once, without delay. In a call the first one publishes the
        camera. As `_show`.
        """
        self._opening = True
        try:
            opened = await self._participant.open_camera(picture.frame, self._stamp(picture))
        finally:
            self._opening = False
        if opened:
            self._count(picture)
        return opened or self._show(picture)

    def _stamp(self, picture: Picture) -> int:
        """The time at which a picture's voice is sent, in microseconds of the SDK's clock."""
        return picture.timestamp_us + round(self._lips.lead * 1e6)

    def _show(self, picture: Picture) -> bool:
        """Hand a picture to the user's track. False if the track cannot take it now."""
        if not self._active:
            return False
        shown = self._participant.push_video(picture.frame, self._stamp(picture))
        if shown:
            self._count(picture)
        return shown

    def _show_later(self, picture: Picture) -> None:
        """Called by the event loop, which would only log an exception."""
        try:
            self._show(picture)
        except Exception as error:  # noqa: BLE001  raised by `run()`
            if not self._failed.done():
                self._failed.set_exception(error)

    async def _until_failed(self) -> None:
        await asyncio.shield(self._failed)

    def _count(self, picture: Picture) -> None:
        """Account for a picture that was handed to the user's track."""
        frame, stats = picture.frame, self.stats
        stats.video_frames += 1
        if (frame.width, frame.height) != (stats.width, stats.height):
            stats.resolution_changes += stats.width > 0
            stats.width, stats.height = frame.width, frame.height
        if not self._shown.done():
            self._shown.set_result(asyncio.get_running_loop().time())

    async def _watch(self) -> None:
        """Mute the camera and report if frames stop: a dead worker stays in its room for some time
        (21.5 s measured), and its audio track goes on with silence.
        """
        loop = asyncio.get_running_loop()
        mute_after = min(MUTE_AFTER, self._stall_timeout)
        while True:
            last = None if self._opening else self._last_frame
            waited = 0.0 if last is None else loop.time() - last
            if waited >= self._stall_timeout:
                self._mute()
                self._on_stall(waited)
                return
            if waited >= mute_after:
                self._mute()
                await asyncio.sleep(self._stall_timeout - waited)
            else:
                await asyncio.sleep(mute_after - waited)

    def _mute(self) -> None:
        if self._active:
            self._participant.mute_camera()
