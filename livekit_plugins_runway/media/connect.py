"""Joining a LiveKit room so that it can be cancelled, and leaving it in a time that is known."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from functools import partial

from livekit import rtc

from .._common.tasks import BackgroundTasks
from ..log import logger

LEAVE_TIMEOUT = 5.0
"""Seconds for which the SDK's answer to a disconnect is waited."""
ABANDONED_TIMEOUT = 60.0
"""Seconds for which the answer to an abandoned attempt is waited; the SDK gives up after about 32
where a server accepts TCP and stays silent."""

SUBSCRIBING = 1.0
"""Seconds in which the others in a room subscribe to a track, be it that it or they have just come:
a few ways through the network. On loopback 0.05 s do (20 of 20)."""


class Subscribing:
    """Whether the others in a room may be about to subscribe to what this end publishes in it.

    If a track goes away meanwhile, the server (livekit-server 1.11.0 to 1.13.5,
    `pkg/rtc/transport.go`, `getNumUnmatchedTransceivers`) asks those who have one peer connection
    (livekit 1.1.21) for one more section of it for that track, again after each answer: they
    negotiate for the rest of their stay, and each takes a core and more. In 18 of 20 rooms where
    the track was there for 0.01 s, in 3 of 20 at 0.05 s, in none at 0.1 s.
    """

    def __init__(self) -> None:
        self._since = float("-inf")
        """Loop time at which a track was last published, or somebody came."""

    def begin(self, *_: object) -> None:
        """A track was published, or somebody has come."""
        self._since = asyncio.get_running_loop().time()

    async def wait(self, room: rtc.Room) -> None:
        """Until they have subscribed; at once if nobody else is there, or the room is lost."""
        if room.isconnected() and room.remote_participants:
            since = asyncio.get_running_loop().time() - self._since
            await asyncio.sleep(max(0.0, SUBSCRIBING - since))


async def connect(
    room: rtc.Room,
    url: str,
    token: str,
    background: BackgroundTasks | None = None,
    options: rtc.RoomOptions | None = None,
) -> None:
    """Join `room`, subscribing to nothing.

    In livekit 1.1.21 a `Room.connect()` cancelled at the wrong moment kills the process: the
    native side panics when nobody takes its answer ("timed out waiting for
    ReadyForRoomEventRequest"), and the SDK turns a panic into SIGTERM. So a cancelled attempt is
    always seen to its end and undone.

    Args:
        background: does that for a cancelled attempt, which then raises at once; None: the caller
            waits for it.
        options: of the connection; what they say of subscribing does not count.

    Raises:
        livekit.rtc.ConnectError: refused, or not reached in time.
    """
    options = dataclasses.replace(options or rtc.RoomOptions(), auto_subscribe=False)
    attempt = asyncio.create_task(room.connect(url, token, options), name="runway_connect")
    try:
        await asyncio.wait({attempt})
    except asyncio.CancelledError:
        owner = background or BackgroundTasks()
        undoing = owner.start(_undo(room, attempt), "runway_undo_connect")
        if background is None:
            await _until_ended(undoing)
        raise
    attempt.result()


async def _undo(room: rtc.Room, attempt: asyncio.Task[None]) -> None:
    """See an abandoned attempt to its end, and leave the room that it has joined after all."""
    await asyncio.wait({attempt}, timeout=ABANDONED_TIMEOUT)
    if not attempt.done():
        logger.error("an attempt to join a room that was given up has never ended")
        attempt.cancel()
    elif not attempt.cancelled() and attempt.exception() is None:
        await leave(room)


async def _until_ended(task: asyncio.Task[None]) -> None:
    """Cancelled or not."""
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue


async def leave(room: rtc.Room) -> None:
    """Leave `room`, in at most `LEAVE_TIMEOUT` seconds. What goes wrong is logged: there is nothing
    that could be done about it."""
    try:
        async with asyncio.timeout(LEAVE_TIMEOUT):
            await room.disconnect()
    except Exception as error:  # noqa: BLE001  the SDK raises nothing narrower
        logger.warning("a room was not left in order", extra={"error": type(error).__name__})


def encryption_of(room: rtc.Room) -> rtc.E2EEOptions | None:
    """The keys with which a room was joined; None if it is not encrypted, or not connected yet."""
    if not room.isconnected() or not room.e2ee_manager.enabled:
        return None
    return room.e2ee_manager.options


def adopt_keys(source: rtc.Room, target: rtc.Room) -> None:
    """Give `target` the keys that `source` has by now: the shared ones or, where each participant
    has its own, those of the participant in `target`. The last one that is new to it is the one
    that it encrypts with from then on. Without effect unless both are encrypted."""
    given, taken = encryption_of(source), encryption_of(target)
    if given is None or taken is None:
        return
    theirs, ours = source.e2ee_manager.key_provider, target.e2ee_manager.key_provider
    if theirs is None or ours is None:
        return
    ring = given.key_provider_options.key_ring_size
    exported: Callable[[int], bytes] = theirs.export_shared_key
    known: Callable[[int], bytes] = ours.export_shared_key
    adopt: Callable[[bytes, int], None] = ours.set_shared_key
    if given.key_provider_options.shared_key is None:
        identity = target.local_participant.identity
        exported, known = partial(theirs.export_key, identity), partial(ours.export_key, identity)
        adopt = partial(ours.set_key, identity)
    for index in range(min(ring, taken.key_provider_options.key_ring_size)):
        key = exported(index)
        if key and key != known(index):
            adopt(key, index)
            for cryptor in target.e2ee_manager.frame_cryptors():
                cryptor.set_key_index(index)
            logger.info("the avatar has taken over a key of its agent's room")
