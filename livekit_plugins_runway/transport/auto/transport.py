"""A transport that can change to the other one, once in a call, together with the voice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ..._common.tasks import BackgroundTasks
from ...errors import RunwayException, TransportsFailedError, UnavailableError
from ...events import TransportChanged, TransportKind
from ...log import logger
from ...media.participant import Eviction
from ...playout.ports import AvatarListener, Microphone
from ..base import AvatarConnection
from ..bridge import Bridge
from ..direct import Direct
from ..worker_protocol import DeliveryOption
from .evidence import other_delivery_may_do_better, other_may_do_better
from .learned import AccountMemory, Learned
from .microphone import MovingMicrophone

_LISTENED_TO = 3.0
"""Seconds for the users to subscribe to the voice's new track. Users that take longer are waited
for there, as at the start of a call.
"""
_LOOK_EVERY = 0.05
"""Seconds; there is no event for a subscription here."""
_PAUSE_COMES = 3.0
"""Seconds to wait for a pause in the speech."""
_DECODERS = 0.5
"""Seconds of silence on a track that is subscribed to, in which decoders come to run: words that
followed at once lost up to 0.08 s (tests/avatar/test_auto_transport.py, without it)."""


class MakeTransports(Protocol):
    """Makes the transports, each when it is needed."""

    def bridge(self, *, second: bool) -> Bridge: ...

    def direct(self, *, second: bool) -> Direct:
        """Raises `ConfigurationError` as `why_not_direct()` says."""

    def why_not_direct(self) -> str:
        """Why Runway's worker cannot join this room by itself; "" if it can, as far as is known."""


class AutoTransport:
    """One of the two at a time.

    Args:
        make: `second` is for one that comes in mid-call: with another identity, because the
            participant with the first one may not have left yet.
        memory: findings of earlier calls; this call adds its own.
        delivery: as the user has passed it; another one is tried only with "auto".
        check_first_words: if nothing was learned, hold back the first avatar's sound until it is
            known to be the agent's words.
        on_changed: called when the other transport has the voice.
        background: closes the former transport.
    """

    def __init__(
        self,
        make: MakeTransports,
        memory: AccountMemory,
        *,
        delivery: DeliveryOption,
        check_first_words: bool,
        on_changed: Callable[[TransportChanged], None],
        background: BackgroundTasks,
    ) -> None:
        # Used by the event loop's thread only.
        self._make = make
        self._memory = memory
        self._may_try_track = delivery == "auto"
        """True until a track was tried instead of a data stream."""
        self._check_first_words = check_first_words
        self._on_changed = on_changed
        self._background = background
        learned = memory.recall()
        if learned is not None and learned.transport == "direct" and make.why_not_direct():
            learned = None
        self._learned = learned
        """What was learned about the present transport; None: nothing, or it was wrong."""
        self._current: Bridge | Direct
        """Changed by `_change()` only."""
        if learned is not None and learned.transport == "direct":
            self._current = make.direct(second=False)
        else:
            self._current = make.bridge(second=False)
            self._current.delivery = None if learned is None else learned.delivery
        self._repeated = False
        """With the present transport, an avatar was heard to say the agent's words in this call."""
        self._failed: RunwayException | None = None
        """Why the first transport was left; None: it was not."""
        self._microphone = MovingMicrophone(self._current.microphone)
        self._on_evicted: Callable[[Eviction, str], None] | None = None
        """Set by `join()`."""
        self._join_over = asyncio.Event()
        """Set when `join()` has ended, whether it succeeded or not."""

    @property
    def kind(self) -> TransportKind:
        return self._current.kind

    @property
    def microphone(self) -> MovingMicrophone:
        return self._microphone

    @property
    def identity(self) -> str:
        return self._current.identity

    async def join(self, on_evicted: Callable[[Eviction, str], None]) -> None:
        self._on_evicted = on_evicted
        try:
            await self._current.join(on_evicted)
        finally:
            self._join_over.set()

    def connection(self, listener: AvatarListener) -> AvatarConnection:
        if isinstance(self._current, Bridge):
            known = self._repeated or self._learned is not None
            self._current.doubts_first_words = self._check_first_words and not known
            last = self._failed is not None or bool(self._make.why_not_direct())
            self._current.on_trial = not (known or last)
        return self._current.connection(listener)

    def hide_face(self) -> None:
        self._current.hide_face()

    def note_repeats(self) -> None:
        if self._repeated:
            return
        self._repeated = True
        delivery = self._current.last_delivery
        if delivery is not None:
            self._memory.note(Learned(self.kind, delivery))

    async def go_over(self, error: RunwayException) -> RunwayException | None:
        current, repeated = self._current, self._repeated
        if (
            isinstance(current, Bridge)
            and current.last_delivery == "datastream"
            and self._may_try_track
            and other_delivery_may_do_better(error, repeated=repeated)
        ):
            logger.warning(
                "the avatar did not say the data stream that it was sent: trying a track"
            )
            self._may_try_track = False
            current.delivery = "track"
            self._forget()
            return None
        if not other_may_do_better(current.kind, error, repeated=repeated):
            return error
        self._forget()
        if self._failed is not None:
            by_bridge = current.kind == "bridge"
            return TransportsFailedError(
                bridge=error if by_bridge else self._failed,
                direct=self._failed if by_bridge else error,
            )
        if current.kind == "bridge" and (why := self._make.why_not_direct()):
            logger.warning("no other transport can be tried", extra={"why": why})
            return error
        return await self._change(error)

    def _forget(self) -> None:
        """Forget what was learned: it is wrong, or outdated."""
        if self._learned is not None:
            self._learned = None
            self._memory.forget()

    async def _change(self, error: RunwayException) -> RunwayException | None:
        """Move the voice to the other transport, then close the former. If it is cancelled, or the
        other one cannot join, nothing has changed.
        """
        assert self._on_evicted is not None
        await self._join_over.wait()
        former, other = self._current, self._other()
        try:
            await other.join(self._on_evicted)
            await _until_heard(other.microphone)
            await self._microphone.move_to(other.microphone, _PAUSE_COMES)
        except BaseException as failure:
            self._background.start(other.aclose(), "runway_leave_other_transport")
            if not isinstance(failure, UnavailableError):
                raise
            logger.warning("the other transport cannot be used", exc_info=failure)
            return error
        self._current, self._failed, self._repeated = other, error, False
        self._background.start(former.aclose(), "runway_leave_former_transport")
        logger.warning(
            "the avatar changes from one transport to the other",
            extra={
                "old": former.kind,
                "new": other.kind,
                "error": type(error).__name__,
                "to_begin_with_it": f'transport="{other.kind}"',
            },
        )
        self._on_changed(TransportChanged(former.kind, other.kind, error))
        return None

    def _other(self) -> Bridge | Direct:
        if self.kind == "bridge":
            return self._make.direct(second=True)
        return self._make.bridge(second=True)

    async def aclose(self) -> None:
        await self._current.aclose()


async def _until_heard(microphone: Microphone) -> None:
    """Wait until the users in the room receive its silence. Bounded."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LISTENED_TO
    microphone.keep_alive()
    while not microphone.subscribed and loop.time() < deadline:
        microphone.keep_alive()
        await asyncio.sleep(_LOOK_EVERY)
    await asyncio.sleep(_DECODERS)
