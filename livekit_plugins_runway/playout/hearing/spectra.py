"""Compares the spectra of the last sounds with the speech: similarity and place. Pure functions."""

from __future__ import annotations

import numpy as np

from ..segment import Segment
from .features import AUDIBLE_DB
from .history import History
from .likeness import is_monotone, is_steady, likeness, likeness_along

_MATCH_HOPS = 60
_MATCH_REACH_HOPS = 150
_MATCH_MIN_SCORE = 0.75
_MIN_SOUND_HOPS = 20
_ALONG_HOPS = 100
_NOISE_BELOW_DB = 15.0
"""Sounds that are so many dB softer than the loudest one may be noise."""


def find_place(history: History, segment: Segment, start_hop: int) -> int | None:
    """The hop of the speech that the last sounds end with, looked for around the place that is
    known; None if they are too few, or not alike anywhere.

    Args:
        start_hop: hop of the speech at which the delivery begins.
    """
    hops = history.last_sounds(_MATCH_HOPS)
    heard = history.hops
    if np.count_nonzero(heard.levels[hops] > AUDIBLE_DB) < _MIN_SOUND_HOPS:
        return None
    said, count = segment.hops.bands, hops.stop - hops.start
    place = history.places[-1] - count
    first = max(start_hop, place - _MATCH_REACH_HOPS)
    last = min(len(said) - count, place + _MATCH_REACH_HOPS)
    if last < first:
        return None
    scores = likeness(heard.bands[hops], said[first : last + count])
    best = int(np.argmax(scores))
    return first + best + count if scores[best] >= _MATCH_MIN_SCORE else None


def likeness_at_places(history: History, segment: Segment) -> tuple[float, bool] | None:
    """Similarity of the last second of sound to the speech at its places, -1 to 1; and True if the
    sound hardly changes, so that the similarity means nothing. None while there is too little
    sound.
    """
    heard, said = history.hops, segment.hops
    with_place = slice(max(0, heard.count - len(history.places)), heard.count)
    places = history.places_of(with_place)
    sounding = (heard.levels[with_place] > AUDIBLE_DB) & (places >= 0)
    sounds = np.flatnonzero(sounding)[-_ALONG_HOPS:]
    if len(sounds) < _MIN_SOUND_HOPS:
        return None
    at = np.minimum(places[sounds], said.count - 1)
    there, here = said.bands[at], heard.bands[with_place][sounds]
    # A ring tone goes on and off; with its pauses included, it would seem to change.
    levels = heard.levels[with_place][sounds]
    loud = levels > levels.max() - _NOISE_BELOW_DB
    spoken = loud & (said.levels[at] > AUDIBLE_DB)
    clear = spoken if np.count_nonzero(spoken) >= _MIN_SOUND_HOPS else loud
    before_the_end = at < said.count - 1  # beyond it what is said does not change any more
    tells = np.count_nonzero(before_the_end) >= _MIN_SOUND_HOPS
    steady = bool(tells) and is_steady(here[before_the_end], there[before_the_end])
    return likeness_along(here, there), steady or is_monotone(here[clear])
