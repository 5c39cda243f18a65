"""Begins and ends the attempt at the queue's head, and sets the ear accordingly.

Used by the event loop's thread only, except `Ear.relayed()`. Times are loop times in seconds.
"""

from __future__ import annotations

import asyncio

from ..._common.tasks import cancel_and_wait
from ...errors import LossReason
from ...log import logger
from ..ear import Ear, Heard
from ..hearing.tracker import Words
from ..interruption import Interruption
from ..ports import Avatar, FirstSpeechHeard, OwnWordsHeard
from ..reporter import PlaybackReporter
from ..seat import AvatarSeat, Speaker
from ..segment import Segment, SegmentState
from ..segment_queue import SegmentQueue
from .avatar import AvatarRoute
from .voice import VoiceRoute

_MOST_AT_ONCE = 20
"""Hops that are analysed in one step: about 5 ms of work."""
_ON_ITS_WAY = 0.2
"""Seconds from the relay to the user's ear, plus from the end of a connection to its detection: up
to 0.36 s of speech were lost when a participant was removed from its room (2 busy cores).
"""


class CurrentRoute:
    """The present attempt, and what becomes of the seat when it ends.

    Args:
        stall_timeout: seconds without progress, while speech is owed, that count as a loss.
        by_clock: see `AvatarRoute`.
    """

    def __init__(
        self,
        queue: SegmentQueue,
        seat: AvatarSeat,
        reporter: PlaybackReporter,
        stall_timeout: float,
        *,
        by_clock: bool = False,
    ) -> None:
        self._queue = queue
        self._seat = seat
        self._reporter = reporter
        self._stall_timeout = stall_timeout
        self._by_clock = by_clock
        self._loop = asyncio.get_running_loop()
        self.ear = Ear()
        self.route: AvatarRoute | VoiceRoute | None = None
        """The attempt at the queue's head; None while nobody speaks. An `AvatarRoute` only while
        there is an avatar."""
        self.following: AvatarRoute | None = None
        """The part of the head that the avatar is sent while the voice still speaks; it takes over
        at its beginning. Only beside a `VoiceRoute`.
        """
        self._interrupted: Segment | None = None
        """The segment in which the avatar was stopped, until it was found to say later words."""
        self._trusted: Avatar | None = None
        """The avatar that was found to say the agent's words."""
        self._clear_tasks: set[asyncio.Task[None]] = set()
        """Tasks that tell workers to drop their speech. Cancelled by `aclose()`."""

    async def aclose(self) -> None:
        """Interrupt the attempt. Idempotent."""
        self.interrupt()
        await cancel_and_wait(*self._clear_tasks)

    # -- who is heard ---------------------------------------------------------------------------

    def mute(self) -> None:
        """Let the user hear nothing of the avatar from now on."""
        if self._seat.avatar is None or isinstance(self.route, VoiceRoute):
            self.ear.drop()
        else:
            self.ear.close()

    def listen(self) -> None:
        """Account for the received sound. Not on arrival: analysing several pieces together takes
        much less time, and does not delay the relay.
        """
        self._listen_to(self.ear.take())

    def listen_a_little(self) -> None:
        """The same, for a limited amount, so that the event loop is not blocked: after a blocked
        loop there may be seconds of sound to search.
        """
        searched = isinstance(self.route, AvatarRoute) or self.following is not None
        self._listen_to(self.ear.take(_MOST_AT_ONCE if searched else None))

    def _listen_to(self, taken: list[tuple[object, Heard]]) -> None:
        for hearer, heard in taken:
            if self._seat.settling is not None:
                self._seat.settling.hear(heard)
            route = self.route if self.following is None else self.following
            if not isinstance(route, AvatarRoute) or hearer is not route:
                self._note_noise(heard)
                continue
            if route.heard_at is None:
                self._note_noise(heard)
            route.describe()
            route.hear(heard)
            if route.heard_at is not None:
                self.ear.floor.note_speech()
            if route is self.route and route.heard_at is not None:
                self._note_start(route, route.heard_at)

    def _note_noise(self, heard: Heard) -> None:
        """Account for sound that came while the avatar had nothing to say."""
        if self._seat.settling is None:
            self.ear.floor.hear(heard.levels)

    def _note_start(self, route: AvatarRoute, at: float) -> None:
        if route.segment.state is SegmentState.WAITING:
            self._reporter.report(FirstSpeechHeard(route.latency))
        self._reporter.started(route.segment, at)

    # -- the beginning --------------------------------------------------------------------------

    def begin(self, speaker: Speaker, now: float) -> None:
        """Begin an attempt at the queue's head, which must exist, from the heard position."""
        segment = self._queue.head
        assert segment is not None
        if speaker is Speaker.VOICE:
            self.route = VoiceRoute(segment, now)
            self.ear.drop()
        else:
            self.route = self._avatar_route(segment, segment.heard, now)
            self._open(self.route)

    def begin_following(self, segment: Segment, start: int, now: float) -> AvatarRoute:
        """Send the avatar the speech from `start` on, which the voice has not reached yet."""
        self.following = self._avatar_route(segment, start, now)
        self.ear.drop(self.following)
        return self.following

    def go_over(self, now: float) -> None:
        """Stop the voice, and let the user hear the avatar."""
        following = self.following
        self.end(now, lost=False)
        self.route = following
        if following is not None:
            self._open(following)

    def _open(self, route: AvatarRoute) -> None:
        """Let the user hear the avatar, with this attempt."""
        avatar = self._seat.avatar
        doubtful = avatar is not None and avatar.doubts_first_words and avatar is not self._trusted
        if doubtful and not route.tracker.seems_own:
            self.ear.hold(route)
        else:
            self.ear.open(route)

    def _avatar_route(self, segment: Segment, start: int, now: float) -> AvatarRoute:
        return AvatarRoute(
            segment,
            start,
            now,
            latency=self.ear.latency,
            stall_timeout=self._stall_timeout,
            unseen=self._seat.is_unseen,
            by_clock=self._by_clock,
            former=None if self._interrupted is segment else self._interrupted,
            trusted=self._seat.avatar is self._trusted,
        )

    # -- speech on its way ----------------------------------------------------------------------

    def send(self, route: AvatarRoute, now: float) -> bool:
        """Send the speech that may be sent now. False if the delivery has failed, and so the avatar
        is lost.
        """
        avatar = self._seat.avatar
        assert avatar is not None
        try:
            if pcm := route.due(avatar.delivery, now):
                avatar.delivery.send(pcm)
                self._queue.stats.sent += route.note_sent(pcm, now)
            if route.is_complete:
                avatar.delivery.finish()
                route.note_complete()
        except Exception:  # noqa: BLE001  whatever a transport raises, the delivery has failed
            logger.exception("speech could not be sent to the avatar")
            self.lose(LossReason.SPEECH_FAILED)
            return False
        return True

    def note_words(self, route: AvatarRoute) -> None:
        """Store what was found out about the avatar."""
        if route.tracker.seems_own:
            self.ear.let_go()
        if route.confirmed_latency is not None:
            self.ear.latency = route.confirmed_latency
        if route.tracker.words is Words.OWN:
            heard_anew = self._trusted is not self._seat.avatar
            self._trusted, self._interrupted = self._seat.avatar, None
            if heard_anew and not self._by_clock:
                self._reporter.report(OwnWordsHeard())

    # -- the end --------------------------------------------------------------------------------

    def end(
        self, now: float, *, lost: bool, on_its_way: float = 0.0, behind: float | None = None
    ) -> None:
        """End the attempt, and account for what was heard of it.

        Args:
            lost: the next speaker repeats a little.
            on_its_way: seconds of the last sound that the user has not heard, because the
                connection was lost; then the same speaker goes on.
            behind: seconds of the avatar's sound that were held back; None: those of the ear.
        """
        behind = self.ear.behind if behind is None else behind
        self.listen()
        route, self.route, self.following = self.route, None, None
        if isinstance(route, AvatarRoute):
            runs = route.stop(now, lost=lost, on_its_way=on_its_way, behind=behind)
            self._queue.stats.carried_on += lost and not on_its_way and route.heard_at is not None
            self._reporter.progressed(route.segment, runs)
        elif route is not None:
            self._reporter.progressed(route.segment, route.stop(on_its_way))

    def break_off(self) -> None:
        """As `interrupt()`, if the user's connection is lost, and the sound on its way with it."""
        self.interrupt(lost=True, on_its_way=_ON_ITS_WAY)

    def interrupt(self, *, lost: bool = False, on_its_way: float = 0.0) -> None:
        """End the attempt, and let the user hear nothing more of it (barge-in, pause, close)."""
        route = self.route if self.following is None else self.following
        behind = self.ear.behind
        if isinstance(route, AvatarRoute):
            self.mute()  # first, so that sound that arrives meanwhile is not heard
        self.end(self._loop.time(), lost=lost, on_its_way=on_its_way, behind=behind)
        if route is not None:
            self.mute()  # again, because the voice does not write any more
        if isinstance(route, AvatarRoute):
            self._tell_to_stop(route)

    def withdraw_following(self) -> None:
        """Let the user hear nothing of the speech that the avatar was sent beside the voice."""
        following, self.following = self.following, None
        self.mute()
        if following is not None:
            self._tell_to_stop(following)

    def _tell_to_stop(self, route: AvatarRoute) -> None:
        """Make the avatar drop the speech that it was sent."""
        if route.sent == route.start or self._seat.avatar is None:
            return
        self._interrupted = route.segment
        interruption = Interruption(self._loop.time(), route)
        self._seat.settle(interruption)
        task = self._loop.create_task(
            interruption.notify(self._seat.avatar.delivery), name="runway_clear_buffer"
        )
        self._clear_tasks.add(task)
        task.add_done_callback(self._clear_tasks.discard)

    def finish(self, segment: Segment, *, interrupted: bool) -> None:
        """The one end of a segment."""
        if self.route is not None and self.route.segment is segment:
            self._reporter.progressed(segment, self.route.finish())
            by_voice = isinstance(self.route, VoiceRoute)
            self.route = self.following = None
            self.ear.let_go()
            if by_voice:
                self.mute()  # an avatar that was attached meanwhile is silent here
        self._reporter.finished(segment, interrupted=interrupted)

    def finish_by_force(self, segment: Segment) -> None:
        """Finish it by force: its deadline has passed, or it cannot be played."""
        self._reporter.forced(segment)
        self.finish(segment, interrupted=False)

    # -- the seat -------------------------------------------------------------------------------

    def change_over(self) -> None:
        """Seat the avatar of the hand-over."""
        self._seat.change_over()
        self.mute()

    def leave_to_voice(self) -> None:
        """The avatar is lost: go on by voice, or from the next segment on with the avatar of the
        hand-over.
        """
        now = self._loop.time()
        speaking = isinstance(self.route, AvatarRoute)
        if speaking:
            self.end(now, lost=True)
        self.following = self._interrupted = None
        self._seat.take(None)
        self.mute()
        if self._seat.hand_over is not None:
            self.change_over()
            if speaking:
                # Instead of waiting until the next avatar can be heard.
                self.begin(Speaker.VOICE, now)

    def lose(self, reason: LossReason) -> None:
        """Give up the avatar; the voice goes on."""
        avatar = self._seat.avatar
        self.leave_to_voice()
        if avatar is not None:
            avatar.report_loss(reason)

    def recover(self) -> None:
        """A step has failed: give up the attempt as it stands, and the avatar."""
        self.route = self.following = None
        self.lose(LossReason.SPEECH_FAILED)
