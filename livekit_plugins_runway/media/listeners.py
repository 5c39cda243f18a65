"""Who listens: the people in a room, and whether one has subscribed to a track."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from livekit import rtc
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF

from ..log import logger

SUBSCRIBE_TIMEOUT = 20.0
"""Seconds for which the first speech waits for somebody who is in the room and does not subscribe:
a client that only reads, or only looks."""
MAX_ABSENCE = 30.0
"""Seconds for which speech waits for a connection that is being restored."""
_SETTLE = 1.0
"""Seconds in which somebody who has just come subscribes, where a former subscription was somebody
else's."""
_USERS = {
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP,
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR,
}
_CALL_STATUS = "sip.callStatus"
"""LiveKit's attribute of a SIP participant: "dialing" and "ringing" before "active"."""
_EVENTS: tuple[rtc.room.EventTypes, ...] = (
    "connected",
    "reconnected",
    "participant_connected",
    "participant_disconnected",
    "participant_attributes_changed",
)


Audience = Collection[str] | None
"""Identities of those who may see and hear the avatar; None: all."""


def is_user(participant: rtc.Participant) -> bool:
    """A person, or what connects one: no agent, egress or ingress."""
    speaks_for_an_agent = ATTRIBUTE_PUBLISH_ON_BEHALF in participant.attributes
    return participant.kind in _USERS and not speaks_for_an_agent


def is_listener(participant: rtc.Participant) -> bool:
    """A user who would hear what is said now: not one whose phone rings."""
    return is_user(participant) and participant.attributes.get(_CALL_STATUS, "active") == "active"


def is_in(audience: Audience, participant: rtc.Participant) -> bool:
    return audience is None or participant.identity in audience


def restrict(room: rtc.Room, audience: Audience) -> None:
    """Let nobody else subscribe to what this end publishes in the room. Before it publishes."""
    if audience is not None:
        room.local_participant.set_track_subscription_permissions(
            allow_all_participants=False,
            participant_permissions=[
                rtc.ParticipantTrackPermission(participant_identity=identity, allow_all=True)
                for identity in sorted(audience)
            ],
        )


class Listeners:
    """Watches a room for listeners, by who is in it at each event: a reconnect may swallow events.

    Args:
        on_change: called with whether there is one, at each change: at first there is none.
        audience: who counts.
    """

    def __init__(
        self, room: rtc.Room, on_change: Callable[[bool], None], audience: Audience = None
    ) -> None:
        self._room = room
        self._on_change = on_change
        self._audience = audience
        self._present = False
        """Written by `look()` alone."""
        for event in _EVENTS:
            room.on(event, self.look)

    def look(self, *_: object) -> None:
        """Account for who is there now."""
        there = self._room.remote_participants.values()
        present = any(is_listener(one) and is_in(self._audience, one) for one in there)
        if present != self._present:
            self._present = present
            self._on_change(present)

    def close(self) -> None:
        """Idempotent."""
        for event in _EVENTS:
            self._room.off(event, self.look)


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
