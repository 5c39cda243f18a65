"""Latencies, skew and losses, from when things were captured and when they arrived.

All times are seconds of `time.monotonic()`, one clock for all processes of a machine (Linux).
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LONGEST_VOICE = 3.0
"""Seconds: a sound that takes longer counts as not heard."""
_NEXT = 0.25
"""Seconds by which the latency of a sound may differ from that of the first one, before it could be
another sound: they begin each 0.5 s."""
_TRIED = 3
"""So many of the sounds that were heard are tried for one of those that were sent: the first may be
a click."""
_NEAR = 0.1
"""Pictures captured so many seconds around a sound are those it belongs to: five of them."""


@dataclass(frozen=True)
class Sent:
    """What the avatar worker captured: its pictures by number, and where sound began."""

    pictures: Sequence[float]
    onsets: Sequence[float]


@dataclass(frozen=True)
class Seen:
    """What arrived at a viewer: pictures by number, and where sound began."""

    pictures: Mapping[int, float]
    onsets: Sequence[float]
    since: float = float("-inf")
    """There was silence then; earlier sounds are not in it."""


@dataclass(frozen=True)
class Window:
    """A stretch of time in which things are captured."""

    start: float
    end: float

    def __contains__(self, at: float) -> bool:
        return self.start <= at < self.end


def picture_latencies(sent: Sent, seen: Seen, window: Window) -> dict[int, float]:
    """Seconds from capture to arrival, by the picture's number."""
    return {
        number: seen.pictures[number] - at
        for number, at in enumerate(sent.pictures)
        if at in window and number in seen.pictures
    }


def lost_pictures(sent: Sent, seen: Seen, window: Window) -> int:
    """How many were captured in the window and never arrived."""
    captured = [number for number, at in enumerate(sent.pictures) if at in window]
    return sum(number not in seen.pictures for number in captured)


def frame_rate(seen: Seen, window: Window) -> float:
    """Pictures a second that arrived in the window."""
    arrived = sum(at in window for at in seen.pictures.values())
    return arrived / (window.end - window.start)


def voice_latencies(sent: Sent, seen: Seen, window: Window) -> dict[int, float]:
    """Seconds from capture to arrival, by the number of the sound; those not heard are left out.

    Sounds are alike and come at equal distances, so one alone could be any. Which is the first that
    was heard is told by how many then fit; if several fit equally well, the least latency counts.
    """
    onsets = sorted(seen.onsets)
    captured = {n: at for n, at in enumerate(sent.onsets) if at >= seen.since}
    possible = sorted(heard - at for heard in onsets[:_TRIED] for at in captured.values())
    fits = [
        _arrivals(captured, onsets, latency) for latency in possible if 0 <= latency < LONGEST_VOICE
    ]
    found = max(fits, key=len, default={})  # of equals the first, which has the least latency
    return {number: late for number, late in found.items() if captured[number] in window}


def _arrivals(
    captured: Mapping[int, float], onsets: Sequence[float], latency: float
) -> dict[int, float]:
    """The latency of each sound that was heard at about that of the first one."""
    found = {}
    for number, at in captured.items():
        place = bisect_left(onsets, at + latency - _NEXT)
        near = [onset for onset in onsets[place : place + 2] if onset < at + latency + _NEXT]
        if near and (late := min(near, key=lambda onset: abs(onset - at - latency)) - at) >= 0:
            found[number] = late
    return found


def skews(sent: Sent, seen: Seen, window: Window) -> dict[int, float]:
    """By how many seconds the voice is later than the picture, by the number of the sound; that of
    the picture is the median of those captured at about the same time."""
    found = {}
    for number, late in voice_latencies(sent, seen, window).items():
        at = sent.onsets[number]
        near = picture_latencies(sent, seen, Window(at - _NEAR, at + _NEAR))
        if near:
            found[number] = late - statistics.median(near.values())
    return found


def added(here: Mapping[int, float], there: Mapping[int, float]) -> list[float]:
    """What is more here than there, for each thing that was measured at both."""
    return [value - there[number] for number, value in here.items() if number in there]
