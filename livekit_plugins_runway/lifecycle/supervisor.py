"""Which Runway session is the face now, and which one comes next: loss, renewal, swap, pause.

Everything here happens behind one avatar participant: its tracks stay, whoever feeds them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .._common.tasks import cancel_and_wait, first_of
from ..errors import AvatarLostError, LossReason, LostAnswerError, RunwayException
from ..events import AvatarReplaced, AvatarState, CallUsage, Cause, Restarting, SessionEnd
from ..log import logger
from ..playout.output import AvatarAudioOutput
from ..runway.billing import corrected, with_session
from ..runway.client import RunwayClient
from ..runway.models import CreateRealtimeSession
from ..runway.session import END_BUDGET, RealtimeSession
from ..transport.base import Transport
from .instance import AvatarInstance, InstanceOptions
from .presence import UserPresence
from .recovery import Cap, RecoveryOptions, Restarts, is_final

SWAP_PATIENCE = 15.0
"""Seconds for which a swap waits for the end of what is being said."""
_QUEUE_PATIENCE = 3.0
"""Seconds; `queued` is normal for about one (measured by others on the live service)."""
_RENEW_AGAIN = 5.0
_SETTLE_TIMEOUT = 30.0
_SHOWN_TIMEOUT = 2.0
_SCRIPT_PACE = 8.0
"""Characters a second: slow speech."""
_SCRIPT_MARGIN = 5.0
"""Seconds that the agent waits for the start script beside its own length."""


@dataclass(frozen=True)
class SupervisorContext:
    """What the supervisor acts on; owned by the `AvatarSession`."""

    client: RunwayClient
    transport: Transport
    output: AvatarAudioOutput
    presence: UserPresence
    instance_options: InstanceOptions
    recovery: RecoveryOptions
    create_retries: int
    move_to: Callable[[AvatarState, str], None]
    emit: Callable[..., Any]
    """Emits an event: its name and its payload."""
    on_stage: Callable[[str], None]


@dataclass(frozen=True)
class _Swap:
    request: CreateRealtimeSession
    done: asyncio.Future[None]


class Supervisor:
    """Owns every Runway session of a call, from `create()` to `aclose()`."""

    def __init__(self, request: CreateRealtimeSession, context: SupervisorContext) -> None:
        # All of it is of the event loop's thread. A session that was created is `_instance` or
        # `_next`, or `old` in `_replace()` for the moment of a change-over, until `_retire()` makes
        # an ending of it.
        self._request = request
        """What sessions are made of from now on. Changed by a swap that succeeds, and when the
        first face is there, which has said the start script."""
        self._context = context
        self._cap = Cap(context.recovery, request.max_duration)
        """Learns from each session that ends by itself."""
        self._instance: AvatarInstance | None = None
        """The session that is, or is about to be, the face. None while the voice is alone: between
        two sessions, in a pause, and for good once it was given up."""
        self._next: AvatarInstance | None = None
        """The one that is made beside it in a renewal or a swap, until it takes over."""
        self._seen = False
        """A face was there before: the next one takes over by a hand-over."""
        self._last_frame: float | None = None
        """Loop time of the last picture of the face that is gone, until the freeze was told."""
        self._one_at_a_time = False
        """The account was seen to have no place for a second session. Never reset."""
        self._wanted: _Swap | None = None
        """The swap that was asked for and not taken up yet."""
        self._want = asyncio.Event()
        """Set while there is a `_wanted`."""
        self._endings: set[asyncio.Task[None]] = set()
        """Sessions that are being ended. `aclose()` waits for them."""
        self._settling: set[asyncio.Task[None]] = set()
        """They ask what ended sessions have cost. `aclose()` cancels them."""
        self._end_budget: float | None = None
        """Seconds that an ending may take, from `aclose()` on; None before: `END_BUDGET`."""
        self.usage = CallUsage()
        """Of the sessions that have ended. Replaced as a whole, so whoever has read it keeps what
        was read."""

    @property
    def instance(self) -> AvatarInstance | None:
        """The session that is, or is about to be, the face; None while there is none."""
        return self._instance

    async def create(self, on_sent: Callable[[], None]) -> None:
        """Make the first session, so that a refusal reaches the caller. Raises as Runway does.

        Args:
            on_sent: called when the request leaves, in each attempt.
        """
        self._instance = await self._make(self._request, on_sent)

    async def run(self) -> None:
        """Keep a face behind the participant; returns if the options say that this is to end."""
        recovery, presence = self._context.recovery, self._context.presence
        cause: Cause = "restart"
        while True:
            may_leave = recovery.on_user_left != "keep"
            faces = self._keep_a_face(cause)
            leaving = presence.wait_until_left(recovery.user_left_grace) if may_leave else None
            if await first_of(faces, leaving) == 0:
                return
            logger.info("the user has left", extra={"then": recovery.on_user_left})
            if recovery.on_user_left == "close":
                return
            self._context.output.detach_avatar()
            self._context.transport.hide_face()
            self._context.move_to(AvatarState.PAUSED, "the user has left")
            await presence.wait_until_back()
            self._context.move_to(AvatarState.STARTING, "a user is back")
            cause = "resume"

    async def swap(self, request: CreateRealtimeSession) -> None:
        """Another avatar. Returns when the user sees it; raises as Runway does, and then nothing
        has changed. One at a time."""
        swap = _Swap(request, asyncio.get_running_loop().create_future())
        self._wanted = swap
        self._want.set()
        try:
            await swap.done
        finally:
            if self._wanted is swap:
                self._wanted = None
                self._want.clear()

    async def aclose(self, budget: float) -> None:
        """End every session that is not ended yet, in at most about `budget` seconds. `run()` must
        have been cancelled. Idempotent."""
        self._end_budget = budget
        if self._wanted is not None:
            self._turn_down(self._wanted)
        self._retire(self._next)
        self._retire(self._instance)
        self._next = self._instance = None
        await asyncio.gather(*self._endings)
        await cancel_and_wait(*self._settling)

    def account_for(self, end: SessionEnd) -> None:
        """Count a session that has ended, and tell of it."""
        self.usage = with_session(self.usage, end)
        self._context.emit("session_ended", end)
        self._context.emit("usage_updated", self.usage)

    # -- one face after the other ---------------------------------------------------------------

    async def _keep_a_face(self, cause: Cause) -> None:
        context = self._context
        restarts = Restarts(context.recovery)
        try:
            while True:
                error, lived = await self._one_face(cause)
                context.emit("error", error)
                delay = None if is_final(error) else restarts.next_delay(lived)
                if context.recovery.on_loss != "restart" or delay is None:
                    if not await self._left_at_voice(error):
                        return
                    cause, restarts = "swap", Restarts(context.recovery)
                    continue
                cause = "restart"
                context.emit("restarting", Restarting(restarts.in_a_row, delay, error))
                logger.info("another session follows", extra={"delay": round(delay, 2)})
                await asyncio.sleep(delay)
        finally:
            self._retire(self._next)
            self._retire(self._instance)
            self._next = self._instance = None

    async def _left_at_voice(self, error: RunwayException) -> bool:
        """No more sessions by itself. True once a swap asks for one."""
        self._context.emit("gave_up", error)
        if self._context.recovery.on_loss == "close":
            return False
        logger.warning("the agent goes on by voice for the rest of the call")
        await self._want.wait()
        return True

    async def _one_face(self, cause: Cause) -> tuple[RunwayException, float]:
        """Bring a face and keep it; returns why it is gone or did not come, and for how many
        seconds it was there."""
        swap = self._take_swap()
        request = self._request if swap is None else swap.request
        try:
            with self._answering(swap):
                if self._instance is None:
                    self._instance = await self._make(request)
                instance = self._instance
                if self._seen:
                    await instance.open(standby=True)
                    await self._hand_over(instance, force_in=None)
                    await self._replaced(cause, instance, overlap=0.0, by_voice=True)
                else:
                    attach = partial(self._attach_first, instance)
                    await instance.open(standby=False, on_ready=attach)
                    self._context.output.avatar_seen()
                    self._seen = True
                    # Said once in a call, not by each of its sessions.
                    self._request = self._request.model_copy(update={"start_script": None})
        except RunwayException as error:
            self._to_voice(self._instance, error, "the avatar did not come")
            return error, 0.0
        self._context.on_stage("live")
        self._context.move_to(AvatarState.LIVE, "the avatar is there")
        return await self._hold()

    def _attach_first(self, instance: AvatarInstance, seen: bool) -> None:
        self._context.output.attach_avatar(instance, seen=seen)
        if script := self._request.start_script:
            self._context.output.let_speak(_SCRIPT_MARGIN + len(script) / _SCRIPT_PACE)

    async def _hold(self) -> tuple[RunwayException, float]:
        """Until the face is lost; renewed and swapped meanwhile."""
        not_before = 0.0
        while (instance := self._instance) is not None:
            renew_at = self._cap.renew_at(instance.startup)
            due = float("inf") if renew_at is None else max(renew_at, not_before)
            await self._something_happens(instance, due - instance.age)
            if instance.lost.done():
                error = AvatarLostError(reason=instance.lost.result().value)
                lived = instance.lived
                self._to_voice(instance, error, "the avatar was lost")
                return error, lived
            swap = self._take_swap()
            if swap is None and instance.age < due:
                continue
            force_at = SWAP_PATIENCE + instance.age if swap else None
            if renew_at is not None:
                forced = self._cap.force_at()
                force_at = forced if force_at is None else min(force_at, forced)
            try:
                with self._answering(swap):
                    await self._replace(instance, swap, force_at)
            except RunwayException as error:
                if self._instance is None:
                    self._context.move_to(AvatarState.VOICE_ONLY, str(error))
                    return error, instance.lived
                if not self._is_seated(instance):
                    lived = instance.lived
                    self._to_voice(instance, error, "the next avatar was lost as it took over")
                    return error, lived
                self._context.move_to(AvatarState.LIVE, "the former avatar stays")
                if swap is None:
                    self._context.emit("error", error)
                    not_before = float("inf") if is_final(error) else instance.age + _RENEW_AGAIN
            else:
                not_before = 0.0
                self._context.move_to(AvatarState.LIVE, "the next session is the face")
        raise AssertionError("a replacement that succeeds leaves an instance")

    def _is_seated(self, instance: AvatarInstance) -> bool:
        """The sink gives it the agent's words."""
        return self._context.output.avatar is instance

    async def _something_happens(self, instance: AvatarInstance, timeout: float) -> None:
        finite = None if timeout == float("inf") else max(0.0, timeout)
        await first_of(instance.lost, self._want.wait(), timeout=finite)

    def _take_swap(self) -> _Swap | None:
        swap, self._wanted = self._wanted, None
        self._want.clear()
        return None if swap is None or swap.done.done() else swap

    @contextlib.contextmanager
    def _answering(self, swap: _Swap | None) -> Iterator[None]:
        """Tells who asked for the swap what has become of it; only a swap that succeeds changes
        what the sessions after it are made of."""
        try:
            yield
        except RunwayException as error:
            if swap is not None and not swap.done.done():
                swap.done.set_exception(error)
            raise
        else:
            if swap is not None:
                self._request = swap.request
                if not swap.done.done():
                    swap.done.set_result(None)
        finally:
            if swap is not None:
                self._turn_down(swap)

    def _turn_down(self, swap: _Swap) -> None:
        """No effect on one that was answered."""
        if not swap.done.done():
            swap.done.set_exception(RunwayException("The call ended before the swap."))

    # -- from one to the next -------------------------------------------------------------------

    async def _replace(
        self, old: AvatarInstance, swap: _Swap | None, force_at: float | None
    ) -> None:
        """Make the next session while the old one speaks, and change over in a gap of the speech.

        Raises what keeps the next one from coming. Then the old one is still the face, unless it
        was lost meanwhile (`_instance` is None).
        """
        cause: Cause = "renewal" if swap is None else "swap"
        self._context.move_to(AvatarState.RENEWING, cause)
        watching = asyncio.create_task(self._to_voice_when_lost(old), name="runway_old_face")
        opening: asyncio.Task[None] | None = None
        try:
            new = self._next = await self._make(self._request if swap is None else swap.request)
            opening = asyncio.create_task(new.open(standby=True), name="runway_next_face")
            if await self._is_stuck_in_queue(new, opening) and self._instance is old:
                self._one_at_a_time = True
                await self._make_room(old, force_at)
            await opening
            alone = self._instance is None
            force_in = None if force_at is None else max(0.0, force_at - old.age)
            await self._hand_over(new, force_in=force_in)
            overlap = 0.0 if alone else new.billed
            self._retire(old)
            await self._replaced(cause, new, overlap=overlap, by_voice=alone)
        finally:
            await cancel_and_wait(watching, opening)
            self._retire(self._next)
            self._next = None

    async def _is_stuck_in_queue(self, new: AvatarInstance, opening: asyncio.Task[None]) -> bool:
        """Whether the account has no place for a second session beside the first."""
        await first_of(new.queued.wait(), opening)
        if not opening.done():
            await asyncio.wait({opening}, timeout=0.0 if self._one_at_a_time else _QUEUE_PATIENCE)
        return not opening.done() and new.queued.is_set()

    async def _make_room(self, old: AvatarInstance, force_at: float | None) -> None:
        """End the old session first, in a gap of the speech; the voice speaks until the next one
        is there."""
        logger.info("the account allows one session at a time: the old one is ended first")
        force_in = None if force_at is None else max(0.0, force_at - old.age)
        await self._until_changed(None, force_in)
        if self._instance is old:
            self._last_frame = old.last_frame
            self._instance = None
            self._context.transport.hide_face()
            self._retire(old)

    async def _hand_over(self, new: AvatarInstance, *, force_in: float | None) -> None:
        """Raises `AvatarLostError` if the new one is lost while it waits."""
        await self._until_changed(new, force_in)
        if not self._is_seated(new):
            reason = new.lost.result() if new.lost.done() else LossReason.WORKER_LEFT
            raise AvatarLostError(reason=reason.value)
        if self._instance is not None and self._instance is not new:
            self._last_frame = self._instance.last_frame
        self._instance = new
        if self._next is new:
            self._next = None

    async def _until_changed(self, new: AvatarInstance | None, force_in: float | None) -> None:
        """Until the sink has changed over to `new`, or that one is lost."""
        loop, output = asyncio.get_running_loop(), self._context.output
        forcing = None if force_in is None else loop.call_later(force_in, output.force_hand_over)
        try:
            await first_of(output.hand_over(new), None if new is None else new.lost)
        finally:
            if forcing is not None:
                forcing.cancel()

    async def _to_voice_when_lost(self, instance: AvatarInstance) -> None:
        reason = await asyncio.shield(instance.lost)
        if self._instance is instance:
            error = AvatarLostError(reason=reason.value)
            self._to_voice(instance, error, "the avatar was lost while the next one was made")
            self._context.emit("error", error)

    def _to_voice(self, instance: AvatarInstance | None, error: RunwayException, why: str) -> None:
        if instance is not None:
            instance.hide()
            self._last_frame = instance.last_frame or self._last_frame
        self._context.transport.hide_face()
        if self._instance is instance:
            self._instance = None
        self._context.output.detach_avatar(instance)
        self._context.move_to(AvatarState.VOICE_ONLY, str(error))
        logger.warning(why, extra={"error": type(error).__name__, "detail": str(error)})
        self._retire(instance)

    async def _replaced(
        self, cause: Cause, instance: AvatarInstance, *, overlap: float, by_voice: bool
    ) -> None:
        shown = await instance.wait_until_shown(_SHOWN_TIMEOUT)
        last, self._last_frame = self._last_frame, None
        freeze = None if shown is None or last is None else max(0.0, shown - last)
        counters = {"restart": "restarts", "renewal": "renewals", "swap": "swaps"}
        counter = counters.get(cause, "resumes")
        counted = {counter: getattr(self.usage, counter) + 1}
        overlapped = self.usage.overlap_seconds + overlap
        self.usage = replace(self.usage, overlap_seconds=overlapped, **counted)
        logger.info("another session is the face", extra={"cause": cause, "freeze": freeze})
        payload = AvatarReplaced(cause, instance.session.id, freeze, overlap, by_voice)
        self._context.emit("replaced", payload)

    # -- sessions -------------------------------------------------------------------------------

    async def _make(
        self, request: CreateRealtimeSession, on_sent: Callable[[], None] | None = None
    ) -> AvatarInstance:
        """Repeats a create whose answer was lost. The orphan is never consumed, so it dies unbilled
        about 21 s after READY; one whose worker joins the agent's room is evicted there. Where
        it takes the account's only place, the new one is queued."""
        context = self._context
        for tries_left in reversed(range(context.create_retries + 1)):
            connection = context.transport.connection(context.output)
            session = RealtimeSession(context.client, connection.body(request))
            instance = AvatarInstance(
                session, connection, context.instance_options, context.on_stage
            )
            try:
                await session.create(on_sent)
                break
            except LostAnswerError:
                connection.reject()
                if not tries_left:
                    raise
                logger.warning("the answer to a Runway create was lost; creating another session")
        context.on_stage("created")
        return instance

    def _retire(self, instance: AvatarInstance | None) -> None:
        """End a session in the background; `aclose()` waits for it."""
        if instance is None or instance.retired:
            return
        instance.retired = True
        instance.hide()
        task = asyncio.create_task(self._end(instance, instance.age), name="runway_end_instance")
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _end(self, instance: AvatarInstance, age: float) -> None:
        end = await instance.close(
            budget=END_BUDGET if self._end_budget is None else self._end_budget
        )
        logger.info(
            "the Runway session has ended",
            extra={"how": end.how, "status": end.status, "billed_seconds": end.billed_seconds},
        )
        self.account_for(end)
        if end.how == "already ended" and end.status == "COMPLETED":
            self._cap.ended_by_itself(age)
        if end.estimated and end.billed_seconds and self._end_budget is None:
            task = asyncio.create_task(self._settle(instance, end), name="runway_settle")
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def _settle(self, instance: AvatarInstance, end: SessionEnd) -> None:
        """Runway needs a while to say what a session has cost."""
        settled = await instance.session.settled(end, _SETTLE_TIMEOUT)
        if settled is not None:
            self.usage = corrected(self.usage, end, settled)
            self._context.emit("usage_updated", self.usage)
