"""When an avatar begins to speak."""

from __future__ import annotations

from ..segment import Segment
from .features import AUDIBLE_DB, Levels

_ONSET_HOPS = 2
_ARM_HOPS = 50


class Onset:
    """Listens for the first sound after a silence: the end of the segment before may still sound.

    All of it is written by `listen` and `listen_again`.

    Args:
        start_hop: hop of the segment at which the delivery begins.
    """

    def __init__(self, segment: Segment, start_hop: int) -> None:
        self._segment = segment
        self._start_hop = start_hop
        self._loud_run = 0
        """Number of hops of sound at the end."""
        self._silent_run = 0
        """Number of hops of silence at the end."""
        self._armed = False
        """There was a silence."""
        self._since = 0
        """Hop heard from which on it has listened."""

    @property
    def first_spoken(self) -> int | None:
        """Hop of the segment that has the delivery's first sound; None if nothing has."""
        return self._segment.next_spoken(self._start_hop)

    def listen(self, levels: Levels, heard: int) -> tuple[int, int] | None:
        """The index of the hop by which the avatar is known to speak, and of the hop with which it
        began, which may be negative. The first given hop is hop `heard`. None if it does not speak.
        """
        for hop, loud in enumerate((levels > AUDIBLE_DB).tolist()):
            self._loud_run = self._loud_run + 1 if loud else 0
            self._silent_run = 0 if loud else self._silent_run + 1
            self._armed = self._armed or self._silent_run >= _ONSET_HOPS
            if self._has_begun(heard + hop + 1):
                return hop, hop + 1 - self._loud_run
        return None

    def _has_begun(self, heard: int) -> bool:
        armed = self._armed or heard - self._since > _ARM_HOPS
        return armed and self._loud_run >= _ONSET_HOPS and self.first_spoken is not None

    def listen_again(self, heard: int, silent_run: int) -> None:
        """What was heard so far, `heard` hops of which the last `silent_run` were silent, was not
        the beginning."""
        self._armed, self._loud_run, self._silent_run = False, 0, silent_run
        self._since = heard
