"""An attempt to join a room that is given up is seen to its end, and by whom."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from unittest import mock

import pytest
from livekit import rtc

from livekit_plugins_runway._common.tasks import BackgroundTasks
from livekit_plugins_runway.media.connect import (
    ABANDONED_TIMEOUT,
    LEAVE_TIMEOUT,
    adopt_keys,
    connect,
    leave,
)
from tests.support.virtual_clock import timers_only

NEVER = 1e6


def now() -> float:
    return asyncio.get_running_loop().time()


class Room:
    def __init__(
        self, connects: float, leaves: float = 0.1, refused: Exception | None = None
    ) -> None:
        self._connects, self._leaves, self._refused = connects, leaves, refused
        self.joined_at: float | None = None
        self.left_at: float | None = None
        self.cancelled = False

    async def connect(self, *_: object) -> None:
        try:
            await asyncio.sleep(self._connects)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self._refused is not None:
            raise self._refused
        self.joined_at = now()

    async def disconnect(self) -> None:
        await asyncio.sleep(self._leaves)
        self.left_at = now()


def joining(room: Any, background: BackgroundTasks | None) -> asyncio.Task[None]:
    return asyncio.create_task(connect(room, "ws://h", "token", background))


@timers_only
async def test_cancelled_it_raises_at_once_and_its_owner_leaves_the_room_after_all() -> None:
    background = BackgroundTasks()
    room = Room(connects=30.0)
    attempt = joining(room, background)
    await asyncio.sleep(2.0)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert now() == 2.0
    assert background.pending == 1
    assert await background.settle(60.0)
    assert (room.joined_at, room.left_at, room.cancelled) == (30.0, 30.1, False)


@timers_only
async def test_without_an_owner_whoever_has_cancelled_it_waits() -> None:
    room = Room(connects=30.0)
    attempt = joining(room, None)
    await asyncio.sleep(2.0)
    attempt.cancel()
    await asyncio.sleep(1.0)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert (room.joined_at, room.left_at, room.cancelled) == (30.0, 30.1, False)


@timers_only
async def test_one_that_is_refused_after_it_was_given_up_is_no_fault() -> None:
    background = BackgroundTasks()
    room = Room(connects=3.0, refused=rtc.ConnectError("no"))
    attempt = joining(room, background)
    await asyncio.sleep(1.0)
    attempt.cancel()
    await asyncio.wait({attempt})
    assert await background.settle(10.0)
    assert room.left_at is None


@timers_only
async def test_one_that_never_ends_is_not_waited_for_without_limit() -> None:
    background = BackgroundTasks()
    room = Room(connects=NEVER)
    attempt = joining(room, background)
    await asyncio.sleep(1.0)
    attempt.cancel()
    await asyncio.wait({attempt})
    assert await background.settle(NEVER)
    assert now() == pytest.approx(1.0 + ABANDONED_TIMEOUT)
    await asyncio.sleep(0.1)
    assert room.cancelled


@timers_only
async def test_a_refusal_is_the_callers() -> None:
    with pytest.raises(rtc.ConnectError):
        await joining(Room(connects=1.0, refused=rtc.ConnectError("no")), BackgroundTasks())


@timers_only
async def test_a_room_that_does_not_answer_is_left_in_a_known_time() -> None:
    room: Any = Room(connects=0.0, leaves=NEVER)
    await leave(room)
    assert now() == LEAVE_TIMEOUT


class Keys:
    def __init__(self) -> None:
        self.shared: dict[int, bytes] = {}
        self.single: dict[tuple[str, int], bytes] = {}

    def export_shared_key(self, index: int) -> bytes:
        return self.shared.get(index, b"")

    def set_shared_key(self, key: bytes, index: int) -> None:
        self.shared[index] = key

    def export_key(self, identity: str, index: int) -> bytes:
        return self.single.get((identity, index), b"")

    def set_key(self, identity: str, key: bytes, index: int) -> None:
        self.single[identity, index] = key


class EncryptedRoom:
    """As the SDK's: it has a manager of its encryption from when it is joined."""

    def __init__(self, shared: bytes | None, *, joined: bool = True) -> None:
        self.keys = Keys()
        self.cryptor = mock.Mock()
        self.local_participant = mock.Mock(identity="avatar")
        self._shared = shared
        if joined:
            self.join()

    def join(self) -> None:
        options = rtc.E2EEOptions(rtc.KeyProviderOptions(shared_key=self._shared))
        self.e2ee_manager = mock.Mock(enabled=True, options=options, key_provider=self.keys)
        self.e2ee_manager.frame_cryptors.return_value = [self.cryptor]

    def isconnected(self) -> bool:
        return hasattr(self, "e2ee_manager")


@pytest.mark.parametrize("shared", [b"first", None], ids=["shared", "of each participant"])
def test_keys_are_adopted_by_a_room_that_is_joined_and_once(shared: bytes | None) -> None:
    source, target = EncryptedRoom(shared), EncryptedRoom(shared, joined=False)
    for index, key in {0: b"first", 3: b"second"}.items():
        if shared is None:
            source.keys.set_key("avatar", key, index)
        else:
            source.keys.set_shared_key(key, index)
    for _ in range(2):
        adopt_keys(cast(rtc.Room, source), cast(rtc.Room, target))
    assert (target.keys.shared, target.keys.single) == ({}, {})
    source.keys.set_key("user", b"of nobody else's concern", 0)
    target.join()
    for _ in range(2):
        adopt_keys(cast(rtc.Room, source), cast(rtc.Room, target))
    del source.keys.single["user", 0]
    assert vars(target.keys) == vars(source.keys)
    assert target.cryptor.set_key_index.mock_calls == [mock.call(0), mock.call(3)]
