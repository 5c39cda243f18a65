"""Joining a LiveKit room so that it can be cancelled, and leaving it in a time that is known."""

from __future__ import annotations

import asyncio

from livekit import rtc

from ..log import logger

LEAVE_TIMEOUT = 5.0
"""Seconds for which the SDK's answer to a disconnect is waited."""


async def connect(room: rtc.Room, url: str, token: str) -> None:
    """Join `room`, subscribing to nothing.

    In livekit 1.1.21 a `Room.connect()` cancelled at the wrong moment kills the process: the
    native side panics when nobody takes its answer ("timed out waiting for
    ReadyForRoomEventRequest"), and the SDK turns a panic into SIGTERM. So here a cancelled attempt
    is seen to its end and undone before the cancellation goes on.

    Raises:
        livekit.rtc.ConnectError: refused, or not reached in time.
    """
    attempt = asyncio.create_task(
        room.connect(url, token, rtc.RoomOptions(auto_subscribe=False)), name="runway_connect"
    )
    cancelled: asyncio.CancelledError | None = None
    while not attempt.done():
        try:
            await asyncio.wait({attempt})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if attempt.exception() is None:
            await leave(room)
        raise cancelled
    attempt.result()


async def leave(room: rtc.Room) -> None:
    """Leave `room`, in at most `LEAVE_TIMEOUT` seconds. What goes wrong is logged: there is nothing
    that could be done about it."""
    try:
        async with asyncio.timeout(LEAVE_TIMEOUT):
            await room.disconnect()
    except Exception as error:  # noqa: BLE001  the SDK raises nothing narrower
        logger.warning("a room was not left in order", extra={"error": type(error).__name__})
