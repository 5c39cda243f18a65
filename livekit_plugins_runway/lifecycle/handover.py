"""Which instance is shown as the avatar ("the face"), and how the next one takes over.

With the bridge, the avatar participant and its tracks stay the same throughout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .._common.tasks import cancel_and_wait, first_of, watched
from ..errors import LossReason, RunwayException
from ..events import AvatarReplaced, AvatarState, CallEvents, Cause
from ..log import logger
from ..playout.output import AvatarAudioOutput
from ..transport.base import Transport
from .ending import Endings
from .instance import AvatarInstance
from .state import StateMachine

_QUEUE_PATIENCE = 3.0
"""Seconds; `queued` is normal for about one (measured by others on the live service)."""
_SHOWN_TIMEOUT = 2.0
_SCRIPT_PACE = 8.0
"""Characters spoken per second; the rate of slow speech."""
_SCRIPT_MARGIN = 5.0
"""Seconds that the agent waits for the start script, in addition to its estimated length."""


class FaceSlot:
    """The face of a call: the instance that has it, the one that is to have it next, or none."""

    def __init__(
        self,
        transport: Transport,
        output: AvatarAudioOutput,
        endings: Endings,
        events: CallEvents,
        states: StateMachine,
    ) -> None:
        # Used by the event loop's thread only. An instance that is taken out of `instance` or
        # `_next` is retired in the same step, or by the method that holds it as `old`.
        self._transport = transport
        self._output = output
        self._endings = endings
        self._events = events
        self._states = states
        self.instance: AvatarInstance | None = None
        """The current avatar, or the one that is being opened as such. None while the agent speaks
        by voice: between two sessions, in a pause, and after it was given up.
        """
        self._next: AvatarInstance | None = None
        """In a renewal or a swap: the one that will take over."""
        self._seen = False
        """An avatar was live before, so the next one takes over by a hand-over."""
        self._last_frame: float | None = None
        """Loop time of the last picture of the former avatar, until `freeze` was reported."""
        self._one_at_a_time = False
        """The account allows no second session at a time, as was seen in this call. Never reset."""

    def is_seated(self, instance: AvatarInstance) -> bool:
        """The sink sends it the agent's speech."""
        return self._output.avatar is instance

    def retire_all(self) -> None:
        """End the sessions of the avatar and of the next one."""
        for instance in (self._next, self.instance):
            self._endings.retire(instance)
        self._next = self.instance = None

    def to_voice(self, instance: AvatarInstance | None, error: RunwayException, why: str) -> None:
        """The avatar is lost, or will not come: go on by voice, and end its session."""
        if instance is not None:
            instance.hide()
            self._last_frame = instance.last_frame or self._last_frame
        self._transport.hide_face()
        if self.instance is instance:
            self.instance = None
        self._output.detach_avatar(instance)
        self._states.move_to(AvatarState.VOICE_ONLY, str(error))
        logger.warning(why, extra={"error": type(error).__name__, "detail": str(error)})
        self._endings.retire(instance)

    def leave_to_voice(self) -> None:
        """Go on by voice, without an avatar; nothing has failed."""
        self._output.detach_avatar()
        self._transport.hide_face()

    async def change_to_voice(self, patience: float) -> None:
        """Change to the voice in a gap of the speech, after `patience` seconds at most. Returns
        earlier if the avatar is lost.
        """
        if self.instance is not None:
            await self._until_changed(None, patience, self.instance.lost)

    # -- one that comes while there is none ------------------------------------------------------

    async def bring(self, instance: AvatarInstance, cause: Cause, script: str | None) -> None:
        """Open the instance, and make it the avatar. Raises if it does not come.

        Args:
            script: the start script, if it is the first avatar of the call.
        """
        self.instance = instance
        if self._seen:
            await instance.open(standby=True)
            await self._hand_over(instance, force_in=None)
            await self._tell(cause, instance, overlap=0.0, by_voice=True)
            return

        def attach(seen: bool) -> None:
            self._output.attach_avatar(instance, seen=seen)
            if script:
                self._output.let_speak(_SCRIPT_MARGIN + len(script) / _SCRIPT_PACE)

        noticing = watched(asyncio.create_task(self._notice_queue(instance), name="runway_queue"))
        try:
            await instance.open(standby=False, on_ready=attach)
        finally:
            await cancel_and_wait(noticing)
        self._output.avatar_seen()
        self._seen = True

    async def _notice_queue(self, instance: AvatarInstance) -> None:
        """Do not let the first words wait for an avatar that cannot come in time."""
        while not await instance.is_stuck_in_queue(_QUEUE_PATIENCE):
            pass
        logger.info("the account has no place for the session: the agent begins by voice")
        self._output.avatar_queued()
        self._states.move_to(AvatarState.VOICE_ONLY, "the session waits for a place")

    # -- one that comes while another is there ---------------------------------------------------

    async def replace(
        self,
        old: AvatarInstance,
        cause: Cause,
        make: Callable[[], Awaitable[AvatarInstance]],
        force_at: float | None,
        make_room_at: float | None = None,
    ) -> None:
        """Make the next session while the old one speaks, and change over in a gap of the speech.
        Raises if the next one does not come. Then the old one is still the avatar, unless it was
        lost meanwhile (`instance` is None).

        Args:
            make: makes the next session.
            force_at: age of the old one in seconds at which the change is made without waiting for
                a gap; None: never.
            make_room_at: age of the old one in seconds from which it is ended first, if the next
                one is queued; None: at once.
        """
        watching = asyncio.create_task(self._to_voice_when_lost(old), name="runway_old_face")
        opening: asyncio.Task[None] | None = None
        try:
            new = self._next = await make()
            opening = asyncio.create_task(new.open(standby=True), name="runway_next_face")
            if await self._is_stuck_in_queue(new, opening) and self.instance is old:
                self._one_at_a_time = True
                await first_of(opening, old.lost, timeout=_seconds_until(old, make_room_at) or 0.0)
                if new.queued.is_set() and self.instance is old:
                    await self._make_room(old, force_at)
            await opening
            alone = self.instance is None
            await self._hand_over(new, force_in=_seconds_until(old, force_at))
            overlap = 0.0 if alone else new.billed
            self._endings.retire(old)
            await self._tell(cause, new, overlap=overlap, by_voice=alone)
        finally:
            await cancel_and_wait(watching, opening)
            self._endings.retire(self._next)
            self._next = None

    async def _to_voice_when_lost(self, instance: AvatarInstance) -> None:
        await asyncio.shield(instance.lost)
        if self.instance is instance:
            error = instance.loss()
            self.to_voice(instance, error, "the avatar was lost while the next one was made")
            self._events.error(error)

    async def _is_stuck_in_queue(self, new: AvatarInstance, opening: asyncio.Task[None]) -> bool:
        """True if the account allows no second session beside the first."""
        patience = 0.0 if self._one_at_a_time else _QUEUE_PATIENCE
        await first_of(new.is_stuck_in_queue(patience), opening)
        return not opening.done() and new.queued.is_set()

    async def _make_room(self, old: AvatarInstance, force_at: float | None) -> None:
        """End the old session first, in a gap of the speech; then by voice until the next one."""
        logger.info("the account has no place for two sessions: the old one is ended first")
        await self._until_changed(None, _seconds_until(old, force_at))
        if self.instance is old:
            self._last_frame = old.last_frame
            self.instance = None
            self._transport.hide_face()
            self._states.move_to(AvatarState.VOICE_ONLY, "the next session waits for a place")
            self._endings.retire(old)

    async def _hand_over(self, new: AvatarInstance, *, force_in: float | None) -> None:
        """Raises `AvatarLostError` if the new one is lost while it waits."""
        await self._until_changed(new, force_in, new.lost)
        if not self.is_seated(new):
            raise new.loss()
        if self.instance is not None and self.instance is not new:
            self._last_frame = self.instance.last_frame
        self.instance = new
        if self._next is new:
            self._next = None

    async def _until_changed(
        self,
        new: AvatarInstance | None,
        force_in: float | None,
        lost: asyncio.Future[LossReason] | None = None,
    ) -> None:
        """Wait until the sink has changed over to `new`, or one of the two is lost."""
        loop, output = asyncio.get_running_loop(), self._output
        forcing = None if force_in is None else loop.call_later(force_in, output.force_hand_over)
        try:
            await first_of(output.hand_over(new), lost)
        finally:
            if forcing is not None:
                forcing.cancel()

    async def _tell(
        self, cause: Cause, instance: AvatarInstance, *, overlap: float, by_voice: bool
    ) -> None:
        shown = await instance.wait_until_shown(_SHOWN_TIMEOUT)
        last, self._last_frame = self._last_frame, None
        freeze = None if shown is None or last is None else max(0.0, shown - last)
        logger.info(
            "another session has become the avatar", extra={"cause": cause, "freeze": freeze}
        )
        self._endings.count(AvatarReplaced(cause, instance.session.id, freeze, overlap, by_voice))


def _seconds_until(instance: AvatarInstance, age: float | None) -> float | None:
    return None if age is None else max(0.0, age - instance.age)
