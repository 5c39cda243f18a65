"""The avatar participant, which the user sees and hears; the same one for the whole call."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable

from livekit import rtc
from livekit.rtc.participant import PublishTrackError

from .._common.tasks import BackgroundTasks, cancel_and_wait, first_of
from ..errors import UnavailableError
from ..log import logger
from ..playout.ports import Microphone
from .connect import SUBSCRIBING, Subscribing, adopt_keys, connect, leave
from .listeners import Audience, Listeners, TrackSubscription, restrict
from .microphone import LiveMicrophone
from .video import (
    MIN_FRAME_SIDE,
    RUNWAY_SIZE,
    VideoFitter,
    VideoOptions,
    publish_options,
    size_of,
)
from .ways import MediaWay, choose

_NEGOTIATION = 0.2
"""Seconds after publishing in which the SDK loses the leave message: a participant that leaves then
stays in the room for up to 14 s (measured: livekit 1.1.21, livekit-server 1.11.0).
"""
_FIRST_REJOIN, _SLOWEST_REJOIN = 0.5, 8.0
_ENTRIES = 3
"""First attempts to join, each under another identity, for two jobs that start at the same time in
one room.
"""
_PUBLISH_TIMEOUT = 10.0
"""Seconds for the room to accept a track. From a lost room answers may never come, such as that to
an unpublication (`transport/delivery.py`).
"""


class Eviction(enum.Enum):
    """Why the participant was removed from the room."""

    REPLACED = "replaced"  # by another participant with its identity
    REMOVED = "removed"
    ROOM_OVER = "room_over"


_EVICTIONS: dict[rtc.DisconnectReason.ValueType, Eviction] = {
    rtc.DisconnectReason.DUPLICATE_IDENTITY: Eviction.REPLACED,
    rtc.DisconnectReason.PARTICIPANT_REMOVED: Eviction.REMOVED,
    rtc.DisconnectReason.USER_REJECTED: Eviction.REMOVED,
    rtc.DisconnectReason.ROOM_DELETED: Eviction.ROOM_OVER,
    rtc.DisconnectReason.ROOM_CLOSED: Eviction.ROOM_OVER,
}


def eviction_by(reason: rtc.DisconnectReason.ValueType) -> Eviction | None:
    """The kind of eviction that a disconnect means; None: the connection was lost, or left."""
    return _EVICTIONS.get(reason)


def _tell_nobody(_: Eviction) -> None: ...


async def _no_token() -> str:
    raise RuntimeError("join() was not called")


class AvatarParticipant:
    """Publishes the avatar's microphone at once and its camera with the first real frame.

    A camera published without a picture shows a green screen. A microphone that is published early,
    with silence, gives everybody time to subscribe before the first words.

    Args:
        video: size, frame rate and encoding of the pictures.
        way: the way to the SDK's media; None: that of `ways.choose()`.
        background: completes an attempt to join that was given up; None: `aclose()` does.
        room_options: called for each attempt to join; returns the options of its connection, with
            the keys of an encrypted room.
        audience: identities that may subscribe, and are waited for; None: all.
    """

    def __init__(
        self,
        video: VideoOptions | None = None,
        way: MediaWay | None = None,
        background: BackgroundTasks | None = None,
        room_options: Callable[[], rtc.RoomOptions] = rtc.RoomOptions,
        audience: Audience = None,
    ) -> None:
        # Used by the event loop's thread only, except that `microphone` may be written to from
        # others. The sources (microphone, camera) live for the whole call; each `_rejoin()` makes a
        # new room and new tracks.
        self.way = way or choose()
        self._background = background
        self._room_options = room_options
        self._audience = audience
        self._video = video or VideoOptions()
        self._fitter = VideoFitter(self._video)
        """Stateful: `max_fps` counts each picture that it is given."""
        self._room = rtc.Room()
        """The agent's room, as this participant. Events of a former `_room` are ignored."""
        self.microphone = LiveMicrophone(self.way)
        self._microphone_track = self._voice_track()
        """Published in `_room`, or being published."""
        self._camera: rtc.VideoSource | None = None
        """Made with the first picture, in its size; with `publish_early` before joining."""
        self._camera_track: rtc.LocalVideoTrack | None = None
        """The track of `_camera`, in `_room`. Muted while there are no pictures."""
        self._url = ""
        self._make_token: Callable[[], Awaitable[str]] = _no_token
        self._on_evicted: Callable[[Eviction], None] = _tell_nobody
        """Set by `join()`; not used before."""
        self._stand_in: Microphone | None = None
        """The track of the agent's own voice, once the participant was removed. See
        `speak_by()`.
        """
        self._subscription = TrackSubscription()
        self._listeners: Listeners | None = None
        """The listeners in `_room`, while it is joined."""
        self._subscribing = Subscribing()
        """Subscriptions of the others to the tracks in `_room`."""
        self._published_at = float("-inf")
        """Loop time at which the microphone was last published."""
        self._lost = asyncio.Event()
        """Set when `_room` is lost, cleared when another one is tried."""
        self._replaced = False
        """`_room` was lost because another participant joined with this one's identity."""
        self._present = False
        """Joined `_room`, with the microphone published. A room that is lost after that is joined
        again.
        """
        self._rejoining: asyncio.Task[None] | None = None
        """The task of the running or last `_rejoin()`. Cancelled by `aclose()`."""
        self._opening: asyncio.Task[bool] | None = None
        """The task of the running or last `_publish_first()`. It is not cancelled with its caller,
        because a track whose publication is given up may still appear. Cancelled by `aclose()`.
        """
        self._closed = False
        """Set by `aclose()`: pictures are dropped, and a lost room is not joined again."""

    @property
    def subscribed(self) -> bool:
        """See `TrackSubscription.subscribed`, of the microphone track."""
        if self._stand_in is not None:
            return self._stand_in.subscribed
        return self._subscription.subscribed

    @property
    def reachable(self) -> bool:
        """See `TrackSubscription.reachable`."""
        if self._stand_in is not None:
            return self._stand_in.reachable
        return self._subscription.reachable

    def speak_by(self, stand_in: Microphone) -> None:
        """Send the agent's own voice to this track from now on; the participant will not be
        back.
        """
        self._stand_in = stand_in

    async def join(
        self,
        url: str,
        make_token: Callable[[], Awaitable[str]],
        on_evicted: Callable[[Eviction], None] | None = None,
    ) -> None:
        """Join the agent room and publish the microphone.

        Args:
            make_token: called for each attempt to join. A connection that the SDK could not
                restore, or that was ended by another participant with its identity, is made again.
                May raise `UnavailableError`.
            on_evicted: called when it was removed. If it was replaced, `make_token` must use
                another identity from then on.

        Raises:
            UnavailableError: the server refused, or could not be reached, or there was no token.
        """
        self._url, self._make_token = url, make_token
        self._on_evicted = on_evicted or _tell_nobody
        for tries_left in reversed(range(_ENTRIES)):
            try:
                await self._enter(self._room)
                break
            except UnavailableError:
                if not (self._replaced and tries_left):
                    raise
                await leave(self._room)
                self._take_another_room()
        self._present = True

    def give_way(self) -> bool:
        """Another participant has joined with its identity. Give up a running attempt to join, and
        try again under the next identity: while it joins, the SDK reports the removal only after 15
        s (livekit 1.1.21). Once it has joined, the removal is reported at once, so nothing is done
        here.

        Returns:
            True if an attempt was given up.
        """
        joining = not self._present
        if joining:
            self._on_disconnected(self._room, rtc.DisconnectReason.DUPLICATE_IDENTITY)
        return joining

    def enter_anew(self) -> None:
        """Leave the room, and join it again with other options or another identity. Nothing more is
        sent to the former room.
        """
        if self._closed or not self._present:
            return
        self._present = False
        self._lost.set()
        self._stop_looking()
        self._subscription.on_lost()
        self._rejoining = asyncio.create_task(self._move(self._room), name="runway_rejoin")

    async def _move(self, room: rtc.Room) -> None:
        await asyncio.sleep(SUBSCRIBING)  # the agent may have joined just now
        await leave(room)
        await self._rejoin()

    def adopt_keys_of(self, room: rtc.Room) -> None:
        """See `connect.adopt_keys`."""
        adopt_keys(room, self._room)

    def _take_another_room(self) -> rtc.Room:
        """Make a room to join in place of the lost one."""
        self._room = rtc.Room()
        self._lost.clear()
        self._replaced = False
        self._microphone_track = self._voice_track()
        return self._room

    async def _enter(self, room: rtc.Room) -> None:
        """As `join()`. A missing answer is not waited for, for example if the room is lost
        meanwhile.
        """
        for event, handler in self._handlers(room).items():
            room.on(event, handler)
        options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_MICROPHONE,
            dtx=False,  # words that begin while nothing is sent may be too loud (docs/relay.md)
        )
        try:
            token, room_options = await self._make_token(), self._room_options()
            connecting = connect(room, self._url, token, self._background, room_options)
            await first_of(connecting, self._lost.wait())
            if self._lost.is_set():
                raise rtc.ConnectError("the room was lost meanwhile")
            restrict(room, self._audience)
            self._listeners = Listeners(room, self._subscription.on_listeners, self._audience)
            self._listeners.look()
            if self._video.publish_early:
                await self._publish_muted()
            await self._publish(room, self._microphone_track, options)
            self._published_at = asyncio.get_running_loop().time()
        except (rtc.ConnectError, PublishTrackError, TimeoutError) as error:
            raise UnavailableError(
                "The avatar participant could not join the agent's room. Check LIVEKIT_URL, "
                "LIVEKIT_API_KEY and LIVEKIT_API_SECRET: they must be those of the agent's server."
            ) from error

    async def _publish(
        self, room: rtc.Room, track: rtc.LocalTrack, options: rtc.TrackPublishOptions
    ) -> None:
        """Raises `PublishTrackError` if the room refuses or is lost meanwhile, and `TimeoutError`
        after `_PUBLISH_TIMEOUT` seconds."""
        publishing = room.local_participant.publish_track(track, options)
        try:
            async with asyncio.timeout(_PUBLISH_TIMEOUT):
                await first_of(publishing, self._lost.wait())
        finally:  # the track may exist even if the wait was given up
            self._subscribing.begin()
        if self._lost.is_set():
            raise PublishTrackError("the room was lost meanwhile")

    def _handlers(self, room: rtc.Room) -> dict[rtc.room.EventTypes, Callable[..., None]]:
        return {
            "local_track_subscribed": self._on_subscribed,
            "local_track_republished": self._on_republished,
            "participant_connected": self._subscribing.begin,
            "reconnecting": self._subscription.on_away,
            "reconnected": self._subscription.on_back,
            "disconnected": lambda reason: self._on_disconnected(room, reason),
        }

    def _on_subscribed(self, track: rtc.Track) -> None:
        if track.sid == self._microphone_track.sid:
            self._subscription.on_subscribed()

    def _on_republished(self, publication: rtc.LocalTrackPublication, _former: str) -> None:
        if publication.track is self._microphone_track:
            self._subscription.on_republished()

    def _on_disconnected(self, room: rtc.Room, reason: rtc.DisconnectReason.ValueType) -> None:
        ours = reason == rtc.DisconnectReason.CLIENT_INITIATED
        if self._closed or ours or room is not self._room:
            return
        name = rtc.DisconnectReason.Name(reason)
        self._lost.set()
        eviction = eviction_by(reason)
        self._replaced = eviction is Eviction.REPLACED
        self._stop_looking()
        present, self._present = self._present, False
        if eviction is Eviction.ROOM_OVER:
            logger.info("the avatar participant's room has ended", extra={"reason": name})
            self._subscription.on_over()
        else:
            logger.warning("the avatar participant has lost its room", extra={"reason": name})
            self._subscription.on_lost()
        if eviction is not None:
            self._on_evicted(eviction)
        if eviction in (Eviction.REMOVED, Eviction.ROOM_OVER):
            if self._rejoining is not None:
                self._rejoining.cancel()
        elif present:  # else the running attempt goes on, or gives up
            self._rejoining = asyncio.create_task(self._rejoin(), name="runway_rejoin")

    def _stop_looking(self) -> None:
        if self._listeners is not None:
            self._listeners.close()
            self._listeners = None

    async def _rejoin(self) -> None:
        """Try until it is in the room again, or closed. Publishes new tracks."""
        delay = _FIRST_REJOIN
        while not self._present:
            await asyncio.sleep(delay)
            delay = min(2 * delay, _SLOWEST_REJOIN)
            room = self._take_another_room()
            try:
                await self._enter(room)
                if self._camera is not None and not self._video.publish_early:
                    await self._publish_camera(self._camera)
                self._present = True
            except Exception as error:  # noqa: BLE001  whatever the error is, the voice must come back
                usual = isinstance(error, UnavailableError | PublishTrackError | TimeoutError)
                level = logging.DEBUG if usual else logging.ERROR
                told = {"error": type(error).__name__}
                logger.log(
                    level,
                    "the avatar participant could not join its room again yet",
                    exc_info=not usual,
                    extra=told,
                )
                self._stop_looking()
                await self._subscribing.wait(room)
                await leave(room)

    def _voice_track(self) -> rtc.LocalAudioTrack:
        return rtc.LocalAudioTrack.create_audio_track("avatar-voice", self.microphone.source)

    async def push_audio(self, pcm: bytes) -> None:
        """Send 10 ms of int16 mono PCM at 48 kHz at once. No effect after `aclose()`."""
        if self._stand_in is not None:
            await self._stand_in.push_audio(pcm)
        else:
            self.microphone.write(pcm)

    def keep_alive(self) -> None:
        """See `LiveMicrophone.keep_alive`."""
        if self._stand_in is not None:
            self._stand_in.keep_alive()
        else:
            self.microphone.keep_alive()

    async def open_camera(self, frame: rtc.VideoFrame, timestamp_us: int) -> bool:
        """Publish the camera with its first picture. As `push_video`.

        Returns:
            False if the picture was not sent: it is too small, the camera was published before, or
            the room is lost for now.

        Raises:
            UnavailableError: the room refused it. The next call tries again.
        """
        if self._camera is not None or self._away or not self._takes(frame):
            return False
        fitted = self._fitter.fit(frame, timestamp_us)
        if fitted is None:
            return False
        if self._opening is None or self._opening.done():
            publishing = self._publish_first(fitted, timestamp_us)
            self._opening = asyncio.create_task(publishing, name="runway_publish_camera")
            return await asyncio.shield(self._opening)
        await asyncio.shield(self._opening)
        return False

    async def _publish_muted(self) -> None:
        """Publish the camera before there is a picture. Before the microphone, because libwebrtc
        probes the bandwidth with the first track, for as much as that may need; and not muted
        until it is published, because a muted track is not probed for.
        """
        if self._camera is None:
            self._camera = rtc.VideoSource(*(size_of(self._video, RUNWAY_SIZE) or RUNWAY_SIZE))
        await self._publish_camera(self._camera)
        self.mute_camera()

    async def _publish_first(self, picture: rtc.VideoFrame, timestamp_us: int) -> bool:
        """As `open_camera()`, for a picture of valid size."""
        camera = rtc.VideoSource(picture.width, picture.height)
        # Capture before publishing, so that no black picture comes first, and once more after it,
        # because earlier pictures reach nobody.
        camera.capture_frame(picture, timestamp_us=timestamp_us)
        try:
            await self._publish_camera(camera)
        except BaseException as error:
            self._camera_track = None
            await camera.aclose()
            if self._lost.is_set() and isinstance(error, PublishTrackError):
                return False  # lost with the room; in the next room another picture opens it
            if isinstance(error, PublishTrackError | TimeoutError):
                raise UnavailableError("The avatar's camera could not be published.") from error
            raise
        self._camera = camera
        if self._closed:
            return False
        camera.capture_frame(picture, timestamp_us=timestamp_us)
        return True

    def push_video(self, frame: rtc.VideoFrame, timestamp_us: int) -> bool:
        """Send a picture of any size and buffer type at once. Only after `open_camera()`.

        Args:
            timestamp_us: capture time in microseconds of the SDK's clock (as a `VideoStream` gives
                it); receivers use it to keep lips and voice in sync.

        Returns:
            False if the frame was not sent: it is too small, or `max_fps` leaves it out.
        """
        if self._camera is None or self._away or not self._takes(frame):
            return False
        fitted = self._fitter.fit(frame, timestamp_us)
        if fitted is None:
            return False
        if self._camera_track is not None and self._camera_track.muted:
            self._camera_track.unmute()
            logger.debug("camera unmuted")
        self._camera.capture_frame(fitted, timestamp_us=timestamp_us)
        return True

    @property
    def _away(self) -> bool:
        """True while the room is lost and not joined again yet."""
        rejoining = self._rejoining is not None and not self._rejoining.done()
        return rejoining or self._lost.is_set()

    def _takes(self, frame: rtc.VideoFrame) -> bool:
        return not self._closed and min(frame.width, frame.height) >= MIN_FRAME_SIDE

    async def _publish_camera(self, source: rtc.VideoSource) -> None:
        self._camera_track = rtc.LocalVideoTrack.create_video_track("avatar-camera", source)
        await self._publish(self._room, self._camera_track, publish_options(self._video))

    def mute_camera(self) -> None:
        """Mute the camera, instead of showing a frozen picture. The next frame unmutes it."""
        if self._camera_track is not None and not self._camera_track.muted:
            self._camera_track.mute()
            logger.debug("camera muted")

    async def aclose(self) -> None:
        """Leave the agent room. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await cancel_and_wait(self._rejoining, self._opening)
        self._stop_looking()
        since = asyncio.get_running_loop().time() - self._published_at
        await asyncio.sleep(max(0.0, _NEGOTIATION - since))
        await self._subscribing.wait(self._room)
        await leave(self._room)
        await self.microphone.aclose()
        if self._camera is not None:
            await self._camera.aclose()
