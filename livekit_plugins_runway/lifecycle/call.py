"""Everything an avatar has from `start()` on, and the order in which it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession

from .._common.tasks import BackgroundTasks, cancel_and_wait
from ..errors import AvatarClosedError, AvatarEvictedError, RunwayException
from ..events import AvatarState, CallEvents, PlayoutForced
from ..log import logger
from ..media.listeners import Audience
from ..media.participant import Eviction
from ..playout.output import AvatarAudioOutput
from ..playout.ports import FirstSpeechHeard, OwnWordsHeard, PlayoutReport
from ..runway.client import RunwayClient
from ..runway.models import CreateRealtimeSession
from ..runway.session import abandoned
from ..transport.base import Transport
from .agent.output import OutputSlot
from .agent.presence import UserPresence
from .creating import CreateOptions, SessionMaker
from .ending import Endings
from .handover import FaceSlot
from .instance import InstanceOptions
from .recovery import Cap, RecoveryOptions, Spending
from .state import StateMachine
from .supervisor import Supervisor
from .swaps import SwapRequests
from .telemetry import Telemetry
from .timings import StageClock, StageTimings

_UNWIND_TIMEOUT = 0.3
"""Seconds that a close waits for cancelled tasks before it ends the sessions anyway. They usually
take a few turns of the event loop.
"""
_MARGIN = 1.0
"""Seconds of the close that are reserved for the steps after the sessions' ends."""
_SHORTEST_CREATE = 8.0
"""Seconds that a start waits for Runway to make the session, if the agent's first words wait for
less; 2.3 to 6.5 were measured by others on the live service.
"""
_LAST_ANSWERS = 45.0
"""Seconds to wait for responses to abandoned creates; in the background once the close is over."""


class ClosingStack:
    """Steps of closing, run in reverse order. One that raises is logged, one that takes too long
    goes on in the background; the next one runs in either case.
    """

    def __init__(self, background: BackgroundTasks) -> None:
        self._background = background
        self._steps = AsyncExitStack()
        self.deadline = float("inf")
        """Loop time in seconds after which no step is waited for. Set when the closing begins."""

    def push(self, name: str, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._steps.push_async_callback(self._run, name, step)

    async def aclose(self, deadline: float) -> None:
        self.deadline = deadline
        await self._steps.aclose()

    async def _run(self, name: str, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._background.start(step(), f"runway_close_{name}")
        left = self.deadline - asyncio.get_running_loop().time()
        await asyncio.wait({task}, timeout=max(0.0, left))
        if not task.done():
            logger.warning("a step of closing goes on in the background", extra={"step": name})


@dataclass(frozen=True)
class CallOptions:
    """The options of the `AvatarSession` that concern a call. Times in seconds."""

    request: CreateRealtimeSession
    instance: InstanceOptions
    recovery: RecoveryOptions
    create: CreateOptions
    wait_for_avatar: float
    allow_pause: bool
    by_clock: bool
    audience: Audience = None
    """Identities of the users for whom a session is paid; None: every user in the room."""


class AvatarCall:
    """A call from `start()` to its end; closed by the given `ClosingStack`.

    Args:
        client: closed here.
        on_over: called when the call ends by itself, as the options say; must close it.
    """

    def __init__(
        self,
        options: CallOptions,
        *,
        client: RunwayClient,
        transport: Transport,
        room: rtc.Room,
        events: CallEvents,
        states: StateMachine,
        timings: StageTimings,
        telemetry: Telemetry,
        background: BackgroundTasks,
        closing: ClosingStack,
        on_over: Callable[[], None],
    ) -> None:
        self._client = client
        self._events = events
        self._states = states
        self._timings = timings
        self._telemetry = telemetry
        self._closing = closing
        self._on_over = on_over
        self._room = room
        self._background = background
        self.transport = transport
        self._stages = StageClock(timings, events)
        self.output = AvatarAudioOutput(
            transport.microphone,
            report=self._on_playout_report,
            wait_for_avatar=options.wait_for_avatar,
            stall_timeout=options.instance.stall_timeout,
            can_pause=options.allow_pause,
            by_clock=options.by_clock,
        )
        self._patience = max(options.wait_for_avatar, _SHORTEST_CREATE)
        """Seconds that `open()` waits for the first session."""
        self._presence = UserPresence(room, options.audience)
        cap = Cap(options.recovery)
        spending = Spending(options.recovery, options.request.max_duration)
        self._endings = Endings(events, background, cap.ended_by_itself)
        maker = SessionMaker(
            client,
            transport,
            self.output,
            self._endings,
            spending,
            options.instance,
            options.create,
            self._stages.reach,
            background,
        )
        self._faces = FaceSlot(transport, self.output, self._endings, events, states)
        self._swaps = SwapRequests()
        self.supervisor = Supervisor(
            options.request,
            options.recovery,
            cap,
            spending,
            endings=self._endings,
            maker=maker,
            faces=self._faces,
            swaps=self._swaps,
            presence=self._presence,
            events=events,
            states=states,
            on_stage=self._stages.reach,
            go_over=transport.go_over,
        )
        self._opening: asyncio.Task[None] | None = None
        """The task of `_open()`; it runs once."""
        self._run_task: asyncio.Task[None] | None = None
        """The task of the supervisor's `run()`, once the first session is created, or the transport
        has joined without one.
        """
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Set once the sessions are being ended; from then on cancelled tasks are not waited for.
        """
        # Closed in reverse order: END_CALL and DELETE are sent before any room is left, and are
        # waited for after that.
        closing.push("client", self._close_client)
        closing.push("sessions", self._endings.ended)
        closing.push("transport", self._leave)
        closing.push("output", self.output.aclose)
        closing.push("presence", self._close_presence)

    def __repr__(self) -> str:
        return f"AvatarCall({self.supervisor!r}, {self._endings!r})"

    @property
    def endings(self) -> Endings:
        return self._endings

    @property
    def running(self) -> bool:
        """True once it was started, until it is closed."""
        return self._run_task is not None and not self._run_task.done()

    # -- start ----------------------------------------------------------------------------------

    async def open(self, agent_session: AgentSession[Any]) -> None:
        """Take the agent's speech, make the first session, and be ready to speak in the room.

        Raises:
            AvatarClosedError: it was closed meanwhile.
            RunwayException: as `AvatarSession.start()`.
        """
        slot = OutputSlot(agent_session, self._room, self._background)
        self._closing.push("slot", partial(self._restore, slot))
        self._closing.push("stop", self._stop)
        slot.install(self.output)
        self._opening = opening = asyncio.create_task(self._open(), name="runway_start")
        await asyncio.wait({opening, self._closed}, return_when=asyncio.FIRST_COMPLETED)
        if self._states.state is AvatarState.CLOSED:
            raise AvatarClosedError
        opening.result()
        slot.keep()

    async def _open(self) -> None:
        if self.supervisor.waits_for_a_user:
            await self.transport.join(self._on_evicted)
            await self._run()
        else:
            await self._create_and_join()

    async def _run(self) -> None:
        if self._states.state is AvatarState.CLOSED:
            # The awaited task has swallowed the cancellation.
            await self.supervisor.discard()
            return
        self._run_task = asyncio.create_task(self.supervisor.run(), name="runway_avatar")
        self._run_task.add_done_callback(self._on_run_done)

    async def _create_and_join(self) -> None:
        """Both concurrently, but the request is sent first, because the avatar's start depends on
        it. Once the session is created, Runway is asked for its status, whether the join has ended
        or not.
        """
        sent = asyncio.Event()

        async def join() -> None:
            await sent.wait()
            await self.transport.join(self._on_evicted)

        joining = asyncio.create_task(join(), name="runway_join")
        try:
            if not await self._create(sent.set):
                sent.set()  # it may not have been sent yet
                logger.warning("Runway has made no session yet: the agent begins by voice")
                self.output.detach_avatar()
            await self._run()
            await joining
        finally:
            await cancel_and_wait(joining)

    async def _create(self, on_sent: Callable[[], None]) -> bool:
        """Make the first session; by the other transport if Runway refuses this one. False if the
        supervisor goes on with it.
        """
        try:
            return await self.supervisor.create(on_sent, self._patience)
        except RunwayException as error:
            on_sent()  # the other transport waits for the join
            if (left := await self.transport.go_over(error)) is not None:
                raise left from None
            return await self.supervisor.create(on_sent, self._patience)

    def _on_run_done(self, task: asyncio.Task[None]) -> None:
        """A bug here must not take the agent's voice away."""
        if task.cancelled():
            return
        if (error := task.exception()) is None:
            self._on_over()
            return
        logger.error(
            "an internal error ended the avatar; the agent goes on by voice", exc_info=error
        )
        self.output.detach_avatar()
        self._states.move_to(AvatarState.VOICE_ONLY, "internal error")

    def _on_evicted(self, eviction: Eviction, identity: str) -> None:
        match eviction:
            case Eviction.REPLACED:  # and it joins again
                self._events.error(AvatarEvictedError(reason="replaced", identity=identity))
            case Eviction.REMOVED:
                error = AvatarEvictedError(reason="removed", identity=identity)
                self.supervisor.remove_face(error)
            case Eviction.ROOM_OVER:
                self._on_over()

    async def swap(self, request: CreateRealtimeSession) -> None:
        """As `SwapRequests.ask()`."""
        await self._swaps.ask(request)

    # -- close ----------------------------------------------------------------------------------

    async def _stop(self) -> None:
        """Cancel what is under way, and begin to end every session."""
        self._swaps.close()
        running = [task for task in (self._opening, self._run_task) if task is not None]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=_UNWIND_TIMEOUT)
        self._endings.close(self._closing.deadline - _MARGIN)
        self._closed.set_result(None)

    async def _restore(self, slot: OutputSlot) -> None:
        slot.restore(self.output)

    async def _close_presence(self) -> None:
        self._presence.close()

    async def _leave(self) -> None:
        self._background.start(self.transport.aclose(), "runway_leave_agent_room")

    async def _close_client(self) -> None:
        """After the last session's end. Accounts for the sessions of abandoned creates as well."""
        try:
            for session_id in await self._client.aclose(_LAST_ANSWERS):
                self._endings.account_for(abandoned(session_id))
        finally:
            self._telemetry.end(self._endings.usage)

    # -- reports of the sink --------------------------------------------------------------------

    def _on_playout_report(self, report: PlayoutReport) -> None:
        match report:
            case FirstSpeechHeard():
                if self._timings.first_speech is None:
                    self._stages.reach("first_speech")
            case OwnWordsHeard():
                self.transport.note_repeats()
            case PlayoutForced():
                self._events.playout_forced(report)
