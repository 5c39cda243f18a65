"""The agent session's audio sink: the one owner of what was said, what was heard, what comes next.

A segment (speech between two flushes) is spoken by one of two routes: the avatar, which sends it
back through the relay, or the plain voice, written to the same microphone track. Whatever was not
heard is still here, so the voice can take over in mid-sentence.

The framework's contract (livekit-agents 1.8.9 `voice/io.py`): exactly one `playback_finished` per
segment, and one `playback_started` before it unless not a sample of it was heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from livekit import rtc
from livekit.agents.voice.io import AudioOutput, AudioOutputCapabilities

from .._common.tasks import cancel_and_wait
from ..errors import LossReason
from ..events import PlayoutForced
from ..log import logger
from .audio import HOP_SECONDS, SAMPLE_RATE
from .ear import Ear
from .intake import Intake
from .interruption import Interruption, OwnWords
from .ports import (
    Avatar,
    FirstSpeechHeard,
    Microphone,
    PlayoutReport,
    PlayoutStats,
    RelayAction,
)
from .routes.avatar import AvatarRoute, Phase, Verdict
from .routes.runs import Run
from .routes.voice import VoiceRoute
from .seat import AvatarSeat, HandOver, Speaker
from .segment import Segment, SegmentState
from .segment_queue import SegmentQueue

SUBSCRIBE_TIMEOUT = 10.0
"""Seconds that the first speech waits for somebody to subscribe to the microphone track."""
_CLEAR_FLUSH_TIMEOUT = 1.0
_HUSH = 0.1
"""Seconds without a sound after which an avatar has fallen silent."""
_LONGEST_HUSH = 0.5
_HURRY = 2.0
"""Seconds in which a gap between words must come where a change of speakers is urgent."""
_MAX_CATCH_UP = 0.1
_KEEP_ALIVE = 0.5
"""Seconds after which an idle microphone without an avatar is told again that it is alone."""
_AHEAD = 0.15
"""Seconds by which speech is far enough ahead of real time to look after it less often."""
_LISTEN_EVERY = 0.075
"""Seconds of sound that are looked at together in mid-speech: in one go that takes least."""


class AvatarAudioOutput(AudioOutput):
    """Sink for an `AgentSession`; takes int16 PCM of any rate, mono or interleaved.

    Args:
        microphone: where the plain voice is written, and whose subscription starts the speech.
        report: called, from the event loop, with what the owner should know.
        wait_for_avatar: seconds that the first speech waits for the avatar, then does without.
        stall_timeout: seconds without progress, while speech is outstanding, that count as a loss.
        can_pause: offer pause and resume to the framework (`resume_false_interruption`).
    """

    def __init__(
        self,
        microphone: Microphone,
        *,
        report: Callable[[PlayoutReport], None],
        wait_for_avatar: float = 10.0,
        stall_timeout: float = 1.5,
        can_pause: bool = False,
    ) -> None:
        super().__init__(
            label="RunwayAvatar",
            capabilities=AudioOutputCapabilities(pause=can_pause),
            sample_rate=None,  # resampled here: the framework's way would delay each utterance
        )
        self._microphone = microphone
        self._report = report
        self._stall_timeout = stall_timeout
        self._loop = asyncio.get_running_loop()
        self._wall_offset = time.time() - self._loop.time()
        """Unix time less loop time, seconds."""

        # All of it is of the event loop's thread, but for `Ear.relayed()`. Times are loop times in
        # seconds.
        self._intake = Intake()
        self._queue = SegmentQueue()
        self._seat = AvatarSeat(wait_for_avatar)
        """Who speaks. Written here alone."""
        self._ear = Ear()
        self._route: AvatarRoute | VoiceRoute | None = None
        """The attempt at the queue's head; None while nobody speaks. An `AvatarRoute` only while
        there is an avatar."""
        self._clear_tasks: set[asyncio.Task[None]] = set()
        """They tell workers to drop what they have."""
        self._paused = False
        self._cleared_at: float | None = None
        """The last barge-in; known wherever a segment is cleared."""
        self._unsubscribed_since: float | None = None
        """Since when speech waits for a listener; None while there is one."""
        self._unsettled: Segment | None = None
        """What the voice says because the avatar did not fall silent after a barge-in."""
        self._failed: Segment | None = None
        """The last segment in which the pump has failed."""
        self._wake = asyncio.Event()
        """Set by whatever may give the pump something to do; cleared by the pump."""
        self._pump = asyncio.create_task(self._run(), name="runway_audio_output")
        """Runs `_tick()`, from now until `aclose()`."""

    # -- what the framework calls ---------------------------------------------------------------

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Accept speech, faster than real time if need be.

        Takes the frame at once, then waits only while more than `MAX_BUFFERED` seconds are unheard;
        cancelled while it waits, it has still taken the frame. What is captured after `aclose` is
        dropped, and its segment finished as interrupted at its flush.
        """
        await super().capture_frame(frame)
        segment = self._queue.capture()
        for piece in self._intake.pieces(frame):
            if self._queue.push(segment, piece):
                self._send_first(segment)
            self._wake.set()
            # A burst of speech must not keep the relay waiting; an event that is set does not
            # yield.
            await asyncio.sleep(0)
        # Last, so that a segment that was cleared meanwhile is not begun anew with this frame.
        await self._queue.has_room.wait()

    def flush(self) -> None:
        super().flush()
        if not self._queue.is_capturing:
            return
        self._queue.flush(self._intake.flush())
        if self._queue.is_closed:
            # Not within this call: wrappers above have not noted the flush yet.
            self._loop.call_soon(self._finish_flushed)
        self._wake.set()

    def clear_buffer(self) -> None:
        """Barge-in: the gate closes at once, then the worker is told. Nothing unheard is spoken."""
        if not self._queue:
            return
        now = self._loop.time()
        self._interrupt(now)
        self._queue.clear()
        self._cleared_at = now
        self._wake.set()

    def pause(self) -> None:
        super().pause()
        if self._paused:
            return
        self._paused = True
        self._interrupt(self._loop.time())
        self._wake.set()

    def resume(self) -> None:
        super().resume()
        self._paused = False
        self._wake.set()

    # -- what the owner calls -------------------------------------------------------------------

    @property
    def avatar(self) -> Avatar | None:
        """The one that speaks, or would; None: the voice does."""
        return self._seat.avatar

    @property
    def stats(self) -> PlayoutStats:
        return self._queue.stats

    @property
    def latency(self) -> float | None:
        """Seconds from a sample's turn to be spoken to its sound, last measured; None before."""
        return self._ear.latency

    @property
    def speaking(self) -> bool:
        """True while a segment is being captured or spoken."""
        return bool(self._queue)

    def attach_avatar(self, avatar: Avatar, *, seen: bool = True) -> None:
        """The avatar shows its face: it speaks the segment that waits for it, or the next one.

        Args:
            seen: False if it does not show its face yet. It gets what waits all the same, and may
                be silent until `avatar_seen()`, but for no longer than `wait_for_avatar`.
        """
        self._take(avatar, seen=seen)
        head = self._queue.head
        if head is not None and not head.cleared:
            self._send_first(head)

    def avatar_seen(self) -> None:
        """The avatar that was attached unseen shows its face."""
        self._seat.see()
        if isinstance(self._route, AvatarRoute):
            self._route.seen()

    def let_speak(self, limit: float) -> None:
        """The avatar says words of its own first (its start script); the agent's follow when it has
        been silent for a while, or after `limit` seconds."""
        if self._route is None:
            self._ear.open(None)
            self._seat.settle(OwnWords(self._loop.time(), limit))
            self._wake.set()

    def detach_avatar(self, avatar: Avatar | None = None) -> None:
        """The avatar is gone, or will not come: from now on the voice speaks, inside the same
        segment from the point that was not heard. Idempotent.

        Args:
            avatar: without effect if another one speaks by now; None: whichever it is.
        """
        if avatar is not None and self._seat.avatar not in (None, avatar):
            return
        now = self._loop.time()
        speaking = isinstance(self._route, AvatarRoute)
        if speaking:
            self._end_route(now, lost=True)
        self._take(None)
        if self._seat.hand_over is not None:
            self._change_over()
            if speaking:
                # Rather than wait until the next avatar can be heard.
                self._begin(Speaker.VOICE, now)

    async def hand_over(self, avatar: Avatar | None) -> None:
        """Let another avatar, or (None) the voice, speak from now on: as soon as nothing is being
        spoken, and the present one has fallen silent.

        Returns when it has taken over; cancelled before, it does not take over.
        """
        pending = self._seat.propose(avatar)
        self._wake.set()
        try:
            await pending.done
        finally:
            self._seat.withdraw(pending)

    def force_hand_over(self) -> None:
        """The hand-over cannot wait for the segment's end: at the next gap between words the other
        avatar is attached, and the voice says the rest of the segment. Without effect if no
        hand-over is pending."""
        pending = self._seat.hand_over
        if pending is None:
            return
        pending.forced_at = self._loop.time()
        if isinstance(self._route, VoiceRoute):
            self._change_over()

    def relayed(self, pcm: bytes) -> RelayAction:
        """See `AvatarListener`."""
        return self._ear.relayed(pcm)

    def worker_finished(self, *, interrupted: bool) -> None:
        """See `AvatarListener`."""
        if isinstance(self._route, AvatarRoute) and not interrupted:
            self._route.confirm(self._loop.time())

    async def aclose(self) -> None:
        """Finish whatever is pending as interrupted, and end. Idempotent."""
        self._queue.close()
        self._wake.set()
        await cancel_and_wait(self._pump)
        self._interrupt(self._loop.time())
        self._finish_flushed()
        await cancel_and_wait(*self._clear_tasks)

    def _finish_flushed(self) -> None:
        for segment in self._queue.flushed():
            self._finish(segment, interrupted=True)

    # -- who speaks -----------------------------------------------------------------------------

    def _take(self, avatar: Avatar | None, *, seen: bool = True) -> None:
        self._seat.take(avatar, seen=seen)
        self._mute()
        self._wake.set()

    def _mute(self) -> None:
        """Nothing of an avatar is heard."""
        if self._seat.avatar is None or isinstance(self._route, VoiceRoute):
            self._ear.drop()
        else:
            self._ear.close()

    def _change_over(self) -> None:
        self._seat.change_over()
        self._mute()
        self._wake.set()

    def _lose(self, reason: LossReason) -> None:
        """Give up the avatar; the voice goes on."""
        avatar = self._seat.avatar
        self.detach_avatar()
        if avatar is not None:
            avatar.report_loss(reason)

    def _begin(self, speaker: Speaker, now: float) -> None:
        segment = self._queue.head
        assert segment is not None
        if speaker is Speaker.VOICE:
            self._route = VoiceRoute(segment, now)
            self._ear.drop()
            return
        self._route = AvatarRoute(
            segment,
            now,
            latency=self._ear.latency,
            stall_timeout=self._stall_timeout,
            unseen=self._seat.is_unseen,
        )
        self._ear.open(self._route)

    def _choose(self, now: float) -> Speaker | None:
        """Who is to speak the segment at the head; None: it waits."""
        if self._microphone.subscribed:
            self._unsubscribed_since = None
        else:
            if self._unsubscribed_since is None:
                self._unsubscribed_since = now
            if now - self._unsubscribed_since < SUBSCRIBE_TIMEOUT:
                return None
        return self._seat.speaker(now, self._ear.latency)

    def _begin_if_possible(self, now: float) -> None:
        if self._route is not None or (speaker := self._choose(now)) is None:
            return
        if speaker is Speaker.AVATAR:
            self._unsettled = None
        elif self._seat.settling is not None:
            self._note_unsettled()
        self._begin(speaker, now)

    def _note_unsettled(self) -> None:
        """The voice says a segment because the avatar does not fall silent: it is given up if that
        goes on for another one."""
        segment = self._queue.head
        if self._unsettled is None:
            self._unsettled = segment
        elif self._unsettled is not segment:
            self._unsettled = None
            self._lose(LossReason.SPEECH_FOREIGN)

    # -- the pump -------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._pump_on()
            except Exception:  # noqa: BLE001  the agent must not fall silent, whatever it is
                logger.exception("the agent's speech has failed; the voice goes on")
                self._recover()

    def _recover(self) -> None:
        """The voice goes on with the segment; the second time it is given up."""
        segment = self._queue.head
        self._route = None
        self._lose(LossReason.SPEECH_FAILED)
        if segment is not None and segment is self._failed:
            self._finish_by_force(segment)
        self._failed = segment

    async def _pump_on(self) -> None:
        due = self._loop.time()
        while True:
            if not self._is_busy:
                await self._rest()
                due = self._loop.time()
            voice = self._tick(self._loop.time())
            if voice is not None:
                await self._microphone.push_audio(voice)
            elif self._seat.avatar is None:
                self._microphone.keep_alive()
            due = max(due + self._step(), self._loop.time() - _MAX_CATCH_UP)
            await asyncio.sleep(due - self._loop.time())

    @property
    def _is_busy(self) -> bool:
        seat = self._seat
        return bool(self._queue) or seat.hand_over is not None or seat.settling is not None

    async def _rest(self) -> None:
        """Until there may be something to do."""
        self._wake.clear()
        alone = self._seat.avatar is None
        if alone:
            self._microphone.keep_alive()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KEEP_ALIVE if alone else None):
                await self._wake.wait()

    def _step(self) -> float:
        """Seconds until the next tick."""
        route = self._route
        if not self._queue:
            return 4 * HOP_SECONDS
        if not isinstance(route, AvatarRoute):
            return HOP_SECONDS
        if route.pacer.ahead(self._loop.time()) >= _AHEAD:
            return 4 * HOP_SECONDS
        return 2 * HOP_SECONDS if route.phase is Phase.SENT else HOP_SECONDS

    def _tick(self, now: float) -> bytes | None:
        """One step; returns what the plain voice says in its 10 ms."""
        if not self._may_listen_later(now):
            self._listen()
        if self._seat.hand_over is not None and self._route is None:
            if self._is_falling_silent(self._seat.hand_over, now):
                return None
            self._change_over()
        segment = self._queue.head
        if segment is None:
            self._settle(now)
            return None
        if segment.cleared:
            self._finish_cleared(segment, now)
            return None
        if self._paused:
            return None
        if not self._microphone.reachable:
            self._interrupt(now)  # nothing is heard; begun again from there
            return None
        self._begin_if_possible(now)
        if isinstance(self._route, AvatarRoute):
            self._deliver(self._route, now)
        elif self._route is not None:
            return self._speak(self._route, now)
        return None

    def _settle(self, now: float) -> None:
        """Nobody speaks: see whether the avatar has fallen silent."""
        if self._seat.settling is not None:
            self._seat.speaker(now, self._ear.latency)

    def _finish_cleared(self, segment: Segment, now: float) -> None:
        assert self._cleared_at is not None
        if segment.flushed or now - self._cleared_at > _CLEAR_FLUSH_TIMEOUT:
            self._finish(segment, interrupted=True)

    def _may_listen_later(self, now: float) -> bool:
        """Nothing depends on what has just arrived: the avatar is in mid-speech."""
        route, since = self._route, self._ear.waits_since()
        return (
            isinstance(route, AvatarRoute)
            and route.heard_at is not None
            and route.pacer.ahead(now) >= _AHEAD
            and (self._seat.hand_over is None or self._seat.hand_over.forced_at is None)
            and since is not None
            and now - since < _LISTEN_EVERY
        )

    def _listen(self) -> None:
        """Account for what has arrived. Not as it arrives: looking at some of it at once takes much
        less time, and the relay none."""
        for hearer, heard in self._ear.take():
            if self._seat.settling is not None:
                self._seat.settling.hear(heard)
            route = self._route
            if not isinstance(route, AvatarRoute) or hearer is not route:
                continue
            unheard = route.heard_at is None
            route.describe()
            route.hear(heard)
            if unheard and route.heard_at is not None:
                self._on_heard(route, route.heard_at)

    def _is_falling_silent(self, pending: HandOver, now: float) -> bool:
        """The avatar may still say the end of what counts as heard: its place is known to about
        0.1 s, and whoever is replaced is cut off."""
        sounded_at = self._ear.sounded_at
        if self._ear.action is not RelayAction.PASS or sounded_at is None:
            return False
        if pending.hush_until is None:
            pending.hush_until = now + _LONGEST_HUSH
        return now - sounded_at < _HUSH and now < pending.hush_until

    # -- the avatar's route ---------------------------------------------------------------------

    def _send_first(self, segment: Segment) -> None:
        """Send the first words of a segment: they do not wait for a tick."""
        if segment is not self._queue.head or self._seat.hand_over is not None or self._paused:
            return
        if self._seat.avatar is None or not self._microphone.reachable:
            return
        now = self._loop.time()
        if self._route is None:
            self._listen()  # the old words may not be over
            self._begin_if_possible(now)
        route = self._route
        if isinstance(route, AvatarRoute) and route.is_beginning:
            self._send(route, now)

    def _send(self, route: AvatarRoute, now: float) -> None:
        """Send on what may be sent now."""
        avatar = self._seat.avatar
        assert avatar is not None
        try:
            if pcm := route.due(avatar.delivery, now):
                avatar.delivery.send(pcm)
                self.stats.sent += route.note_sent(pcm, now)
            if route.is_complete:
                avatar.delivery.finish()
                route.note_complete()
        except Exception:  # noqa: BLE001  whatever a transport raises: the way to the avatar is lost
            logger.exception("speech could not be sent to the avatar")
            self._lose(LossReason.SPEECH_FAILED)

    def _deliver(self, route: AvatarRoute, now: float) -> None:
        self._send(route, now)
        if self._route is not route:
            return
        pending = self._seat.hand_over
        verdict = route.step(now, impatient=not self._seat.may_wait(now))
        self._ear.latency = route.confirmed_latency or self._ear.latency
        self._queue.watch_room()
        match verdict:
            case Verdict.HEARD:
                self._finish(route.segment, interrupted=False)
            case Verdict.LAST_WORD_LOST:
                self._interrupt(now, lost=True)
                self._begin(Speaker.VOICE, now)
            case Verdict.UNSEEN_TOO_LONG:
                self._interrupt(now)
                self._begin(Speaker.VOICE, now)
            case Verdict.FOREIGN:
                self._lose(LossReason.SPEECH_FOREIGN)
            case Verdict.STALLED:
                self._lose(LossReason.SPEECH_STALLED)
            case Verdict.OVERDUE:
                self._interrupt(now)
                self._finish_by_force(route.segment)
            case Verdict.GO_ON if pending is not None and pending.forced_at is not None:
                self._leave_off(route, now - pending.forced_at, now)

    def _leave_off(self, route: AvatarRoute, waited: float, now: float) -> None:
        """Change speakers inside the segment, if this is a moment for it."""
        if not route.is_between_words and waited < _HURRY:
            return
        self._end_route(now, lost=not route.is_between_words)
        self._change_over()
        self._begin(Speaker.VOICE, now)

    def _on_heard(self, route: AvatarRoute, at: float) -> None:
        if route.segment.state is SegmentState.WAITING:
            self._report(FirstSpeechHeard(route.latency))
        self._started(route.segment, at)

    # -- the voice's route ----------------------------------------------------------------------

    def _speak(self, route: VoiceRoute, now: float) -> bytes:
        pcm = route.speak(now)
        if route.has_spoken:
            self._started(route.segment, now)
        self._queue.watch_room()
        if route.is_done:
            self._finish(route.segment, interrupted=False)
        return pcm

    # -- the ends of segments and attempts ------------------------------------------------------

    def _started(self, segment: Segment, at: float) -> None:
        if segment.state is SegmentState.WAITING:
            segment.move_to(SegmentState.PLAYING)
            self.on_playback_started(created_at=at + self._wall_offset)

    def _interrupt(self, now: float, *, lost: bool = False) -> None:
        """End the attempt, and let nothing more of it be heard (barge-in, pause, close)."""
        route = self._route
        if isinstance(route, AvatarRoute):
            self._mute()  # first: what is accounted for meanwhile must not be heard
        self._end_route(now, lost=lost)
        if not isinstance(route, AvatarRoute) or route.sent == route.start:
            return
        assert self._seat.avatar is not None
        interruption = Interruption(now, route)
        self._seat.settle(interruption)
        task = self._loop.create_task(
            interruption.notify(self._seat.avatar.delivery), name="runway_clear_buffer"
        )
        self._clear_tasks.add(task)
        task.add_done_callback(self._clear_tasks.discard)

    def _end_route(self, now: float, *, lost: bool) -> None:
        """Close the books of the attempt: what of it counts as heard."""
        self._listen()
        route, self._route = self._route, None
        if isinstance(route, AvatarRoute):
            runs = route.stop(now, lost=lost)
            self.stats.carried_on += lost and route.heard_at is not None
            self._report_runs(route.segment, runs)
        elif route is not None:
            self._report_runs(route.segment, route.finish())

    def _report_runs(self, segment: Segment, runs: list[Run]) -> None:
        if segment.state is not SegmentState.PLAYING:
            return
        for run in runs:
            self.on_playback_progressed(
                started_at=run.began + self._wall_offset, offset=run.offset, duration=run.duration
            )

    def _finish_by_force(self, segment: Segment) -> None:
        pushed, heard = segment.pushed / SAMPLE_RATE, segment.heard / SAMPLE_RATE
        logger.warning(
            "a segment was not heard to its end in time and was finished by force",
            extra={"pushed": pushed, "heard": heard},
        )
        self.stats.forced += 1
        self._finish(segment, interrupted=False)
        self._report(PlayoutForced(pushed, heard))

    def _finish(self, segment: Segment, *, interrupted: bool) -> None:
        """The one end of a segment."""
        if self._route is not None and self._route.segment is segment:
            self._report_runs(segment, self._route.finish())
            self._route = None
        started = segment.state is SegmentState.PLAYING
        self._queue.finish(segment, interrupted=interrupted)
        # Of a segment that never started, only silence has passed.
        unheard = interrupted and not started
        self.on_playback_finished(
            playback_position=0.0 if unheard else segment.heard / SAMPLE_RATE,
            interrupted=interrupted,
        )
