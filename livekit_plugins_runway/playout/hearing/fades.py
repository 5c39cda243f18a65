"""Which of the last sounds a receiver made up: it holds the last one for about 0.1 s, and fades it
out, when nothing more comes (NetEq of libwebrtc, measured with livekit 1.1.21)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .features import SPOKEN_DB, Levels

_FADE_DB = 6.0
_FADE_HOPS = 60
_MIN_FADE_HOPS = 6  # a word's own end is shorter, and may be placed a little wrong
_MIN_SOUND_HOPS = 20
HELD_HOPS = 10
"""For which a sound is held before it fades."""


def fade_begin(heard: Levels, said: Levels) -> int | None:
    """The hop with which a fade to the end begins; None if there is none.

    Args:
        heard: levels of the last hops in dBFS, up to the last sound.
        said: levels of the speech at their places.
    """
    spoken = said > SPOKEN_DB
    if np.count_nonzero(spoken) < _MIN_SOUND_HOPS:
        return None
    gain = heard - said
    faded = gain < np.median(gain[spoken]) - _FADE_DB
    return _begin_of_last_run(spoken, faded)


def _begin_of_last_run(spoken: NDArray[np.bool_], faded: NDArray[np.bool_]) -> int | None:
    """Of the spoken hops that are faded up to the end."""
    at = np.flatnonzero(spoken[-_FADE_HOPS + 1 :]) + max(0, len(spoken) - _FADE_HOPS + 1)
    clear = np.flatnonzero(~faded[at])
    run = at[int(clear[-1]) + 1 :] if len(clear) else at
    return int(run[0]) if len(run) >= _MIN_FADE_HOPS else None
