"""Joins a LiveKit room, cancellably, and leaves it in bounded time."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from functools import partial

from livekit import rtc

from .._common.tasks import BackgroundTasks
from ..log import logger

LEAVE_TIMEOUT = 5.0
"""Seconds to wait for the SDK's answer to a disconnect."""
ABANDONED_TIMEOUT = 60.0
"""Seconds to wait for the answer to an abandoned attempt. The SDK gives up after about 32 s if a
server accepts TCP and stays silent.
"""

SUBSCRIBING = 1.0
"""Seconds in which the others in a room subscribe to a new track, or a new participant to the
tracks: a few round trips. On loopback 0.05 s are enough (20 of 20).
"""


class Subscribing:
    """Whether others in the room may still be subscribing to tracks of this participant.

    If a track is unpublished meanwhile, the server (livekit-server 1.11.0 to 1.13.5,
    `pkg/rtc/transport.go`, `getNumUnmatchedTransceivers`) asks clients with a single peer
    connection (livekit 1.1.21) for one more media section for that track, again after each answer.
    They renegotiate for the rest of their stay, and each takes a core and more. Seen in 18 of 20
    rooms if the track was there for 0.01 s, in 3 of 20 at 0.05 s, in none at 0.1 s.
    """

    def __init__(self) -> None:
        self._since = float("-inf")
        """Loop time at which a track was last published, or a participant joined."""

    def begin(self, *_: object) -> None:
        """Note that a track was published, or a participant has joined."""
        self._since = asyncio.get_running_loop().time()

    async def wait(self, room: rtc.Room) -> None:
        """Wait until they have subscribed; returns at once if nobody else is in the room, or it is
        lost.
        """
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

    In livekit 1.1.21 a `Room.connect()` cancelled at the wrong moment kills the process: the native
    side panics if its answer is not taken ("timed out waiting for ReadyForRoomEventRequest"), and
    the SDK turns a panic into SIGTERM. So a cancelled attempt is always completed, and then undone.

    Args:
        background: completes a cancelled attempt, so that the cancellation is raised at once; None:
            the caller waits for it.
        options: of the connection; `auto_subscribe` is ignored.

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
    """Complete an abandoned attempt, and leave the room if it was joined."""
    await asyncio.wait({attempt}, timeout=ABANDONED_TIMEOUT)
    if not attempt.done():
        logger.error("an abandoned attempt to join a room has not ended in time")
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
    """Leave `room`, in at most `LEAVE_TIMEOUT` seconds. Errors are logged; nothing can be done
    about them.
    """
    try:
        async with asyncio.timeout(LEAVE_TIMEOUT):
            await room.disconnect()
    except Exception as error:  # noqa: BLE001  the SDK raises nothing narrower
        logger.warning("a room could not be left properly", extra={"error": type(error).__name__})


def encryption_of(room: rtc.Room) -> rtc.E2EEOptions | None:
    """The encryption options with which a room was joined; None if it is not encrypted, or not
    connected yet.
    """
    if not room.isconnected() or not room.e2ee_manager.enabled:
        return None
    return room.e2ee_manager.options


def adopt_keys(source: rtc.Room, target: rtc.Room) -> None:
    """Copy the present keys of `source` to `target`: the shared keys or, if each participant has
    its own, those of the participant in `target`. `target` encrypts with the last new key from then
    on. No effect unless both are encrypted.
    """
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
