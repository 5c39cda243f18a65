"""Receives the avatar's voice from the relay: passes it to the user or not, and keeps a copy for
the accounting.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .audio import HOP_SECONDS, SILENCE
from .hearing.features import Levels, hop_levels
from .hearing.noise import NoiseFloor

_MOST_ARRIVALS = 300
"""Pieces of sound kept until they are accounted for: 6 s of a relay's."""
_QUIET, _QUIET_SHARE = 300, 0.03
"""Hops whose largest sample is below this (-41 dBFS), or below this share of the loudest, count as
a pause between words, and may be left out.
"""
_BEFORE = 1
"""Hops before the first sound that are kept, because a word may begin softly."""


@dataclass(frozen=True)
class Heard:
    """Sound of the avatar in whole hops, in order of arrival."""

    samples: NDArray[np.int16]
    levels: Levels
    sounds: NDArray[np.bool_]
    """Which hops are above the avatar's noise floor."""
    times: list[float]
    """Loop time in seconds of each hop."""

    def __len__(self) -> int:
        return len(self.times)


class HeldVoice:
    """Delays the avatar's voice while it is held back. `push()` takes sound and returns what the
    user hears instead, of the same length. Held sound is heard after the release, and what follows
    is late by as much, until pauses between words have made up for it: every second hop of a pause
    is left out. Used by the relay's thread only, except `behind`.

    Args:
        former: a released one that still has sound to be heard, which comes first.
    """

    def __init__(self, former: HeldVoice | None = None) -> None:
        self._former = former
        """Set until the first `push()`, which takes over its sound."""
        self.hops: deque[bytes] = deque()
        """Hops that were not heard yet."""
        self._free = 0
        """Hops at the front that are released although the rest is held."""
        self._to_sound = 0
        """Hops up to the last one that is not quiet; later ones may be left out."""
        self._loudest = 0
        """Largest sample so far."""

    @property
    def behind(self) -> int:
        """Hops that the user has not heard yet, without the quiet ones at the end. From any
        thread.
        """
        former = self._former
        return self._to_sound if former is None else former.behind

    def push(self, pcm: bytes, *, let_go: bool) -> bytes:
        """Take a whole number of hops, and return as many."""
        if self._former is not None:
            self._former.push(b"", let_go=True)  # which may not have taken over its own former yet
            self.hops, self._to_sound = self._former.hops, self._former.behind
            self._free, self._former = len(self.hops), None
        size = len(SILENCE)
        heard = [
            self._next(pcm[start : start + size], let_go=let_go)
            for start in range(0, len(pcm), size)
        ]
        return b"".join(heard)

    def _next(self, hop: bytes, *, let_go: bool) -> bytes:
        self.hops.append(hop)
        self._loudest = max(self._loudest, _loudest(hop))
        if not self._is_quiet(hop):
            self._to_sound = len(self.hops)
        if self._loudest < _QUIET and len(self.hops) > self._free + _BEFORE:
            del self.hops[self._free]
        if not let_go and not self._free:
            return SILENCE
        heard = self._take()
        if self._is_quiet(heard) and (self._free or (let_go and self.hops)):
            heard = self._take()
        return heard

    def _is_quiet(self, hop: bytes) -> bool:
        return _loudest(hop) < max(_QUIET, _QUIET_SHARE * self._loudest)

    def _take(self) -> bytes:
        self._free = max(0, self._free - 1)
        self._to_sound = max(0, self._to_sound - 1)
        return self.hops.popleft()


def _loudest(hop: bytes) -> int:
    samples = np.frombuffer(hop, np.int16)
    return max(int(samples.max()), -int(samples.min()))


class _Gate(enum.Enum):
    PASS = "pass"
    HOLD = "hold"  # until it is known whose words these are
    SILENCE = "silence"
    DROP = "drop"  # the agent's own voice is written to the microphone


@dataclass(frozen=True)
class _Setting:
    """Replaced as a whole, because the relay's thread reads it in one step."""

    gate: _Gate
    hearer: object
    """The avatar whose sound arrives."""
    held: HeldVoice | None = None
    """The held sound, with HOLD and with the PASS after it."""


@dataclass(frozen=True)
class _Arrival:
    at: float  # loop time
    pcm: bytes
    hearer: object


class Ear:
    """The only part of the sink that other threads use, and they call `relayed()` only. Everything
    else is used by the event loop's thread only. A change takes effect with the next piece of
    sound; accounting comes after it.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._setting = _Setting(_Gate.DROP, None)
        """The action of `relayed()`. Written by the event loop's thread, and read by the
        relay's.
        """
        self._arrived: deque[_Arrival] = deque(maxlen=_MOST_ARRIVALS)
        """Filled by the relay's thread, emptied by the event loop's."""
        self.floor = NoiseFloor()
        """The avatar's noise floor, learned from the sound that arrives while nothing is said."""
        self.sounded_at: float | None = None
        """Loop time at which the avatar was last audible, whether passed on or not."""
        self.latency: float | None = None
        """The avatar's latency in seconds, last measured: from the time at which a sample would be
        spoken without delay to its sound. Kept from one avatar to the next.
        """

    @property
    def is_open(self) -> bool:
        """Let the user hear the avatar."""
        return self._setting.gate is _Gate.PASS

    @property
    def is_holding(self) -> bool:
        """True while the sound is held back, until `let_go()`."""
        return self._setting.gate is _Gate.HOLD

    @property
    def behind(self) -> float:
        """Seconds of received sound that the user has not heard yet, because it was held back."""
        held = self._setting.held
        return 0.0 if held is None else held.behind * HOP_SECONDS

    def open(self, hearer: object) -> None:
        """Let the user hear the sound of `hearer`, after the sound that was held back."""
        self._setting = _Setting(_Gate.PASS, hearer, self._still_to_be_heard)

    @property
    def _still_to_be_heard(self) -> HeldVoice | None:
        return self._setting.held if self.is_open and self.behind else None

    def hold(self, hearer: object) -> None:
        """Hold the sound back until `let_go()`: the user hears silence, then the held sound. Sound
        that was held back before is heard first.
        """
        self._setting = _Setting(_Gate.HOLD, hearer, HeldVoice(self._still_to_be_heard))

    def let_go(self) -> None:
        """No effect unless sound is held back."""
        if self.is_holding:
            self._setting = replace(self._setting, gate=_Gate.PASS)

    def close(self) -> None:
        """Let the user hear silence instead, and account the sound to no attempt."""
        self._setting = _Setting(_Gate.SILENCE, None)

    def drop(self, hearer: object = None) -> None:
        """The agent's own voice is written to the microphone; account arriving sound to
        `hearer`.
        """
        self._setting = _Setting(_Gate.DROP, hearer)

    def relayed(self, pcm: bytes) -> bytes | None:
        """From any one thread; see `AvatarListener`."""
        setting = self._setting
        self._arrived.append(_Arrival(self._loop.time(), pcm, setting.hearer))
        if setting.gate is _Gate.DROP:
            return None
        if setting.gate is _Gate.SILENCE:
            return bytes(len(pcm))
        if setting.held is None:
            return pcm
        return setting.held.push(pcm, let_go=setting.gate is _Gate.PASS)

    def waits_since(self) -> float | None:
        """Loop time of the oldest piece that was not taken yet; None if there is none."""
        return self._arrived[0].at if self._arrived else None

    def take(self, hops: int | None = None) -> list[tuple[object, Heard]]:
        """The sound that arrived since the last call, in order, with the attempt that it belongs
        to.

        Args:
            hops: about so many at most; None: all.
        """
        arrived: list[_Arrival] = []
        taken_hops = 0
        for _ in range(len(self._arrived)):
            arrived.append(self._arrived.popleft())
            taken_hops += len(arrived[-1].pcm) // len(SILENCE)
            if hops is not None and taken_hops >= hops:
                break
        return self._by_hearer(arrived)

    def _by_hearer(self, arrived: list[_Arrival]) -> list[tuple[object, Heard]]:
        taken: list[tuple[object, Heard]] = []
        while arrived:
            hearer = arrived[0].hearer
            count = next(
                (n for n, it in enumerate(arrived) if it.hearer is not hearer), len(arrived)
            )
            taken.append((hearer, self._heard(arrived[:count])))
            del arrived[:count]
        return taken

    def _heard(self, arrived: list[_Arrival]) -> Heard:
        samples = np.frombuffer(b"".join(arrival.pcm for arrival in arrived), dtype=np.int16)
        levels = hop_levels(samples)
        sounds = levels > self.floor.threshold
        times: list[float] = []
        for arrival in arrived:
            hops = len(arrival.pcm) // len(SILENCE)
            times += [arrival.at - ago * HOP_SECONDS for ago in range(hops - 1, -1, -1)]
        heard = Heard(samples, levels, sounds, times)
        if sounds.any():
            self.sounded_at = times[int(np.flatnonzero(sounds)[-1])]
        return heard
