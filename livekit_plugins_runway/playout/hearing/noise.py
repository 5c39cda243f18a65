"""The level up to which the avatar's sound counts as noise."""

from __future__ import annotations

from collections import deque

from .features import AUDIBLE_DB, Levels

_PIECE_HOPS = 10
_PIECES = 20
"""Of 0.1 s each: two seconds are remembered."""
_FIRST_PIECES = 2
"""Before the avatar has spoken at all, so little tells."""
_HIGHEST_DB = -38.0
_MARGIN_DB = 6.0


class NoiseFloor:
    """Learns the noise floor while nothing is said. The level of a tenth of a second is its 90 %
    quantile; the floor is the lowest of the last two seconds. So speech, which has pauses, does not
    raise it, and a growing noise is known after two seconds. Noise before the avatar's first word
    is known at once, so that it is not taken for a word.
    """

    def __init__(self) -> None:
        self._piece: list[float] = []
        self._highs: deque[float] = deque(maxlen=_PIECES)
        self._needed = _FIRST_PIECES
        self.level = AUDIBLE_DB - _MARGIN_DB
        """dBFS below which the noise nearly always stays. Anything above -44 counts as sound."""

    @property
    def threshold(self) -> float:
        """dBFS above which a hop is sound: from -55, while there is no noise, to -38."""
        return max(AUDIBLE_DB, self.level + _MARGIN_DB)

    def hear(self, levels: Levels) -> None:
        """Learn from hops, in dBFS, that came while nothing was being said."""
        for level in levels.tolist():
            self._piece.append(level)
            if len(self._piece) == _PIECE_HOPS:
                self._highs.append(_nearly_highest(self._piece))
                self._piece.clear()
                if len(self._highs) >= self._needed:
                    self.level = min(min(self._highs), _HIGHEST_DB - _MARGIN_DB)

    def note_speech(self) -> None:
        """Note that the avatar has spoken: sound between its words need not be noise any more."""
        self._needed = _PIECES


def _nearly_highest(levels: list[float]) -> float:
    """The 90 % quantile of ten. numpy's quantile and median load a module at their first call,
    which blocks the event loop for 0.1 s.
    """
    second, highest = sorted(levels)[-2:]
    return second + 0.1 * (highest - second)
