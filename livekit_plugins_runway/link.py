"""One Runway session behind the avatar participant: the session, its room and the relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from livekit import rtc

from .audio_output import AvatarAudioOutput
from .errors import AvatarJoinError
from .log import logger
from .participant import AvatarParticipant
from .realtime import RealtimeSession, SessionEnd
from .relay import Relay, RelayStats
from .runway_room import WORKER_PREFIX, DeliveryKind, DeliveryOption, Loss, RunwayRoom
from .speech import SpeechDelivery
from .tool_calls import SessionTools, ToolDesk


@dataclass(frozen=True)
class LinkOptions:
    """Times in seconds."""

    delivery: DeliveryOption = "auto"
    ready_timeout: float = 60.0
    join_timeout: float = 30.0
    """For the worker to join, and again for its first frame; about 8 s are usual."""
    stall_timeout: float = 1.5
    tools: ToolDesk | None = None
    """Where the calls of the session's tools arrive; None: nobody listens."""


class AvatarLink:
    """Opened once, closed once. `lost` resolves when the avatar that was there is no longer.

    Args:
        on_stage: called with the name of each stage of `metrics.StageTimings` as it is reached.
    """

    def __init__(
        self,
        session: RealtimeSession,
        participant: AvatarParticipant,
        output: AvatarAudioOutput,
        options: LinkOptions,
        on_stage: Callable[[str], None],
    ) -> None:
        self.session = session
        self._participant = participant
        self._output = output
        self._options = options
        self._on_stage = on_stage
        self._room: RunwayRoom | None = None
        self._tools: SessionTools | None = None
        self._relay: Relay | None = None
        self._relay_task: asyncio.Task[None] | None = None
        self._status_task: asyncio.Task[None] | None = None
        self._first_frame = asyncio.Event()
        self._began = asyncio.get_running_loop().time()
        self._consumed_at: float | None = None
        self._worker_joined_at: float | None = None
        self._live_at: float | None = None
        self.retired = False
        """Set by the one who ends it."""
        self.queued = asyncio.Event()
        """Set while Runway says that the session waits for capacity."""
        self.lost: asyncio.Future[Loss] = asyncio.get_running_loop().create_future()
        self.delivery_kind: DeliveryKind | None = None

    @property
    def relay_stats(self) -> RelayStats | None:
        return None if self._relay is None else self._relay.stats

    @property
    def last_frame(self) -> float | None:
        """Loop time in seconds of the avatar's last picture."""
        return None if self._relay is None else self._relay.last_frame

    @property
    def startup(self) -> float:
        """Seconds from the create call to an avatar that takes speech; 0 before."""
        return 0.0 if self._live_at is None else self._live_at - self._began

    @property
    def lived(self) -> float:
        """Seconds since the avatar takes speech; 0 before."""
        return self._seconds_since(self._live_at)

    @property
    def age(self) -> float:
        """Seconds since the session was consumed, from which Runway's cap counts; 0 before."""
        return self._seconds_since(self._consumed_at)

    @property
    def billed(self) -> float:
        """Seconds since the worker is there; 0 before."""
        return self._seconds_since(self._worker_joined_at)

    def _seconds_since(self, then: float | None) -> float:
        return 0.0 if then is None else asyncio.get_running_loop().time() - then

    async def open(self, *, standby: bool) -> SpeechDelivery:
        """From a created session to an avatar that has a face and takes speech.

        Args:
            standby: nothing of it is shown before `show()`; else its face is, at once.

        Raises:
            RunwayException: by kind; the session must still be ended with `close()`.
        """
        options, session = self._options, self.session
        ready = await session.wait_until_ready(options.ready_timeout, self._on_queued)
        self._on_stage("ready")
        credentials = await session.consume(ready)
        self._consumed_at = asyncio.get_running_loop().time()
        self._on_stage("consumed")
        room = self._room = RunwayRoom(
            session.id,
            on_lost=self.report_loss,
            on_playback_finished=lambda interrupted: self._output.worker_finished(
                interrupted=interrupted
            ),
        )
        await room.join(credentials)
        self._on_stage("connected")
        self._attend_to_tools(room.room)
        await room.wait_for_worker(options.join_timeout)
        session.worker_joined()
        self._worker_joined_at = asyncio.get_running_loop().time()
        self._on_stage("worker_joined")
        audio, video = await room.wait_for_media(options.join_timeout)
        self._relay = Relay(
            audio=audio,
            video=video,
            participant=self._participant,
            output=self._output,
            on_first_frame=self._on_first_frame,
            on_stall=lambda _: self.report_loss(Loss.VIDEO_STALLED),
            stall_timeout=options.stall_timeout,
        )
        if not standby:
            self._relay.activate()
        self._relay_task = asyncio.create_task(self._relay.run(), name="runway_relay")
        try:
            async with asyncio.timeout(options.join_timeout):
                await self._first_frame.wait()
        except TimeoutError:
            raise AvatarJoinError(
                session_id=session.id, missing="video", waited=options.join_timeout
            ) from None
        self.delivery_kind, delivery = await room.open_delivery(options.delivery)
        logger.info("speech is delivered to the avatar", extra={"delivery": self.delivery_kind})
        self._status_task = asyncio.create_task(self._watch_status(), name="runway_status")
        self._live_at = asyncio.get_running_loop().time()
        return delivery

    def _attend_to_tools(self, room: rtc.Room) -> None:
        desk, tools = self._options.tools, self.session.request.tools
        if desk is not None and tools:
            self._tools = desk.open(
                self.session.id, tools, room, lambda identity: identity.startswith(WORKER_PREFIX)
            )

    def show(self) -> None:
        """From now on the user sees and hears this avatar. Only after `open()`."""
        assert self._relay is not None
        self._relay.activate()

    def hide(self) -> None:
        """From now on the user sees and hears nothing of it."""
        if self._relay is not None:
            self._relay.deactivate()

    async def wait_until_shown(self, timeout: float) -> float | None:
        """The loop time of the first picture that the user saw; None if none came in time."""
        assert self._relay is not None
        try:
            async with asyncio.timeout(timeout):
                return await self._relay.wait_until_shown()
        except TimeoutError:
            return None

    def report_loss(self, loss: Loss) -> None:
        """The avatar is gone; the first reason counts."""
        if not self.lost.done():
            self.lost.set_result(loss)

    async def _watch_status(self) -> None:
        await self.session.wait_until_ended()
        self.report_loss(Loss.SESSION_ENDED)

    def _on_first_frame(self) -> None:
        self._first_frame.set()
        self._on_stage("first_frame")

    def _on_queued(self, queued: bool) -> None:
        if queued:
            self.queued.set()
        else:
            self.queued.clear()
        logger.info("the Runway session is queued" if queued else "it is no longer queued")

    async def stop_relay(self) -> None:
        """Let nothing more of the avatar reach the user. Idempotent."""
        tasks = [task for task in (self._relay_task, self._status_task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, *, budget: float) -> SessionEnd:
        """Stop relaying, end the session, see that it has ended, leave the Runway room.

        Bounded by `budget` seconds, except for leaving the room. Raises only if it is cancelled.
        """
        await self.stop_relay()
        room = self._room
        try:
            return await self.session.end(
                say_goodbye=None if room is None else room.send_end_call,
                worker_gone=None if room is None else room.worker_gone,
                budget=budget,
            )
        finally:
            if self._tools is not None:
                await self._tools.aclose()
            if room is not None:
                await room.aclose()
