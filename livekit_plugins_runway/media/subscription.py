"""Whether somebody listens to a microphone track of ours, and can be reached."""

from __future__ import annotations

import asyncio

from ..log import logger

SUBSCRIBE_TIMEOUT = 20.0
"""Seconds for which the first speech waits for somebody who is in the room and does not subscribe:
a client that only reads, or only looks."""
MAX_ABSENCE = 30.0
"""Seconds for which speech waits for a connection that is being restored."""
_SETTLE = 1.0
"""Seconds in which somebody who has just come subscribes, where a former subscription was somebody
else's."""


class TrackSubscription:
    """Told of what happens to the track, to its connection, and of who is there to listen.

    The server tells once that a track was subscribed to, and not by whom: it may have been another
    agent. So it counts only together with a listener who is in the room. While nobody is, speech
    waits without limit, as that of an agent without an avatar does; once somebody has listened,
    nobody is waited for who has left.
    """

    def __init__(self) -> None:
        # All of it is of the event loop's thread. Loop times in seconds.
        self._is_subscribed = False
        """The server says so of the present track."""
        self._awaited_since: float | None = None
        """Since when a listener is there, and is given time to subscribe; None: nobody is."""
        self._settles_at = 0.0
        """From here on the subscription counts as a listener's."""
        self._is_met = False
        """Somebody has listened before."""
        self._away_since: float | None = None

    @property
    def subscribed(self) -> bool:
        """True once somebody listens, or was waited for."""
        if self._awaited_since is None:
            return False
        now = asyncio.get_running_loop().time()
        if self._is_subscribed and now >= self._settles_at:
            return True
        return now - self._awaited_since >= SUBSCRIBE_TIMEOUT

    @property
    def reachable(self) -> bool:
        """False from when the connection to the agent room is interrupted until somebody listens
        again: what is sent meanwhile is lost. True again after `MAX_ABSENCE` seconds, for the agent
        must not wait for ever."""
        if self._away_since is None:
            return True
        return asyncio.get_running_loop().time() - self._away_since > MAX_ABSENCE

    def on_listeners(self, present: bool) -> None:
        """Whether there is anybody in the room who could listen."""
        now = asyncio.get_running_loop().time()
        if present and self._awaited_since is None:
            self._awaited_since = now
            self._settles_at = now + _SETTLE if self._is_subscribed else now
        elif not present:
            self._is_met = self._is_met or self.subscribed
            if not self._is_met:
                self._awaited_since = None

    def on_subscribed(self) -> None:
        self._is_subscribed = True
        self.on_back()

    def on_republished(self) -> None:
        """Whoever listened has to subscribe anew."""
        if self._is_subscribed:
            self._begin_anew()
            self.on_away()

    def on_away(self) -> None:
        """The connection is interrupted."""
        if self._away_since is None:
            logger.info("the connection to the agent room is interrupted")
            self._away_since = asyncio.get_running_loop().time()

    def on_back(self) -> None:
        """The connection is there again; it counts once somebody listens."""
        if self._away_since is not None and self._is_subscribed:
            logger.info("the agent room is reached again")
            self._away_since = None

    def on_lost(self) -> None:
        """The connection is gone, and another one will be made."""
        self._begin_anew()
        self.on_away()

    def on_over(self) -> None:
        """The connection is gone for good: there is nothing to wait for."""
        self._away_since = None

    def _begin_anew(self) -> None:
        self._is_met = self._is_met or self.subscribed
        self._is_subscribed = False
        if self._awaited_since is not None:
            self._awaited_since = asyncio.get_running_loop().time()
