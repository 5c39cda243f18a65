"""Whether somebody listens to a microphone track of ours, and can be reached."""

from __future__ import annotations

import asyncio

from ..log import logger

MAX_ABSENCE = 30.0
"""Seconds for which speech waits for a connection that is being restored."""


class TrackSubscription:
    """Told of what happens to the track and to its connection."""

    def __init__(self) -> None:
        self._subscribed = False
        self._away_since: float | None = None

    @property
    def subscribed(self) -> bool:
        """True once somebody has subscribed to the track."""
        return self._subscribed

    @property
    def reachable(self) -> bool:
        """False from when the connection to the agent room is interrupted until somebody listens
        again: what is sent meanwhile is lost. True again after `MAX_ABSENCE` seconds, for the agent
        must not wait for ever."""
        if self._away_since is None:
            return True
        return asyncio.get_running_loop().time() - self._away_since > MAX_ABSENCE

    def on_subscribed(self) -> None:
        self._subscribed = True
        self.on_back()

    def on_republished(self) -> None:
        """Whoever listened has to subscribe anew."""
        if self._subscribed:
            self._subscribed = False
            self.on_away()

    def on_away(self) -> None:
        """The connection is interrupted."""
        if self._away_since is None:
            logger.info("the connection to the agent room is interrupted")
            self._away_since = asyncio.get_running_loop().time()

    def on_back(self) -> None:
        """The connection is there again; it counts once somebody listens."""
        if self._away_since is not None and self._subscribed:
            logger.info("the agent room is reached again")
            self._away_since = None

    def on_lost(self) -> None:
        """The connection is gone, and another one will be made."""
        self._subscribed = False
        self.on_away()

    def on_over(self) -> None:
        """The connection is gone for good: there is nothing to wait for."""
        self._away_since = None
