"""Data messages and RPC exchanged with Runway's avatar worker, in both transports."""

from __future__ import annotations

import asyncio
import json
from typing import Literal

from livekit import rtc
from livekit.rtc.participant import PublishDataError

from ..log import logger

END_CALL = json.dumps({"type": "END_CALL"}).encode()
"""Ends a session as COMPLETED, with transcript and recording (runwayml/avatars-sdk-react)."""
PATIENCE = 2.0
"""Seconds in which a worker that was sent END_CALL may leave by itself."""
RPC_CLEAR_BUFFER = "lk.clear_buffer"
RPC_PLAYBACK_FINISHED = "lk.playback_finished"
RPC_PLAYBACK_STARTED = "lk.playback_started"
AUDIO_STREAM_TOPIC = "lk.audio_stream"

RPC_TIMEOUT = 2.0
"""Seconds that `lk.clear_buffer` may take."""
# The SDK subtracts 7 s for the round trip from this time-out, and leaves 1 s at least. A small
# value would give up on a worker that answers late.
_RPC_RESPONSE_TIMEOUT = RPC_TIMEOUT + 7.0

_LATE = {rtc.RpcError.ErrorCode.CONNECTION_TIMEOUT, rtc.RpcError.ErrorCode.RESPONSE_TIMEOUT}

DeliveryOption = Literal["auto", "datastream", "track"]
DeliveryKind = Literal["datastream", "track"]


async def clear_buffer(room: rtc.Room, worker: str) -> bool:
    """Call `lk.clear_buffer`. True if the worker answered; False if it refused, does not know the
    method, is gone, or did not answer within `RPC_TIMEOUT` seconds."""
    return await answer_to_clear_buffer(room, worker) is True


async def answer_to_clear_buffer(room: rtc.Room, worker: str) -> bool | None:
    """The same; None if it did not answer in time."""
    try:
        async with asyncio.timeout(RPC_TIMEOUT):
            await room.local_participant.perform_rpc(
                destination_identity=worker,
                method=RPC_CLEAR_BUFFER,
                payload="",
                response_timeout=_RPC_RESPONSE_TIMEOUT,
            )
    except (rtc.RpcError, TimeoutError) as error:
        logger.debug("clear_buffer was not confirmed", extra={"error": type(error).__name__})
        late = isinstance(error, TimeoutError) or error.code in _LATE
        return None if late else False
    return True


async def send_end_call(room: rtc.Room, worker: str) -> bool:
    """Tell the worker that the call is over. False if nothing could be sent."""
    if not room.isconnected():
        return False
    try:
        await room.local_participant.publish_data(
            END_CALL, reliable=True, destination_identities=[worker]
        )
    except PublishDataError as error:
        logger.debug("END_CALL was not sent", extra={"error": type(error).__name__})
        return False
    return True


def says_interrupted(payload: str) -> bool:
    """The content of a worker's `lk.playback_finished`; True if it does not say otherwise."""
    try:
        told = json.loads(payload)
    except (ValueError, RecursionError):
        return True
    return not isinstance(told, dict) or told.get("interrupted") is not False
