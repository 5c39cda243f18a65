"""Who speaks: the avatar that is there, one that is expected, or the voice; and who comes next.

Pure but for the future that `hand_over()` waits for. Times are loop times in seconds.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass

from .interruption import Settled, Settling
from .ports import Avatar

_HUSH = 0.1
"""Seconds without a sound after which an avatar has fallen silent."""
_LONGEST_HUSH = 0.5


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
    """Another avatar, or the voice (None), that is to speak from the next change on."""

    avatar: Avatar | None
    done: asyncio.Future[None]
    """Resolved by the sink when it has changed over."""
    forced_at: float | None = None
    """When it was said that it cannot wait for the segment's end."""
    hush_until: float | None = None
    """Until when it waits for the present avatar's last sound; None before it does."""

    def is_silent_by_now(self, sounded_at: float | None, now: float) -> bool:
        """The present avatar does not say the end of what counts as heard any more: its place is
        known to about 0.1 s, and whoever is replaced is cut off."""
        if sounded_at is None:
            return True
        if self.hush_until is None:
            self.hush_until = now + _LONGEST_HUSH
        return now - sounded_at >= _HUSH or now >= self.hush_until


class AvatarSeat:
    """All of it is of the event loop's thread.

    Args:
        patience: seconds for which the first speech waits for a face, once in a call.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.state = Seat.EXPECTED
        """Written by `_move_to()` alone."""
        self.avatar: Avatar | None = None
        """There is one unless the seat is EXPECTED or EMPTY."""
        self.settling: Settling | None = None
        """While SETTLING."""
        self._seen = True
        """Whether the avatar's face was seen; it may come while it is SETTLING."""
        self.hand_over: HandOver | None = None
        """The pending one."""
        self._unsettled: object = None
        """What the voice said because the avatar did not fall silent after a barge-in."""
        self.never_settles = False
        """It has not for another segment either."""
        self._waiting_since: float | None = None
        """From when the first speech waits for a face. Never reset."""

    def _move_to(self, state: Seat) -> None:
        if state not in _ALLOWED[self.state]:
            raise RuntimeError(f"the seat cannot go from {self.state.value} to {state.value}")
        self.state = state
        if state is not Seat.SETTLING:
            self.settling = None

    def take(self, avatar: Avatar | None, *, seen: bool = True) -> None:
        """This one is the avatar from now on; None: the voice speaks."""
        self.avatar, self._seen = avatar, seen
        self._unsettled, self.never_settles = None, False
        self._move_to(Seat.EMPTY if avatar is None else self._present())

    def _present(self) -> Seat:
        return Seat.SEATED if self._seen else Seat.UNSEEN

    def see(self) -> None:
        """The avatar's face is there."""
        self._seen = True
        if self.state is Seat.UNSEEN:
            self._move_to(Seat.SEATED)

    def settle(self, settling: Settling) -> None:
        """The avatar gets no words until `settling` says so."""
        self._move_to(Seat.SETTLING)
        self.settling = settling

    def may_wait(self, now: float) -> bool:
        """The first speech may still wait for the avatar's face."""
        if self._waiting_since is None:
            self._waiting_since = now
        return now - self._waiting_since < self._patience

    @property
    def is_unseen(self) -> bool:
        return not self._seen

    def speaker(self, now: float, latency: float | None, segment: object) -> Speaker | None:
        """Who is to speak now; None: it waits.

        Args:
            segment: what is to be spoken; None: nothing yet.
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
        """Another one stands ready. It takes the place of one that was proposed before."""
        self.hand_over = HandOver(avatar, asyncio.get_running_loop().create_future())
        return self.hand_over

    def withdraw(self, hand_over: HandOver) -> None:
        """It is not to change over after all. No effect once it has."""
        if self.hand_over is hand_over:
            self.hand_over = None

    def change_over(self) -> None:
        """The one that was proposed takes the seat. Only while one is."""
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
