"""Plays the segments of a queue, one after the other, each by the avatar or by the voice.

All of it is of the event loop's thread, but for `Ear.relayed()`. Times are loop times in seconds.
"""

from __future__ import annotations

import asyncio

from .._common.tasks import cancel_and_wait
from ..errors import LossReason
from ..log import logger
from .audio import SAMPLE_RATE
from .ear import Ear
from .interruption import Interruption
from .ports import FirstSpeechHeard, Microphone
from .reporter import PlaybackReporter
from .routes.avatar import AvatarRoute, Verdict
from .routes.takeover import EARLY, Takeover
from .routes.voice import VoiceRoute
from .seat import AvatarSeat, Speaker
from .segment import Segment, SegmentState
from .segment_queue import SegmentQueue

SUBSCRIBE_TIMEOUT = 10.0
"""Seconds that the first speech waits for somebody to subscribe to the microphone track."""
_CLEAR_FLUSH_TIMEOUT = 1.0
_HURRY = 2.0
"""Seconds in which a gap between words must come where a change of speakers is urgent."""
_AHEAD = 0.15
"""Seconds by which speech is far enough ahead of real time to look after it less often."""
_LISTEN_EVERY = 0.075
"""Seconds of sound that are looked at together in mid-speech: in one go that takes least."""


class SegmentPlayer:
    """Goes on by `tick()`.

    Args:
        queue: its head is played; only `finish()` takes it off.
        stall_timeout: seconds without progress, while speech is owed, that count as a loss.
    """

    def __init__(
        self,
        queue: SegmentQueue,
        seat: AvatarSeat,
        microphone: Microphone,
        reporter: PlaybackReporter,
        *,
        stall_timeout: float,
    ) -> None:
        self._queue = queue
        self._seat = seat
        self._microphone = microphone
        self._reporter = reporter
        self._stall_timeout = stall_timeout
        self._loop = asyncio.get_running_loop()
        self.ear = Ear()
        self.route: AvatarRoute | VoiceRoute | None = None
        """The attempt at the queue's head; None while nobody speaks. An `AvatarRoute` only while
        there is an avatar. Written by `begin()`, `_end_route()` and `finish()`."""
        self.is_paused = False
        """Nobody speaks. Written by the sink."""
        self._cleared_at: float | None = None
        """The last barge-in; known wherever a segment is cleared."""
        self._unsubscribed_since: float | None = None
        """Since when speech waits for a listener; None while there is one."""
        self._takeover: Takeover | None = None
        """Where an avatar may go on with what the voice says; None while none may."""
        self._next: AvatarRoute | None = None
        """What the avatar is given of the head while the voice still speaks: it takes over at the
        gap where this begins. Only beside a `VoiceRoute`."""
        self._clear_tasks: set[asyncio.Task[None]] = set()
        """They tell workers to drop what they have. `aclose()` ends them."""

    async def aclose(self) -> None:
        """What is played is interrupted. Idempotent."""
        self.interrupt()
        await cancel_and_wait(*self._clear_tasks)

    # -- one step -------------------------------------------------------------------------------

    def tick(self, now: float) -> bytes | None:
        """One step; returns what the plain voice says in its 10 ms."""
        if not self._may_listen_later(now):
            self._listen()
        if not self._change_over_if_possible(now):
            return None
        segment = self._queue.head
        if segment is None:
            self._settle(now)
        elif segment.cleared:
            self._finish_cleared(segment, now)
        elif not self._microphone.reachable:
            self.interrupt()  # nothing is heard; begun again from there
        elif not self.is_paused:
            self._begin_if_possible(now)
            return self._go_on(now)
        return None

    def _go_on(self, now: float) -> bytes | None:
        if isinstance(self.route, AvatarRoute):
            self._deliver(self.route, now)
        elif self.route is not None:
            return self._speak(self.route, now)
        return None

    def _settle(self, now: float) -> None:
        """Nobody speaks: see whether the avatar has fallen silent."""
        if self._seat.settling is not None:
            self._seat.speaker(now, self.ear.latency, None)

    def _finish_cleared(self, segment: Segment, now: float) -> None:
        assert self._cleared_at is not None
        if segment.flushed or now - self._cleared_at > _CLEAR_FLUSH_TIMEOUT:
            self.finish(segment, interrupted=True)

    @property
    def may_rest_a_while(self) -> bool:
        """Nothing depends on the next 40 ms: enough is on its way, or nothing is said."""
        route = self.route
        if isinstance(route, AvatarRoute):
            return route.pacer.ahead(self._loop.time()) >= _AHEAD
        return not self._queue

    # -- who speaks -----------------------------------------------------------------------------

    def mute(self) -> None:
        """Nothing of an avatar is heard from now on."""
        if self._seat.avatar is None or isinstance(self.route, VoiceRoute):
            self.ear.drop()
        else:
            self.ear.close()

    def leave_to_voice(self) -> None:
        """The avatar is gone: the voice speaks, or the one that stands ready from the next segment
        on."""
        now = self._loop.time()
        speaking = isinstance(self.route, AvatarRoute)
        if speaking:
            self._end_route(now, lost=True)
        self._takeover = self._next = None
        self._seat.take(None)
        self.mute()
        if self._seat.hand_over is not None:
            self.change_over()
            if speaking:
                # Rather than wait until the next avatar can be heard.
                self._begin(Speaker.VOICE, now)

    def change_over(self) -> None:
        """The one that stands ready takes the seat."""
        self._seat.change_over()
        self.mute()

    def lose(self, reason: LossReason) -> None:
        """Give up the avatar; the voice goes on."""
        avatar = self._seat.avatar
        self.leave_to_voice()
        if avatar is not None:
            avatar.report_loss(reason)

    def _change_over_if_possible(self, now: float) -> bool:
        """False if nothing is to be done before a change-over."""
        pending = self._seat.hand_over
        if pending is None or isinstance(self.route, AvatarRoute):
            return True
        heard = self.ear.is_open and not pending.is_silent_by_now(self.ear.sounded_at, now)
        if not heard:
            self.change_over()
        return not heard

    def _begin(self, speaker: Speaker, now: float) -> None:
        segment = self._queue.head
        assert segment is not None
        if speaker is Speaker.VOICE:
            self.route = VoiceRoute(segment, now)
            self.ear.drop()
        else:
            self.route = self._avatar_route(segment, segment.heard, now)
            self.ear.open(self.route)

    def _avatar_route(self, segment: Segment, start: int, now: float) -> AvatarRoute:
        return AvatarRoute(
            segment,
            start,
            now,
            latency=self.ear.latency,
            stall_timeout=self._stall_timeout,
            unseen=self._seat.is_unseen,
        )

    def _begin_if_possible(self, now: float) -> None:
        if self.route is not None or not self._is_listened_to(now):
            return
        speaker = self._seat.speaker(now, self.ear.latency, self._queue.head)
        if self._seat.never_settles:
            self.lose(LossReason.SPEECH_FOREIGN)
        if speaker is not None:
            self._begin(speaker, now)

    def _is_listened_to(self, now: float) -> bool:
        """Somebody has subscribed, or was waited for."""
        if self._microphone.subscribed:
            self._unsubscribed_since = None
            return True
        if self._unsubscribed_since is None:
            self._unsubscribed_since = now
        return now - self._unsubscribed_since >= SUBSCRIBE_TIMEOUT

    # -- what comes back ------------------------------------------------------------------------

    def _may_listen_later(self, now: float) -> bool:
        """Nothing depends on what has just arrived: the avatar is in mid-speech."""
        route, since, pending = self.route, self.ear.waits_since(), self._seat.hand_over
        return (
            isinstance(route, AvatarRoute)
            and route.heard_at is not None
            and route.pacer.ahead(now) >= _AHEAD
            and (pending is None or pending.forced_at is None)
            and since is not None
            and now - since < _LISTEN_EVERY
        )

    def _listen(self) -> None:
        """Account for what has arrived. Not as it arrives: looking at some of it at once takes much
        less time, and the relay none."""
        for hearer, heard in self.ear.take():
            if self._seat.settling is not None:
                self._seat.settling.hear(heard)
            route = self.route if self._next is None else self._next
            if not isinstance(route, AvatarRoute) or hearer is not route:
                continue
            unheard = route.heard_at is None
            route.describe()
            route.hear(heard)
            if unheard and route.heard_at is not None and route is self.route:
                self._on_heard(route, route.heard_at)

    def _on_heard(self, route: AvatarRoute, at: float) -> None:
        if route.segment.state is SegmentState.WAITING:
            self._reporter.report(FirstSpeechHeard(route.latency))
        self._reporter.started(route.segment, at)

    # -- the avatar's route ---------------------------------------------------------------------

    def send_first(self, segment: Segment) -> None:
        """Send the first words of a segment: they do not wait for a tick."""
        seat = self._seat
        if segment is not self._queue.head or segment.cleared or self.is_paused:
            return
        if seat.avatar is None or seat.hand_over is not None or not self._microphone.reachable:
            return
        now = self._loop.time()
        if self.route is None:
            self._listen()  # the old words may not be over
            self._begin_if_possible(now)
        if isinstance(self.route, AvatarRoute) and self.route.is_beginning:
            self._send(self.route, now)

    def _send(self, route: AvatarRoute, now: float) -> None:
        """Send on what may be sent now."""
        avatar = self._seat.avatar
        assert avatar is not None
        try:
            if pcm := route.due(avatar.delivery, now):
                avatar.delivery.send(pcm)
                self._queue.stats.sent += route.note_sent(pcm, now)
            if route.is_complete:
                avatar.delivery.finish()
                route.note_complete()
        except Exception:  # noqa: BLE001  whatever a transport raises: the way to the avatar is lost
            logger.exception("speech could not be sent to the avatar")
            self.lose(LossReason.SPEECH_FAILED)

    def _deliver(self, route: AvatarRoute, now: float) -> None:
        self._send(route, now)
        if self.route is not route:
            return
        verdict = route.step(now, impatient=not self._seat.may_wait(now))
        self.ear.latency = route.confirmed_latency or self.ear.latency
        self._queue.watch_room()
        self._carry_out(verdict, route, now)

    def _carry_out(self, verdict: Verdict, route: AvatarRoute, now: float) -> None:
        match verdict:
            case Verdict.HEARD:
                self.finish(route.segment, interrupted=False)
            case Verdict.LAST_WORD_LOST | Verdict.UNSEEN_TOO_LONG:
                self.interrupt(lost=verdict is Verdict.LAST_WORD_LOST)
                self._begin(Speaker.VOICE, now)
            case Verdict.FOREIGN:
                self.lose(LossReason.SPEECH_FOREIGN)
            case Verdict.STALLED:
                self.lose(LossReason.SPEECH_STALLED)
            case Verdict.OVERDUE:
                self.interrupt()
                self.finish_by_force(route.segment)
            case Verdict.GO_ON:
                self._leave_off_if_forced(route, now)

    def _leave_off_if_forced(self, route: AvatarRoute, now: float) -> None:
        """Change speakers inside the segment, if that is wanted and this is a moment for it."""
        pending = self._seat.hand_over
        if pending is None or pending.forced_at is None:
            return
        if route.is_between_words or now - pending.forced_at >= _HURRY:
            self._end_route(now, lost=not route.is_between_words)
            self.change_over()
            self._begin(Speaker.VOICE, now)

    # -- the voice's route ----------------------------------------------------------------------

    def _speak(self, route: VoiceRoute, now: float) -> bytes:
        pcm = route.speak(now)
        if route.has_spoken:
            self._reporter.started(route.segment, now)
        self._queue.watch_room()
        if route.is_done:
            self.finish(route.segment, interrupted=False)
        else:
            self._take_over_at_a_gap(route, now)
        return pcm

    # -- from the voice to the avatar, within a segment -----------------------------------------

    def _take_over_at_a_gap(self, voice: VoiceRoute, now: float) -> None:
        """Let the avatar go on where a gap between words is ahead."""
        segment = voice.segment
        if self._next is not None:
            self._approach(self._next, now)
        elif self._takeover is None and self.ear.latency is not None:
            if self._seat.speaker(now, self.ear.latency, None) is Speaker.AVATAR:
                self._takeover = Takeover(segment, self.ear.latency)
        elif self._takeover is not None and self._takeover.is_due(segment.heard):
            assert self._takeover.gap is not None
            self._next = self._avatar_route(segment, self._takeover.gap, now)
            self.ear.drop(self._next)
            self._send(self._next, now)

    def _approach(self, following: AvatarRoute, now: float) -> None:
        """The avatar has been given what follows the gap."""
        self._send(following, now)
        if self._next is not following:
            return  # the avatar was lost
        left = (following.start - following.segment.heard) / SAMPLE_RATE
        if following.heard_at is not None and left > EARLY:
            # It answers sooner than was measured: what it says would not be heard.
            self.ear.latency = following.latency or self.ear.latency
            self._withdraw_takeover()
        elif left <= 0.0 or following.heard_at is not None:
            self._end_route(now, lost=False)
            self.route = following
            self.ear.open(following)

    def _withdraw_takeover(self) -> None:
        """Nothing of what the avatar was given shall be heard; it may try again."""
        following, self._next, self._takeover = self._next, None, None
        self.mute()
        if following is not None:
            self._tell_to_stop(following)

    # -- the ends of segments and attempts ------------------------------------------------------

    def clear(self) -> None:
        """Barge-in: nothing unheard of the queue is spoken."""
        self.interrupt()
        self._queue.clear()
        self._cleared_at = self._loop.time()

    def interrupt(self, *, lost: bool = False) -> None:
        """End the attempt, and let nothing more of it be heard (barge-in, pause, close).

        Args:
            lost: another speaker goes on at once, and so repeats a little.
        """
        route = self.route if self._next is None else self._next
        if isinstance(route, AvatarRoute):
            self.mute()  # first: what is accounted for meanwhile must not be heard
        self._end_route(self._loop.time(), lost=lost)
        if isinstance(route, AvatarRoute):
            self._tell_to_stop(route)

    def _tell_to_stop(self, route: AvatarRoute) -> None:
        """The avatar drops what it was given."""
        if route.sent == route.start or self._seat.avatar is None:
            return
        interruption = Interruption(self._loop.time(), route)
        self._seat.settle(interruption)
        task = self._loop.create_task(
            interruption.notify(self._seat.avatar.delivery), name="runway_clear_buffer"
        )
        self._clear_tasks.add(task)
        task.add_done_callback(self._clear_tasks.discard)

    def _end_route(self, now: float, *, lost: bool) -> None:
        """Close the books of the attempt: what of it counts as heard."""
        self._listen()
        route, self.route = self.route, None
        self._takeover = self._next = None
        if isinstance(route, AvatarRoute):
            runs = route.stop(now, lost=lost)
            self._queue.stats.carried_on += lost and route.heard_at is not None
            self._reporter.progressed(route.segment, runs)
        elif route is not None:
            self._reporter.progressed(route.segment, route.finish())

    def finish_by_force(self, segment: Segment) -> None:
        """Its deadline has passed, or it cannot be played."""
        self._reporter.forced(segment)
        self.finish(segment, interrupted=False)

    def finish(self, segment: Segment, *, interrupted: bool) -> None:
        """The one end of a segment."""
        if self.route is not None and self.route.segment is segment:
            self._reporter.progressed(segment, self.route.finish())
            self.route = None
        self._takeover = self._next = None
        self._reporter.finished(segment, interrupted=interrupted)

    def give_up_route(self) -> None:
        """Whatever is being said is said no further by whom it was said."""
        self.route = self._takeover = self._next = None
