"""One Runway session as the avatar: the session, its connection to the user, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from .._common.tasks import BackgroundTasks, cancel_and_wait, first_of, watched
from ..errors import AvatarJoinError, AvatarLostError, LossReason
from ..events import SessionEnd, Stage
from ..log import logger
from ..playout.ports import SpeechDelivery
from ..runway.session import RealtimeSession
from ..transport.base import AvatarConnection, AvatarMedia
from ..transport.worker_protocol import PATIENCE, DeliveryKind, DeliveryOption
from .tools import SessionTools, ToolDispatcher

SHORTEST_QUEUE_TIMEOUT = 5.0
"""Seconds. `queued` is normal for about one at each start."""
_GOODBYE_TIMEOUT = 0.5
"""Seconds for END_CALL to be sent; then the session is ended without it."""
_LEAVING = 0.25
"""Seconds to wait for a worker to leave after its tracks have gone: if it leaves, that is the
reason.
"""


@dataclass(frozen=True)
class InstanceOptions:
    """Times in seconds."""

    delivery: DeliveryOption = "auto"
    ready_timeout: float = 60.0
    """Seconds for a session to become READY, after it has left Runway's queue."""
    queue_timeout: float = 600.0
    """Seconds for which it may be queued."""
    join_timeout: float = 30.0
    """Seconds for the worker to join, and again for its first frame; about 8 s are usual."""
    stall_timeout: float = 1.5
    tools: ToolDispatcher | None = None
    """Handles the session's tool calls; None: they are ignored."""


@dataclass(frozen=True)
class _Face:
    """The worker's video and voice, once its tracks are there."""

    media: AvatarMedia
    running: asyncio.Task[None]
    """The task of `AvatarInstance._run_media()`; ends when the instance is lost or closed."""


class AvatarInstance:
    """Opened once, closed once. `lost` resolves when the avatar is lost.

    Args:
        on_stage: called with each stage as it is reached.
        background: owns the task that leaves the room after the session has ended; None: an own
            one.
    """

    def __init__(
        self,
        session: RealtimeSession,
        connection: AvatarConnection,
        options: InstanceOptions,
        on_stage: Callable[[Stage], None],
        background: BackgroundTasks | None = None,
    ) -> None:
        # Used by the event loop's thread only. Times are loop times in seconds, set by
        # `open()`, in this order: `_began`, `_capped_from`, `_worker_joined_at`, `_live_at`.
        self.session = session
        """The Runway session, from before its creation to its end."""
        self.connection = connection
        """Opened by `open()`; left after `close()`, even if `open()` has not finished."""
        self._options = options
        self._on_stage = on_stage
        self._background = background or BackgroundTasks()
        self._tools: SessionTools | None = None
        """Set when the connection is open, if the session has tools."""
        self._face: _Face | None = None
        """Set when the worker's tracks are there. Stopped by `close()`, and kept for `last_frame`.
        """
        self._status_task: asyncio.Task[None] | None = None
        """Asks Runway whether the session has ended, once the avatar is there."""
        self._first_frame = asyncio.Event()
        """Set by the media with the worker's first picture."""
        self._began = asyncio.get_running_loop().time()
        """Set again when it leaves Runway's queue."""
        self._capped_from: float | None = None
        """Runway's cap counts from this time."""
        self._worker_joined_at: float | None = None
        """It is billed from this time."""
        self._live_at: float | None = None
        """It has video and takes speech from this time."""
        self.retired = False
        """Set by `Endings` when it begins to end the session, which happens once."""
        self.queued = asyncio.Event()
        """Set while Runway says that the session waits for capacity."""
        self.lost: asyncio.Future[LossReason] = asyncio.get_running_loop().create_future()
        """Set once, by `report_loss()`. Waiting code must not cancel it."""
        self.delivery_kind: DeliveryKind | None = None
        """Set when `open()` has found out how the worker takes speech."""
        self._delivery: SpeechDelivery | None = None
        """Set with `delivery_kind`."""

    @property
    def _media(self) -> AvatarMedia:
        if self._face is None:
            raise RuntimeError("open() has not reached the worker's tracks yet")
        return self._face.media

    @property
    def delivery(self) -> SpeechDelivery:
        """The delivery of speech to it. Only once `open()` has chosen one."""
        if self._delivery is None:
            raise RuntimeError("open() has not chosen a delivery yet")
        return self._delivery

    @property
    def last_frame(self) -> float | None:
        """Loop time in seconds of the avatar's last picture; None if not known."""
        return None if self._face is None else self._face.media.last_frame

    @property
    def startup(self) -> float:
        """Seconds from the create call, or from when it left Runway's queue, until the avatar took
        speech; 0 before.
        """
        return 0.0 if self._live_at is None else self._live_at - self._began

    @property
    def lived(self) -> float:
        """Seconds since the avatar first took speech; 0 before."""
        return self._seconds_since(self._live_at)

    @property
    def age(self) -> float:
        """Seconds for which Runway's cap has counted; 0 before."""
        return self._seconds_since(self._capped_from)

    @property
    def billed(self) -> float:
        """Seconds since the worker joined; 0 before."""
        return self._seconds_since(self._worker_joined_at)

    def _seconds_since(self, then: float | None) -> float:
        return 0.0 if then is None else asyncio.get_running_loop().time() - then

    async def open(self, *, standby: bool, on_ready: Callable[[bool], None] | None = None) -> None:
        """Bring a created session to an avatar that has video and takes speech.

        Args:
            standby: nothing of it is shown before `show()`; otherwise its video is shown at once.
            on_ready: called as soon as it may be sent speech, with True if its video was seen.

        Raises:
            AvatarLostError: it was lost before its first picture.
            RunwayException: by kind; the session must still be ended with `close()`.
        """
        options, session, connection = self._options, self.session, self.connection
        self._capped_from = await connection.open(
            session,
            options.ready_timeout,
            queue_timeout=options.queue_timeout,
            on_queued=self._on_queued,
            on_stage=self._on_stage,
            on_lost=self.report_loss,
        )
        self._open_tools()
        await connection.wait_for_worker(options.join_timeout)
        session.worker_joined()
        self._worker_joined_at = asyncio.get_running_loop().time()
        self._on_stage("worker_joined")
        speaking = asyncio.create_task(self._speak_unseen(on_ready), name="runway_speak_unseen")
        try:
            await self._open_media(standby=standby)
            if not await speaking:
                await self._open_delivery(on_ready)
        finally:
            await cancel_and_wait(speaking)
        self._status_task = watched(asyncio.create_task(self._watch_status(), name="runway_status"))
        self._live_at = asyncio.get_running_loop().time()

    async def _speak_unseen(self, on_ready: Callable[[bool], None] | None) -> bool:
        """Open the delivery before the first picture, if the worker may be sent speech then; False
        if it may not.
        """
        options = self._options
        if not await self.connection.may_speak_unseen(options.delivery, options.join_timeout):
            return False
        await self._open_delivery(on_ready)
        return True

    async def _open_media(self, *, standby: bool) -> None:
        """Open the worker's video and voice. Returns with the first picture."""
        media = await self.connection.open_media(
            self._options.join_timeout, on_first_frame=self._on_first_frame
        )
        self._face = _Face(media, asyncio.create_task(self._run_media(media), name="runway_media"))
        if not standby:
            media.activate()
        await self._wait_for_first_frame()

    async def _run_media(self, media: AvatarMedia) -> None:
        """Run the media until the avatar is lost. Then stop at once, because the stream of a track
        that has gone may be given the sound of another one (livekit 1.1.21). A failure of the media
        is a loss as well.
        """
        try:
            await first_of(media.run(), self.lost)
        except Exception as error:  # noqa: BLE001  whatever the error is, the avatar is lost
            logger.error("the avatar's picture and voice have failed", exc_info=error)
            self.report_loss(LossReason.MEDIA_FAILED)

    async def _open_delivery(self, on_ready: Callable[[bool], None] | None) -> None:
        option = self._options.delivery
        self.delivery_kind, self._delivery = await self.connection.open_delivery(option)
        logger.info("speech is delivered to the avatar", extra={"delivery": self.delivery_kind})
        if on_ready is not None:
            on_ready(self._first_frame.is_set())

    async def _wait_for_first_frame(self) -> None:
        timeout = self._options.join_timeout
        await first_of(self._first_frame.wait(), self.lost, timeout=timeout)
        if self._first_frame.is_set():
            return
        if self.lost.done():
            raise self.loss()
        raise AvatarJoinError(session_id=self.session.id, missing="video", waited=timeout)

    def loss(self) -> AvatarLostError:
        """The error with the reason of the loss."""
        reason = self.lost.result() if self.lost.done() else LossReason.WORKER_LEFT
        return AvatarLostError(reason=reason.value, way_out=self.connection.way_out(reason))

    def _open_tools(self) -> None:
        dispatcher, tools = self._options.tools, self.session.request.tools
        if dispatcher is not None and tools:
            connection = self.connection
            self._tools = dispatcher.open(
                self.session.id, tools, connection.room, connection.is_worker
            )

    def show(self) -> None:
        """Let the user see and hear this avatar from now on. Only after `open()`."""
        self._media.activate()

    def hide(self) -> None:
        """Let the user see and hear nothing of it from now on; with "direct" as far as the worker
        obeys.
        """
        if self._face is not None:
            self._face.media.deactivate()

    async def wait_until_shown(self, timeout: float) -> float | None:
        """The loop time of the first picture that the user saw; None if none came in time, or it
        cannot be known here.
        """
        media = self._media
        try:
            async with asyncio.timeout(timeout):
                return await media.wait_until_shown()
        except TimeoutError:
            return None

    @property
    def doubts_first_words(self) -> bool:
        """See `AvatarConnection.doubts_first_words`."""
        return self.connection.doubts_first_words

    def report_loss(self, loss: LossReason) -> None:
        """The avatar is lost; only the first reason counts."""
        if not self.lost.done():
            self.lost.set_result(loss)

    async def _watch_status(self) -> None:
        await self.session.wait_until_ended()
        self.report_loss(LossReason.SESSION_ENDED)

    async def is_stuck_in_queue(self, patience: float) -> bool:
        """Wait until it is queued, and `patience` seconds more. True if it still is then."""
        await self.queued.wait()
        await asyncio.sleep(patience)
        return self.queued.is_set()

    def _on_first_frame(self) -> None:
        self._first_frame.set()
        self._on_stage("first_frame")

    def _on_queued(self, queued: bool) -> None:
        if queued:
            self.queued.set()
        else:
            self.queued.clear()
            self._began = asyncio.get_running_loop().time()
        logger.info(
            "the Runway session is queued" if queued else "the Runway session left the queue"
        )

    async def _stop(self) -> None:
        """Stop relaying the avatar. Idempotent."""
        running = None if self._face is None else self._face.running
        await cancel_and_wait(running, self._status_task)

    async def close(self, *, budget: float) -> SessionEnd:
        """End the session and confirm the end, in at most about `budget` seconds. Nothing more of
        it is shown from now on. The media are stopped and the room is left in the background, so
        that neither delays the end. Raises only if it is cancelled.
        """
        patience = 0.0 if self.lost.done() else PATIENCE
        stopping = self._background.start(self._stop(), "runway_stop_instance")
        going = self._background.start(self.connection.ensure_gone(patience), "runway_ensure_gone")
        try:
            return await self.session.end(
                say_goodbye=self._say_goodbye,
                worker_gone=self.connection.worker_gone,
                budget=budget,
            )
        finally:
            self._background.start(self._leave(stopping, going), "runway_leave_instance")

    async def _say_goodbye(self) -> bool:
        """Send END_CALL. False if it could not be sent, for example because the room does not
        answer, or if the worker had left by itself. So a session that ended by itself is not
        counted as ended by END_CALL.
        """
        try:
            async with asyncio.timeout(_GOODBYE_TIMEOUT):
                if await self._is_leaving():
                    return False
                return await self.connection.send_end_call()
        except Exception as error:  # noqa: BLE001  DELETE follows in any case
            logger.warning("END_CALL was not sent", extra={"error": type(error).__name__})
            return False

    async def _is_leaving(self) -> bool:
        """True if the worker leaves by itself. The tracks of a leaving worker go first."""
        if not self.lost.done() or self.lost.result() is not LossReason.TRACKS_UNPUBLISHED:
            return False
        gone = self.connection.worker_gone
        await first_of(gone.wait(), timeout=_LEAVING)
        return gone.is_set()

    async def _leave(self, *before: asyncio.Task[None]) -> None:
        """Leave the worker's room, once nothing of the session is relayed any more."""
        await asyncio.wait(before)
        try:
            if self._tools is not None:
                await self._tools.aclose()
        finally:
            await self.connection.aclose()
