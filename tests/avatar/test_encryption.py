"""A room with end-to-end encryption: the avatar is encrypted with the keys of its agent's room."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from unittest import mock

import pytest
from livekit import rtc

from livekit_plugins_runway import AvatarSession, AvatarState
from livekit_plugins_runway.errors import ConfigurationError
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript, hear, missing
from livekit_plugins_runway.testing.user import SimulatedUser
from livekit_plugins_runway.transport.bridge import Bridge
from livekit_plugins_runway.transport.tokens import RoomCredentials
from tests.support.call import DIRECT, RATE, Call, calling, credentials_for, loudness, now

SCRIPT = ToneScript(10)
AVATAR = "runway-avatar-agent"


def keys(shared: bytes) -> rtc.E2EEOptions:
    return rtc.E2EEOptions(key_provider_options=rtc.KeyProviderOptions(shared_key=shared))


def encrypted(encryption: rtc.E2EEOptions) -> rtc.RoomOptions:
    return rtc.RoomOptions(encryption=encryption)


@asynccontextmanager
async def calling_encrypted(
    server: LiveKitServer, encryption: rtc.E2EEOptions, **options: Any
) -> AsyncIterator[Call]:
    """A call whose user has these keys, up to the avatar's picture. What the SDK's receiver decodes
    before it has attached the keys to a new track is noise of up to 60 ms (docs/sdk-quirks.md)."""
    async with calling(server, user={"encryption": encryption}, **options) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        call.judged_since = now()
        yield call


@asynccontextmanager
async def viewer(call: Call, encryption: rtc.E2EEOptions | None) -> AsyncIterator[SimulatedUser]:
    """One more in the room, who subscribes to all."""
    async with SimulatedUser(
        call.server.url,
        call.room.name,
        api_key=call.server.api_key,
        api_secret=call.server.api_secret,
        identity=f"viewer-{secrets.token_hex(2)}",
        encryption=encryption,
    ) as user:
        yield user


@pytest.mark.heavy
@pytest.mark.parametrize("other", [b"another", None], ids=["the wrong key", "no key"])
async def test_who_has_the_key_hears_and_sees_the_avatar_and_nobody_else(
    livekit_server: LiveKitServer, other: bytes | None
) -> None:
    ours = keys(b"of this room")
    theirs = None if other is None else keys(other)
    async with calling_encrypted(livekit_server, ours, room=encrypted(ours)) as call:
        async with viewer(call, theirs) as stranger:
            began = now()
            await call.say(SCRIPT)
            await call.hears(SCRIPT, since=began)
            assert call.user.frames
            seen = {t.source for t in stranger.tracks if t.identity == AVATAR}
            assert seen == {"microphone", "camera"}
            heard = stranger.heard(began)
            assert missing(SCRIPT, hear(heard, RATE)) == list(SCRIPT.indices)
            if theirs is not None:  # who has no key decodes what is encrypted: noise
                # With the wrong one, a few packets of noise are decoded, too, at times.
                assert usually(heard) < 0.1 * usually(call.user.heard(began))
                assert stranger.frames == []
        avatar = call.user.room.remote_participants[AVATAR]
        types = {one.encryption_type for one in avatar.track_publications.values()}
        assert types == {rtc.EncryptionType.GCM}


@pytest.mark.heavy
async def test_keys_that_change_in_mid_call_are_followed(livekit_server: LiveKitServer) -> None:
    first = keys(b"the first")
    async with (
        calling_encrypted(livekit_server, first, room=encrypted(first)) as call,
        viewer(call, first) as late,
    ):
        began = now()
        await call.say(SCRIPT)
        await call.hears(SCRIPT, since=began)
        assert missing(SCRIPT, hear(late.heard(began), RATE)) == []
        for room in (call.user.room, call.room):
            assert room.e2ee_manager.key_provider is not None
            room.e2ee_manager.key_provider.set_shared_key(b"the second", 1)
        await followed(call)
        began = now()
        await call.say(SCRIPT)
        await call.hears(SCRIPT, since=began)
        assert missing(SCRIPT, hear(late.heard(began), RATE)) == list(SCRIPT.indices)


@pytest.mark.heavy
async def test_where_each_has_its_own_key_the_avatar_encrypts_with_its_own(
    livekit_server: LiveKitServer,
) -> None:
    own = rtc.E2EEOptions(key_provider_options=rtc.KeyProviderOptions(shared_key=None))
    async with (
        calling(livekit_server, user={"encryption": own}, room=encrypted(own)) as call,
        viewer(call, own) as stranger,
    ):
        for room in (call.user.room, call.room):
            assert room.e2ee_manager.key_provider is not None
            room.e2ee_manager.key_provider.set_key(AVATAR, b"of the avatar", 0)
        await call.start()
        await call.until(AvatarState.LIVE)
        call.judged_since = began = now()
        await call.say(SCRIPT)
        await call.hears(SCRIPT, since=began)
        assert missing(SCRIPT, hear(stranger.heard(began), RATE)) == list(SCRIPT.indices)
        assert call.user.frames
        assert stranger.frames == []


def usually(pcm: Any) -> float:
    """The loudness that half of the pieces of 0.1 s stay below."""
    size = RATE // 10
    pieces = [loudness(pcm[start : start + size]) for start in range(0, len(pcm), size)]
    return statistics.median(pieces)


async def followed(call: Call) -> None:
    """The avatar encrypts with the second key."""
    manager: Any = call.bridge.participant._room.e2ee_manager
    async with asyncio.timeout(5.0):
        while {it.key_index for it in manager.frame_cryptors()} != {1}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_an_agent_that_connects_with_keys_after_its_avatar_keeps_no_core_busy(
    livekit_server: LiveKitServer,
) -> None:
    """The avatar leaves at once, to come back with the keys, while the agent subscribes to it."""
    bridges, agents = list[Bridge](), [rtc.Room() for _ in range(6)]
    try:
        for agent in agents:
            name = f"room-{secrets.token_hex(4)}"
            credentials = credentials_for(livekit_server, name, "agent")
            bridge = Bridge(agent, credentials, identity="a", name="a", stall_timeout=1.5)
            bridges.append(bridge)
            await bridge.join(lambda *_: None)
            token = livekit_server.token(name, "agent", kind="agent")
            await agent.connect(livekit_server.url, token, encrypted(keys(b"of this room")))
        async with asyncio.timeout(10.0):
            while not all(bridge.participant._present for bridge in bridges):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        before = time.process_time()
        await asyncio.sleep(1.0)
        assert time.process_time() - before < 0.8  # one that never ends takes more than a core
        assert all(bridge._encrypted.is_set() for bridge in bridges)
    finally:
        for bridge in bridges:
            await bridge.aclose()
        for agent in agents:
            await agent.disconnect()


async def test_keys_that_are_given_go_before_those_of_the_agents_room(
    livekit_server: LiveKitServer,
) -> None:
    theirs = keys(b"of the avatar alone")
    async with calling_encrypted(
        livekit_server, theirs, room_options=rtc.RoomOptions(encryption=theirs)
    ) as call:
        began = now()
        await call.say(SCRIPT)
        await call.hears(SCRIPT, since=began)


async def test_direct_is_refused_in_a_room_that_is_encrypted(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, room=encrypted(keys(b"of this room")), **DIRECT) as call:
        with pytest.raises(ConfigurationError, match="allow_unencrypted"):
            await call.start_avatar()
        assert call.simulator.requests == []


def test_options_of_a_connection_that_is_not_made_here_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="room_options"):
        AvatarSession(
            preset_id="influencer",
            api_key="key_x",
            transport="direct",
            room_options=rtc.RoomOptions(),
        )


class AgentRoom(rtc.EventEmitter[Any]):
    """Joined with keys, after the avatar's start."""

    def __init__(self) -> None:
        super().__init__()
        self.connected = False
        self.e2ee_manager = mock.Mock(enabled=True, options=keys(b"late"))

    def isconnected(self) -> bool:
        return self.connected


@pytest.mark.parametrize("while_it_joins", [False, True])
async def test_keys_that_are_known_only_later_make_the_avatar_join_again(
    while_it_joins: bool,
) -> None:
    room = AgentRoom()
    credentials = RoomCredentials("ws://h", "k", "s" * 32, "r", "agent")
    bridge = Bridge(cast(rtc.Room, room), credentials, identity="a", name="a", stall_timeout=1.5)
    joined: list[rtc.E2EEOptions | None] = []

    async def join(*_: object) -> None:
        joined.append(bridge._room_options().encryption)
        if while_it_joins:
            connect()
            await asyncio.sleep(0.01)
        bridge.participant._present = True

    def enter_anew() -> None:
        if bridge.participant._present:  # as the real one
            joined.append(bridge._room_options().encryption)

    def connect() -> None:
        room.connected = True
        room.emit("connection_state_changed", rtc.ConnectionState.CONN_CONNECTED)

    with (
        mock.patch.object(bridge.participant, "join", join),
        mock.patch.object(bridge.participant, "enter_anew", enter_anew),
    ):
        await bridge.join(lambda *_: None)
        for _ in range(0 if while_it_joins else 2):
            connect()
        assert joined == [None, room.e2ee_manager.options]
    await bridge.aclose()
