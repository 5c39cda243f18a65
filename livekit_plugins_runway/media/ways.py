"""The two ways to the SDK's media behind one small interface, and which of them is taken.

`native.py` takes less CPU and copies no picture, by parts of the SDK that are not public.
`public.py` needs none of them. docs/relay.md says what either costs.
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
"""Seconds for which the SDK's answer to the end of a stream is waited: who ends a call must go on
to end what is paid for."""

Item = TypeVar("Item")


class Sender(Protocol):
    """Gives sound to one `rtc.AudioSource` of `SAMPLE_RATE` and one channel."""

    def send(self, pcm: bytes) -> None:
        """Send int16 mono PCM at 48 kHz, from any thread, in order, and do not wait until it was
        sent. Without effect after `aclose()`. Does not raise.

        Args:
            pcm: a source without a queue takes 10 ms exactly; one with a queue no more than it has
                room for.
        """

    def clear(self) -> None:
        """Drop what has not reached the source yet. From the event loop."""

    async def aclose(self) -> None:
        """Drop what has not reached the source. To be called before the source is closed, which is
        the caller's. Idempotent."""


class VoiceTap(Protocol):
    """Gives the sound of a track to a callback, `PACKET` samples of int16 mono PCM at 48 kHz at a
    time, from any one thread."""

    async def wait_until_ended(self) -> None:
        """Until the track has ended, or the tap is closed. Raises what ends the listening else."""

    async def aclose(self) -> None:
        """Nothing is given any more once this has returned, after `END_TIMEOUT` at most. To be
        awaited before the room is left. Idempotent."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a track, of any buffer type; `timestamp_us` is its capture time in microseconds
    of the SDK's clock. Its data is valid as long as `frame` is held."""

    frame: rtc.VideoFrame
    timestamp_us: int


class PictureTap(Protocol):
    """The pictures of a track. It ends with the track."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Picture: ...

    async def aclose(self) -> None:
        """To be awaited before the room is left; returns after `END_TIMEOUT` at most.
        Idempotent."""


def plain_source(queue_ms: int) -> rtc.AudioSource:
    """Of the event loop that runs."""
    return rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=queue_ms)


@dataclass(frozen=True)
class MediaWay:
    """One of the two ways.

    Attributes:
        sender: for a source that `source` has made; made in the event loop.
        voice_tap: of a track, and what is called with its sound. That must not block or wait.
        picture_tap: of a track, and how many pictures are kept until they are taken; then the
            oldest one is dropped.
        source: of `SAMPLE_RATE` and one channel, with a queue of so many milliseconds.
    """

    name: WayName
    sender: Callable[[rtc.AudioSource], Sender]
    voice_tap: Callable[[rtc.RemoteAudioTrack, Callable[[bytes], None]], VoiceTap]
    picture_tap: Callable[[rtc.RemoteVideoTrack, int], PictureTap]
    source: Callable[[int], rtc.AudioSource] = plain_source


class Guarded(Generic[Item]):
    """A callback whose errors end here: whoever calls it has others to serve.

    Called from one thread at a time, which alone writes `failures`.
    """

    def __init__(self, callback: Callable[[Item], None]) -> None:
        self._callback = callback
        self.failures = 0
        """How often it has raised. Only the first time is logged: there may be 50 a second."""

    def __call__(self, item: Item) -> None:
        try:
            self._callback(item)
        except Exception:  # noqa: BLE001  whatever it is, it is logged
            self.failures += 1
            if self.failures == 1:
                logger.exception("media was not taken; more of such errors are not logged")


async def ended(ending: Awaitable[object]) -> None:
    """Wait for the end of a stream, `END_TIMEOUT` seconds at most."""
    try:
        async with asyncio.timeout(END_TIMEOUT):
            await ending
    except TimeoutError:
        logger.warning("a stream of the LiveKit SDK does not end; it is left to itself")


def choose(forced: WayName | None = None) -> MediaWay:
    """The way to take, the same one for the whole process unless it is forced.

    Args:
        forced: goes before `RUNWAY_AVATAR_MEDIA`.

    Raises:
        ConfigurationError: the variable names no way, or "native" where the SDK lacks its parts.
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
        wanted: its name; None: whichever fits.
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
        from . import native  # not earlier: it imports what another livekit may not have

        missing = native.missing()
    except (ImportError, AttributeError) as error:
        missing = [str(error)]
    if not missing:
        return native.WAY, "asked for" if wanted else f"livekit {version} was tested on it"
    lacking = f"livekit {version} lacks parts of the native way: {'; '.join(missing)}"
    if wanted is not None:
        raise ConfigurationError(f"{lacking}. Unset {VARIABLE}, or set it to 'public'.")
    return public.WAY, lacking
