"""What the two transports have in common, as the rest of the package uses them.

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
    """What is seen and heard of one worker. It stands by until `activate()`."""

    def activate(self) -> None:
        """From now on it is the user's."""

    def deactivate(self) -> None:
        """From now on it is not."""

    async def run(self) -> None:
        """Until cancelled, or until the worker's tracks end. Raises what keeps it from going on:
        the face is lost then."""

    async def wait_until_shown(self) -> float | None:
        """Until the user sees the first picture; its loop time, None if nobody here can tell."""

    @property
    def last_frame(self) -> float | None:
        """Loop time of the last picture; None if there was none, or nobody here can tell."""


class AvatarConnection(Protocol):
    """The way from one Runway session to the user. Opened once, closed once."""

    @property
    def room(self) -> rtc.Room:
        """In which the worker is. Only after `open()`."""

    def is_worker(self, identity: str) -> bool:
        """Whether the participant in `room` is the session's worker."""

    @property
    def worker_gone(self) -> asyncio.Event:
        """Set when the worker was seen to leave by itself."""

    def body(self, request: CreateRealtimeSession) -> CreateRealtimeSession:
        """The body of the create call for what was asked for.

        Raises:
            ConfigurationError: it would be refused.
        """

    def reject(self) -> None:
        """The create was given up, or its answer lost: whoever comes this way is not wanted."""

    async def open(
        self,
        session: RealtimeSession,
        timeout: float,
        *,
        on_queued: Callable[[bool], None],
        on_stage: Callable[[Stage], None],
        on_lost: Callable[[LossReason], None],
    ) -> float:
        """From a created session to a place in which its worker can be waited for.

        Args:
            timeout: seconds for Runway to have the session ready.
            on_lost: called from the event loop when a worker that was there is lost, by each who
                notices it (the watch over the worker, the picture's, the speech's): perhaps several
                times, of which the first counts.

        Returns:
            The loop time from which Runway's cap counts.
        """

    async def wait_for_worker(self, timeout: float) -> None:
        """Raises `AvatarJoinError` after `timeout` seconds or when the room is lost, or what ended
        the session."""

    async def may_speak_unseen(self, timeout: float) -> bool:
        """Whether the worker may be given speech before its first picture. If so, returns when that
        may begin, and raises `AvatarJoinError` after `timeout` seconds, or when the worker is lost.
        """

    async def open_media(
        self, timeout: float, *, on_first_frame: Callable[[], None]
    ) -> AvatarMedia:
        """Raises `AvatarJoinError` if a track had not come after `timeout` seconds, or the worker
        is lost."""

    async def open_delivery(self, option: DeliveryOption) -> tuple[DeliveryKind, SpeechDelivery]:
        """After `open_media`, or earlier where the worker may speak unseen."""

    def way_out(self, reason: LossReason) -> str:
        """What its user may change so that the worker is not lost again for this reason; "" where
        nothing is known."""

    async def send_end_call(self) -> bool:
        """Tell the worker that the call is over. False if nothing could be sent."""

    @property
    def doubts_first_words(self) -> bool:
        """What its worker says first is held back until it is known to be the agent's words. Only
        where what the user hears passes here."""

    async def ensure_gone(self, patience: float) -> None:
        """Make sure that the user sees and hears no more of a worker that was told to go, and has
        not gone by itself after `patience` seconds. Bounded; does not raise."""

    async def aclose(self) -> None:
        """Idempotent."""


class Transport(Protocol):
    """How one call gets its face."""

    @property
    def kind(self) -> TransportKind:
        """Which of the two it is now."""

    @property
    def microphone(self) -> Microphone:
        """Where the plain voice speaks: the same one for the whole call."""

    @property
    def identity(self) -> str:
        """Of the participant that has the face now."""

    async def join(self, on_evicted: Callable[[Eviction, str], None]) -> None:
        """Be ready to speak in the agent's room. Raises `UnavailableError`.

        Args:
            on_evicted: called from the event loop when the participant that the user sees was put
                out of that room, with the identity that it had.
        """

    def connection(self, listener: AvatarListener) -> AvatarConnection:
        """For one more session. Raises `UnavailableError` where the agent's room is lost."""

    def hide_face(self) -> None:
        """Rather than show a frozen one."""

    def note_repeats(self) -> None:
        """An avatar was heard to say the agent's words."""

    async def go_over(self, error: RunwayException) -> RunwayException | None:
        """Another way may give a face where this one has failed: take it, with the voice.

        Returns:
            None where another session may be tried by it, at once; else what is to be told: the
            error as it is, or why no way gives a face.
        """

    async def aclose(self) -> None:
        """Idempotent."""
