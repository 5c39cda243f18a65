"""Which of the last sounds are concealment by a receiver: if nothing more comes, it repeats the
last sound for about 0.1 s and fades it out (NetEq of libwebrtc, measured with livekit 1.1.21).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..segment import Segment
from .coherence import STRIDE
from .features import SPOKEN_DB, Levels
from .history import History
from .likeness import is_one_tone

_FADE_DB = 6.0
_FADE_HOPS = 60
_MIN_FADE_HOPS = 6  # a natural end of a word is shorter, and its place is less certain
_MIN_SOUND_HOPS = 20
_LEVEL_HOPS = 200
_HELD_HOPS = 10
"""Hops for which a receiver repeats a sound before it fades."""


def _fade_begin(heard: Levels, said: Levels) -> int | None:
    """The hop with which a fade to the end begins; None if there is none.

    Args:
        heard: levels of the last hops in dBFS, up to the last sound.
        said: levels of the speech at their places.
    """
    spoken = said > SPOKEN_DB
    if np.count_nonzero(spoken) < _MIN_SOUND_HOPS:
        return None
    gain = heard - said
    gains = np.sort(gain[spoken])
    median = (gains[(len(gains) - 1) // 2] + gains[len(gains) // 2]) / 2  # see `noise.py`
    faded = gain < median - _FADE_DB
    return _begin_of_last_run(spoken, faded)


def _begin_of_last_run(spoken: NDArray[np.bool_], faded: NDArray[np.bool_]) -> int | None:
    """The first of the spoken hops that are faded without a break up to the end."""
    at = np.flatnonzero(spoken[-_FADE_HOPS + 1 :]) + max(0, len(spoken) - _FADE_HOPS + 1)
    clear = np.flatnonzero(~faded[at])
    run = at[int(clear[-1]) + 1 :] if len(clear) else at
    return int(run[0]) if len(run) >= _MIN_FADE_HOPS else None


def place_before_fade(history: History, segment: Segment, sure_place: int) -> int | None:
    """Hops of the speech that were heard before a tail that a receiver made up; None if
    there is no such tail. Of one tone it would sound as it should.

    Args:
        sure_place: hops heard at the end of the last block that was surely the speech there.
    """
    hops = history.last_sounds(_LEVEL_HOPS)
    places = history.places_of(hops)
    at = np.maximum(places, 0)
    said = segment.hops.levels[at]
    begin = _fade_begin(history.hops.levels[hops], said)
    if begin is None or is_one_tone(segment.hops.bands[at[said > SPOKEN_DB]]):
        return None
    # By then what was held may already have been taken for the word that comes next.
    before = int(places[max(0, begin - _HELD_HOPS) : begin + 1].min()) + 1
    # A block of which the last half was held is still most like the speech at its own place.
    return max(before, sure_place - STRIDE)
