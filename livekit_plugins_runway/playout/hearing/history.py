"""The sound of an avatar in the last seconds, and its places in the speech."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .features import AUDIBLE_DB, SPOKEN_DB, Hops, Levels

_KEPT_HOPS = 400


class History:
    """Heard hops are counted from the first one ever; hops of the speech from its start."""

    def __init__(self) -> None:
        self.hops = Hops()
        """Heard, from hop `dropped` on. Written by `append` and `forget`."""
        self.dropped = 0
        """Hops that were forgotten."""
        self.places: list[int] = []
        """How many hops of the speech were heard, after each of the last heard hops; from where the
        avatar began to speak. Written by `begin`, `follow` and `correct`.
        """
        self.silent_run = 0
        """Hops of silence up to now. Written by `append`."""
        self.sound_hops = 0
        """Hops of sound since the avatar began to speak. Written by `begin` and `follow`."""

    @property
    def count(self) -> int:
        """Hops heard so far."""
        return self.dropped + self.hops.count

    def append(self, levels: Levels, bands: Levels) -> None:
        self.hops.append(levels, bands)
        loud = np.flatnonzero(levels > AUDIBLE_DB)
        since_loud = len(levels) - 1 - int(loud[-1]) if len(loud) else self.silent_run + len(levels)
        self.silent_run = since_loud

    def begin(self, places: list[int]) -> None:
        """Mark the sound so far as no part of the speech."""
        self.places, self.sound_hops = places, 0

    def follow(self, places: list[int]) -> None:
        """The places of the last hops heard."""
        self.places += places
        levels = self.hops.levels[self.hops.count - len(places) :]
        self.sound_hops += int(np.count_nonzero(levels > AUDIBLE_DB))

    def correct(self, place: int) -> None:
        """Now it is there."""
        self.places[-1:] = [place]

    def place_at(self, hop: int, start: int) -> int:
        """Hops of the speech that were heard at the end of a hop heard; `start` before it began."""
        back = self.count - hop
        return self.places[max(0, len(self.places) - back)] if self.places else start

    def sounds_since(self, hop: int) -> int:
        """Number of hops of sound from a heard hop on."""
        since = self.hops.levels[max(0, hop - self.dropped) :]
        return int(np.count_nonzero(since > AUDIBLE_DB))

    def loud_hops(self, most: int) -> int:
        """How many of the last `most` hops are as loud as words."""
        return int(np.count_nonzero(self.hops.levels[-most:] > SPOKEN_DB))

    def last_sounds(self, most: int) -> slice:
        """The last of `hops` that have a place, up to the last sound; a silence at the end may be a
        wait, and not part of the speech.
        """
        until = self.hops.count - self.silent_run
        count = min(most, len(self.places) - self.silent_run, until)
        return slice(until - max(0, count), until)

    def places_of(self, hops: slice) -> NDArray[np.int64]:
        """The hop of the speech for each of `hops`; -1 before its first."""
        offset = len(self.places) - self.hops.count
        return np.array(self.places[hops.start + offset : hops.stop + offset], np.int64) - 1

    def forget(self) -> None:
        """Drop everything that is not needed any more."""
        surplus = self.hops.count - _KEPT_HOPS
        if surplus >= _KEPT_HOPS:
            self.hops.forget(surplus)
            del self.places[: max(0, len(self.places) - _KEPT_HOPS)]
            self.dropped += surplus
