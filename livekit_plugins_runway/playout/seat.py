"""Who speaks: the present avatar, an expected one, or the voice; and who comes next. Pure, except
for the future that `hand_over()` waits for. Times are loop times in seconds.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass

from .interruption import Settled, Settling
from .ports import Avatar

_HUSH = 0.1
"""Seconds without sound after which an avatar counts as silent."""
_LONGEST_HUSH = 0.5
_FROM_QUEUE = 8.0
"""Seconds from Runway's queue to the first picture, at least (5 to 8 were measured by others)."""


class Seat(enum.Enum):
    EXPECTED = "expected"  # the first avatar is on its way
    UNSEEN = "unseen"  # it takes speech, and shows no face yet
    SEATED = "seated"  # it speaks
    SETTLING = "settling"  # other words of it may still come
    EMPTY = "empty"  # none: the voice speaks


class Speaker(enum.Enum):
    AVATAR = "avatar"
    VOICE = "voice"


_ALLOWED = {
    Seat.EXPECTED: {Seat.UNSEEN, Seat.SEATED, Seat.EMPTY},
    Seat.UNSEEN: {Seat.UNSEEN, Seat.SEATED, Seat.SETTLING, Seat.EMPTY},
    Seat.SEATED: {Seat.UNSEEN, Seat.SEATED, Seat.SETTLING, Seat.EMPTY},
    Seat.SETTLING: {Seat.UNSEEN, Seat.SEATED, Seat.SETTLING, Seat.EMPTY},
    Seat.EMPTY: {Seat.UNSEEN, Seat.SEATED, Seat.EMPTY},
}


@dataclass(eq=False)
class HandOver:
    """The avatar, or the voice (None), that takes over next."""

    avatar: Avatar | None
    done: asyncio.Future[None]
    """Resolved by the sink when it has changed over."""
    forced_at: float | None = None
    """When the hand-over became urgent, so that it does not wait for the segment's end."""
    hush_until: float | None = None
    """Until when it waits for the present avatar's last sound; None before that wait."""

    def is_silent_by_now(self, sounded_at: float | None, now: float) -> bool:
        """True once the outgoing avatar is no longer audible. Its position is known to about 0.1 s;
        switching earlier could cut its last sound off.
        """
        if sounded_at is None:
            return True
        if self.hush_until is None:
            self.hush_until = now + _LONGEST_HUSH
        return now - sounded_at >= _HUSH or now >= self.hush_until


class AvatarSeat:
    """Used by the event loop's thread only.

    Args:
        patience: seconds that the first speech waits for the avatar's video, once in a call.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.state = Seat.EXPECTED
        """Written by `_move_to()` only."""
        self.avatar: Avatar | None = None
        """The present avatar; None if the seat is EXPECTED or EMPTY."""
        self.settling: Settling | None = None
        """While SETTLING."""
        self._seen = True
        """True if the avatar has video; that may come while it is SETTLING."""
        self.hand_over: HandOver | None = None
        """The pending one."""
        self._unsettled: object = None
        """The segment that was spoken by voice because the avatar did not fall silent after a
        barge-in.
        """
        self.never_settles = False
        """The avatar did not fall silent for a second segment either."""
        self.is_queued = False
        """The first avatar's session was queued; never reset. It does not come in time if it has
        not left the queue some seconds before.
        """
        self._waiting_since: float | None = None
        """Since when the first speech waits for the avatar's video. Never reset."""

    def _move_to(self, state: Seat) -> None:
        if state not in _ALLOWED[self.state]:
            raise RuntimeError(f"the seat cannot go from {self.state.value} to {state.value}")
        self.state = state
        if state is not Seat.SETTLING:
            self.settling = None

    def take(self, avatar: Avatar | None, *, seen: bool = True) -> None:
        """Seat an avatar; None: the voice speaks."""
        self.avatar, self._seen = avatar, seen
        self._unsettled, self.never_settles = None, False
        self._move_to(Seat.EMPTY if avatar is None else self._present())

    def _present(self) -> Seat:
        return Seat.SEATED if self._seen else Seat.UNSEEN

    def see(self) -> None:
        """The avatar has video."""
        self._seen = True
        if self.state is Seat.UNSEEN:
            self._move_to(Seat.SEATED)

    def settle(self, settling: Settling) -> None:
        """Send the avatar no words until `settling` allows it."""
        self._move_to(Seat.SETTLING)
        self.settling = settling

    def may_wait(self, now: float) -> bool:
        """True if the first speech may still wait for the avatar's video."""
        if self._waiting_since is None:
            self._waiting_since = now
        needed = _FROM_QUEUE if self.is_queued else 0.0
        return now - self._waiting_since + needed < self._patience

    @property
    def is_unseen(self) -> bool:
        return not self._seen

    def speaker(self, now: float, latency: float | None, segment: object) -> Speaker | None:
        """Who speaks now; None: the segment waits.

        Args:
            segment: the segment to speak; None: none yet.
        """
        if self.state is Seat.EMPTY:
            return Speaker.VOICE
        if self.state is Seat.EXPECTED:
            return None if self.may_wait(now) else Speaker.VOICE
        if not self._seen and not self.may_wait(now):
            return Speaker.VOICE
        if self.settling is not None:
            return self._once_settled(self.settling.settled(now, latency), segment)
        return Speaker.AVATAR

    def _once_settled(self, settled: Settled, segment: object) -> Speaker | None:
        if settled is Settled.AVATAR:
            self._move_to(self._present())
            self._unsettled = None
            return Speaker.AVATAR
        if settled is Settled.NOT_YET:
            return None
        if segment is not None and segment is not self._unsettled:
            self.never_settles = self._unsettled is not None
            self._unsettled = segment
        return Speaker.VOICE

    # -- the change of avatars --------------------------------------------------------------------

    def propose(self, avatar: Avatar | None) -> HandOver:
        """Propose another avatar. It replaces one that was proposed before."""
        self.hand_over = HandOver(avatar, asyncio.get_running_loop().create_future())
        return self.hand_over

    def withdraw(self, hand_over: HandOver) -> None:
        """Withdraw the proposal. No effect after the change."""
        if self.hand_over is hand_over:
            self.hand_over = None

    def change_over(self) -> None:
        """Seat the proposed avatar. Only while there is a proposal."""
        pending, self.hand_over = self.hand_over, None
        if pending is None:
            raise RuntimeError("no avatar was proposed")
        if self.avatar is not None:
            self.avatar.hide()
        if pending.avatar is not None:
            pending.avatar.show()
        self.take(pending.avatar)
        if not pending.done.done():
            pending.done.set_result(None)
