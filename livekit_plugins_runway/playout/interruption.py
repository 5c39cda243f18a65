"""Decides when an avatar that was speaking can be sent other words, without any of the old ones
following.

Two reasons to wait: it was interrupted (`Interruption`), or it says its own start script
(`OwnWords`). Times are loop times in seconds.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Protocol

from ..log import logger
from .ear import Heard
from .ports import SpeechDelivery
from .routes.progress import FIRST_LATENCY

SILENCE_TIMEOUT = 2.5
"""Seconds after a barge-in for the avatar to fall silent; after that the next words are spoken by
voice.
"""
_QUIET = 0.15
"""Seconds without sound; longer than a gap between two words of the old speech."""
_STALE_QUIET = 0.5
_SCRIPT_QUIET = 0.8
# Sound that the worker had sent before it confirmed may be in jitter buffers for so long.
_IN_FLIGHT = 0.15
# If the relay delivers nothing for so long, that counts as silence, too.
_NO_FRAMES = 0.15


class Settled(enum.Enum):
    """Who may speak, given the avatar's old words."""

    NOT_YET = "not_yet"
    AVATAR = "avatar"
    VOICE = "voice"
    """The avatar does not fall silent; speak the next words by voice."""


class Settling(Protocol):
    """A reason why an avatar cannot be sent words yet."""

    def hear(self, heard: Heard) -> None: ...

    def settled(self, now: float, latency: float | None) -> Settled: ...


class OldWords(Protocol):
    """The interrupted attempt; see `AvatarRoute`."""

    @property
    def heard_at(self) -> float | None: ...

    @property
    def latency(self) -> float | None: ...

    def hear(self, heard: Heard) -> None: ...

    def missing_for(self, now: float) -> float: ...


class _Quiet:
    """Measures for how long an avatar has been silent."""

    def __init__(self, since: float) -> None:
        self._heard_until = since
        self._sounded_at = since
        self.has_sounded = False

    def hear(self, heard: Heard) -> None:
        for at, sounds in zip(heard.times, heard.sounds.tolist(), strict=True):
            self._heard_until = at
            if sounds:
                self._sounded_at, self.has_sounded = at, True

    def seconds(self, now: float) -> float:
        """Counted in received sound; in time, if nothing is received any more."""
        stopped = now - self._heard_until > _NO_FRAMES
        return (now if stopped else self._heard_until) - self._sounded_at


class Interruption:
    """Lasts from a barge-in until none of the old words can come back from the avatar any more.

    Args:
        words: the interrupted attempt, which knows the words that may still come.
    """

    def __init__(self, since: float, words: OldWords) -> None:
        self._since = since
        self._words = words
        self._told = False
        self._confirmed_at: float | None = None
        self._quiet = _Quiet(since)

    async def notify(self, delivery: SpeechDelivery) -> None:
        """Tell the worker to drop its buffered speech. Its confirmation shortens the wait."""
        try:
            if await delivery.clear():
                self._confirmed_at = asyncio.get_running_loop().time()
        except Exception:  # noqa: BLE001  whatever a transport raises, the avatar was not told
            logger.exception("the avatar could not be told to stop")
        finally:
            self._told = True

    def hear(self, heard: Heard) -> None:
        self._quiet.hear(heard)
        self._words.hear(heard)

    def settled(self, now: float, latency: float | None) -> Settled:
        """
        Args:
            latency: the avatar's latency in seconds; without a confirmation the last sent sound
                comes out that much later. None: not known; then the latency of the interrupted
                words is used.
        """
        late = now - self._since > SILENCE_TIMEOUT
        if latency is None:
            latency = self._words.latency
        if self._told and self._is_over(now, FIRST_LATENCY if latency is None else latency, late):
            return Settled.AVATAR
        return Settled.VOICE if late else Settled.NOT_YET

    def _is_over(self, now: float, latency: float, late: bool) -> bool:
        end = self._since + latency if self._confirmed_at is None else self._confirmed_at
        if now < end + _IN_FLIGHT:
            return False
        quiet = self._quiet.seconds(now)
        if late:
            return quiet >= _STALE_QUIET
        if self._words.heard_at is None:
            return quiet >= _QUIET or self._confirmed_at is None
        # This may be a pause in the old words, and the next of them may still come.
        return min(quiet, self._words.missing_for(now)) >= _QUIET


class OwnWords:
    """Lasts until the avatar has said its start script.

    Args:
        since: now.
        limit: seconds after which the agent speaks anyway.
    """

    def __init__(self, since: float, limit: float) -> None:
        self._since = since
        self._limit = limit
        self._quiet = _Quiet(since)

    def hear(self, heard: Heard) -> None:
        self._quiet.hear(heard)

    def settled(self, now: float, latency: float | None) -> Settled:
        enough = _SCRIPT_QUIET if self._quiet.has_sounded else FIRST_LATENCY
        over = self._quiet.seconds(now) >= enough or now - self._since > self._limit
        return Settled.AVATAR if over else Settled.NOT_YET
