"""Who in a room could hear the agent: people, and of callers those who have picked up."""

from __future__ import annotations

from collections.abc import Callable

from livekit import rtc

_USERS = {
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
    rtc.ParticipantKind.PARTICIPANT_KIND_SIP,
    rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR,
}
_CALL_STATUS = "sip.callStatus"
"""LiveKit's attribute of a SIP participant: "dialing" and "ringing" before "active"."""
_ON_BEHALF = "lk.publish_on_behalf"
"""LiveKit's attribute of an avatar, or of whoever else speaks for an agent."""
_EVENTS: tuple[rtc.room.EventTypes, ...] = (
    "connected",
    "reconnected",
    "participant_connected",
    "participant_disconnected",
    "participant_attributes_changed",
)


def is_user(participant: rtc.Participant) -> bool:
    """A person, or what connects one: no agent, egress or ingress."""
    return participant.kind in _USERS and _ON_BEHALF not in participant.attributes


def is_listener(participant: rtc.Participant) -> bool:
    """A user who would hear what is said now: not one whose phone rings."""
    return is_user(participant) and participant.attributes.get(_CALL_STATUS, "active") == "active"


class Listeners:
    """Watches a room for listeners, by who is in it at each event: a reconnect may swallow events.

    Args:
        on_change: called with the identities of those who are there, at each change from nobody on.
    """

    def __init__(self, room: rtc.Room, on_change: Callable[[frozenset[str]], None]) -> None:
        self._room = room
        self._on_change = on_change
        self._present: frozenset[str] = frozenset()
        """Written by `look()` alone."""
        for event in _EVENTS:
            room.on(event, self.look)

    def look(self, *_: object) -> None:
        """Account for who is there now."""
        people = self._room.remote_participants.values()
        present = frozenset(one.identity for one in people if is_listener(one))
        if present != self._present:
            self._present = present
            self._on_change(present)

    def close(self) -> None:
        """Idempotent."""
        for event in _EVENTS:
            self._room.off(event, self.look)
