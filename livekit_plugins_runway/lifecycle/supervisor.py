"""Keeps an avatar live: makes the next session after a loss, before the cap, on demand, and when a
user is back.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .._common.tasks import cancel_and_wait, first_of
from ..errors import AvatarClosedError, RateLimitedError, RunwayException
from ..events import AvatarState, CallEvents, Cause, Restarting, Stage
from ..log import logger
from ..runway.models import CreateRealtimeSession
from .agent.presence import FaceSwitch, UserPresence
from .creating import SessionMaker
from .ending import Endings
from .handover import FaceSlot
from .instance import AvatarInstance
from .recovery import Cap, RecoveryOptions, Restarts, Spending, is_final
from .state import StateMachine
from .swaps import Swap, SwapRequests

SWAP_PATIENCE = 15.0
"""Seconds that a swap waits for the end of the current speech."""
_RENEW_AGAIN = 5.0
_NEARLY = 0.001
"""Seconds; a timer may fire early by a rounding error."""


class Phase(enum.Enum):
    """What the supervisor is doing, or waiting for."""

    NEW = "new"  # not run yet
    PAUSED = "paused"  # until a user is there
    OPENING = "opening"  # a session is made, and opened
    HOLDING = "holding"  # the avatar is live
    REPLACING = "replacing"  # the next session is made beside it
    WAITING = "waiting"  # before the next try
    AT_VOICE = "at voice"  # given up, until a swap is asked for
    OVER = "over"  # `run()` has ended


_ENDS = {Phase.PAUSED, Phase.OVER}
_ALLOWED = {
    Phase.NEW: {Phase.OPENING, Phase.AT_VOICE} | _ENDS,
    Phase.PAUSED: {Phase.OPENING, Phase.AT_VOICE, Phase.OVER},
    Phase.OPENING: {Phase.HOLDING, Phase.WAITING, Phase.AT_VOICE} | _ENDS,
    Phase.HOLDING: {Phase.REPLACING, Phase.WAITING, Phase.AT_VOICE} | _ENDS,
    Phase.REPLACING: {Phase.HOLDING, Phase.WAITING, Phase.AT_VOICE} | _ENDS,
    Phase.WAITING: {Phase.OPENING, Phase.AT_VOICE} | _ENDS,
    Phase.AT_VOICE: {Phase.OPENING} | _ENDS,
    Phase.OVER: set[Phase](),
}


@dataclass(frozen=True)
class _Gone:
    """An avatar that was lost, or did not come."""

    error: RunwayException
    lived: float = 0.0
    """Seconds for which it was live."""


class Supervisor:
    """Decides when the next session is made, and which. `maker` creates it, `faces` opens and shows
    it.

    Args:
        go_over: see `Transport.go_over`.
    """

    def __init__(
        self,
        request: CreateRealtimeSession,
        recovery: RecoveryOptions,
        cap: Cap,
        spending: Spending,
        *,
        endings: Endings,
        maker: SessionMaker,
        faces: FaceSlot,
        swaps: SwapRequests,
        presence: UserPresence,
        events: CallEvents,
        states: StateMachine,
        on_stage: Callable[[Stage], None],
        go_over: Callable[[RunwayException], Awaitable[RunwayException | None]],
    ) -> None:
        # Used by the event loop's thread only.
        self._request = request
        """The request for further sessions. Changed by a swap that succeeds, and when the first
        avatar is live, which speaks the start script.
        """
        self._recovery = recovery
        self._cap = cap
        self._spending = spending
        self._endings = endings
        self._maker = maker
        self._faces = faces
        self._swaps = swaps
        self._presence = presence
        self._events = events
        self._states = states
        self._on_stage = on_stage
        self._go_over = go_over
        self._made: AvatarInstance | None = None
        """Set by `create()`, until `run()` opens it."""
        self._making: asyncio.Task[AvatarInstance] | None = None
        """The first session's create, if `create()` did not wait for it; `run()` does."""
        self._removed: asyncio.Future[RunwayException] = asyncio.get_running_loop().create_future()
        """Set once, by `remove_face()`."""
        self._switch = FaceSwitch()
        """Changed by `_turn()` only."""
        self._given_up_for: RunwayException | None = None
        """In the phase AT_VOICE: why there is no avatar."""
        self.phase = Phase.NEW
        """Written by `_enter()` only."""
        self._changed = asyncio.Event()
        """Set by `_tell_of_a_change()` when the phase or the switch changes; then replaced by a new
        one.
        """

    def __repr__(self) -> str:
        return f"Supervisor(phase={self.phase.value!r})"

    def _enter(self, phase: Phase) -> None:
        """The one place that changes the phase."""
        if phase is self.phase:
            return
        if phase not in _ALLOWED[self.phase]:
            raise RuntimeError(f"cannot go from {self.phase.value} to {phase.value}")
        logger.debug("phase changed", extra={"old": self.phase.value, "new": phase.value})
        self.phase = phase
        self._tell_of_a_change()

    def _tell_of_a_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _turn(self, *, on: bool) -> None:
        """The one place that turns the switch."""
        self._switch.turn(on=on)
        self._tell_of_a_change()

    @property
    def instance(self) -> AvatarInstance | None:
        """The session of the current or next avatar; None while there is none."""
        return self._faces.instance or self._made

    @property
    def _has_first(self) -> bool:
        """A session was made, or is being made, and not opened yet."""
        return self._made is not None or self._making is not None

    @property
    def waits_for_a_user(self) -> bool:
        """Make no session yet, because nobody is in the room; `run()` makes the first one once
        somebody is.
        """
        return self._recovery.on_user_left == "pause" and not self._presence.present

    async def create(self, on_sent: Callable[[], None], patience: float) -> bool:
        """Make the first session, so that a refusal reaches the caller. Raises as
        `SessionMaker.make()`.

        Args:
            on_sent: called when the request leaves, in each attempt.
            patience: seconds.

        Returns:
            False if it takes longer, or if Runway had too many requests just now, which passes by
            itself: `run()` goes on with it, and emits its failure.
        """
        making = asyncio.create_task(
            self._maker.make(self._request, on_sent), name="runway_first_session"
        )
        try:
            await asyncio.wait({making}, timeout=patience)
        except asyncio.CancelledError:
            await cancel_and_wait(making)
            raise
        if making.done() and not isinstance(making.exception(), RateLimitedError):
            self._made = making.result()
            return True
        self._making = making
        return False

    async def discard(self) -> None:
        """Make no first session after all, if `run()` does not come to it."""
        making, self._making = self._making, None
        await cancel_and_wait(making)

    async def pause(self) -> None:
        """Switch the avatar off. Returns when the agent speaks by voice and the session is being
        ended.

        Raises:
            AvatarClosedError: the call is over.
        """
        if self._removed.done():
            return  # and none will be made
        self._turn(on=False)
        await self._until(Phase.PAUSED)

    async def resume(self) -> None:
        """Switch the avatar on again. Returns when it is live.

        Raises:
            AvatarClosedError: the call is over, or it was switched off again.
            RunwayException: it was given up, for this reason.
        """
        if self._removed.done():
            raise self._removed.result()
        if self.phase is Phase.AT_VOICE:
            await self.pause()
        self._turn(on=True)
        await self._until(Phase.HOLDING, Phase.REPLACING, Phase.AT_VOICE)
        if self.phase is Phase.AT_VOICE and self._given_up_for is not None:
            raise self._given_up_for

    async def _until(self, *phases: Phase) -> None:
        """Raises `AvatarClosedError` if the call is over, or the switch turned, before that."""
        on = self._switch.is_on
        while self.phase not in phases:
            if self.phase is Phase.OVER or self._switch.is_on is not on:
                raise AvatarClosedError(
                    "The call ended, or the avatar was switched on or off, meanwhile."
                )
            await self._changed.wait()

    def remove_face(self, error: RunwayException) -> None:
        """The avatar participant was removed, so no avatar can be shown any more. Only the first
        error counts.
        """
        if not self._removed.done():
            self._removed.set_result(error)

    async def run(self) -> None:
        """Keep an avatar live. Returns if the options say that the avatar is to close."""
        try:
            if await first_of(self._run(), self._removed) == 1:
                await self._go_on_without(self._removed.result())
        finally:
            self._faces.retire_all()
            self._enter(Phase.OVER)
            await self.discard()

    async def _go_on_without(self, error: RunwayException) -> None:
        """Go on by voice for the rest of the call. Returns if the options say that the avatar is to
        close.
        """
        self._faces.retire_all()
        self._leave_to_voice()
        self._swaps.close()
        self._states.move_to(AvatarState.VOICE_ONLY, str(error))
        self._enter(Phase.AT_VOICE)
        self._events.error(error)
        self._events.gave_up(error)
        if self._recovery.on_loss != "close":
            await asyncio.get_running_loop().create_future()

    async def _run(self) -> None:
        recovery, presence = self._recovery, self._presence
        may_leave = recovery.on_user_left != "keep"
        cause: Cause = "restart"
        if not self._has_first and self.waits_for_a_user:
            await self._pause("nobody is in the room yet")
        while True:
            faces = asyncio.create_task(self._keep_a_face(cause), name="runway_faces")
            leaving = presence.wait_until_left(recovery.user_left_grace) if may_leave else None
            try:
                first = await first_of(faces, leaving, self._switched_off())
            finally:
                await cancel_and_wait(faces)
            if first == 0 and not faces.result():
                return
            reason = "the avatar is switched off"
            if first == 1:
                reason = "the user has left"
                logger.info(reason, extra={"then": recovery.on_user_left})
                if recovery.on_user_left == "close":
                    return
            self._leave_to_voice()
            await self.discard()
            await self._pause(reason)
            cause = "resume"

    def _leave_to_voice(self) -> None:
        """End the sessions, although nothing has failed; one that was made and not opened yet is
        not needed.
        """
        self._faces.leave_to_voice()
        self._endings.retire(self._made)
        self._made = None

    async def _switched_off(self) -> None:
        """Wait until the avatar is not wanted any more, in a phase that does not end by itself, as
        HOLDING does.
        """
        await self._switch.wait_until_off()
        while self.phase is Phase.HOLDING:
            await self._changed.wait()

    async def _pause(self, reason: str) -> None:
        """Wait until an avatar is wanted. Nothing bills meanwhile."""
        self._enter(Phase.PAUSED)
        self._states.move_to(AvatarState.PAUSED, reason)
        await self._switch.wait_until_on()
        while self.waits_for_a_user or not self._switch.is_on:
            await self._presence.wait_until_back()
            await self._switch.wait_until_on()
        self._states.move_to(AvatarState.STARTING, "an avatar is wanted")

    # -- one face after the other ---------------------------------------------------------------

    async def _keep_a_face(self, cause: Cause) -> bool:
        """Returns True if the avatar was switched off, False if the options say that it is to
        close.
        """
        restarts = Restarts(self._recovery)
        try:
            while True:
                gone = await self._one_face(cause)
                if gone is None:
                    return True
                self._events.error(gone.error)
                following = await self._what_follows(gone, restarts)
                if isinstance(following, Restarting):
                    cause = "restart"
                    await self._wait(following)
                elif await self._left_at_voice(following):
                    cause, restarts = "swap", Restarts(self._recovery)
                else:
                    return False
        finally:
            self._faces.retire_all()

    async def _what_follows(self, gone: _Gone, restarts: Restarts) -> Restarting | RunwayException:
        """Emit the error, and go on by voice."""
        if self._recovery.on_loss != "restart":
            return gone.error
        self._enter(Phase.WAITING)
        error = await self._go_over(gone.error)
        if error is None:
            return Restarting(restarts.begin_anew(), 0.0, gone.error)
        delay = None if is_final(error) else restarts.next_delay(gone.lived, error)
        attempt = max(1, restarts.in_a_row)  # 0 after a 429, which is no failure
        return error if delay is None else Restarting(attempt, delay, error)

    async def _wait(self, restarting: Restarting) -> None:
        self._enter(Phase.WAITING)
        self._events.restarting(restarting)
        logger.info("another session follows", extra={"delay": round(restarting.delay, 2)})
        await asyncio.sleep(restarting.delay)

    async def _left_at_voice(self, error: RunwayException) -> bool:
        """Make no more sessions automatically. Returns True once a swap asks for one."""
        self._given_up_for = error
        self._enter(Phase.AT_VOICE)
        self._events.gave_up(error)
        if self._recovery.on_loss == "close":
            return False
        logger.warning("the agent goes on by voice for the rest of the call")
        await self._swaps.wait()
        return True

    async def _one_face(self, cause: Cause) -> _Gone | None:
        """Open an avatar and keep it. Returns when it is lost, or did not come; None: it was
        switched off.
        """
        self._enter(Phase.OPENING)
        # The session was made before the swap was asked for; the swap waits until the avatar is
        # live.
        swap = None if self._has_first else self._swaps.take()
        try:
            if swap is None:
                await self._bring(self._request, cause)
            else:
                with swap.answered():
                    await self._bring(swap.request, cause)
                    self._request = swap.request
        except RunwayException as error:
            self._faces.to_voice(self._faces.instance, error, "the avatar did not come")
            return _Gone(error)
        # The start script is said once in a call, not by each session.
        self._request = self._request.model_copy(update={"start_script": None})
        self._on_stage("live")
        self._states.move_to(AvatarState.LIVE, "the avatar is live")
        return await self._hold()

    async def _bring(self, request: CreateRealtimeSession, cause: Cause) -> None:
        instance, self._made = self._made, None
        making, self._making = self._making, None
        if instance is None:
            instance = await (self._maker.make(request) if making is None else making)
        await self._faces.bring(instance, cause, request.start_script)

    async def _hold(self) -> _Gone | None:
        """Keep the avatar until it is lost, or switched off (None); renew and swap it."""
        renewals, not_before = Restarts(self._recovery), 0.0
        self._cap.next_session()
        while (instance := self._faces.instance) is not None:
            self._enter(Phase.HOLDING)
            due = self._renewal_due(instance, not_before)
            await self._something_happens(instance, due)
            if (gone := self._is_gone(instance)) is not None:
                return gone
            if not self._switch.is_on:
                await first_of(
                    self._faces.change_to_voice(SWAP_PATIENCE), self._switch.wait_until_on()
                )
                if not (self._switch.is_on and self._faces.is_seated(instance)):
                    return None
                continue
            swap = self._swaps.take()
            if swap is None and instance.age < due - _NEARLY:
                continue
            try:
                await self._replace(instance, swap)
            except RunwayException as error:
                if (gone := self._after_a_failure(instance, error)) is not None:
                    return gone
                if swap is None:
                    self._events.error(error)
                    not_before = instance.age + _until_next_renewal(renewals, error)
            else:
                renewals, not_before = Restarts(self._recovery), 0.0
                self._cap.outlived(instance.age)
                self._cap.next_session()
                self._states.move_to(AvatarState.LIVE, "the next session has taken over")
        raise AssertionError("after a successful replacement there is an instance")

    def _is_gone(self, instance: AvatarInstance) -> _Gone | None:
        """None: the avatar is live, and may stay."""
        if instance.lost.done():
            error = instance.loss()
            self._cap.outlived(instance.age)
            return self._lose(instance, error, "the avatar was lost")
        billed = self._endings.billed
        if self._spending.seconds_left(billed) > _NEARLY:
            return None
        return self._lose(instance, self._spending.used_up(billed), "the call has reached a limit")

    def _renewal_due(self, instance: AvatarInstance, not_before: float) -> float:
        """Age in seconds at which the next session must be made."""
        renew_at = self._cap.renew_at(instance.startup)
        return math.inf if renew_at is None else max(renew_at, not_before)

    async def _something_happens(self, instance: AvatarInstance, due: float) -> None:
        """Wait until the avatar is lost or switched off, a swap is asked for, the session's age is
        `due`, or the call has reached a limit.
        """
        left = self._spending.seconds_left(self._endings.billed)
        timeout = max(0.0, min(due - instance.age, left))
        finite = None if timeout == math.inf else timeout
        await first_of(
            instance.lost, self._swaps.wait(), self._switch.wait_until_off(), timeout=finite
        )

    async def _replace(self, old: AvatarInstance, swap: Swap | None) -> None:
        """As `FaceSlot.replace()`; the caller of a swap gets the outcome."""
        self._enter(Phase.REPLACING)
        force_at = self._cap.force_at()
        if swap is None:
            self._states.move_to(AvatarState.RENEWING, "renewal")
            await self._faces.replace(
                old,
                "renewal",
                lambda: self._maker.make(self._request),
                force_at,
                self._cap.make_room_at(),
            )
            return
        patience = SWAP_PATIENCE + old.age
        force_at = patience if force_at is None else min(force_at, patience)
        self._states.move_to(AvatarState.RENEWING, "swap")
        with swap.answered():
            await self._faces.replace(old, "swap", lambda: self._maker.make(swap.request), force_at)
            self._request = swap.request

    def _after_a_failure(self, old: AvatarInstance, error: RunwayException) -> _Gone | None:
        """The next session did not come. Returns None if the former one stays."""
        if self._faces.instance is None:
            self._states.move_to(AvatarState.VOICE_ONLY, str(error))
            return _Gone(error, old.lived)
        if not self._faces.is_seated(old):
            return self._lose(old, error, "the next avatar was lost as it took over")
        self._states.move_to(AvatarState.LIVE, "the former avatar stays")
        return None

    def _lose(self, instance: AvatarInstance, error: RunwayException, why: str) -> _Gone:
        gone = _Gone(error, instance.lived)
        self._faces.to_voice(instance, error, why)
        return gone


def _until_next_renewal(renewals: Restarts, error: RunwayException) -> float:
    """Seconds to wait after a failed renewal; infinite if no more tries are allowed."""
    delay = None if is_final(error) else renewals.next_delay(0.0, error)
    if delay is None:
        logger.warning("the session is not renewed any more", extra={"detail": str(error)})
        return math.inf
    return max(delay, _RENEW_AGAIN)
