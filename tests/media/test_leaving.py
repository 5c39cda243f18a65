"""A track that goes away while others subscribe to it: they must not negotiate from then on."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from livekit import rtc

from livekit_plugins_runway.media.fallback_track import FallbackTrack
from livekit_plugins_runway.media.participant import AvatarParticipant
from livekit_plugins_runway.testing.livekit_server import LiveKitServer

ROOMS = 5
TOO_SOON = 0.01
"""Seconds after which a track that goes away keeps 18 of 20 subscribers busy for good."""


def picture() -> rtc.VideoFrame:
    return rtc.VideoFrame(64, 64, rtc.VideoBufferType.I420, bytes(64 * 64 * 3 // 2))


@asynccontextmanager
async def an_avatar(server: LiveKitServer, name: str) -> AsyncIterator[rtc.Room]:
    async def token() -> str:
        return server.token(name, "avatar")

    avatar = AvatarParticipant()
    await avatar.join(server.url, token)
    await asyncio.sleep(0.5)  # the user, if there is one, has the voice
    assert await avatar.open_camera(picture(), 1)
    yield avatar._room
    await avatar.aclose()


@asynccontextmanager
async def a_voice(server: LiveKitServer, name: str) -> AsyncIterator[rtc.Room]:
    agent = rtc.Room()
    await agent.connect(server.url, server.token(name, "agent"))
    voice = FallbackTrack(agent)
    await voice.publish()
    yield agent
    await voice.aclose()
    assert agent.isconnected()


@pytest.mark.parametrize("published", [an_avatar, a_voice])
async def test_what_is_closed_while_a_user_subscribes_keeps_nobody_busy(
    livekit_server: LiveKitServer,
    published: Callable[[LiveKitServer, str], AbstractAsyncContextManager[rtc.Room]],
) -> None:
    rooms = list[rtc.Room]()

    async def come_and_go() -> None:
        name, user = f"room-{secrets.token_hex(4)}", rtc.Room()
        rooms.append(user)
        await user.connect(livekit_server.url, livekit_server.token(name, "user"))
        async with published(livekit_server, name) as room:
            rooms.append(room)
            await asyncio.sleep(TOO_SOON)

    try:
        await asyncio.gather(*(come_and_go() for _ in range(ROOMS)))
        await asyncio.sleep(1.0)  # until they have ended what closing has begun
        before = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - before < 0.7  # one that goes on takes more than a core
    finally:
        for room in rooms:
            await room.disconnect()
