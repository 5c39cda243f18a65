"""Plays the segments of a queue, one after the other, each by the avatar or by the voice.

Used by the event loop's thread only. Times are loop times in seconds.
"""

from __future__ import annotations

import asyncio

from ..errors import LossReason
from ..log import logger
from .audio import SAMPLE_RATE
from .ports import Microphone
from .reporter import PlaybackReporter
from .routes.avatar import AvatarRoute, Verdict
from .routes.current import CurrentRoute
from .routes.takeover import EARLY, Takeover
from .routes.voice import VoiceRoute
from .seat import AvatarSeat, Speaker
from .segment import Segment
from .segment_queue import SegmentQueue

_CLEAR_FLUSH_TIMEOUT = 1.0
_HURRY = 2.0
"""Seconds to wait for a gap between words if a change of speakers is urgent."""
_AHEAD = 0.15
"""If speech is ahead of real time by so many seconds, steps are less frequent."""
_LISTEN_EVERY = 0.15
"""Seconds of sound that are analysed together in mid-speech, which takes less CPU than one by
one.
"""


class SegmentPlayer:
    """Decides, step by step, how the queue's head is spoken. Each step is a `tick()`.

    Args:
        current: begins and ends the attempts.
    """

    def __init__(
        self,
        queue: SegmentQueue,
        seat: AvatarSeat,
        microphone: Microphone,
        reporter: PlaybackReporter,
        current: CurrentRoute,
    ) -> None:
        self._queue = queue
        self._seat = seat
        self._microphone = microphone
        self._reporter = reporter
        self._current = current
        self._loop = asyncio.get_running_loop()
        self.is_paused = False
        """True while paused. Written by the sink."""
        self._takeover: Takeover | None = None
        """Where an avatar may take over from the voice; None if none may."""
        self._cleared_at: float | None = None
        """The last barge-in."""
        self._waits_for_listeners = False
        """True while speech is kept until somebody listens, so that it is logged once."""

    # -- one step -------------------------------------------------------------------------------

    def tick(self, now: float) -> bytes | None:
        """Make one step; returns the voice's sound for its 10 ms."""
        if not self._may_listen_later(now):
            self._current.listen_a_little()
        if not self._change_over_if_possible(now):
            return None
        segment = self._queue.head
        if segment is None:
            self._settle(now)
        elif segment.cleared:
            self._finish_cleared(segment, now)
        elif not self._microphone.reachable:
            self._current.break_off()  # nothing reaches the user; start again from there
        elif not self.is_paused:
            self._begin_if_possible(segment, now)
            return self._go_on(now)
        return None

    def _go_on(self, now: float) -> bytes | None:
        route = self._current.route
        if isinstance(route, AvatarRoute):
            self._deliver(route, now)
        elif route is not None:
            return self._speak(route, now)
        return None

    def _settle(self, now: float) -> None:
        """Nobody speaks: check whether the avatar has fallen silent."""
        if self._seat.settling is not None:
            self._speaker(now, None)

    def _speaker(self, now: float, segment: Segment | None) -> Speaker | None:
        return self._seat.speaker(now, self._current.ear.latency, segment)

    def clear(self) -> None:
        """Barge-in: drop the unheard speech of the queue."""
        self._current.interrupt()
        self._queue.clear()
        self._cleared_at = self._loop.time()

    def _finish_cleared(self, segment: Segment, now: float) -> None:
        assert self._cleared_at is not None
        if segment.flushed or now - self._cleared_at > _CLEAR_FLUSH_TIMEOUT:
            self._current.finish(segment, interrupted=True)

    @property
    def may_rest_a_while(self) -> bool:
        """True if the next 40 ms need no step: enough speech was sent, or nothing is said."""
        route = self._current.route
        if isinstance(route, AvatarRoute):
            is_ahead = route.pacer.ahead(self._loop.time()) >= _AHEAD
            return is_ahead and not self._current.ear.is_holding
        return not self._queue

    def _may_listen_later(self, now: float) -> bool:
        """True if the sound that has just arrived can be analysed later: the avatar is in
        mid-speech.
        """
        route, since = self._current.route, self._current.ear.waits_since()
        pending = self._seat.hand_over
        return (
            isinstance(route, AvatarRoute)
            and route.heard_at is not None
            and route.pacer.ahead(now) >= _AHEAD
            and not self._current.ear.is_holding
            and (pending is None or pending.forced_at is None)
            and since is not None
            and now - since < _LISTEN_EVERY
        )

    # -- who speaks -----------------------------------------------------------------------------

    def _change_over_if_possible(self, now: float) -> bool:
        """False if nothing may be spoken before the hand-over."""
        pending, ear = self._seat.hand_over, self._current.ear
        if pending is None or isinstance(self._current.route, AvatarRoute):
            return True
        silent = pending.is_silent_by_now(ear.sounded_at, now) and not ear.behind
        heard = ear.is_open and not silent
        if not heard:
            self._current.change_over()
        return not heard

    def _begin_if_possible(self, segment: Segment, now: float) -> None:
        if self._current.route is not None or not self._is_listened_to():
            return
        speaker = self._speaker(now, segment)
        if self._seat.never_settles:
            self._current.lose(LossReason.SPEECH_FOREIGN)
        if speaker is not None:
            self._takeover = None
            self._current.begin(speaker, now)

    def _is_listened_to(self) -> bool:
        waits = not self._microphone.subscribed
        if waits and not self._waits_for_listeners:
            logger.info("the agent's speech waits until somebody in the room listens")
        self._waits_for_listeners = waits
        return not waits

    # -- the avatar's route ---------------------------------------------------------------------

    def send_first(self, segment: Segment) -> None:
        """Send the first words of a segment at once, without waiting for a tick."""
        seat = self._seat
        if segment is not self._queue.head or segment.cleared or self.is_paused:
            return
        if seat.avatar is None or seat.hand_over is not None or not self._microphone.reachable:
            return
        now = self._loop.time()
        if self._current.route is None:
            self._current.listen()  # the old words may not have ended
            self._begin_if_possible(segment, now)
        route = self._current.route
        if isinstance(route, AvatarRoute) and route.is_beginning:
            self._current.send(route, now)

    def _deliver(self, route: AvatarRoute, now: float) -> None:
        if not self._current.send(route, now):
            return
        verdict = route.step(now, impatient=not self._seat.may_wait(now))
        self._current.note_words(route)
        self._queue.watch_room()
        self._carry_out(verdict, route, now)

    def _carry_out(self, verdict: Verdict, route: AvatarRoute, now: float) -> None:
        current = self._current
        match verdict:
            case Verdict.HEARD:
                current.finish(route.segment, interrupted=False)
            case Verdict.LAST_WORD_LOST | Verdict.UNSEEN_TOO_LONG:
                current.interrupt(lost=verdict is Verdict.LAST_WORD_LOST)
                current.begin(Speaker.VOICE, now)
            case Verdict.FOREIGN:
                current.lose(LossReason.SPEECH_FOREIGN)
            case Verdict.STALLED:
                current.lose(LossReason.SPEECH_STALLED)
            case Verdict.OVERDUE:
                current.interrupt()
                current.finish_by_force(route.segment)
            case Verdict.GO_ON:
                self._leave_off_if_forced(route, now)

    def _leave_off_if_forced(self, route: AvatarRoute, now: float) -> None:
        """Change speakers within the segment, if that is wanted and possible at this moment."""
        pending = self._seat.hand_over
        if pending is None or pending.forced_at is None:
            return
        if route.is_between_words or now - pending.forced_at >= _HURRY:
            self._current.end(now, lost=not route.is_between_words)
            self._current.change_over()
            self._current.begin(Speaker.VOICE, now)

    # -- the voice's route ----------------------------------------------------------------------

    def _speak(self, route: VoiceRoute, now: float) -> bytes:
        pcm = route.speak(now)
        if route.has_spoken:
            self._reporter.started(route.segment, now)
        self._queue.watch_room()
        if route.is_done:
            self._current.finish(route.segment, interrupted=False)
        else:
            self._go_over_at_a_gap(route, now)
        return pcm

    def _go_over_at_a_gap(self, voice: VoiceRoute, now: float) -> None:
        """Let the avatar take over from the voice at the next gap between words."""
        segment, latency = voice.segment, self._current.ear.latency
        following = self._current.following
        if following is not None:
            if self._current.send(following, now):
                self._approach(following, now)
        elif self._takeover is None and latency is not None:
            if self._speaker(now, None) is Speaker.AVATAR:
                self._takeover = Takeover(segment, latency)
        elif self._takeover is not None and self._takeover.is_due(segment.heard):
            gap, self._takeover = self._takeover.gap, None
            if gap is not None and self._seat.avatar is not None:
                self._current.send(self._current.begin_following(segment, gap, now), now)

    def _approach(self, following: AvatarRoute, now: float) -> None:
        """The avatar was sent the speech after the gap."""
        left = (following.start - following.segment.heard) / SAMPLE_RATE
        sounds = following.heard_at is not None
        if sounds and left > EARLY:
            # It answers sooner than its latency: its first sound would be lost.
            self._current.ear.latency = following.latency or self._current.ear.latency
            self._current.withdraw_following()
        elif sounds or left <= 0.0:
            self._current.go_over(now)
