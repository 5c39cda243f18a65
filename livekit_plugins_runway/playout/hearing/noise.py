"""The level up to which what comes back from an avatar is no sound, but its noise."""

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
    """Learns the floor of what comes back while nothing is said.

    Each tenth of a second counts as what nearly all of it stays below; the floor is the least of
    the last two seconds. So speech, which has pauses or ends, does not raise it, and a noise that
    grows is known after two seconds. What an avatar brings before its first word is known at once:
    that word shall not be taken from among noise.
    """

    def __init__(self) -> None:
        self._piece: list[float] = []
        self._highs: deque[float] = deque(maxlen=_PIECES)
        self._needed = _FIRST_PIECES
        self.level = AUDIBLE_DB - _MARGIN_DB
        """dBFS that the noise nearly always stays below. What is louder than -44 is taken for
        sound."""

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
        """The avatar has spoken: what comes between its words is no longer all noise."""
        self._needed = _PIECES


def _nearly_highest(levels: list[float]) -> float:
    """The 90 % quantile of ten. numpy's own, and its median, load a module at their first call,
    which takes 0.1 s of the event loop."""
    second, highest = sorted(levels)[-2:]
    return second + 0.1 * (highest - second)
