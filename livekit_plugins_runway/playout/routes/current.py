"""The attempt at the queue's head: begun and ended, and what is heard kept in step with it.

All of it is of the event loop's thread, but for `Ear.relayed()`. Times are loop times in seconds.
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
"""Hops that are looked at in one step: about 5 ms of work."""
_ON_ITS_WAY = 0.2
"""Seconds from the relay to the user's ear, and from the end of a connection to its notice: words
were lost by up to 0.36 s of speech where a participant was put out of its room (2 busy cores)."""


class CurrentRoute:
    """Who speaks now, and what becomes of the seat when that ends.

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
        """What the avatar is given of the head while the voice still speaks: it takes over where
        this begins. Only beside a `VoiceRoute`."""
        self._interrupted: Segment | None = None
        """What the avatar was stopped in, until it was found to say what came after."""
        self._trusted: Avatar | None = None
        """The avatar that was found to say the agent's words."""
        self._clear_tasks: set[asyncio.Task[None]] = set()
        """They tell workers to drop what they have. `aclose()` ends them."""

    async def aclose(self) -> None:
        """What is spoken is interrupted. Idempotent."""
        self.interrupt()
        await cancel_and_wait(*self._clear_tasks)

    # -- who is heard ---------------------------------------------------------------------------

    def mute(self) -> None:
        """Nothing of an avatar is heard from now on."""
        if self._seat.avatar is None or isinstance(self.route, VoiceRoute):
            self.ear.drop()
        else:
            self.ear.close()

    def listen(self) -> None:
        """Account for what has arrived. Not as it arrives: looking at some of it at once takes much
        less time, and the relay none."""
        self._listen_to(self.ear.take())

    def listen_a_little(self) -> None:
        """The same, of so much that the event loop is not kept: after a blocked loop there may be
        seconds of it to be searched for words."""
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
        """What came while the avatar had nothing to say."""
        if self._seat.settling is None:
            self.ear.floor.hear(heard.levels)

    def _note_start(self, route: AvatarRoute, at: float) -> None:
        if route.segment.state is SegmentState.WAITING:
            self._reporter.report(FirstSpeechHeard(route.latency))
        self._reporter.started(route.segment, at)

    # -- the beginning --------------------------------------------------------------------------

    def begin(self, speaker: Speaker, now: float) -> None:
        """This one speaks the queue's head, which there is, from where it was heard."""
        segment = self._queue.head
        assert segment is not None
        if speaker is Speaker.VOICE:
            self.route = VoiceRoute(segment, now)
            self.ear.drop()
        else:
            self.route = self._avatar_route(segment, segment.heard, now)
            self._open(self.route)

    def begin_following(self, segment: Segment, start: int, now: float) -> AvatarRoute:
        """The avatar is given what the voice has not come to yet, from `start` on."""
        self.following = self._avatar_route(segment, start, now)
        self.ear.drop(self.following)
        return self.following

    def go_over(self, now: float) -> None:
        """The voice leaves off, and the avatar is heard with what it was given."""
        following = self.following
        self.end(now, lost=False)
        self.route = following
        if following is not None:
            self._open(following)

    def _open(self, route: AvatarRoute) -> None:
        """The avatar is heard, with this."""
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
        """Send on what may be sent now. False if the way is lost, and the avatar with it."""
        avatar = self._seat.avatar
        assert avatar is not None
        try:
            if pcm := route.due(avatar.delivery, now):
                avatar.delivery.send(pcm)
                self._queue.stats.sent += route.note_sent(pcm, now)
            if route.is_complete:
                avatar.delivery.finish()
                route.note_complete()
        except Exception:  # noqa: BLE001  whatever a transport raises: the way is lost
            logger.exception("speech could not be sent to the avatar")
            self.lose(LossReason.SPEECH_FAILED)
            return False
        return True

    def note_words(self, route: AvatarRoute) -> None:
        """Keep what was found out about the avatar."""
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
        """Close the books of the attempt: what of it counts as heard.

        Args:
            lost: whoever goes on repeats a little.
            on_its_way: seconds of the last sound that the user has not heard, for their connection
                was lost; then it is the same speaker who goes on.
            behind: seconds of the avatar's sound that were held back; None: as the ear says now.
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
        """As `interrupt()`, where the user's connection is lost, and what is on its way with it."""
        self.interrupt(lost=True, on_its_way=_ON_ITS_WAY)

    def interrupt(self, *, lost: bool = False, on_its_way: float = 0.0) -> None:
        """End the attempt, and let nothing more of it be heard (barge-in, pause, close)."""
        route = self.route if self.following is None else self.following
        behind = self.ear.behind
        if isinstance(route, AvatarRoute):
            self.mute()  # first: what is accounted for meanwhile must not be heard
        self.end(self._loop.time(), lost=lost, on_its_way=on_its_way, behind=behind)
        if route is not None:
            self.mute()  # again: the voice does not write any more
        if isinstance(route, AvatarRoute):
            self._tell_to_stop(route)

    def withdraw_following(self) -> None:
        """Nothing of what the avatar was given beside the voice shall be heard."""
        following, self.following = self.following, None
        self.mute()
        if following is not None:
            self._tell_to_stop(following)

    def _tell_to_stop(self, route: AvatarRoute) -> None:
        """The avatar drops what it was given."""
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
                self.mute()  # an avatar that has come meanwhile is silent in its place
        self._reporter.finished(segment, interrupted=interrupted)

    def finish_by_force(self, segment: Segment) -> None:
        """Its deadline has passed, or it cannot be played."""
        self._reporter.forced(segment)
        self.finish(segment, interrupted=False)

    # -- the seat -------------------------------------------------------------------------------

    def change_over(self) -> None:
        """The one that stands ready takes the seat."""
        self._seat.change_over()
        self.mute()

    def leave_to_voice(self) -> None:
        """The avatar is gone: the voice speaks, or the one that stands ready from the next segment
        on."""
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
                # Rather than wait until the next avatar can be heard.
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
