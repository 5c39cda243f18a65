"""Speech that can be located: every quarter second of it tells which part of which utterance it is.

A `ToneScript` is an utterance made of slots, each a short tone of its own pitch. `hear()` reads the
tones back from a recording, so a test can name what was lost, repeated, late or left over instead
of comparing loudness. Pitches lie 60 Hz apart and below 6.2 kHz: 16 kHz resampling and Opus keep
them. Two tones that sound at once hide each other unless one is clearly louder.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from livekit import rtc

Pcm: TypeAlias = npt.NDArray[np.int16]
"""int16 mono samples."""

ALPHABET = 96
"""How many distinct tones there are; an utterance has at most this many slots."""

SILENCE = 0.005
"""Below this level (RMS, 1.0 = full scale) a recording counts as silent: -46 dBFS."""

_LOWEST_HZ = 400.0
_STEP_HZ = 60.0
_WINDOW_S = 0.040  # long enough to tell 60 Hz apart, short enough to see a 50 ms gap
_HOP_S = 0.005


def frequency(index: int) -> float:
    """The pitch of tone `index` of the alphabet, in Hz."""
    return _LOWEST_HZ + _STEP_HZ * (index % ALPHABET)


def word(index: int) -> str:
    """A word of one syllable that stands for tone `index` in captions and chat history."""
    first, rest = divmod(index % ALPHABET, 12)
    vowel, last = divmod(rest, 3)
    return "bdfgklmn"[first] + "aeio"[vowel] + "tpk"[last]


def words_to_tones(text: str) -> list[int]:
    """The tones that the words of `text` stand for; words of no tone are left out."""
    known = {word(index): index for index in range(ALPHABET)}
    cleaned = (part.strip(".,!? ").lower() for part in text.split())
    return [known[part] for part in cleaned if part in known]


@dataclass(frozen=True)
class ToneScript:
    """An utterance of `slots` tones, starting `offset` tones into the alphabet.

    Two utterances whose ranges in the alphabet do not overlap can be told apart in a recording, so
    a tail of the one that leaks into the other is seen. All times in seconds.
    """

    slots: int
    offset: int = 0
    slot_s: float = 0.25
    gap_s: float = 0.05
    fade_s: float = 0.005
    amplitude: float = 0.4

    def __post_init__(self) -> None:
        if not 1 <= self.slots <= ALPHABET:
            raise ValueError(f"slots must be 1 to {ALPHABET}, got {self.slots}")
        if self.tone_s < 0.08:
            raise ValueError("a tone (slot_s - gap_s) must last at least 0.08 s to be heard")
        if not 0 < self.amplitude <= 1:
            raise ValueError("amplitude must be above 0 and at most 1")

    @property
    def tone_s(self) -> float:
        """How long the tone of a slot sounds, in seconds."""
        return self.slot_s - self.gap_s

    @property
    def duration_s(self) -> float:
        """Length of the utterance in seconds, with the gap of the last slot."""
        return self.slots * self.slot_s

    @property
    def indices(self) -> tuple[int, ...]:
        """The tone of each slot, in order."""
        return tuple((self.offset + slot) % ALPHABET for slot in range(self.slots))

    @property
    def text(self) -> str:
        """Words for captions, one short one per slot: four a second, as spoken text has."""
        return " ".join(word(index) for index in self.indices)

    def pcm(self, sample_rate: int) -> Pcm:
        """The utterance as int16 mono samples."""
        out = np.zeros(round(self.duration_s * sample_rate), dtype=np.float64)
        length = round(self.tone_s * sample_rate)
        fade = max(1, round(self.fade_s * sample_rate))
        envelope = np.ones(length)
        envelope[:fade] = np.linspace(0.0, 1.0, fade)
        envelope[-fade:] = np.linspace(1.0, 0.0, fade)
        time = np.arange(length) / sample_rate
        for slot, index in enumerate(self.indices):
            start = round(slot * self.slot_s * sample_rate)
            tone = np.sin(2 * np.pi * frequency(index) * time) * envelope
            out[start : start + length] = tone[: len(out) - start]
        return (out * self.amplitude * 32767).astype(np.int16)

    def frames(self, sample_rate: int, frame_ms: int = 20) -> Iterator[rtc.AudioFrame]:
        """The utterance as audio frames of `frame_ms`; the last one may be shorter."""
        samples = self.pcm(sample_rate)
        size = sample_rate * frame_ms // 1000
        for start in range(0, len(samples), size):
            piece = samples[start : start + size]
            yield rtc.AudioFrame(piece.tobytes(), sample_rate, 1, len(piece))


@dataclass(frozen=True)
class HeardTone:
    """A tone found in a recording, in seconds from the recording's first sample."""

    index: int
    start_s: float
    end_s: float
    level: float
    """Peak amplitude of the tone, 1.0 = full scale."""

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Gap:
    """A stretch of silence in a recording, in seconds from its first sample."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


def hear(pcm: Pcm, sample_rate: int, *, min_s: float = 0.06) -> list[HeardTone]:
    """The tones in a recording, in the order in which they sound.

    A tone is reported when it sounds for `min_s` seconds or more; its edges are right to 10 ms. The
    same tone twice is reported twice if at least 40 ms of something else lies between.
    """
    indices, levels = _classify(_floats(pcm), sample_rate)
    heard = []
    position = 0
    for index, run in itertools.groupby(indices.tolist()):
        length = len(list(run))
        first, position = position, position + length
        # A window stands for the hop around its middle.
        start, end = (first - 0.5) * _HOP_S, (position - 0.5) * _HOP_S
        if index >= 0 and end - start >= min_s:
            level = float(levels[first:position].max())
            heard.append(HeardTone(int(index), max(0.0, start), end, level))
    return heard


def missing(
    expected: ToneScript, heard: Iterable[HeardTone], *, fraction: float = 0.5
) -> list[int]:
    """The slots of `expected` of which less than `fraction` of the tone was heard, ascending."""
    total = _seconds_by_index(heard)
    least = expected.tone_s * fraction
    return [slot for slot, i in enumerate(expected.indices) if total.get(i, 0.0) < least]


def foreign(expected: ToneScript, heard: Iterable[HeardTone]) -> list[HeardTone]:
    """The tones heard that are not part of `expected`, such as the tail of an earlier utterance."""
    own = set(expected.indices)
    return [tone for tone in heard if tone.index not in own]


def repeated_seconds(
    expected: ToneScript, heard: Iterable[HeardTone], *, tolerance: float = 0.03
) -> float:
    """Seconds of `expected` that were heard more than once.

    `tolerance` is how much longer than its tone a slot may sound before it counts, in seconds.
    """
    total = _seconds_by_index(heard)
    excess = (total.get(i, 0.0) - expected.tone_s for i in expected.indices)
    spoken = sum(over for over in excess if over > tolerance)
    return spoken * expected.slot_s / expected.tone_s


def in_order(expected: ToneScript, heard: Iterable[HeardTone], *, again: int = 0) -> bool:
    """Whether the slots of `expected` were heard in ascending order; other tones are ignored.

    Args:
        again: so many slots may be gone back: for one who goes on where another was cut off.
    """
    slot_of = {index: slot for slot, index in enumerate(expected.indices)}
    slots = [slot_of[tone.index] for tone in heard if tone.index in slot_of]
    return all(a - again <= b for a, b in itertools.pairwise(slots))


def gaps(
    pcm: Pcm, sample_rate: int, *, min_s: float = 0.1, threshold: float = SILENCE
) -> list[Gap]:
    """The stretches of at least `min_s` seconds below `threshold` (RMS, 1.0 = full scale)."""
    silent = envelope(pcm, sample_rate) < threshold
    total = len(pcm) / sample_rate
    found = []
    position = 0
    for is_silent, run in itertools.groupby(silent.tolist()):
        first = position
        position += len(list(run))
        gap = Gap(first * _HOP_S, min(position * _HOP_S, total))
        if is_silent and gap.duration_s >= min_s:
            found.append(gap)
    return found


def silence_after(
    pcm: Pcm,
    sample_rate: int,
    t: float,
    *,
    hold_s: float = 0.3,
    threshold: float = SILENCE,
) -> float | None:
    """Seconds from `t` until the recording falls silent for at least `hold_s` seconds.

    0.0 when it is silent already, None if it never is. `hold_s` must be longer than the gaps inside
    the speech.
    """
    for gap in gaps(pcm, sample_rate, min_s=hold_s, threshold=threshold):
        if gap.end_s - max(gap.start_s, t) >= hold_s:
            return max(0.0, gap.start_s - t)
    return None


def first_sound(pcm: Pcm, sample_rate: int, *, threshold: float = SILENCE) -> float | None:
    """Seconds until something is heard, to 5 ms; None if nothing is."""
    loud = np.flatnonzero(envelope(pcm, sample_rate) >= threshold)
    return float(loud[0]) * _HOP_S if len(loud) else None


def voiced_seconds(pcm: Pcm, sample_rate: int, *, threshold: float = SILENCE) -> float:
    """Seconds that are not silent, counted in steps of 5 ms."""
    return float(np.count_nonzero(envelope(pcm, sample_rate) >= threshold) * _HOP_S)


def envelope(pcm: Pcm, sample_rate: int) -> npt.NDArray[np.float64]:
    """Loudness (RMS, 1.0 = full scale) per 5 ms of a recording."""
    if not len(pcm):
        return np.zeros(0)
    edges = _hops(len(pcm), sample_rate)
    lengths = np.diff(np.append(edges, len(pcm)))
    rms: npt.NDArray[np.float64] = np.sqrt(np.add.reduceat(_floats(pcm) ** 2, edges) / lengths)
    return rms


def _hops(samples: int, sample_rate: int) -> npt.NDArray[np.int64]:
    """The sample at which each 5 ms begins; at 22.05 kHz they are not equally long."""
    count = max(1, int(np.ceil(samples / (sample_rate * _HOP_S))))
    starts = np.round(np.arange(count) * _HOP_S * sample_rate).astype(np.int64)
    return starts[starts < max(1, samples)]


def _floats(pcm: Pcm) -> npt.NDArray[np.float64]:
    return np.asarray(pcm, dtype=np.float64) / 32768.0


def _seconds_by_index(heard: Iterable[HeardTone]) -> dict[int, float]:
    total: dict[int, float] = {}
    for tone in heard:
        total[tone.index] = total.get(tone.index, 0.0) + tone.duration_s
    return total


def _classify(
    samples: npt.NDArray[np.float64], sample_rate: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Per hop of 5 ms the tone that sounds there (-1 = none) and its amplitude.

    Tests call this in the event loop that also paces the voice, many times in a second: so silence
    is left out, and nothing is computed twice.
    """
    window, basis = _basis(sample_rate)
    weights = window**2 / (window**2).sum()
    size = len(window)
    starts = _hops(len(samples), sample_rate)
    padded = np.pad(samples, (size // 2, size))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, size)
    indices = np.full(len(starts), -1, dtype=np.int64)
    levels = np.zeros(len(starts))
    for first in range(0, len(starts), 1024):
        windows = pieces[starts[first : first + 1024]]
        power = windows**2 @ weights
        # With a Hann window no amplitude is above the root of 6 times the power.
        sounding = np.flatnonzero(power >= SILENCE**2 / 6)
        cosines, sines = np.hsplit(windows[sounding] @ basis, 2)
        strength = np.hypot(cosines, sines)
        best = strength.argmax(axis=1)
        amplitude = strength[np.arange(len(sounding)), best]
        indices[first + sounding] = np.where(_is_tone(amplitude, power[sounding]), best, -1)
        levels[first + sounding] = amplitude
    return indices, levels


@functools.cache
def _basis(sample_rate: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A window, and the cosines and sines of each tone of the alphabet in it.

    Correlating with them is a short DFT at exactly the pitches in question.
    """
    window = np.hanning(round(_WINDOW_S * sample_rate))
    pitches = np.array([frequency(index) for index in range(ALPHABET)])
    angle = 2 * np.pi * np.outer(np.arange(len(window)) / sample_rate, pitches)
    basis = np.hstack([np.cos(angle), np.sin(angle)])
    return window, window[:, None] * basis * (2.0 / window.sum())


def _is_tone(
    amplitude: npt.NDArray[np.float64], power: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Where a tone is loud enough and most of what sounds: speech and noise spread out further.

    At a tone's edge that ends where half of the window is past it, so runs are as long as tones.
    """
    pure = amplitude**2 / 2 >= 0.5 * power
    audible: npt.NDArray[np.bool_] = amplitude >= SILENCE
    return audible & pure
