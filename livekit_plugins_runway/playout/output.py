"""The agent session's audio sink. It owns the segments of speech: what was said, what was heard,
what comes next.

A segment (speech between two flushes) is spoken by one of two routes: the avatar, whose voice comes
back through the relay, or the agent's own voice ("the voice"), written to the same microphone
track. Speech that was not heard is kept, so the voice can take over in mid-sentence.

The framework's contract (livekit-agents 1.8.9 `voice/io.py`): exactly one `playback_finished` per
segment, and one `playback_started` before it, unless nothing of the segment was heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from livekit import rtc
from livekit.agents.voice.io import AudioOutput, AudioOutputCapabilities

from .._common.emitter import SafeEmitter
from .intake import Intake
from .interruption import OwnWords
from .player import SegmentPlayer
from .ports import Avatar, Microphone, PlayoutReport, PlayoutStats
from .pump import Pump
from .reporter import PlaybackReporter
from .routes.avatar import AvatarRoute
from .routes.current import CurrentRoute
from .seat import AvatarSeat
from .segment_queue import SegmentQueue

_Event = Literal["playback_started", "playback_progressed", "playback_finished"]


class AvatarAudioOutput(SafeEmitter[_Event], AudioOutput):
    """Sink for an `AgentSession`; takes int16 PCM of any rate, mono or interleaved.

    Exceptions of its events' listeners are logged, and change nothing.

    Args:
        microphone: the track for the voice; speech starts when somebody has subscribed to it.
        report: called from the event loop with reports for the owner.
        wait_for_avatar: seconds that the first speech waits for the avatar; then the voice speaks.
        stall_timeout: seconds without progress, while speech is outstanding, after which the avatar
            counts as lost.
        can_pause: offer pause and resume to the framework (`resume_false_interruption`).
        by_clock: find the position by time and the worker's reports, and not by the avatar's voice.
    """

    def __init__(
        self,
        microphone: Microphone,
        *,
        report: Callable[[PlayoutReport], None],
        wait_for_avatar: float = 10.0,
        stall_timeout: float = 1.5,
        can_pause: bool = False,
        by_clock: bool = False,
    ) -> None:
        super().__init__(
            label="RunwayAvatar",
            capabilities=AudioOutputCapabilities(pause=can_pause),
            sample_rate=None,  # resampled here: the framework's resampler delays each utterance
        )
        self._loop = asyncio.get_running_loop()
        # Each of these owns its state. Used by the event loop's thread only, except `relayed()`.
        self._intake = Intake()
        self._queue = SegmentQueue()
        self._seat = AvatarSeat(wait_for_avatar)
        reporter = PlaybackReporter(self._queue, self, report)
        self._current = current = CurrentRoute(
            self._queue, self._seat, reporter, stall_timeout, by_clock=by_clock
        )
        self._player = SegmentPlayer(self._queue, self._seat, microphone, reporter, current)
        self._pump = Pump(self._player, current, self._queue, self._seat, microphone)

    # -- what the framework calls ---------------------------------------------------------------

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Accept speech, faster than real time if need be.

        Takes the frame at once, then waits only while more than `MAX_BUFFERED` seconds are unheard;
        cancelled while it waits, it has still taken the frame. What is captured after `aclose` is
        dropped, and its segment finished as interrupted at its flush.
        """
        await super().capture_frame(frame)
        segment = self._queue.capture()
        pieces = self._intake.pieces(frame)
        try:
            for piece in pieces:
                if self._queue.push(segment, piece):
                    self._player.send_first(segment)
                self._pump.wake()
                # Yield, so that a burst of speech does not block the relay; waiting for an event
                # that is set does not yield.
                await asyncio.sleep(0)
        finally:
            for piece in pieces:  # cancelled in a long frame: none of it is lost
                self._queue.push(segment, piece)
        # Last, so that this frame does not restart a segment that was cleared meanwhile.
        await self._queue.has_room.wait()

    def flush(self) -> None:
        super().flush()
        if not self._queue.is_capturing:
            return
        self._queue.flush(self._intake.flush())
        if self._queue.is_closed:
            # Not within this call: outputs further up the chain have not handled the flush yet.
            self._loop.call_soon(self._finish_flushed)
        self._pump.wake()

    def clear_buffer(self) -> None:
        """Barge-in: silence the user's track at once, then tell the worker. Unheard speech is
        dropped.
        """
        if self._queue:
            self._player.clear()
            self._pump.wake()

    def pause(self) -> None:
        super().pause()
        if not self._player.is_paused:
            self._player.is_paused = True
            self._current.interrupt()
            self._pump.wake()

    def resume(self) -> None:
        super().resume()
        self._player.is_paused = False
        self._pump.wake()

    # -- what the owner calls -------------------------------------------------------------------

    @property
    def avatar(self) -> Avatar | None:
        """The present avatar; None: the voice speaks."""
        return self._seat.avatar

    @property
    def stats(self) -> PlayoutStats:
        return self._queue.stats

    @property
    def latency(self) -> float | None:
        """The avatar's latency in seconds, last measured; None before."""
        return self._current.ear.latency

    @property
    def speaking(self) -> bool:
        """True while a segment is being captured or spoken."""
        return bool(self._queue)

    def attach_avatar(self, avatar: Avatar, *, seen: bool = True) -> None:
        """Attach an avatar that has video: it speaks the waiting segment, or the next one.

        Args:
            seen: False if it has no video yet. It is sent the waiting speech anyway, and may be
                silent until `avatar_seen()`, for `wait_for_avatar` seconds at most.
        """
        self._seat.take(avatar, seen=seen)
        self._current.mute()
        if self._queue.head is not None:
            self._player.send_first(self._queue.head)
        self._pump.wake()

    def avatar_queued(self) -> None:
        """The first avatar waits for a place: the first speech waits for it only as long as it may
        still come in time.
        """
        self._seat.is_queued = True
        self._pump.wake()

    def avatar_seen(self) -> None:
        """The avatar that was attached without video has video now."""
        self._seat.see()
        if isinstance(self._current.route, AvatarRoute):
            self._current.route.seen()

    def let_speak(self, limit: float) -> None:
        """The avatar says its start script first. The agent's words follow when it has been silent
        for a while, or after `limit` seconds.
        """
        if self._current.route is None:
            self._current.ear.open(None)
            self._seat.settle(OwnWords(self._loop.time(), limit))
            self._pump.wake()

    def detach_avatar(self, avatar: Avatar | None = None) -> None:
        """The avatar is lost, or will not come. From now on the voice speaks, in the same segment
        from the first unheard point. Idempotent.

        Args:
            avatar: no effect if another one is attached by now; None: the present one.
        """
        if avatar is None or self._seat.avatar in (None, avatar):
            self._current.leave_to_voice()
            self._pump.wake()

    async def hand_over(self, avatar: Avatar | None) -> None:
        """Let another avatar, or (None) the voice, take over as soon as nothing is being spoken and
        the present one is silent. Returns when it has taken over. If it is cancelled before,
        nothing changes.
        """
        pending = self._seat.propose(avatar)
        self._pump.wake()
        try:
            await pending.done
        finally:
            self._seat.withdraw(pending)

    def force_hand_over(self) -> None:
        """Do not let the hand-over wait for the segment's end: attach the other avatar at the next
        gap between words; the voice says the rest of the segment. No effect if no hand-over is
        pending.
        """
        if self._seat.hand_over is not None:
            self._seat.hand_over.forced_at = self._loop.time()

    def relayed(self, pcm: bytes) -> bytes | None:
        """See `AvatarListener`."""
        return self._current.ear.relayed(pcm)

    def worker_started(self) -> None:
        """See `WorkerReports`."""
        route = self._current.route
        if isinstance(route, AvatarRoute):
            route.note_started()

    def worker_finished(self, *, interrupted: bool) -> None:
        """See `WorkerReports`."""
        route = self._current.route
        if isinstance(route, AvatarRoute) and not interrupted:
            route.confirm(self._loop.time())

    async def aclose(self) -> None:
        """Finish pending segments as interrupted, and close. Idempotent."""
        self._queue.close()
        await self._pump.aclose()
        self._current.interrupt()
        self._finish_flushed()
        await self._current.aclose()

    def _finish_flushed(self) -> None:
        for segment in self._queue.flushed():
            self._current.finish(segment, interrupted=True)
