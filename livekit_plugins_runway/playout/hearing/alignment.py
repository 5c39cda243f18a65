"""Where in a known piece of speech a receiver is, from what it hears: dynamic time warping, online.

An avatar's voice has the words that were sent, but not their pace: a receiver that runs dry
stretches sound (NetEq of libwebrtc: to twice its length and more), one with too much in its buffer
speeds up, a worker that waits for speech is silent and then goes on. So each 10 ms heard are
compared with every place near by, and the cheapest path through all of them gives the place. No
clock is involved.
"""

from __future__ import annotations

import numpy as np

from .features import AUDIBLE_DB, SHAPE_DB, SPOKEN_DB, Hops, Levels

# Costs of one hop; a sound that is unlike all that was said costs up to 2.
_WORST_DB = 20.0
_MISSING = 2.0  # silence where speech was said
_WARP = 0.6  # sound that lasts longer or shorter than it was said
_HELD = 0.3  # the same, of sound that does not change: a receiver without packets repeats the last
_WAIT = 0.1  # silence while the avatar waits for more to say
_BACK = 160
_SPAN = 240
_AT_ONCE = 25  # hops aligned in one step; twice as many stay comparable ahead of the place
_CHANGE_DB = 3.0
_GAIN_HOPS = 20
_GAIN_SWING_DB = 12.0
_STRAIN_WEIGHT = 0.04
_HOPELESS = 20.0
STRAINED = 0.9
"""If the mean cost of a hop of sound exceeds this, the place is lost; see `Alignment.strain`."""


class Alignment:
    """Follows the heard speech, from its hop `first` on."""

    def __init__(self, first: int) -> None:
        self._low = first - 1
        self._costs = np.full(_SPAN, np.inf, np.float32)
        self._costs[0] = 0.0  # hop `first` - 1 was the last one heard
        self._best = 0  # of `_costs`, the index of the least
        self._relative: Levels = np.zeros(1, np.float32)
        self._gain = 0.0
        self._spoken = 0
        self.strain = 0.0
        """Mean cost per hop of the last half second of sound."""

    @property
    def place(self) -> int:
        """Hops heard, counted from the start of the speech."""
        return self._low + self._best + 1

    def hear(self, heard: Hops, since: int, said: Hops) -> list[int]:
        """Account for the sound heard from hop `since` on. The given speech is what was sent so
        far.

        Returns:
            `place` after each of these hops.
        """
        places = []
        for first in range(since, heard.count, _AT_ONCE):
            places += self._hear(heard, slice(first, min(first + _AT_ONCE, heard.count)), said)
        return places

    def _hear(self, heard: Hops, hops: slice, said: Hops) -> list[int]:
        self._follow()
        said_levels = said.levels
        at = self._reachable(hops.stop - hops.start, len(said_levels))
        near = slice(self._low + at.start, self._low + at.stop)
        levels = heard.levels[hops]
        costs = self._costs_of(levels, heard.shapes[hops], said_levels[near], said.shapes[near])
        changes = self._changes(heard.bands[hops])
        places = []
        for level, changed, cost in zip(levels.tolist(), changes, costs, strict=True):
            self._step(level > AUDIBLE_DB, changed, at, cost)
            place = self.place
            places.append(place)
            if level > AUDIBLE_DB and 0 < place <= len(said_levels):
                said_level = float(said_levels[place - 1])
                if said_level > SPOKEN_DB:
                    self._learn_gain(level - said_level)
        return places

    def _reachable(self, hops: int, said: int) -> slice:
        """Which of `_costs` can be part of the cheapest path within so many hops; a path that costs
        much more than the best one cannot become the best again.
        """
        likely = np.flatnonzero(self._costs < self._costs[self._best] + _HOPELESS)
        first = max(int(likely[0]), -self._low, 0)
        last = min(int(likely[-1]) + 2 * hops + 1, said - self._low, _SPAN)
        return slice(first, max(first, last))

    def _step(self, sounds: bool, changed: bool, at: slice, cost: Levels) -> None:
        """Advance by one heard hop; `cost` is its cost at each hop said."""
        before = self._costs
        costs = before + np.float32((_WARP if changed else _HELD) if sounds else np.inf)
        np.minimum(costs[1:], before[:-1], out=costs[1:])
        np.minimum(costs[2:], before[:-2] + np.float32(_WARP), out=costs[2:])
        costs[at] += cost
        costs[: at.start], costs[at.stop :] = np.inf, np.inf
        if not sounds:
            np.minimum(costs, before + np.float32(_WAIT), out=costs)
        self._best = int(costs.argmin())
        least = costs[self._best]
        costs -= least
        self._costs = costs
        if sounds:
            self.strain += _STRAIN_WEIGHT * (float(least) - self.strain)

    def move_to(self, place: int) -> None:
        """Restart at the place where `place` hops were heard."""
        self._low = place - 1
        self._costs[:] = np.inf
        self._costs[0], self._best = 0.0, 0
        self.strain = 0.0

    def _costs_of(
        self, levels: Levels, shapes: Levels, said_levels: Levels, said_shapes: Levels
    ) -> Levels:
        """What each hop heard (row) costs as each hop said (column)."""
        silence = np.where(said_levels > SPOKEN_DB, np.float32(_MISSING), np.float32(0.0))
        costs = np.repeat(silence[np.newaxis], len(levels), axis=0)
        sounds = np.flatnonzero(levels > AUDIBLE_DB)
        if len(sounds):
            heard = shapes[sounds, np.newaxis]
            costs[sounds] = self._unlikeness(levels[sounds], heard, said_levels, said_shapes)
        return costs

    def _unlikeness(
        self, levels: Levels, shapes: Levels, said_levels: Levels, said_shapes: Levels
    ) -> Levels:
        """The difference of sounds from each hop said. A softer sound costs nothing, because a
        receiver fades out what it conceals. A louder one does: silence does not become sound.
        """
        apart = said_shapes - shapes
        np.abs(apart, out=apart)
        np.minimum(apart, _WORST_DB, out=apart)
        # Bands that are quiet in both say little: a vowel has its energy in few bands.
        weight = np.maximum(said_shapes, shapes)
        weight += 1.0
        gained = (levels - np.float32(self._gain))[:, np.newaxis]
        louder = np.clip(gained - said_levels, 0.0, _WORST_DB)
        each = np.ones(weight.shape[-1], np.float32)  # a product with it is the fastest sum
        total = weight @ each
        np.multiply(apart, weight, out=apart)
        cost: Levels = np.maximum((apart @ each) / total, louder) / np.float32(10.0)
        return cost

    def _changes(self, bands: Levels) -> list[bool]:
        """True for each sound that differs from the sound 10 ms before, regardless of level."""
        relative = bands - bands.max(axis=1, keepdims=True)
        before = np.empty_like(relative)
        before[0], before[1:] = self._relative, relative[:-1]
        self._relative = relative[-1]
        counts = relative > -SHAPE_DB
        change = np.einsum("hb,hb->h", np.abs(relative - before), counts)
        changed: list[bool] = (change > _CHANGE_DB * np.count_nonzero(counts, axis=1)).tolist()
        return changed

    def _learn_gain(self, gain: float) -> None:
        """How much louder the avatar is than the speech; fading sounds are left out."""
        self._spoken += 1
        if self._spoken < _GAIN_HOPS or abs(gain - self._gain) < _GAIN_SWING_DB:
            self._gain += max(1 / self._spoken, 1 / _GAIN_HOPS) * (gain - self._gain)

    def _follow(self) -> None:
        """Keep the place inside the span that is compared."""
        ahead = self._best - _BACK
        if ahead > 0:
            self._best -= ahead
            self._costs = np.append(self._costs[ahead:], np.full(ahead, np.inf, np.float32))
            self._low += ahead
