"""Whether the heard sound has the waveform that was sent, and at which place of it.

A waveform stays recognisable after a gain, a filter, a room, a codec, even a change of pace; other
words have another waveform, even in a similar voice. Each 80 ms of heard sound are correlated with
the speech near by. For the agent's words the best places advance as the sound does; for other words
they are random, and do not continue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import fft
from numpy.typing import NDArray

from ..audio import HOP

Signal = NDArray[np.float32]
Spectra = NDArray[np.complexfloating[Any, Any]]

_RATE = 8000
_DECIMATION = 6
STEP = HOP // _DECIMATION
"""Samples of 8 kHz in a hop."""
_HOLE = 384  # samples of 48 kHz of silence, from which on they are left out
_LOW_HZ, _HIGH_HZ = 200.0, 3400.0
_TAPS = 97
_FRAME = 4 * STEP
_SHIFT = 2 * STEP
_SMOOTH = 11
"""Bins of 25 Hz over which a spectrum is levelled: this removes formants and keeps the pitch."""
_FAINT = np.float32(1e-3 * np.sqrt(_FRAME))
_FADE, _UNDER = 0.96, np.float32(0.05)  # 26 dB under what was loud within a second
_NOMINAL = 10.0  # energy of 80 ms of speech after that, whatever its level

_RELATIVE = 0.025  # of the loudest of the last second: what is softer may be a hole
END_HOPS = 12
"""Hops of silence after which the next sound is analysed separately."""

BLOCK = 8
"""Steps that are compared at once."""
STRIDE = 4
"""Steps from one block to the next."""
_PART = 16  # steps of speech that are compared in one transform
_SIZE = 2048  # samples of the transform: a part, and a block behind it
DELAY = 2
"""Delay of the whitened waveform, in steps."""

_BACKGROUND = 0.92  # quantile of the correlations that any sound has somewhere
_LEAST_BACKGROUND = 0.2
_GAIN, _AGAINST, _FOR = 6.0, -0.6, 2.5  # what a block's correlation above that adds, and limits
_MEMORY = 0.96  # of evidence, from block to block: a second of sound
_HASTE, _DELAY = 0.35, 0.12  # cost of each step too many, or missing
_SLACK = 2
_LEAST_LEAP = 1
_LONGEST_LEAP = 320  # over a pause that is said
_LONG_HOLE = 30  # hops; what is shorter may have been lost on the way
_NO_HOLE = 2 * STRIDE  # hops from block to block
_NEXT = STRIDE + 4  # steps before and after the last block in which one that goes on begins
_GOES_ON = 0.15  # likeness by which its place stands out


def _low_pass() -> Signal:
    """Each row has the taps for one group of `_DECIMATION` samples, oldest first."""
    time = (np.arange(_TAPS) - _TAPS // 2) / (_RATE * _DECIMATION)
    cut = _HIGH_HZ + 300.0
    taps = 2 * cut / (_RATE * _DECIMATION) * np.sinc(2 * cut * time) * np.hanning(_TAPS)
    padded = np.pad(taps, (-_TAPS % _DECIMATION, 0)) / 32768.0
    rows: Signal = padded.reshape(-1, _DECIMATION).astype(np.float32)
    return rows


_LOW_PASS = _low_pass()
_GROUPS = len(_LOW_PASS)
_WINDOW = np.sqrt(np.hanning(_FRAME + 1)[:-1]).astype(np.float32)
_HERTZ = np.arange(_FRAME // 2 + 1) * _RATE / _FRAME
_SMOOTHING = sum(
    np.eye(len(_HERTZ), k=k, dtype=np.float32) for k in range(-(_SMOOTH // 2), _SMOOTH // 2 + 1)
) / np.float32(_SMOOTH)
_BAND = ((_HERTZ >= _LOW_HZ) & (_HERTZ <= _HIGH_HZ)).astype(np.float32)


def _strided(signal: Signal, shape: tuple[int, int], steps: tuple[int, int]) -> Signal:
    """A view of contiguous samples. NumPy's own sliding windows take longer than what is computed
    from them."""
    size = signal.itemsize
    view: Signal = np.ndarray(shape, np.float32, signal, strides=(steps[0] * size, steps[1] * size))
    return view


class Decimator:
    """48 kHz int16 to 8 kHz, full scale 1.0; as many hops as it is given."""

    def __init__(self) -> None:
        self._recent = np.zeros((_GROUPS - 1) * _DECIMATION, np.float32)

    def push(self, samples: NDArray[np.int16]) -> Signal:
        if not len(samples):
            return np.zeros(0, np.float32)
        sound = np.concatenate((self._recent, samples.astype(np.float32)))
        self._recent = sound[len(samples) :]
        # What each group adds to the outputs it is part of; an output adds up along a diagonal.
        parts = np.ascontiguousarray(_LOW_PASS @ sound.reshape(-1, _DECIMATION).T)
        groups = parts.shape[1]
        along = _strided(parts, (_GROUPS, groups - _GROUPS + 1), (groups + 1, 1))
        low: Signal = along.sum(axis=0)
        return low


class Whitener:
    """Whitens a signal: makes all frequencies equally strong in each 40 ms, `DELAY` steps late.
    Takes an even number of steps.
    """

    def __init__(self) -> None:
        self._recent = np.zeros(_FRAME - _SHIFT, np.float32)
        self._sum = np.zeros(_FRAME - _SHIFT, np.float32)
        self._loud = 0.0  # of the last frame: the strength that counts as loud

    def push(self, low: Signal) -> Signal:
        if not len(low):
            return low
        signal = np.concatenate((self._recent, low))
        self._recent = signal[len(low) :]
        frames = _strided(signal, (len(low) // _SHIFT, _FRAME), (_SHIFT, 1)) * _WINDOW
        white = fft.irfft(self._levelled(fft.rfft(frames, axis=1)), _FRAME, axis=1)
        white *= _WINDOW
        total = np.zeros(len(signal), np.float32)
        total[: len(self._sum)] = self._sum
        for at in range(0, _FRAME, _SHIFT):
            total[at : at + len(low)] += white[:, at : at + _SHIFT].reshape(-1)
        self._sum = total[len(low) :]
        return total[: len(low)]

    def _levelled(self, spectra: Spectra) -> Spectra:
        smooth = np.abs(spectra).astype(np.float32, copy=False) @ _SMOOTHING
        strength = smooth.mean(axis=1)
        faded = np.float32(_FADE) ** np.arange(1, len(strength) + 1, dtype=np.float32)
        loud = np.maximum(np.maximum.accumulate(strength / faded), self._loud) * faded
        self._loud = float(loud[-1])
        least = _UNDER * loud + _FAINT
        levelled: Spectra = spectra * (_BAND / np.maximum(smooth, least[:, np.newaxis]))
        return levelled


class Waveform:
    """The waveform of the speech that was sent: grows with it, and finds a block of sound in it.

    Args:
        first: hop of the speech with which it begins.
    """

    def __init__(self, first: int = 0) -> None:
        self._first = first // _PART  # number of the first part that is kept
        self._decimator = Decimator()
        self._whitener = Whitener()
        self._low = np.zeros(0, np.float32)
        self._rest = np.zeros((first % _PART) * STEP, np.float32)  # of incomplete parts
        self._skip = DELAY * STEP
        self._parts: list[tuple[Spectra, Signal]] = []
        self._unfinished: tuple[Spectra, Signal] | None = None

    @property
    def first(self) -> int:
        """Hop of the speech before which everything was dropped."""
        return self._first * _PART

    def append(self, samples: NDArray[np.int16]) -> None:
        low = np.concatenate((self._low, self._decimator.push(samples)))
        even = len(low) // _SHIFT * _SHIFT
        self._low = low[even:]
        white = self._whitener.push(low[:even])
        skipped = min(self._skip, len(white))
        self._skip -= skipped
        rest = np.concatenate((self._rest, white[skipped:]))
        while len(rest) >= _SIZE:
            self._parts.append(_part(rest[:_SIZE]))
            rest = rest[_PART * STEP :]
        self._rest, self._unfinished = rest, None

    def forget(self, before: int) -> None:
        """Drop everything before a hop."""
        count = min(before // _PART - self._first, len(self._parts))
        if count > 0:
            del self._parts[:count]
            self._first += count

    def match(self, block: Signal, first: int, last: int) -> tuple[int, Signal]:
        """The hop with which the answer begins, and for each hop from there on the best
        correlation (0 to 1) of a block with what was said from a place within that hop on.
        About the hops [first, last) are compared, as far as they are known."""
        begin = max(0, first // _PART - self._first)
        end = max(begin, -(-last // _PART) - self._first)
        parts = self._parts[begin:end]
        if end > len(self._parts) >= begin and len(self._rest) > BLOCK * STEP:
            parts.append(self._last_part())
        if not parts:
            return 0, np.zeros(0, np.float32)
        energy = max(float(block @ block), 0.1 * _NOMINAL)
        pattern = np.conj(fft.rfft(block, _SIZE)).astype(np.complex64)
        spectra = np.array([spectrum for spectrum, _ in parts])
        spectra *= pattern
        found = fft.irfft(spectra, _SIZE, axis=1)[:, : _PART * STEP]
        np.abs(found, out=found)
        found *= np.array([norms for _, norms in parts])
        best = found.reshape(-1, STEP).max(axis=1) / np.sqrt(energy)
        return (self._first + begin) * _PART, best.astype(np.float32)

    def _last_part(self) -> tuple[Spectra, Signal]:
        if self._unfinished is None:
            self._unfinished = _part(np.pad(self._rest, (0, _SIZE - len(self._rest))))
        return self._unfinished


def _part(signal: Signal) -> tuple[Spectra, Signal]:
    power = np.cumsum(np.concatenate(([0.0], signal * signal)))
    energy = power[BLOCK * STEP :][: _PART * STEP] - power[: _PART * STEP]
    norms: Signal = (1.0 / np.sqrt(np.maximum(energy, 0.1 * _NOMINAL))).astype(np.float32)
    return fft.rfft(signal).astype(np.complex64), norms


@dataclass(frozen=True, eq=False)
class Block:
    """80 ms of sound, whitened."""

    first: int
    """The heard hop in which it begins, counted from the first one ever."""
    last: int
    """The heard hop in which it ends; silences in between are not part of it."""
    signal: Signal


class _Loudness:
    """Marks samples that are louder than the avatar's noise."""

    def __init__(self) -> None:
        self._peaks: deque[int] = deque([0], maxlen=4)
        """Levels of the last hops without sound."""
        self._loud_peak = 0.0
        """Peak level of about the last second. Written by `of`."""

    def of(self, samples: NDArray[np.int16], sounds: NDArray[np.bool_]) -> NDArray[np.bool_]:
        sizes = np.abs(samples.reshape(-1, HOP).astype(np.int32))
        limits = []
        for sound, peak in zip(sounds.tolist(), sizes.max(axis=1).tolist(), strict=True):
            if not sound:
                self._peaks.append(peak)
            self._loud_peak = max(0.97 * self._loud_peak, float(peak))
            limit = max(1.3 * min(self._peaks), _RELATIVE * self._loud_peak)
            limits.append(limit if sound else 1e9)
        loud: NDArray[np.bool_] = (sizes > np.array(limits)[:, np.newaxis]).reshape(-1)
        return loud


class _Blocks:
    """Cuts sounds in a row into whitened blocks. All of it is written by `push` and `end`."""

    def __init__(self) -> None:
        self._decimator = Decimator()
        self._whitener = Whitener()
        self._white = np.zeros(0, np.float32)
        self._ends: list[int] = []
        """Hop heard in which each step of sound ends."""
        self._skip = DELAY * STEP

    def push(self, sound: NDArray[np.int16], ends: list[int]) -> list[Block]:
        """The blocks that are complete now. `sound` is of an even number of hops."""
        self._ends += ends
        white = self._whitener.push(self._decimator.push(sound))
        skipped = min(self._skip, len(white))
        self._skip -= skipped
        self._white = np.concatenate((self._white, white[skipped:]))
        return self._complete()

    def end(self) -> list[Block]:
        """The remaining blocks. The next sound is analysed separately."""
        last = self._ends[-1:]
        self._ends += last * DELAY
        white = self._whitener.push(np.zeros(DELAY * STEP if last else 0, np.float32))
        self._white = np.concatenate((self._white, white[self._skip :]))
        blocks = self._complete()
        self._decimator, self._whitener = Decimator(), Whitener()
        self._white, self._ends, self._skip = self._white[:0], [], DELAY * STEP
        return blocks

    def _complete(self) -> list[Block]:
        blocks = []
        while len(self._white) >= BLOCK * STEP:
            ends = self._ends
            blocks.append(Block(ends[0], ends[BLOCK - 1], self._white[: BLOCK * STEP]))
            self._white = self._white[STRIDE * STEP :]
            del ends[:STRIDE]
        return blocks


class Sounds:
    """The heard sound without its silences. A worker that waits for more speech may be silent in
    mid-word, every 20 ms, and the rest of a silence would shift everything after it.

    All of it is written by `push`.
    """

    def __init__(self) -> None:
        self._loudness = _Loudness()
        self._blocks = _Blocks()
        self._silent_hops = 0
        """Number of silent hops at the end."""
        self._hops = 0
        """Number of hops heard so far."""
        self._pending = np.zeros(0, np.int16)
        """The last samples, quiet since the last sound."""
        self._sound = np.zeros(0, np.int16)
        """Less than two hops of sound, waiting for more."""
        self._sound_at = np.zeros(0, np.int64)
        """The index of each of them among the heard samples."""

    def push(self, samples: NDArray[np.int16], sounds: NDArray[np.bool_]) -> list[Block]:
        """The blocks of sound that are complete now."""
        blocks, first = [], 0
        for hop, sound in enumerate(sounds.tolist()):
            self._silent_hops = 0 if sound else self._silent_hops + 1
            if self._silent_hops == END_HOPS:
                blocks += self._push(
                    samples[first * HOP : (hop + 1) * HOP], sounds[first : hop + 1]
                )
                blocks += self._end()
                first = hop + 1
        return blocks + self._push(samples[first * HOP :], sounds[first:])

    def _end(self) -> list[Block]:
        self._sound, self._sound_at = self._sound[:0], self._sound_at[:0]
        self._pending = self._pending[:0]
        return self._blocks.end()

    def _push(self, samples: NDArray[np.int16], sounds: NDArray[np.bool_]) -> list[Block]:
        if not len(sounds):
            return []
        self._keep(samples, self._loudness.of(samples, sounds))
        whole = len(self._sound) // (2 * HOP) * 2 * HOP
        if not whole:
            return []
        ends = (self._sound_at[HOP - 1 : whole : HOP] // HOP).tolist()
        sound, self._sound = self._sound[:whole], self._sound[whole:]
        self._sound_at = self._sound_at[whole:]
        return self._blocks.push(sound, ends)

    def _keep(self, samples: NDArray[np.int16], loud: NDArray[np.bool_]) -> None:
        held = len(self._pending)
        sound = np.concatenate((self._pending, samples))
        begin = self._hops * HOP - held
        self._hops += len(samples) // HOP
        at = np.flatnonzero(loud) + held
        if not len(at):
            self._pending = sound[-_HOLE:]
            return
        if held < _HOLE and at[0] < _HOLE and len(self._sound_at):
            at = np.concatenate(([0], at))
        breaks = np.flatnonzero(np.diff(at) > _HOLE)
        starts = at[np.concatenate(([0], breaks + 1))]
        ends = at[np.concatenate((breaks, [len(at) - 1]))] + 1
        spans = [np.arange(start, end) for start, end in zip(starts, ends, strict=True)]
        kept = np.concatenate(spans)
        self._sound = np.concatenate((self._sound, sound[kept]))
        self._sound_at = np.concatenate((self._sound_at, kept + begin))
        self._pending = sound[int(at[-1]) + 1 :][-_HOLE:]


class Trace:
    """Where in the speech the heard sounds advance as the speech does, and the evidence for it.

    All of it is written by `hear` and `go_on`.

    Args:
        went_on: given a place, the hop heard since when it is that, and the hops since then, by how
            many of them the speech has gone on: not while a worker had no more to say. None: by
            all.
    """

    def __init__(
        self, waveform: Waveform, went_on: Callable[[int, int, int], int] | None = None
    ) -> None:
        self._waveform = waveform
        self._went_on = went_on
        self._scored: tuple[int, Signal] = 0, np.zeros(0, np.float32)
        """A hop of the speech, and for each hop from there on the evidence that the last block
        began with it.
        """
        self._ended = 0
        """The heard hop in which the last block ended."""
        self._background = _LEAST_BACKGROUND
        """Likeness that the last blocks had with places that were not theirs."""
        self._goes_on = False
        """True if the last compared block matches the next part of the speech."""
        self._skipped: tuple[Block, int] | None = None
        """The last block, if it was not compared yet, and `_ended` before it."""
        self.evidence = 0.0
        """Evidence for these words in about the last second of sound: 0 or more. Other words have
        about 5.
        """
        self.idle = 0
        """Blocks since the last that added to the evidence."""
        self.place = 0
        """Hops of the speech heard at the end of the block, if these are its words."""
        self._sure_place = 0
        """See `sure_place`; without the block that was skipped."""

    def hear(self, block: Block, first: int, last: int) -> None:
        """Account for a block, which may be of the hops [first, last) of the speech."""
        if self._skipped is not None:
            skipped, ended = self._skipped
            self._shift(-STRIDE, ended)
            self._skipped = None
            self._search(skipped, first, last)
        self._search(block, first, last)

    def go_on(self, block: Block) -> bool:
        """Account for a block if it matches the next part of the speech; much faster than `hear`.
        Only every other one is compared.

        Returns:
            True if it matches. If not, nothing was done.
        """
        if block.last - self._ended > _NO_HOLE:
            return False
        if self._goes_on and self._skipped is None:
            self._skipped = block, self._ended
            self._shift(STRIDE, block.last)
            return True
        begin, likeness, is_next = self._match_next(block, max(STRIDE, block.last - self._ended))
        if not is_next:
            return False
        self._add(block, begin, likeness, blocks=1 if self._skipped is None else 2)
        self._goes_on, self._skipped = True, None
        self._sure_place = self.place
        return True

    def _match_next(self, block: Block, hops: int) -> tuple[int, Signal, bool]:
        """As `Waveform.match`, about `place`; and whether the block ends so many hops later."""
        start = self.place - BLOCK
        begin, likeness = self._waveform.match(block.signal, start - _NEXT, start + _NEXT)
        return begin, likeness, self._stands_out(likeness, start + hops - begin)

    @property
    def sure_place(self) -> int:
        """`place` of the last block that matches the speech there, nowhere else near by, and
        advances as the sound does. A sound that a receiver repeats does neither.
        """
        if self._skipped is not None and self._match_next(self._skipped[0], 0)[2]:
            return self.place
        return self._sure_place

    def _shift(self, hops: int, ended: int) -> None:
        """Assume that the speech goes on, or withdraw that assumption."""
        self._scored = self._scored[0] + hops, self._scored[1]
        self.place += hops
        self._ended = ended

    def _stands_out(self, likeness: Signal, at: int) -> bool:
        """True if a block is so much more similar to the speech at one place than elsewhere that
        this is its place. A sound that a receiver repeats is similar all along a vowel.
        """
        there = float(likeness[max(0, at - 1) : max(0, at + 2)].max(initial=0.0))
        before, after = likeness[: max(0, at - 2)], likeness[max(0, at + 3) :]
        elsewhere = max(float(before.max(initial=0.0)), float(after.max(initial=0.0)))
        return there - max(self._background, elsewhere) >= _GOES_ON

    def _search(self, block: Block, first: int, last: int) -> None:
        self._goes_on = False
        begin, likeness = self._waveform.match(block.signal, first, last)
        if not len(likeness):
            self._ended = block.last
            return
        rank = int(_BACKGROUND * (len(likeness) - 1))
        self._background = max(float(np.partition(likeness, rank)[rank]), _LEAST_BACKGROUND)
        due = self.place + max(STRIDE, block.last - self._ended)
        self._add(block, begin, likeness, blocks=1)
        goes_on = abs(self.place - due) <= _SLACK
        if goes_on and self._stands_out(likeness, self.place - BLOCK - begin):
            self._sure_place = self.place

    def _add(self, block: Block, begin: int, likeness: Signal, *, blocks: int) -> None:
        """A block that stands for so many counts as these."""
        elapsed, self._ended = self._elapsed(block), block.last
        gained = np.float32(_GAIN * blocks) * (likeness - np.float32(self._background))
        np.minimum(gained, np.float32(_FOR * blocks), out=gained)
        np.maximum(gained, np.float32(_AGAINST * blocks), out=gained)
        memory = _MEMORY**blocks
        gained += np.float32(memory) * self._led_to(begin, len(gained), elapsed)
        np.maximum(gained, np.float32(0.0), out=gained)
        self._scored = begin, gained
        best = int(np.argmax(gained))
        before, self.evidence = self.evidence, float(gained[best])
        self.idle = 0 if self.evidence > before * memory else self.idle + 1
        self.place = begin + best + BLOCK

    def _elapsed(self, block: Block) -> int:
        """Hops by which the speech may have gone on since the last block."""
        elapsed = max(STRIDE, block.last - self._ended)
        if elapsed <= _LONG_HOLE or self._went_on is None:
            return elapsed
        return min(elapsed, 2 * BLOCK + self._went_on(self.place, self._ended, elapsed))

    def evidence_at(self, place: int) -> float:
        """The evidence for these words, if the block ended there, within 20 ms."""
        first, scores = self._scored
        at = place - BLOCK - first
        near = scores[max(0, at - 2) : max(0, at + 3)]
        return float(near.max(initial=0.0))

    def _led_to(self, begin: int, count: int, elapsed: int) -> Signal:
        """The best score that leads to each of `count` places from `begin` on."""
        most = min(elapsed, _LONGEST_LEAP)
        reach = most + _SLACK
        before = np.zeros(count + reach, np.float32)
        # before[i] is the score of the place begin - reach + i
        first, scores = self._scored
        offset = first - (begin - reach)
        source = scores[max(0, -offset) : max(0, len(before) - offset)]
        at = max(0, offset)
        before[at : at + len(source)] = source
        led = np.zeros(count, np.float32)
        for leap in range(_LEAST_LEAP, most + _SLACK + 1):
            haste = _HASTE * max(0, leap - most) + _DELAY * max(0, STRIDE - leap)
            start = reach - leap
            np.maximum(led, before[start : start + count] - np.float32(haste), out=led)
        return led
