"""The agent's own voice, on a track of the agent's own participant; used with "direct"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from livekit import rtc
from livekit.rtc.participant import PublishTrackError

from .._common.tasks import first_of
from ..errors import UnavailableError
from ..log import logger
from ..playout.audio import BYTES_PER_SAMPLE, SAMPLE_RATE
from .connect import Subscribing
from .listeners import Listeners, TrackSubscription

_PUBLISH_TIMEOUT = 10.0
_SETTLE_TIMEOUT = 2.0
_SEND_TIMEOUT = 1.0
_QUEUE_MS = 50


class FallbackTrack:
    """A track of the agent's own participant, silent while the avatar speaks.

    Its source is not "microphone": front ends that look for the voice assistant's track
    (`useVoiceAssistant` of components-js) prefer the agent's microphone, and would play this
    silence instead of the avatar's voice. Front ends that play all audio of the room play this
    track.

    Args:
        room: of the agent's own participant.
        anew: True if it replaces a track that had subscribers and is lost.
    """

    def __init__(self, room: rtc.Room, *, anew: bool = False) -> None:
        self._room = room
        self._source: rtc.AudioSource | None = None
        self._track: rtc.LocalAudioTrack | None = None
        self._subscription = TrackSubscription()
        if anew:
            self._subscription.on_lost()
        self._listeners: Listeners | None = None
        """Set from `publish()` to `aclose()`."""
        self._publishing: asyncio.Task[rtc.LocalTrackPublication] | None = None
        self._subscribing = Subscribing()
        """Subscriptions of the others to this track."""
        self._closed = False
        self._room_lost = asyncio.Event()
        """The connection is lost for good."""
        self.speaking_avatars: set[str] = set()
        """Identities of the avatars that speak at present, in place of this track."""
        self._handlers: dict[rtc.room.EventTypes, Callable[..., None]] = {
            "local_track_subscribed": self._on_subscribed,
            "local_track_republished": self._on_republished,
            "participant_connected": self._subscribing.begin,
            "reconnecting": self._subscription.on_away,
            "reconnected": self._subscription.on_back,
            "connection_state_changed": self._on_connection_state_changed,
        }

    @property
    def subscribed(self) -> bool:
        """See `TrackSubscription.subscribed`. There is no event for subscriptions to the avatar's
        own track, so a subscriber of this track is assumed to hear that one, too.
        """
        return self._subscription.subscribed

    @property
    def reachable(self) -> bool:
        """See `TrackSubscription.reachable`. The avatar's voice does not pass through here, so the
        user hears it even if the agent's own connection is interrupted.
        """
        return bool(self.speaking_avatars) or self._subscription.reachable

    async def publish(self) -> None:
        """The room must be connected. Once only.

        Raises:
            UnavailableError: the server or the agent's token refuses, or there is no answer.
        """
        for event, handler in self._handlers.items():
            self._room.on(event, handler)
        self._listeners = Listeners(self._room, self._subscription.on_listeners)
        self._listeners.look()
        # Not earlier: it takes 2 ms, which would delay the request to Runway. A source with a queue
        # sends silence by itself (livekit 1.1.21), so that no receiver loses the first words.
        self._source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=_QUEUE_MS)
        self._track = rtc.LocalAudioTrack.create_audio_track("agent-voice", self._source)
        options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_UNKNOWN,
            dtx=False,  # words that begin while nothing is sent may be too loud (docs/relay.md)
        )
        self._publishing = asyncio.create_task(
            self._room.local_participant.publish_track(self._track, options),
            name="runway_publish_voice",
        )
        self._publishing.add_done_callback(self._subscribing.begin)
        try:
            # If it was interrupted, a track would be left without a reference to it.
            async with asyncio.timeout(_PUBLISH_TIMEOUT):
                await asyncio.shield(self._publishing)
        except TimeoutError as error:
            raise UnavailableError(
                "The agent's voice was not published in its own room: no answer came."
            ) from error
        except PublishTrackError as error:
            raise UnavailableError(
                "The agent's voice could not be published in its own room: its token must allow "
                "sources other than camera and microphone."
            ) from error

    async def push_audio(self, pcm: bytes) -> None:
        """Send 10 ms of int16 mono PCM at 48 kHz at once. No effect before `publish()` and after
        `aclose()`. Sound that the SDK refuses, or does not take within 1 s, is lost and logged; the
        next call may succeed.
        """
        if self._closed or self._source is None:
            return
        frame = rtc.AudioFrame(pcm, SAMPLE_RATE, 1, len(pcm) // BYTES_PER_SAMPLE)
        try:
            async with asyncio.timeout(_SEND_TIMEOUT):
                await self._source.capture_frame(frame)
        except Exception as error:  # noqa: BLE001  the SDK raises nothing narrower
            logger.debug("sound was not sent", extra={"error": type(error).__name__})

    def keep_alive(self) -> None:
        """Nothing to do: the source sends silence by itself."""

    async def aclose(self) -> None:
        """Unpublish the track. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._listeners is not None:
            self._listeners.close()
        try:
            # The SDK never answers if the room is lost meanwhile (livekit 1.1.21).
            async with asyncio.timeout(_SETTLE_TIMEOUT):
                await first_of(self._unpublish(), self._room_lost.wait())
        except TimeoutError:
            logger.debug("the agent's voice could not be unpublished in time")
        except Exception as error:  # noqa: BLE001  there is nothing more to be done about it
            logger.debug("nothing to unpublish", extra={"error": type(error).__name__})
        finally:
            for event, handler in self._handlers.items():
                self._room.off(event, handler)
            if self._source is not None:
                await self._source.aclose()

    async def _unpublish(self) -> None:
        if self._publishing is None:
            return
        publication = await self._publishing
        await self._subscribing.wait(self._room)
        if self._room.isconnected():
            await self._room.local_participant.unpublish_track(publication.sid)

    def _on_connection_state_changed(self, state: rtc.ConnectionState.ValueType) -> None:
        if state == rtc.ConnectionState.CONN_DISCONNECTED:
            self._room_lost.set()
            self._subscription.on_over()  # not restored: the job ends

    def _on_subscribed(self, track: rtc.Track) -> None:
        if self._track is not None and track.sid == self._track.sid:
            self._subscription.on_subscribed()

    def _on_republished(self, publication: rtc.LocalTrackPublication, _former: str) -> None:
        if publication.track is self._track:
            self._subscription.on_republished()
