"""Two participants of one room, without anything of this package between them and the SDK."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from livekit import rtc

from livekit_plugins_runway.testing.livekit_server import LiveKitServer


@dataclass
class TwoRooms:
    """One room, as its speaker and its listener see it. The listener subscribes to everything."""

    server: LiveKitServer
    name: str
    speaker: rtc.Room = field(default_factory=rtc.Room)
    listener: rtc.Room = field(default_factory=rtc.Room)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Until the condition holds, which is looked at after each event at the listener."""
        async with asyncio.timeout(timeout):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def receive(self, track: rtc.LocalTrack, **options: object) -> rtc.RemoteTrack:
        """The track as the listener gets it. Sent whole: one layer, and silence as any sound."""
        arrived: asyncio.Future[rtc.RemoteTrack] = asyncio.get_running_loop().create_future()
        self.listener.on("track_subscribed", lambda track, *_: arrived.set_result(track))
        published = rtc.TrackPublishOptions(dtx=False, simulcast=False)
        await self.speaker.local_participant.publish_track(track, published)
        async with asyncio.timeout(10.0):
            return await arrived


@asynccontextmanager
async def two_rooms(server: LiveKitServer) -> AsyncIterator[TwoRooms]:
    rooms = TwoRooms(server, f"quirks-{secrets.token_hex(4)}")
    for event in ("participant_connected", "participant_disconnected", "track_published"):
        rooms.listener.on(event, lambda *_: rooms.changed.set())
    try:
        await rooms.listener.connect(server.url, server.token(rooms.name, "listener"))
        await rooms.speaker.connect(server.url, server.token(rooms.name, "speaker"))
        yield rooms
    finally:
        await rooms.speaker.disconnect()
        await rooms.listener.disconnect()
