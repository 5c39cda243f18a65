"""What comes back from the avatar: let through to the user or not, and kept to be looked at."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .audio import HOP_SECONDS, SILENCE
from .hearing.features import Levels, hop_levels
from .hearing.noise import NoiseFloor
from .ports import RelayAction

_MOST_ARRIVALS = 300
"""Pieces of sound to remember until they are looked at: 6 s of a relay's."""


@dataclass(frozen=True)
class Heard:
    """Sound of the avatar in whole hops, in the order in which it came."""

    samples: NDArray[np.int16]
    levels: Levels
    sounds: NDArray[np.bool_]
    """Which hops are above the avatar's noise floor."""
    times: list[float]
    """Loop time in seconds of each hop."""

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True)
class _Arrival:
    at: float  # loop time
    pcm: bytes
    hearer: object


class Ear:
    """The only part of the sink that other threads touch, and they only by `relayed()`. All else is
    of the event loop's thread.

    Closing comes first and accounting after: what is closed is so from the next piece of sound on.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._setting: tuple[RelayAction, object] = (RelayAction.DROP, None)
        """What `relayed()` answers, and whom what comes belongs to. Written by the event loop's
        thread, always as a whole, and read by the relay's."""
        self._arrived: deque[_Arrival] = deque(maxlen=_MOST_ARRIVALS)
        """Filled by the relay's thread, emptied by the event loop's."""
        self.floor = NoiseFloor()
        """Of the avatar. Learned from what comes while nothing is said."""
        self.sounded_at: float | None = None
        """Loop time at which the avatar was last audible, let through or not."""
        self.latency: float | None = None
        """Seconds from the turn of a sample, if the avatar had no delay, to its sound; last
        measured. Kept from one avatar to the next."""

    @property
    def is_open(self) -> bool:
        """The user hears what comes."""
        return self._setting[0] is RelayAction.PASS

    def open(self, hearer: object) -> None:
        """The user hears what comes, which is `hearer`'s."""
        self._setting = (RelayAction.PASS, hearer)

    def close(self) -> None:
        """The user hears silence in place of what comes, which is nobody's."""
        self._setting = (RelayAction.SILENCE, None)

    def drop(self, hearer: object = None) -> None:
        """Somebody else writes to the microphone; what comes meanwhile is `hearer`'s."""
        self._setting = (RelayAction.DROP, hearer)

    def relayed(self, pcm: bytes) -> RelayAction:
        """From any one thread; see `AvatarListener`."""
        action, hearer = self._setting
        self._arrived.append(_Arrival(self._loop.time(), pcm, hearer))
        return action

    def waits_since(self) -> float | None:
        """Loop time of the first piece that was not taken yet; None if there is none."""
        return self._arrived[0].at if self._arrived else None

    def take(self, hops: int | None = None) -> list[tuple[object, Heard]]:
        """What has arrived since the last call, by whom it belongs to, in order.

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
