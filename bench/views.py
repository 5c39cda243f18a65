"""A viewer of `bench.py`: a simulated user who reads the numbers of the pictures that arrive."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from livekit import rtc

from bench.reading import Seen
from livekit_plugins_runway.media.video import is_blank
from livekit_plugins_runway.testing import barcode
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.onsets import Onsets
from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.user import SimulatedUser


class View:
    """What one user sees and hears in one room."""

    def __init__(
        self, server: LiveKitServer, room: str, *, identity: str, worker: str | None = None
    ) -> None:
        """`worker`: look at this participant, and be seen by nobody."""
        self.pictures: dict[int, float] = {}
        self.first_picture: float | None = None
        self.unread = 0
        """Pictures since the first that had no number, or an unreadable one."""
        self.size = (0, 0)
        self.user = SimulatedUser(
            server.url,
            room,
            api_key=server.api_key,
            api_secret=server.api_secret,
            identity=identity,
            listen_to=worker,
            hidden=worker is not None,
            on_picture=self._see,
            max_seconds=120,
        )

    @classmethod
    @contextlib.asynccontextmanager
    async def of(
        cls, server: LiveKitServer, room: str, *, identity: str, worker: str | None = None
    ) -> AsyncIterator[View]:
        view = cls(server, room, identity=identity, worker=worker)
        async with view.user:
            yield view

    def _see(self, at: float, frame: rtc.VideoFrame) -> None:
        if self.first_picture is None:
            if is_blank(frame):  # what the SDK sends before there is a picture
                return
            self.first_picture = at
        self.size = (frame.width, frame.height)
        number = barcode.read(frame)
        if number is None:
            self.unread += 1
        else:
            self.pictures.setdefault(number, at)

    async def wait_for_picture(self, timeout: float) -> float:
        """When the first one arrived that is not of one colour.

        Raises:
            TimeoutError: none within `timeout` seconds.
        """
        await self.user.wait_until(lambda: self.first_picture is not None, timeout)
        assert self.first_picture is not None
        return self.first_picture

    def seen(self, since: float, until: float) -> Seen:
        """All pictures, and the sounds from a silence on until then. Takes a moment."""
        found = Onsets(SAMPLE_RATE).push(self.user.heard(since, until))
        return Seen(self.pictures, [since + n / SAMPLE_RATE for n in found], since)
