"""What `make bench-speech` reads from a recording: holes, tones that sound twice, and its level."""

from __future__ import annotations

from livekit_plugins_runway.testing.levels import loudest, too_loud
from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.tones import HeardTone, Pcm, ToneScript, gaps, hear

_SLACK = 0.03
"""Seconds by which a gap of the script may be heard too long before it is a hole."""


def heard(pcm: Pcm) -> list[HeardTone]:
    return hear(pcm, SAMPLE_RATE)


def wrong_level(pcm: Pcm, script: ToneScript) -> str | None:
    """What is wrong if anything is louder than what was said, or clipped."""
    return too_loud(loudest(script.pcm(SAMPLE_RATE), SAMPLE_RATE), pcm, SAMPLE_RATE)


def longest_hole(pcm: Pcm, script: ToneScript, after: float) -> tuple[float, float]:
    """The start and the end, less the script's own gap, of the longest silence inside the speech
    that ends later than `after` (seconds of `pcm`); (after, after) if there is none."""
    total = len(pcm) / SAMPLE_RATE
    silences = gaps(pcm, SAMPLE_RATE, min_s=script.gap_s + _SLACK)
    # The one that reaches to the end is not inside the speech, nor is one from the beginning.
    inside = [g for g in silences if g.start_s > 0 and after < g.end_s < total]
    longest = max(inside, key=lambda g: g.duration_s, default=None)
    if longest is None:
        return after, after
    return longest.start_s + script.gap_s, longest.end_s


def repeated(script: ToneScript, tones: list[HeardTone]) -> tuple[float, float]:
    """Seconds of tones that sound again after later ones; and, of a tone that was cut off and then
    begun anew, the seconds beyond one tone."""
    again, furthest = 0.0, -1
    lengths: dict[int, list[float]] = {}
    for tone in tones:
        if tone.index < furthest:
            again += min(tone.duration_s, script.tone_s)
            lengths.pop(tone.index, None)
            continue
        furthest = tone.index
        lengths.setdefault(tone.index, []).append(tone.duration_s)
    cuts = (sum(parts) - script.tone_s for parts in lengths.values() if len(parts) > 1)
    return again, sum(max(0.0, cut) for cut in cuts)
