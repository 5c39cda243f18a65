"""What an avatar, and the way back from it, do to a voice that still says the same words.

Each is a pure function from int16 mono at 48 kHz to the same, whose name says what it does; the
same call gives the same samples. The words begin where they began, later by `lead_s`, and go on
`pace` times as fast. `TREATMENTS` has them all, `chain()` puts one after the other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial, reduce
from typing import Any, Literal, TypeAlias

import av
import numpy as np

from bench.ear.dsp import (
    RATE,
    Pcm,
    Signal,
    band_passed,
    convolved,
    frame_levels,
    gain,
    resampled,
    rms_db,
    speech_level_db,
    to_pcm,
    to_signal,
)
from bench.ear.sounds import breath, pink_noise, white_noise

Group = Literal[
    "none", "level", "band", "room", "codec", "noise", "breath", "edge", "pace", "loss", "phase"
]
Change: TypeAlias = Callable[[Signal], Signal]


@dataclass(frozen=True)
class Treatment:
    """One thing that is done to a voice."""

    name: str
    groups: tuple[Group, ...]
    change: Change
    lead_s: float = 0.0
    """Seconds by which the words begin later."""
    pace: float = 1.0
    """How fast the words go on, on the whole: 1.1 is a tenth faster."""

    def __call__(self, pcm: Pcm) -> Pcm:
        return to_pcm(self.change(to_signal(pcm)))


def chain(*treatments: Treatment) -> Treatment:
    """One after the other, with nothing rounded or clipped in between."""

    def change(signal: Signal) -> Signal:
        return reduce(lambda so_far, one: one.change(so_far), treatments, signal)

    lead = 0.0
    for one in treatments:
        lead = lead / one.pace + one.lead_s
    return Treatment(
        " + ".join(one.name for one in treatments),
        tuple(dict.fromkeys(group for one in treatments for group in one.groups)),
        change,
        lead,
        reduce(lambda so_far, one: so_far * one.pace, treatments, 1.0),
    )


# -- level ----------------------------------------------------------------------------------------

_CEILING = gain(-0.3)
_BLOCK = RATE // 1000
"""Gains that follow the sound are computed once a millisecond."""


def _amplified(signal: Signal, db: float) -> Signal:
    return _limited(signal * gain(db))


def _limited(signal: Signal) -> Signal:
    """Turned down around each peak that would be above the ceiling; the rest is left as it is."""
    reach = 2 * _BLOCK
    needed = _CEILING / np.maximum(np.abs(signal), _CEILING)
    lowest = _lowest_around(needed, reach)
    window = np.hanning(2 * reach + 1)
    padded = np.pad(lowest, reach, mode="edge")
    # A mean of minima over the same reach is nowhere above what is needed.
    smooth = convolved(padded, window / window.sum())[2 * reach :]
    return np.clip(signal * smooth, -_CEILING, _CEILING)


def _lowest_around(values: Signal, reach: int) -> Signal:
    """At each sample the lowest of the `reach` samples before and after it."""
    width = 2 * reach + 1
    lowest = np.pad(values, reach, mode="edge")
    step = 1
    while step < width:
        shift = min(step, width - step)
        lowest = np.minimum(lowest[:-shift], lowest[shift:])
        step += shift
    return lowest


def _compressed(signal: Signal) -> Signal:
    """4:1 above 12 dB below the voice's level; 5 ms attack, 80 ms release; as loud as before."""
    if not np.any(signal):
        return signal
    threshold = speech_level_db(signal) - 12.0
    level = _followed(_block_levels(signal), attack_ms=5.0, release_ms=80.0)
    over = np.maximum(0.0, 20 * np.log10(np.maximum(level, 1e-6)) - threshold)
    squeezed = signal * _per_sample(10 ** (-over * 0.75 / 20), len(signal))
    return _limited(squeezed * gain(speech_level_db(signal) - speech_level_db(squeezed)))


def _ridden(signal: Signal) -> Signal:
    """An automatic gain that starts 8 dB low, and brings the voice to -20 dBFS within seconds."""
    target = gain(-20.0)
    factor, factors = gain(-8.0), []
    for level in _followed(_block_levels(signal), attack_ms=50.0, release_ms=400.0):
        if level > gain(-50.0):  # in a pause it stays where it is
            wanted = min(gain(12.0), max(gain(-12.0), target / level))
            factor += (wanted - factor) / (1500.0 if wanted > factor else 500.0)
        factors.append(factor)
    return _limited(signal * _per_sample(np.array(factors), len(signal)))


def _block_levels(signal: Signal) -> Signal:
    """RMS of each millisecond, the last one filled up with silence."""
    padded = np.pad(signal, (0, -len(signal) % _BLOCK))
    levels: Signal = np.sqrt(np.mean(padded.reshape(-1, _BLOCK) ** 2, axis=1))
    return levels


def _followed(levels: Signal, *, attack_ms: float, release_ms: float) -> Signal:
    level, followed = 0.0, []
    for one in levels.tolist():
        level += (one - level) / (attack_ms if one > level else release_ms)
        followed.append(level)
    return np.array(followed)


def _per_sample(of_blocks: Signal, length: int) -> Signal:
    centers = (np.arange(len(of_blocks)) + 0.5) * _BLOCK
    return np.interp(np.arange(length), centers, of_blocks)


# -- band, room, phase ----------------------------------------------------------------------------


def _through_16_khz(signal: Signal) -> Signal:
    return band_passed(resampled(resampled(signal, RATE, 16_000), 16_000, RATE), 200.0, 7000.0)


def _in_room(signal: Signal, decay_s: float, direct_db: float) -> Signal:
    """With the reverberation of a room that fades by 60 dB in `decay_s`."""
    return convolved(signal, _room(decay_s, direct_db))


@functools.cache
def _room(decay_s: float, direct_db: float) -> Signal:
    """An impulse response: the direct sound, and `direct_db` below it what walls throw back."""
    length = round(1.2 * decay_s * RATE)
    time = np.arange(length) / RATE
    tail = np.random.default_rng(11).standard_normal(length) * 10 ** (-3 * time / decay_s)
    tail[: RATE // 200] = 0.0  # the first wall is 1.7 m of way further
    tail = band_passed(tail, 100.0, 6000.0)
    tail *= gain(-direct_db) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    return tail


def _filtered(signal: Signal, response: Callable[[Signal], Signal]) -> Signal:
    """By a recursive filter, given as its response to each z**-1 of the unit circle."""
    size = len(signal) + RATE // 2
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(size))
    out: Signal = np.fft.irfft(np.fft.rfft(signal, size) * response(z), size)
    return out[: len(signal)]


def _all_passed(signal: Signal) -> Signal:
    """Each frequency as loud as before, but up to some milliseconds later than others."""
    sections = [(250.0, 2.0), (700.0, 2.0), (1600.0, 1.5), (3200.0, 1.0)]

    def response(z: Signal) -> Signal:
        return reduce(np.multiply, (_all_pass(z, *section) for section in sections))

    return _filtered(signal, response)


def _all_pass(z: Signal, hz: float, quality: float) -> Signal:
    angle = 2 * np.pi * hz / RATE
    width = np.sin(angle) / (2 * quality)
    a0, a1, a2 = 1 + width, -2 * np.cos(angle), 1 - width
    response: Signal = (a2 + a1 * z + a0 * z**2) / (a0 + a1 * z + a2 * z**2)
    return response


def _equalised(signal: Signal) -> Signal:
    """As a set of knobs does it: bass and presence up, the middle down."""
    bands = [(140.0, 0.8, 5.0), (500.0, 1.0, -5.0), (3000.0, 0.9, 6.0), (8000.0, 0.8, 3.0)]

    def response(z: Signal) -> Signal:
        return reduce(np.multiply, (_peak(z, *band) for band in bands))

    return _filtered(signal, response)


def _peak(z: Signal, hz: float, quality: float, db: float) -> Signal:
    angle = 2 * np.pi * hz / RATE
    width, root = np.sin(angle) / (2 * quality), gain(db / 2)
    middle = -2 * np.cos(angle) * z
    above = (1 + width * root) + middle + (1 - width * root) * z**2
    below = (1 + width / root) + middle + (1 - width / root) * z**2
    response: Signal = above / below
    return response


def _declicked(signal: Signal) -> Signal:
    """Samples that stand out from their four neighbours are put in their middle."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(signal, 2, mode="edge"), 5)
    middle: Signal = np.median(around, axis=1)
    apart = np.abs(signal - middle)
    power = convolved(np.pad(apart**2, (0, 240)), np.ones(481) / 481)[240:]
    usual = np.sqrt(np.maximum(power, 0.0))
    return np.where(apart > 4.0 * usual, middle, signal)


# -- codec ----------------------------------------------------------------------------------------

_OPUS_FRAME = RATE // 50
_OPUS_DELAY = 312
"""Samples by which Opus looks ahead at 48 kHz."""


def _opus(signal: Signal, kbit: int) -> Signal:
    """Through Opus as WebRTC sends it: 20 ms frames, tuned for speech. Keeps its time."""
    pcm = to_pcm(np.pad(signal, (0, 4 * _OPUS_FRAME)))
    decoded = np.concatenate(list(_decoded(_encoded(pcm, kbit))))
    return to_signal(decoded[_OPUS_DELAY : _OPUS_DELAY + len(signal)])


def _encoded(pcm: Pcm, kbit: int) -> Iterator[av.Packet[Any]]:
    encoder = av.AudioCodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "s16"
    encoder.bit_rate, encoder.time_base = kbit * 1000, Fraction(1, RATE)
    encoder.options = {"application": "voip", "vbr": "on", "frame_duration": "20"}
    for start in range(0, len(pcm) - _OPUS_FRAME + 1, _OPUS_FRAME):
        piece = pcm[start : start + _OPUS_FRAME]
        frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, start
        yield from encoder.encode(frame)


def _decoded(packets: Iterator[av.Packet[Any]]) -> Iterator[Pcm]:
    decoder = av.AudioCodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout = RATE, "mono"
    for packet in packets:
        for frame in decoder.decode(packet):
            yield frame.to_ndarray().reshape(-1).astype(np.int16)


# -- noise, breath, edges -------------------------------------------------------------------------

_BREATH_DB = -38.0
_QUIET_DB = 35.0
"""A pause is that far below the voice's level."""


def _with_noise(signal: Signal, noise: Callable[[float], Pcm], db: float) -> Signal:
    added = to_signal(noise(len(signal) / RATE + 0.01))[: len(signal)]
    return signal + added * gain(db - rms_db(added))


def _after_breath(signal: Signal, seconds: float) -> Signal:
    return np.concatenate([_breath(seconds), signal])


def _breath(seconds: float) -> Signal:
    return to_signal(breath(seconds, level_db=_BREATH_DB))


def _with_breaths(signal: Signal) -> Signal:
    """A breath of up to 0.25 s in each pause of 0.12 s or more."""
    out = signal.copy()
    for start, end in _pauses(signal, least_s=0.12):
        seconds = min(0.25, (end - start) / RATE)
        first = start + (end - start - round(seconds * RATE)) // 2
        out[first : first + round(seconds * RATE)] += _breath(seconds)
    return out


def _pauses(signal: Signal, *, least_s: float) -> list[tuple[int, int]]:
    """Pauses between words, from sample to sample; not what is before or after all speech."""
    first, last = _spoken(signal)
    quiet = frame_levels(signal) < gain(speech_level_db(signal) - _QUIET_DB)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    runs = [(int(a) * _OPUS_FRAME, int(b) * _OPUS_FRAME) for a, b in edges.reshape(-1, 2)]
    return [(a, b) for a, b in runs if a >= first and b <= last and b - a >= least_s * RATE]


def _spoken(signal: Signal) -> tuple[int, int]:
    """The samples from the first to the last that is spoken; all of it when nothing is."""
    loud = np.flatnonzero(np.abs(signal) > gain(speech_level_db(signal) - _QUIET_DB))
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, len(signal))


def _faded_end(signal: Signal, db: float, seconds: float) -> Signal:
    """The last `seconds` of speech fall by `db`, and what follows stays down."""
    _, last = _spoken(signal)
    length = round(seconds * RATE)
    fall = np.clip((np.arange(len(signal)) - (last - length)) / length, 0.0, 1.0)
    return signal * 10 ** (-db / 20 * fall)


def _faded_start(signal: Signal, db: float, seconds: float) -> Signal:
    return _faded_end(signal[::-1], db, seconds)[::-1]


# -- pace -----------------------------------------------------------------------------------------

_GRAIN, _HOP, _SEARCH, _COARSE = RATE * 30 // 1000, RATE * 15 // 1000, RATE * 8 // 1000, 4


def _at_pace(signal: Signal, pace: float) -> Signal:
    """Faster or slower at the same pitch."""
    length = round(len(signal) / pace)
    return _stretched(signal, np.arange(0.0, length, _HOP) * pace, length)


def _stretched_at_start(signal: Signal, seconds: float) -> Signal:
    """The first 0.8 s take `seconds` longer, as a player does that waits for more."""
    first = min(round(0.8 * RATE), len(signal))
    longer = round(seconds * RATE)
    length = len(signal) + longer
    at = np.arange(0.0, length, _HOP)
    slow = at * (first / (first + longer))
    return _stretched(signal, np.where(at < first + longer, slow, at - longer), length)


def _stretched(signal: Signal, sources: Signal, length: int) -> Signal:
    """Grains of `signal` from about `sources`, one a hop, each where it goes on best (WSOLA)."""
    padded = np.pad(signal, (_GRAIN, 2 * _GRAIN + _SEARCH))
    window = np.hanning(_GRAIN + 1)[:-1]
    out = np.zeros(len(sources) * _HOP + _GRAIN)
    previous = -_HOP
    for index, source in enumerate(np.rint(sources).astype(int).tolist()):
        position = _continued(padded, previous + _HOP, min(source, len(signal)))
        grain = padded[position + _GRAIN // 2 : position + _GRAIN // 2 + _GRAIN]
        out[index * _HOP : index * _HOP + _GRAIN] += grain * window
        previous = position
    return np.pad(out[_GRAIN // 2 :], (0, length))[:length]


def _continued(padded: Signal, natural: int, wanted: int) -> int:
    """The position near `wanted` that looks most like what would come next by itself."""
    if abs(natural - wanted) <= 1:
        return natural
    start = _GRAIN // 2
    low = max(wanted - _SEARCH, -start)
    natural = min(max(natural, -start), len(padded) - start - _GRAIN)
    target = padded[start + natural : start + natural + _GRAIN]
    around = padded[start + low : start + wanted + _SEARCH + _GRAIN]
    coarse = _best_match(around[::_COARSE], target[::_COARSE]) * _COARSE
    near = max(0, coarse - _COARSE)
    return low + near + _best_match(around[near : coarse + _COARSE + _GRAIN], target)


def _best_match(around: Signal, target: Signal) -> int:
    """Where in `around` `target` fits best, by normalised correlation."""
    if len(around) < len(target):
        return 0
    products = np.correlate(around, target, "valid")
    sums = np.concatenate([[0.0], np.cumsum(around**2)])
    energies = sums[len(target) :] - sums[: -len(target)]
    return int(np.argmax(products / np.sqrt(np.maximum(energies, 1e-9))))


def _resampled_to_pace(signal: Signal, pace: float) -> Signal:
    """Faster or slower, and higher or lower with it, as a clock that runs wrong does."""
    return resampled(signal, RATE * pace, RATE)


# -- losses ---------------------------------------------------------------------------------------

_FADE_S = 0.1
"""After this long nothing is left of a concealed loss."""


def _concealed(signal: Signal, lost_s: float, every_s: float) -> Signal:
    """Pieces are lost, and the last period of the voice is repeated in their place, fading."""
    out = signal.copy()
    lost, joint = round(lost_s * RATE), RATE // 200
    for start in range(round(every_s * RATE), len(signal) - lost - joint, round(every_s * RATE)):
        filler = _repeated(out[max(0, start - RATE // 20) : start], lost + joint)
        rise = np.linspace(0.0, 1.0, joint)
        filler[lost:] = filler[lost:] * (1 - rise) + signal[start + lost :][:joint] * rise
        out[start : start + lost + joint] = filler
    return out


def _repeated(before: Signal, length: int) -> Signal:
    period = _period(before)
    filler = np.resize(before[-period:], length)
    fade: Signal = np.maximum(0.0, 1.0 - np.arange(length) / (_FADE_S * RATE))
    return filler * fade


def _period(before: Signal) -> int:
    """Samples of the voice's period at the end of `before`: 2.5 to 16 ms."""
    shortest, longest, compared = RATE // 400, RATE * 16 // 1000, RATE // 100
    if len(before) < longest + compared:
        return shortest
    earlier = before[-(longest + compared) : -shortest]
    return longest - _best_match(earlier, before[-compared:])


# -- all of them ----------------------------------------------------------------------------------


def _named(
    name: str, group: Group, change: Change, lead_s: float = 0.0, pace: float = 1.0
) -> Treatment:
    return Treatment(name, (group,), change, lead_s, pace)


IDENTITY = Treatment("as it is", ("none",), lambda signal: signal)

SINGLE: tuple[Treatment, ...] = (
    IDENTITY,
    *(_named(f"{db:+d} dB", "level", partial(_amplified, db=db)) for db in (-12, -6, 6, 12)),
    _named("compressor 4:1", "level", _compressed),
    _named("gain ride", "level", _ridden),
    _named("300-3400 Hz", "band", partial(band_passed, low_hz=300.0, high_hz=3400.0)),
    _named("16 kHz path", "band", _through_16_khz),
    _named("below 1.5 kHz", "band", partial(band_passed, low_hz=0.0, high_hz=1500.0)),
    _named("above 1 kHz", "band", partial(band_passed, low_hz=1000.0, high_hz=float("inf"))),
    _named("reverb 0.2 s", "room", partial(_in_room, decay_s=0.2, direct_db=6.0)),
    _named("reverb 0.4 s", "room", partial(_in_room, decay_s=0.4, direct_db=3.0)),
    *(_named(f"Opus {k} kbit/s", "codec", partial(_opus, kbit=k)) for k in (12, 16, 24, 32)),
    *(
        _named(f"{color} noise {db} dBFS", "noise", partial(_with_noise, noise=noise, db=db))
        for color, noise in (("white", white_noise), ("pink", pink_noise))
        for db in (-60, -50, -45)
    ),
    _named("breath before", "breath", partial(_after_breath, seconds=0.4), lead_s=0.4),
    _named("breaths in pauses", "breath", _with_breaths),
    _named("faded end", "edge", partial(_faded_end, db=12.0, seconds=0.3)),
    _named("faded start", "edge", partial(_faded_start, db=12.0, seconds=0.3)),
    *(
        _named(f"pace x{pace}", "pace", partial(_at_pace, pace=pace), pace=pace)
        for pace in (0.9, 0.95, 1.05, 1.1)
    ),
    *(
        _named(f"clock x{pace}", "pace", partial(_resampled_to_pace, pace=pace), pace=pace)
        for pace in (0.9, 0.95, 1.05, 1.1)
    ),
    _named("start stretched by 0.2 s", "pace", partial(_stretched_at_start, seconds=0.2)),
    _named("20 ms lost each 0.3 s", "loss", partial(_concealed, lost_s=0.02, every_s=0.3)),
    _named("60 ms lost each 0.7 s", "loss", partial(_concealed, lost_s=0.06, every_s=0.7)),
    _named("clicks removed", "phase", _declicked),
    _named("all-pass phase", "phase", _all_passed),
    _named("equaliser", "phase", _equalised),
)
"""One thing each."""

_BY_NAME = {one.name: one for one in SINGLE}


def treatment(name: str) -> Treatment:
    """By its name; several names joined by ` + ` are a chain."""
    parts = [_BY_NAME[part] for part in name.split(" + ")]
    return parts[0] if len(parts) == 1 else chain(*parts)


COMBINED: tuple[Treatment, ...] = tuple(
    treatment(name)
    for name in (
        "equaliser + compressor 4:1 + Opus 32 kbit/s",
        "16 kHz path + pace x0.95 + Opus 24 kbit/s",
        "breath before + gain ride + Opus 24 kbit/s",
        "breaths in pauses + +6 dB + pink noise -50 dBFS",
        "16 kHz path + reverb 0.2 s + white noise -60 dBFS + Opus 16 kbit/s",
        "all-pass phase + compressor 4:1 + pace x1.05 + 20 ms lost each 0.3 s",
        "300-3400 Hz + compressor 4:1 + -6 dB",
        "start stretched by 0.2 s + faded end + Opus 24 kbit/s + 60 ms lost each 0.7 s",
        "clock x1.05 + equaliser + white noise -50 dBFS",
    )
)
"""What comes together on the way through an avatar and back."""

TREATMENTS = SINGLE + COMBINED

PITCH_SHIFTED = tuple(one for one in TREATMENTS if "clock" in one.name)
"""Another voice, for an ear that knows a waveform: not of the matrix, but of one of its own."""
