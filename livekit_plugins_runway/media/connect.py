"""Joining a LiveKit room so that it can be cancelled."""

from __future__ import annotations

import asyncio

from livekit import rtc


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
            await room.disconnect()
        raise cancelled
    attempt.result()
