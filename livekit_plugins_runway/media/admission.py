"""Who may subscribe to the avatar participant's tracks: listeners alone, until one of them has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from livekit import rtc

from .listeners import Listeners
from .subscription import SUBSCRIBE_TIMEOUT


class Admission:
    """The server tells a publisher once that somebody has subscribed to a track, and not who. By
    default that is the agent itself, which subscribes to all there is, within a second of the
    start: the greeting would be spoken to an empty room. So at first only listeners may. After the
    first one, or once one was waited for, everybody may: recorders and other agents miss nothing,
    for nothing is said before.

    All of it is of the event loop's thread.

    Args:
        room: of the participant that publishes; about to be joined.
        on_listeners: called with whether anybody is there who could listen.
    """

    def __init__(self, room: rtc.Room, on_listeners: Callable[[bool], None]) -> None:
        self._room = room
        self._on_listeners = on_listeners
        self._listeners: Listeners | None = None
        """From `begin()` to `close()`."""
        self._waiting: asyncio.TimerHandle | None = None
        """From the first listener on."""
        self._is_open = False
        """Everybody may subscribe. Never reset."""

    def begin(self) -> None:
        """Once the room is joined, before anything is published."""
        self._allow(frozenset())
        self._listeners = Listeners(self._room, self._on_change)
        self._listeners.look()

    def _on_change(self, present: frozenset[str]) -> None:
        if not self._is_open:
            self._allow(present)
        if present and self._waiting is None:
            loop = asyncio.get_running_loop()
            self._waiting = loop.call_later(SUBSCRIBE_TIMEOUT, self.open)
        self._on_listeners(bool(present))

    def open(self) -> None:
        """Somebody has subscribed, or was waited for: from now on everybody may. Idempotent."""
        if self._is_open:
            return
        self._is_open = True
        if self._room.isconnected():
            self._room.local_participant.set_track_subscription_permissions(
                allow_all_participants=True
            )

    def _allow(self, identities: frozenset[str]) -> None:
        if self._room.isconnected():
            self._room.local_participant.set_track_subscription_permissions(
                allow_all_participants=False,
                participant_permissions=[
                    rtc.ParticipantTrackPermission(participant_identity=identity, allow_all=True)
                    for identity in sorted(identities)
                ],
            )

    def close(self) -> None:
        """Idempotent."""
        if self._listeners is not None:
            self._listeners.close()
        if self._waiting is not None:
            self._waiting.cancel()
