"""Whether somebody listens: the people in a room, and subscriptions to a track."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from livekit import rtc
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF

from ..log import logger

SUBSCRIBE_TIMEOUT = 20.0
"""Seconds that the first speech waits for a user who is in the room and does not subscribe, such as
a client that only reads, or only watches.
"""
MAX_ABSENCE = 30.0
"""Seconds that speech waits for a connection that is being restored."""
_SETTLE = 1.0
"""Seconds in which a user who has just joined subscribes, if an earlier subscription was another
participant's.
"""
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
"""Identities that may see and hear the avatar; None: all."""


def is_user(participant: rtc.Participant) -> bool:
    """True for a person, or a client that connects one; False for agent, egress and ingress."""
    speaks_for_an_agent = ATTRIBUTE_PUBLISH_ON_BEHALF in participant.attributes
    return participant.kind in _USERS and not speaks_for_an_agent


def is_listener(participant: rtc.Participant) -> bool:
    """True for a user who would hear speech now; False for a phone that is still ringing."""
    return is_user(participant) and participant.attributes.get(_CALL_STATUS, "active") == "active"


def is_in(audience: Audience, participant: rtc.Participant) -> bool:
    return audience is None or participant.identity in audience


def restrict(room: rtc.Room, audience: Audience) -> None:
    """Allow subscriptions to this participant's tracks to `audience` only. Call it before
    publishing.
    """
    if audience is not None:
        room.local_participant.set_track_subscription_permissions(
            allow_all_participants=False,
            participant_permissions=[
                rtc.ParticipantTrackPermission(participant_identity=identity, allow_all=True)
                for identity in sorted(audience)
            ],
        )


class Listeners:
    """Watches a room for listeners. Reads the list of participants at each event, because events
    may be lost in a reconnect.

    Args:
        on_change: called at each change with True if there is a listener; at first there is none.
        audience: who counts.
    """

    def __init__(
        self, room: rtc.Room, on_change: Callable[[bool], None], audience: Audience = None
    ) -> None:
        self._room = room
        self._on_change = on_change
        self._audience = audience
        self._present = False
        """Written by `look()` only."""
        for event in _EVENTS:
            room.on(event, self.look)

    def look(self, *_: object) -> None:
        """Read the present participants."""
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
    """Decides whether somebody hears a track: from subscriptions, the connection, and the listeners
    in the room.

    The server reports once that a track was subscribed to, but not by whom; it may have been
    another agent. So a subscription counts only while a listener is in the room. While there is no
    listener, speech waits without limit, as that of an agent without an avatar does. Once somebody
    has listened, speech goes on even if they leave.
    """

    def __init__(self) -> None:
        # Used by the event loop's thread only. Times are loop times in seconds.
        self._is_subscribed = False
        """The server has reported a subscription to the present track."""
        self._awaited_since: float | None = None
        """Since when there is a listener, who is given time to subscribe; None: there is none."""
        self._settles_at = 0.0
        """From this time on, the subscription counts as a listener's."""
        self._is_met = False
        """True once somebody has listened."""
        self._away_since: float | None = None

    @property
    def subscribed(self) -> bool:
        """True once somebody listens, or the wait for it has ended."""
        if self._awaited_since is None:
            return False
        now = asyncio.get_running_loop().time()
        if self._is_subscribed and now >= self._settles_at:
            return True
        return now - self._awaited_since >= SUBSCRIBE_TIMEOUT

    @property
    def reachable(self) -> bool:
        """False while the connection to the agent's room is interrupted, until somebody listens
        again: speech sent meanwhile is lost. True again after `MAX_ABSENCE` seconds, so that the
        agent does not wait for ever.
        """
        if self._away_since is None:
            return True
        return asyncio.get_running_loop().time() - self._away_since > MAX_ABSENCE

    def on_listeners(self, present: bool) -> None:
        """True if there is a listener in the room."""
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
        """A new track: listeners must subscribe again."""
        if self._is_subscribed:
            self._begin_anew()
            self.on_away()

    def on_away(self) -> None:
        """The connection is interrupted."""
        if self._away_since is None:
            logger.info("the connection to the agent room is interrupted")
            self._away_since = asyncio.get_running_loop().time()

    def on_back(self) -> None:
        """The connection is restored; it counts once somebody listens."""
        if self._away_since is not None and self._is_subscribed:
            logger.info("the connection to the agent room is restored")
            self._away_since = None

    def on_lost(self) -> None:
        """The connection is lost, and another one will be made."""
        self._begin_anew()
        self.on_away()

    def on_over(self) -> None:
        """The connection is lost for good, so nothing is waited for."""
        self._away_since = None

    def _begin_anew(self) -> None:
        self._is_met = self._is_met or self.subscribed
        self._is_subscribed = False
        if self._awaited_since is not None:
            self._awaited_since = asyncio.get_running_loop().time()
