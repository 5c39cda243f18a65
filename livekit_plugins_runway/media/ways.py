"""The two ways to the SDK's media behind one small interface, and the choice between them.

`native.py` takes less CPU and copies no picture, but uses private parts of the SDK. `public.py`
uses none. docs/relay.md has the cost of each.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, Self, TypeVar, get_args

from livekit import rtc

from .._common.checks import check_choice
from .._common.versions import TESTED_LIVEKIT
from ..errors import ConfigurationError
from ..log import logger
from ..playout.audio import SAMPLE_RATE

WayName = Literal["native", "public"]

VARIABLE = "RUNWAY_AVATAR_MEDIA"
"""The environment variable that names the way; without it the way is chosen by a self-check."""

END_TIMEOUT = 2.0
"""Seconds to wait for the SDK's answer to the end of a stream. Bounded, because the paid session
must be ended after it.
"""

Item = TypeVar("Item")


class Sender(Protocol):
    """Sends sound to one `rtc.AudioSource` of `SAMPLE_RATE` and one channel."""

    def send(self, pcm: bytes) -> None:
        """Send int16 mono PCM at 48 kHz, from any thread, in order, without waiting until it was
        sent. No effect after `aclose()`. Does not raise.

        Args:
            pcm: exactly 10 ms for a source without a queue; for one with a queue, not more than it
                has room for.
        """

    def clear(self) -> None:
        """Drop sound that has not reached the source yet. From the event loop."""

    async def aclose(self) -> None:
        """Drop sound that has not reached the source. Call it before closing the source, which is
        the caller's task. Idempotent.
        """


class VoiceTap(Protocol):
    """Passes the sound of a track to a callback, `PACKET` samples of int16 mono PCM at 48 kHz at a
    time, from any one thread.
    """

    async def wait_until_ended(self) -> None:
        """Listen until the track has ended, or the tap is closed. Raises if listening fails."""

    async def aclose(self) -> None:
        """The callback is not called any more when this has returned, after `END_TIMEOUT` at most.
        Await it before the room is left. Idempotent.
        """


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a track, of any buffer type; `timestamp_us` is its capture time in microseconds
    of the SDK's clock. Its data is valid as long as `frame` is held."""

    frame: rtc.VideoFrame
    timestamp_us: int


class PictureTap(Protocol):
    """An iterator over the pictures of a track. It ends with the track."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Picture: ...

    async def aclose(self) -> None:
        """Await it before the room is left; returns after `END_TIMEOUT` at most. Idempotent."""


def plain_source(queue_ms: int) -> rtc.AudioSource:
    """A source for the running event loop."""
    return rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=queue_ms)


@dataclass(frozen=True)
class MediaWay:
    """One of the two ways.

    Attributes:
        sender: for a source that `source` has made; made in the event loop.
        voice_tap: makes a tap from a track and a callback for its sound, which must not block.
        picture_tap: makes a tap from a track and the number of pictures to keep; then the oldest
            one is dropped.
        source: of `SAMPLE_RATE` and one channel, with a queue of so many milliseconds.
    """

    name: WayName
    sender: Callable[[rtc.AudioSource], Sender]
    voice_tap: Callable[[rtc.RemoteAudioTrack, Callable[[bytes], None]], VoiceTap]
    picture_tap: Callable[[rtc.RemoteVideoTrack, int], PictureTap]
    source: Callable[[int], rtc.AudioSource] = plain_source


class Guarded(Generic[Item]):
    """Wraps a callback and catches its errors, because the caller serves other callbacks as well.
    Called from one thread at a time, which alone writes `failures`.
    """

    def __init__(self, callback: Callable[[Item], None]) -> None:
        self._callback = callback
        self.failures = 0
        """Number of exceptions. Only the first is logged: there may be 50 a second."""

    def __call__(self, item: Item) -> None:
        try:
            self._callback(item)
        except Exception:  # noqa: BLE001  any error is logged
            self.failures += 1
            if self.failures == 1:
                logger.exception("a media callback failed; further errors of it are not logged")


async def ended(ending: Awaitable[object]) -> None:
    """Wait for the end of a stream, `END_TIMEOUT` seconds at most."""
    try:
        async with asyncio.timeout(END_TIMEOUT):
            await ending
    except TimeoutError:
        logger.warning("a stream of the LiveKit SDK did not end in time")


def choose(forced: WayName | None = None) -> MediaWay:
    """The way to use, the same for the whole process unless it is forced.

    Args:
        forced: overrides `RUNWAY_AVATAR_MEDIA`.

    Raises:
        ConfigurationError: the variable names no way, or "native" although the SDK lacks its parts.
    """
    wanted = forced or os.environ.get(VARIABLE, "").strip() or None
    if wanted is not None:
        check_choice(VARIABLE, wanted, get_args(WayName))
    return _chosen(wanted)


@functools.cache
def _chosen(wanted: str | None) -> MediaWay:
    way, reason = decide(wanted, rtc.__version__)
    logger.info("the way to the media is chosen", extra={"way": way.name, "reason": reason})
    return way


def decide(wanted: str | None, version: str) -> tuple[MediaWay, str]:
    """A way and the reason for it.

    Args:
        wanted: its name; None: chosen by the self-check.
        version: of livekit.

    Raises:
        ConfigurationError: "native" is wanted, but the SDK lacks its parts.
    """
    from . import public

    if wanted == "public":
        return public.WAY, "asked for"
    if wanted is None and version not in TESTED_LIVEKIT:
        return public.WAY, f"livekit {version} was never tested on the native way"
    try:
        from . import native  # not earlier: another version of livekit may lack its imports

        missing = native.missing()
    except (ImportError, AttributeError) as error:
        missing = [str(error)]
    if not missing:
        return native.WAY, "asked for" if wanted else f"livekit {version} was tested on it"
    lacking = f"livekit {version} lacks parts of the native way: {'; '.join(missing)}"
    if wanted is not None:
        raise ConfigurationError(f"{lacking}. Unset {VARIABLE}, or set it to 'public'.")
    return public.WAY, lacking
