"""The source of the avatar participant's voice track: written to from any thread, never queued."""

from __future__ import annotations

import asyncio
import threading
import time

from ..log import logger
from ..playout.audio import BYTES_PER_SAMPLE, PACKET, SAMPLE_RATE, SILENCE
from .ways import MediaWay, choose

SILENT_FOR = 2.0
"""Seconds for which `keep_alive()` holds: longer than an event loop is blocked when a session
starts (1.0 s measured, by the framework's turn detection)."""
_MAX_CATCH_UP = 0.1


class LiveMicrophone:
    """Sends sound at once: a queue would add its length to the voice's latency. While nothing is
    written, it can be kept alive with silence. A thread paces the silence: a busy event loop would
    send it late, and the user's receiver would then buffer the following words for longer.

    Args:
        way: the way to the SDK's media; None: that of `ways.choose()`.
    """

    def __init__(self, way: MediaWay | None = None) -> None:
        way = way or choose()
        self.source = way.source(0)
        self._sender = way.sender(self.source)
        self._sent = 0  # hops
        self._silent_until = 0.0  # time.monotonic()
        self._silent = threading.Event()
        self._closed = False
        self._pacer: threading.Thread | None = None

    def write(self, pcm: bytes) -> None:
        """Send int16 mono PCM at 48 kHz, a whole number of 10 ms, from any thread. Ends the
        silence."""
        self._silent.clear()
        if not self._closed:
            self._send(pcm)

    def _send(self, pcm: bytes) -> None:
        if len(pcm) > len(SILENCE) and self._sent % 2:
            # Else the second half of the next sound would wait until its packet is full.
            pcm = SILENCE + pcm
        for start in range(0, len(pcm), len(SILENCE)):
            self._sender.send(pcm[start : start + len(SILENCE)])
            self._sent += 1

    def keep_alive(self) -> None:
        """Send silence until something is written, for `SILENT_FOR` seconds at most. From the event
        loop's thread only.
        """
        if self._closed:
            return
        self._silent_until = time.monotonic() + SILENT_FOR
        self._silent.set()
        if self._pacer is None or not self._pacer.is_alive():
            self._pacer = threading.Thread(target=self._pace, name="runway_microphone", daemon=True)
            self._pacer.start()

    def _pace(self) -> None:
        try:
            self._keep_pace()
        except Exception:  # noqa: BLE001  the next `keep_alive()` starts again
            logger.exception("the avatar's microphone could not be kept alive")

    def _keep_pace(self) -> None:
        while not self._closed:
            # Poll, because a write from another thread may clear the event that wakes this thread
            # up to close.
            self._silent.wait(SILENT_FOR)
            due = time.monotonic()
            while self._silent.is_set() and not self._closed:
                if time.monotonic() > self._silent_until:
                    self._silent.clear()
                    break
                self._send(bytes(PACKET * BYTES_PER_SAMPLE))
                due = max(due + PACKET / SAMPLE_RATE, time.monotonic() - _MAX_CATCH_UP)
                time.sleep(max(0.0, due - time.monotonic()))

    async def aclose(self) -> None:
        """Idempotent."""
        self._closed = True
        self._silent.set()
        if self._pacer is not None:
            await asyncio.to_thread(self._pacer.join, 2 * SILENT_FOR)
        try:
            await self._sender.aclose()
        finally:
            await self.source.aclose()
