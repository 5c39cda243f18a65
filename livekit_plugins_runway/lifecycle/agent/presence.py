"""Whether an avatar is wanted: depends on who is in the agent's room, and on pause and resume."""

from __future__ import annotations

import asyncio
import contextlib

from livekit import rtc

from ...media.listeners import Audience, is_in, is_user

_EVENTS: tuple[rtc.room.EventTypes, ...] = (
    "participant_connected",
    "participant_disconnected",
    "connected",
    "reconnected",
)


class UserPresence:
    """Counts people, not agents, egress or ingress. "Left" needs somebody who was there before. It
    reads the list of participants at each event instead of counting events, because events may be
    lost in a reconnect.

    Args:
        audience: the identities that count; None: all.
    """

    def __init__(self, room: rtc.Room, audience: Audience = None) -> None:
        self._room = room
        self._audience = audience
        self._changed = asyncio.Event()
        self._seen = False
        for event in _EVENTS:
            room.on(event, self._on_change)
        self._on_change()

    @property
    def present(self) -> bool:
        return any(map(self._counts, self._room.remote_participants.values()))

    def _counts(self, participant: rtc.Participant) -> bool:
        return is_user(participant) and is_in(self._audience, participant)

    def _on_change(self, participant: object = None) -> None:
        # For participants that were there when this room was joined, only the leaving is announced.
        came_or_left = isinstance(participant, rtc.Participant) and self._counts(participant)
        self._seen = self._seen or came_or_left or self.present
        self._changed.set()

    async def wait_until_back(self) -> None:
        while not self.present:
            self._changed.clear()
            await self._changed.wait()

    async def wait_until_left(self, grace: float) -> None:
        """Wait until somebody was there, and then nobody for `grace` seconds in a row."""
        while True:
            while not self._seen or self.present:
                self._changed.clear()
                await self._changed.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self.wait_until_back()
            if not self.present:
                return

    def close(self) -> None:
        for event in _EVENTS:
            self._room.off(event, self._on_change)


class FaceSwitch:
    """True while the application wants an avatar. Used by the event loop's thread only."""

    def __init__(self) -> None:
        self._on, self._off = asyncio.Event(), asyncio.Event()
        self._on.set()

    @property
    def is_on(self) -> bool:
        return self._on.is_set()

    def turn(self, *, on: bool) -> None:
        """Idempotent."""
        set_, clear = (self._on, self._off) if on else (self._off, self._on)
        set_.set()
        clear.clear()

    async def wait_until_on(self) -> None:
        await self._on.wait()

    async def wait_until_off(self) -> None:
        await self._off.wait()
