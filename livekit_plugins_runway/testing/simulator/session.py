"""One Runway session as the simulator plays it: the state machine, its timers and the bill."""

from __future__ import annotations

import asyncio
import enum
import math
import secrets
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ...log import logger
from ..faults import ActiveFaults
from ..options import Faults, SimulatorOptions, WorkerManners
from ..worker.avatar_worker import AvatarWorker, Departure, WorkerUnreachable
from ..worker.face import Face
from ..worker.performance import Performance
from .rooms import Rooms

_TOOL_TIMEOUT = 4.0
"""Seconds for the answer to a `backend_rpc` tool (documented default)."""
NO_PARTICIPANT = "TALKING_AVATAR.NO_PARTICIPANT"
_T = TypeVar("_T")


class SessionStatus(enum.StrEnum):
    """Runway's own names."""

    NOT_READY = "NOT_READY"
    READY = "READY"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        return not _NEXT[self]


# Documented, but for READY -> CANCELLED and RUNNING -> FAILED: the former is inferred, the latter
# was measured where nobody joined.
_NEXT: dict[SessionStatus, frozenset[SessionStatus]] = {
    SessionStatus.NOT_READY: frozenset(
        {SessionStatus.READY, SessionStatus.CANCELLED, SessionStatus.FAILED}
    ),
    SessionStatus.READY: frozenset(
        {SessionStatus.RUNNING, SessionStatus.CANCELLED, SessionStatus.FAILED}
    ),
    SessionStatus.RUNNING: frozenset(
        {SessionStatus.COMPLETED, SessionStatus.CANCELLED, SessionStatus.FAILED}
    ),
    SessionStatus.COMPLETED: frozenset(),
    SessionStatus.FAILED: frozenset(),
    SessionStatus.CANCELLED: frozenset(),
}


@dataclass(frozen=True)
class _Failure:
    text: str
    code: str


_UNREACHABLE = _Failure("Failed to establish LiveKit streaming connection", "INTERNAL")


@dataclass
class SimulatedSession:
    """A session as a test sees it. Times are those of the event loop's clock, `None` until then.

    Live faults act on the avatar worker and raise `RuntimeError` where there is none:
    `crash`, `kill`, `freeze`, `thaw`, `stall_video`, `stall_audio`, `unpublish`.
    """

    options: SimulatorOptions = field(repr=False)
    active_faults: ActiveFaults = field(repr=False)
    create_body: dict[str, Any] = field(repr=False)
    """The JSON body that created it, which may hold a room token."""
    notify: Callable[[], None] = field(repr=False)
    """Called after each change; owned by the simulator."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    session_key: str = field(
        default_factory=lambda: "stk_" + secrets.token_urlsafe(203), repr=False
    )
    created_at: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    status: SessionStatus = field(default=SessionStatus.NOT_READY, init=False)
    history: list[tuple[SessionStatus, float]] = field(default_factory=list, init=False)
    """Every status with the time at which it began."""
    queued: bool = field(default=True, init=False)
    ready_at: float | None = field(default=None, init=False)
    consumed_at: float | None = field(default=None, init=False)
    user_joined_at: float | None = field(default=None, init=False)
    failure: str | None = field(default=None, init=False)
    failure_code: str | None = field(default=None, init=False)
    performance: Performance = field(init=False, repr=False)
    """What the avatar worker heard, said and reported."""

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._worker: AvatarWorker | None = None
        self._ended: asyncio.Future[None] = loop.create_future()
        self._consumed = asyncio.Event()
        self.performance = Performance(self._clock, self.notify)
        self.history.append((self.status, self._clock()))

    # What a test asks.

    @property
    def worker_joined_at(self) -> float | None:
        return self.performance.joined_at

    @property
    def worker_left_at(self) -> float | None:
        return self.performance.left_at

    @property
    def end_calls(self) -> int:
        """How many END_CALL messages the worker heard."""
        return self.performance.end_calls

    @property
    def speech_received(self) -> list[float]:
        """Seconds of speech that arrived, per segment: per byte stream, or, from a microphone
        track, per utterance between silences."""
        return [segment.received_seconds for segment in self.performance.segments]

    @property
    def billed_seconds(self) -> float:
        """Seconds of the service, so far, during which the worker was in the room."""
        if self.performance.joined_at is None:
            return 0.0
        end = self.performance.left_at
        active = (self._clock() if end is None else end) - self.performance.joined_at
        return active / self.options.time_scale

    @property
    def credits(self) -> int:
        """Charged so far: 2 when consumed, or joined from outside, and 2 for each 6 s begun."""
        if self.consumed_at is None and self.performance.joined_at is None:
            return 0
        return 2 + 2 * math.ceil(self.billed_seconds / 6)

    @property
    def faults(self) -> Faults:
        """Faults in force; assign to switch them while the session runs."""
        return self.active_faults.settings

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self.active_faults.switch(faults)

    @property
    def external_room(self) -> dict[str, str] | None:
        """Address and token of the room that the worker was asked to join, if it was."""
        body = self.create_body
        integration = body.get("integration") or body.get("livekit")
        if integration is None or integration.get("type", "livekit") != "livekit":
            return None
        return dict(integration)

    # What a test does.

    def crash(self) -> None:
        """The worker leaves at once, without a word; FAILED after `crash_settle`."""
        self._live_worker().leave(Departure.CRASHED)

    def kill(self) -> None:
        """The worker's process dies: no media, no answers, and only after
        `killed_worker_leaves_after` does the server take it out of the room."""
        self._live_worker().die_after(self.options.scaled(self.options.killed_worker_leaves_after))

    def freeze(self) -> None:
        """The worker stays connected, but sends no media and answers nothing."""
        self._live_worker().freeze()

    def thaw(self) -> None:
        """It goes on with what it had queued: stale words."""
        self._live_worker().thaw()

    def stall_video(self, stalled: bool = True) -> None:
        """No picture any more, the voice goes on; `False` ends it."""
        self._live_worker().stall(video=stalled)

    def stall_audio(self, stalled: bool = True) -> None:
        """No voice any more, the picture goes on; `False` ends it."""
        self._live_worker().stall(audio=stalled)

    async def unpublish(self) -> None:
        """The worker takes both tracks back and stays in the room."""
        await self._live_worker().unpublish()

    def hit_cap(self) -> None:
        """Its time is up now: the worker leaves, COMPLETED."""
        if self._worker is not None:
            self._worker.leave(Departure.CAP)
        elif self.status is SessionStatus.RUNNING:
            self._end(SessionStatus.COMPLETED)
        else:
            raise RuntimeError("the session is not running")

    async def call_tool(self, name: str, **args: Any) -> Any:
        """The avatar uses one of the session's tools: a client event is sent to the room; a
        backend call returns the decoded answer.

        Raises:
            ValueError: the session has no such tool.
            rtc.RpcError: nobody answers a backend call, in time or at all.
        """
        tools = {tool["name"]: tool for tool in self.create_body.get("tools", [])}
        if (tool := tools.get(name)) is None:
            raise ValueError(f"the session has no tool {name!r}")
        worker = self._live_worker()
        if tool["type"] == "client_event":
            return await worker.send_client_event(name, args)
        wait = tool.get("timeoutSeconds", _TOOL_TIMEOUT)
        return await worker.call_backend(Rooms.backend_identity(self.id), name, args, wait)

    def _live_worker(self) -> AvatarWorker:
        if self._worker is None:
            raise RuntimeError("the avatar worker is not in the room")
        return self._worker

    # What the REST side does.

    def cancel(self) -> None:
        """DELETE: CANCELLED, unless it has ended already."""
        self._end(SessionStatus.CANCELLED)

    def consume(self) -> None:
        """Its credentials were handed out."""
        self.consumed_at = self._clock()
        self._consumed.set()
        self.notify()

    # The life of it.

    def _move(self, status: SessionStatus, failure: _Failure | None = None) -> None:
        """The one place where `status` changes."""
        if status not in _NEXT[self.status]:
            raise RuntimeError(f"a session cannot go from {self.status} to {status}")
        self.status = status
        self.history.append((status, self._clock()))
        if failure is not None:
            self.failure, self.failure_code = failure.text, failure.code
        logger.debug(
            "simulated session changed its status",
            extra={"lk.pii.session_id": self.id, "status": status.value},
        )
        self.notify()

    def _end(self, status: SessionStatus, failure: _Failure | None = None) -> None:
        if self.status.is_terminal:
            return
        if status is SessionStatus.COMPLETED:
            self._start_running()
        self._move(status, failure)
        if not self._ended.done():
            self._ended.set_result(None)

    def _start_running(self) -> None:
        if self.status is SessionStatus.READY:
            self._move(SessionStatus.RUNNING)

    async def run(self, places: asyncio.Semaphore, rooms: Rooms | None, face: Face) -> None:
        """Live from NOT_READY to the end, in a place of the account.

        Returns when the worker is out of the room; cancelling it takes the worker out too."""
        if not await self._unless_ended(places.acquire()):
            return
        try:
            try:
                await self._unless_ended(self._live(rooms, face))
            finally:
                if rooms is not None and self.consumed_at is not None and self.options.close_room:
                    await rooms.delete(self.id)
            if self.ready_at is None and self.status is SessionStatus.CANCELLED:
                # Its worker goes on provisioning for nobody.
                await asyncio.sleep(self.options.scaled(self.options.cancelled_slot_hold))
        finally:
            places.release()

    async def _unless_ended(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """What `work` returns; cancels it and returns `None` once the session has ended."""
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self._ended}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        return None if task.cancelled() else task.result()

    async def _live(self, rooms: Rooms | None, face: Face) -> None:
        options = self.options
        await asyncio.sleep(options.scaled(options.queue_delay))
        self.queued = False
        await asyncio.sleep(options.scaled(options.provisioning_delay))
        if self._ended.done():  # in this very step of the event loop
            return
        if (code := self.faults.fail_while_provisioning) is not None:
            self._end(SessionStatus.FAILED, _Failure("The session could not be started", code))
            return
        self.ready_at = self._clock()
        self._move(SessionStatus.READY)
        if (external := self.external_room) is not None:
            await self._perform(
                external["url"],
                external["token"],
                external.get("agentIdentity"),
                face,
                options.invited,
            )
            return
        try:
            async with asyncio.timeout(options.scaled(options.unconsumed_ttl)):
                await self._consumed.wait()
        except TimeoutError:
            self._end_for_want_of_participants()
            return
        await self._host(rooms, face)

    async def _host(self, rooms: Rooms | None, face: Face) -> None:
        """In Runway's own room: wait for the user, then send the worker."""
        options = self.options
        running = asyncio.get_running_loop().call_later(
            options.scaled(options.consumed_running_delay), self._start_running
        )
        try:
            async with asyncio.timeout(options.scaled(options.no_participant_ttl)):
                if rooms is None:
                    await self._ended
                    return
                await rooms.wait_for_user(self.id)
        except TimeoutError:
            self._end_for_want_of_participants()
            return
        else:
            self.user_joined_at = self._clock()
            self.notify()
            await asyncio.sleep(options.scaled(options.worker_join_delay))
            await self._perform(
                rooms.url,
                rooms.worker_token(self.id, options.hosted.identity),
                rooms.user_identity(self.id),
                face,
                options.hosted,
            )
        finally:
            running.cancel()

    def _end_for_want_of_participants(self) -> None:
        failure = _Failure("No participants joined the session", NO_PARTICIPANT)
        self._end(SessionStatus.FAILED, failure)

    async def _perform(
        self, url: str, token: str, speaker: str | None, face: Face, manners: WorkerManners
    ) -> None:
        """From the worker's join to the end that its departure means."""
        if self.faults.worker_never_joins or manners.stays_away:
            await self._ended
            return
        await asyncio.sleep(manners.join_delay)
        if manners.refused:
            self._end(SessionStatus.FAILED, _UNREACHABLE)
            return
        self._worker = AvatarWorker(
            url=url,
            token=token,
            speaker=speaker,
            options=self.options,
            manners=manners,
            faults=self.active_faults,
            performance=self.performance,
            face=face,
            cap=self.options.scaled(
                min(self.create_body.get("maxDuration", 300), self.options.hidden_cap)
            ),
            on_joined=self._start_running,
        )
        try:
            departure = await self._worker.run()
        except WorkerUnreachable:
            self._end(SessionStatus.FAILED, _UNREACHABLE)
            return
        finally:
            self._worker = None
        if departure is Departure.END_CALL:
            await asyncio.sleep(self.options.scaled(self.options.end_call_settle))
        if departure in (Departure.END_CALL, Departure.CAP, Departure.USER_LEFT):
            self._end(SessionStatus.COMPLETED)
            return
        await asyncio.sleep(self.options.scaled(self.options.crash_settle))
        failure = _Failure("The avatar worker was lost", self.options.crash_failure_code)
        self._end(SessionStatus.FAILED, failure)
