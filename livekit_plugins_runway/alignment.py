"""Where in a known piece of speech a receiver is, from what it hears: dynamic time warping, online.

What comes back from an avatar is what was said, but not at its pace: a starved receiver stretches
sound (NetEq of libwebrtc: to twice its length and more), one that has too much hurries, a worker
that waits for speech is silent and then goes on. So each 10 ms heard are compared with every place
near by, and the cheapest path through all of them tells the place. No clock is involved.
"""

from __future__ import annotations

import numpy as np

from .playout import AUDIBLE_DB, SHAPE_DB, SPOKEN_DB, Levels, shape_of

# Costs of one hop; a sound that is unlike all that was said costs up to 2.
_WORST_DB = 20.0
_MISSING = 2.0  # silence where speech was said
_WARP = 0.6  # sound that lasts longer or shorter than it was said
_HELD = 0.3  # the same, of sound that does not change: a receiver without packets repeats the last
_WAIT = 0.1  # silence while the avatar waits for more to say
_BACK = 160
_SPAN = 240
_CHANGE_DB = 3.0
_GAIN_HOPS = 20
_GAIN_SWING_DB = 12.0
_STRAIN_WEIGHT = 0.04
STRAINED = 0.9
"""Mean cost of a hop of sound from which on the place is lost; see `Alignment.strain`."""


class Alignment:
    """Follows what is heard of speech from its hop `first` on, which is heard next."""

    def __init__(self, first: int) -> None:
        self._low = first - 1
        self._costs = np.full(_SPAN, np.inf, np.float32)
        self._costs[0] = 0.0  # hop `first` - 1 was the last one heard
        self._relative: Levels = np.zeros(1, np.float32)
        self._gain = 0.0
        self._spoken = 0
        self.strain = 0.0
        """What the last half second of sound cost per hop."""

    @property
    def place(self) -> int:
        """Hops heard, counted from the start of the speech."""
        return self._low + int(np.argmin(self._costs)) + 1

    def hear(self, level: float, bands: Levels, said_levels: Levels, said_shapes: Levels) -> None:
        """Account for 10 ms. Of the speech only what was sent so far is given."""
        self._follow()
        low = max(self._low, 0)
        said = slice(low, self._low + _SPAN)
        levels = said_levels[said]
        at = slice(low - self._low, low - self._low + len(levels))
        before, after = self._costs, np.full(_SPAN, np.inf, np.float32)
        sounds = level > AUDIBLE_DB
        steps = before + (_WARP if self._changed(bands) else _HELD)
        if sounds:
            cost = self._unlikeness(level, shape_of(bands), levels, said_shapes[said])
        else:
            steps[:] = np.inf
            cost = np.where(levels > SPOKEN_DB, np.float32(_MISSING), np.float32(0.0))
        steps[1:] = np.minimum(steps[1:], before[:-1])
        steps[2:] = np.minimum(steps[2:], before[:-2] + _WARP)
        after[at] = steps[at] + cost
        if not sounds:
            after = np.minimum(after, before + _WAIT)
        least = float(after.min())
        self._costs = after - least
        if not sounds:
            return
        self.strain += _STRAIN_WEIGHT * (least - self.strain)
        place = self.place - 1
        if 0 <= place < len(said_levels) and said_levels[place] > SPOKEN_DB:
            self._learn_gain(level - float(said_levels[place]))

    def move_to(self, place: int) -> None:
        """Begin again where `place` hops were heard."""
        self._low = place - 1
        self._costs[:] = np.inf
        self._costs[0] = 0.0
        self.strain = 0.0

    def _unlikeness(self, level: float, shape: Levels, levels: Levels, shapes: Levels) -> Levels:
        """How unlike a sound is to each hop said. Softer than said costs nothing: a receiver fades
        out what it holds. Louder does: sound was not made of silence."""
        apart = shapes - shape
        np.abs(apart, out=apart)
        np.minimum(apart, _WORST_DB, out=apart)
        # What is quiet in both says little: a vowel has its energy in few bands.
        weight = np.maximum(shapes, shape)
        weight += 1.0
        louder = np.minimum(np.maximum(np.float32(level - self._gain) - levels, 0.0), _WORST_DB)
        total = weight.sum(axis=1)
        np.multiply(apart, weight, out=apart)
        cost: Levels = np.maximum(apart.sum(axis=1) / total, louder) / np.float32(10.0)
        return cost

    def _changed(self, bands: Levels) -> bool:
        """Whether the sound is another than 10 ms ago, whatever its level."""
        loudest = bands.max()
        relative = bands - loudest
        before, self._relative = self._relative, relative
        counts = relative > -SHAPE_DB
        change = float(np.abs(relative - before)[counts].sum())
        return change > _CHANGE_DB * int(np.count_nonzero(counts))

    def _learn_gain(self, gain: float) -> None:
        """How much louder the avatar is than what was said; what fades is left out."""
        self._spoken += 1
        if self._spoken < _GAIN_HOPS or abs(gain - self._gain) < _GAIN_SWING_DB:
            self._gain += max(1 / self._spoken, 1 / _GAIN_HOPS) * (gain - self._gain)

    def _follow(self) -> None:
        """Keep the place inside the span that is looked at."""
        ahead = int(np.argmin(self._costs)) - _BACK
        if ahead > 0:
            self._costs = np.append(self._costs[ahead:], np.full(ahead, np.inf, np.float32))
            self._low += ahead
