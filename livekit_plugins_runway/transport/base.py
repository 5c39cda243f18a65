"""The interface of the two transports.

`bridge`: this process joins the room that Runway hosts and relays to the agent's room. `direct`:
Runway's worker joins the agent's room by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from livekit import rtc

from ..errors import LossReason, RunwayException
from ..events import Stage, TransportKind
from ..media.participant import Eviction
from ..playout.ports import AvatarListener, Microphone, SpeechDelivery
from ..runway.models import CreateRealtimeSession
from ..runway.session import RealtimeSession
from .worker_protocol import DeliveryKind, DeliveryOption


class AvatarMedia(Protocol):
    """The video and voice of one worker. On standby until `activate()`."""

    def activate(self) -> None:
        """Let the user see and hear it."""

    def deactivate(self) -> None:
        """Let the user see and hear it no more."""

    async def run(self) -> None:
        """Run until cancelled, or until the worker's tracks end. Raises if the media fail; then the
        avatar is lost.
        """

    async def wait_until_shown(self) -> float | None:
        """Wait until the user sees the first picture. Returns its loop time; None if it cannot be
        known here.
        """

    @property
    def last_frame(self) -> float | None:
        """Loop time of the last picture; None if there was none, or it cannot be known here."""


class AvatarConnection(Protocol):
    """The connection from one Runway session to the user. Opened once, closed once."""

    @property
    def room(self) -> rtc.Room:
        """The room that the worker is in. Only after `open()`."""

    def is_worker(self, identity: str) -> bool:
        """True if the participant in `room` is the session's worker."""

    @property
    def worker_gone(self) -> asyncio.Event:
        """Set when the worker was seen to leave by itself."""

    def body(self, request: CreateRealtimeSession) -> CreateRealtimeSession:
        """The body of the create call for this request.

        Raises:
            ConfigurationError: Runway would refuse it.
        """

    def reject(self) -> None:
        """The create was given up, or its response was lost. If that session's worker joins, it
        must be removed.
        """

    async def open(
        self,
        session: RealtimeSession,
        timeout: float,
        *,
        queue_timeout: float,
        on_queued: Callable[[bool], None],
        on_stage: Callable[[Stage], None],
        on_lost: Callable[[LossReason], None],
    ) -> float:
        """Bring a created session so far that its worker can be waited for.

        Args:
            timeout: seconds for Runway to have the session ready.
            queue_timeout: seconds for which it may be queued before that. With "direct" it is
                `timeout`, because the token in the create call is not valid for longer.
            on_lost: called from the event loop when the worker is lost, by each part that notices
                it (the watch over the worker, over the picture, over the speech). So perhaps
                several times; only the first counts.

        Returns:
            The loop time from which Runway's cap counts.
        """

    async def wait_for_worker(self, timeout: float) -> None:
        """Raises `AvatarJoinError` after `timeout` seconds or when the room is lost, or the error
        that ended the session.
        """

    async def may_speak_unseen(self, option: DeliveryOption, timeout: float) -> bool:
        """True if the worker may be sent speech before its first picture, by the delivery that
        `option` names. Then it returns when speech may begin. Runs beside `open_media`. Raises
        `AvatarJoinError` after `timeout` seconds, or when the worker is lost.
        """

    async def open_media(
        self, timeout: float, *, on_first_frame: Callable[[], None]
    ) -> AvatarMedia:
        """Raises `AvatarJoinError` if a track had not come after `timeout` seconds, or the worker
        is lost."""

    async def open_delivery(self, option: DeliveryOption) -> tuple[DeliveryKind, SpeechDelivery]:
        """After the first picture, or earlier if the worker may speak before it."""

    def way_out(self, reason: LossReason) -> str:
        """What the application can change so that the worker is not lost again for this reason; ""
        if nothing is known.
        """

    async def send_end_call(self) -> bool:
        """Tell the worker that the call is over. False if nothing could be sent."""

    @property
    def doubts_first_words(self) -> bool:
        """True if the worker's first sound must be held back until it is known to be the agent's
        words. Only with a relay.
        """

    async def ensure_gone(self, patience: float) -> None:
        """Remove a worker that was sent END_CALL, if it has not left by itself after `patience`
        seconds. Bounded; does not raise.
        """

    async def aclose(self) -> None:
        """Idempotent."""


class Transport(Protocol):
    """How one call gets its avatar."""

    @property
    def kind(self) -> TransportKind:
        """The transport in use."""

    @property
    def microphone(self) -> Microphone:
        """The track of the agent's own voice; the same one for the whole call."""

    @property
    def identity(self) -> str:
        """Identity of the present avatar's participant."""

    async def join(self, on_evicted: Callable[[Eviction, str], None]) -> None:
        """Get ready to speak in the agent's room. Raises `UnavailableError`.

        Args:
            on_evicted: called from the event loop when the participant that the user sees was
                removed from that room; with its former identity.
        """

    def connection(self, listener: AvatarListener) -> AvatarConnection:
        """Make the connection of one more session. Raises `UnavailableError` if the agent's room is
        lost.
        """

    def hide_face(self) -> None:
        """Mute the camera, so that no frozen picture is shown."""

    def note_repeats(self) -> None:
        """Note that an avatar was heard to say the agent's words."""

    async def go_over(self, error: RunwayException) -> RunwayException | None:
        """Change to the other transport, with the voice, if it may give an avatar after this
        failure.

        Returns:
            None if it changed, and another session can be tried at once; else the error to emit:
            the given one, or why neither transport gives an avatar.
        """

    async def aclose(self) -> None:
        """Idempotent."""
