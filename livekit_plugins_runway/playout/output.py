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
import enum
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from livekit import rtc
from livekit.agents.voice.io import AudioOutput, AudioOutputCapabilities

from .._common.tasks import cancel_and_wait
from ..events import PlayoutForced
from ..log import logger
from .audio import HOP, HOP_SECONDS, SAMPLE_RATE, SILENCE
from .features import AUDIBLE_DB, hop_bands, hop_levels
from .interruption import Interruption
from .ports import (
    FirstSpeechHeard,
    Microphone,
    PlayoutReport,
    PlayoutStats,
    RelayAction,
    SpeechDelivery,
    SpeechForeign,
    SpeechStalled,
)
from .resampler import Resampler
from .segment import Segment, SegmentState
from .tracker import SpeechTracker

MAX_BUFFERED = 300.0
"""Seconds of speech that may wait to be heard before `capture_frame` makes the caller wait."""
SUBSCRIBE_TIMEOUT = 10.0
"""Seconds that the first speech waits for somebody to subscribe to the microphone track."""
FIRST_LATENCY = 2.5
"""Seconds granted to an avatar that was never heard yet to answer; Runway states a turn-around of
1.75 s (runwayml.com, "Building Runway Characters")."""
DEADLINE_MARGIN = 5.0
"""Seconds past its own length after which a flushed segment is finished by force."""
_MARGIN = 0.08
"""Seconds before the place of a loss at which the voice begins."""
_CLEAR_FLUSH_TIMEOUT = 1.0
_WORD_GAP = 0.03
"""Seconds of silence at which one speaker may leave off and another go on."""
_PART_OF_A_WORD = 0.12
_LAST_WORD = 0.5
"""Seconds of speech, up to which a missing end is no reason to give up the avatar."""
_LAST_WORD_WAIT = 0.6
_HUSH = 0.1
"""Seconds without a sound after which an avatar has fallen silent."""
_LONGEST_HUSH = 0.5
_HURRY = 2.0
"""Seconds in which such a gap must come where a change of speakers is urgent."""
_MAX_CATCH_UP = 0.1
_KEEP_ALIVE = 0.5
"""Seconds after which an idle microphone without an avatar is told again that it is alone."""
_AHEAD = 0.15
"""Seconds by which speech is far enough ahead of real time to look after it less often."""
_LISTEN_EVERY = 0.075
"""Seconds of sound that are looked at together in mid-speech: in one go that takes least."""
_MOST_AT_ONCE = SAMPLE_RATE // 5
"""Samples that are sent in one step: the first words do not wait until all is prepared."""
_MOST_ARRIVALS = 300
"""Pieces of sound to remember until they are looked at: 6 s of a relay's."""


class _Route(enum.Enum):
    AVATAR = "avatar"
    VOICE = "voice"


@dataclass(eq=False)
class _Attempt:
    """One try at speaking a segment from `start` (sample) on, by one route."""

    route: _Route
    start: int
    began: float  # loop time
    tracker: SpeechTracker
    sent: int
    ended: bool = False
    confirmed: bool = False  # the worker says that it has finished
    undescribed_since: float | None = None  # when the first was sent that was not looked at yet
    first_spoken_sent: float | None = None
    heard_at: float | None = None
    unseen: bool = False  # begun before the avatar had a face
    progress: int = 0
    waiting_since: float | None = None

    def ahead(self, now: float) -> float:
        """Seconds by which what was sent is ahead of real time."""
        return self.began + (self.sent - self.start) / SAMPLE_RATE - now


@dataclass(frozen=True)
class _Arrival:
    """Sound of the avatar, a whole number of hops, that was not accounted for yet."""

    at: float  # loop time
    pcm: bytes
    attempt: _Attempt | None  # that it may be heard of


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
        self._wait_for_avatar = wait_for_avatar
        self._stall_timeout = stall_timeout
        self._loop = asyncio.get_running_loop()
        self._wall_offset = time.time() - self._loop.time()
        """Unix time less loop time, seconds."""

        # All that follows is written by the event loop's thread, except that `relayed()` appends to
        # `_arrived` in the relay's. That one reads `_attempt`, `_delivery` and `_gate_open` without
        # a lock: they may be old by one step of the event loop. Times are loop times in seconds.

        # -- what is said --
        self._segments: deque[Segment] = deque()
        """What is not finished: the first is spoken, those after it wait. Each leaves by
        `_finish()`."""
        self._open: Segment | None = None
        """Being captured: the last of `_segments`, or in none if a barge-in has finished it."""
        self._attempt: _Attempt | None = None
        """At `_segments[0]`; None while nobody speaks. By the avatar's route only while there is a
        `_delivery`."""
        self._resampler: Resampler | None = None
        """From the rate of the last frame that needed one."""
        self._room_in_buffer = asyncio.Event()
        """Cleared while more than `MAX_BUFFERED` seconds of `_segments` are unheard."""
        self._room_in_buffer.set()

        # -- who says it --
        self._delivery: SpeechDelivery | None = None
        """The way to the avatar; None: there is none, and the voice speaks."""
        self._expected = True
        """The first avatar is on its way. False for good once it is there, or will not come."""
        self._seen = True
        """False from when an avatar was attached unseen until its face is there, or another avatar
        is attached."""
        self._successor: tuple[SpeechDelivery | None, Callable[[], None]] | None = None
        """The pending hand-over, as it was given to `hand_over()`."""
        self._forced_at: float | None = None
        """When it was said that the hand-over cannot wait; only while one is pending."""
        self._hush_until: float | None = None
        """Until when the pending hand-over waits for the present avatar's last sound; None before
        it does."""
        self._first_wait: float | None = None
        """Since when the first speech waits for a face. Never reset: a call waits once."""
        self._unsubscribed_wait: float | None = None
        """Since when speech waits for a listener; None while there is one."""

        # -- what is heard of the avatar --
        self._arrived: deque[_Arrival] = deque(maxlen=_MOST_ARRIVALS)
        """Not looked at yet."""
        self._sounded_at: float | None = None
        """When the avatar was last audible, let through or not."""
        self._gate_open = False
        """Whether the user hears what comes from the avatar, unless the voice speaks."""
        self._latency: float | None = None
        """Seconds; see `latency`. Kept from one avatar to the next."""

        # -- what ends it --
        self._interruption: Interruption | None = None
        """From when the avatar was stopped in mid-speech until none of the old words can come back,
        or there is another avatar or none."""
        self._clear_tasks: set[asyncio.Task[None]] = set()
        """They tell workers to drop what they have."""
        self._paused = False
        self._cleared_at: float | None = None
        """The last barge-in; known wherever one of `_segments` is cleared."""
        self._deadline: float | None = None
        """When the attempt is ended by force; None until all of its segment was sent."""

        self.stats = PlayoutStats()
        self._wake = asyncio.Event()
        """Set by whatever may give the pump something to do; cleared by the pump."""
        self._closed = False
        """From `aclose()` on: what is captured is dropped."""
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
        segment = self._open
        if segment is None:
            segment = self._open = Segment()
            self._segments.append(segment)
        if not segment.cleared and not self._closed:
            segment.push(self._normalise(frame))
            self._watch_buffer()
            self._send_first(segment)
        self._wake.set()
        # A burst of speech must not keep the relay waiting; an event that is set does not yield.
        await asyncio.sleep(0)
        # Last, so that a segment that was cleared meanwhile is not begun anew with this frame.
        await self._room_in_buffer.wait()

    def flush(self) -> None:
        super().flush()
        segment, self._open = self._open, None
        if segment is None:
            return
        if self._resampler is not None:
            if not segment.cleared:
                segment.push(self._resampler.flush())
            # For the next segment: its first words shall not wait for it to be made.
            self._resampler = Resampler(self._resampler.input_rate, SAMPLE_RATE)
        segment.flush()
        if self._closed:
            # Not within this call: wrappers above have not noted the flush yet.
            self._loop.call_soon(self._finish_flushed)
        self._wake.set()

    def clear_buffer(self) -> None:
        """Barge-in: the gate closes at once, then the worker is told. Nothing unheard is spoken."""
        if not self._segments:
            return
        now = self._loop.time()
        self._stop_attempt(now)
        for segment in self._segments:
            segment.cleared = True
        self._cleared_at = now
        self._wake.set()

    def pause(self) -> None:
        super().pause()
        if self._paused:
            return
        self._paused = True
        if self._segments:
            self._stop_attempt(self._loop.time())
        self._wake.set()

    def resume(self) -> None:
        super().resume()
        if not self._paused:
            return
        self._paused = False
        self._wake.set()

    # -- what the owner calls -------------------------------------------------------------------

    def attach_avatar(self, delivery: SpeechDelivery, *, seen: bool = True) -> None:
        """The avatar shows its face: it speaks the segment that waits for it, or the next one.

        Args:
            seen: False if it does not show its face yet. It gets what waits all the same, and may
                be silent until `avatar_seen()`, but for no longer than `wait_for_avatar`.
        """
        self._attach(delivery, seen=seen)
        if self._segments and not self._segments[0].cleared:
            self._send_first(self._segments[0])

    def avatar_seen(self) -> None:
        """The avatar that was attached unseen shows its face."""
        self._seen = True

    def _attach(self, delivery: SpeechDelivery | None, *, seen: bool = True) -> None:
        self._delivery = delivery
        self._seen = seen
        self._expected = False
        self._interruption = None
        self._gate_open = False
        self._wake.set()

    def detach_avatar(self) -> None:
        """The avatar is gone, or will not come: from now on the voice speaks, inside the same
        segment from the point that was not heard. Idempotent."""
        now = self._loop.time()
        speaking = self._attempt is not None and self._attempt.route is _Route.AVATAR
        if speaking:
            self._end_attempt(now, lost=True)
        self._delivery = None
        self._expected = False
        self._interruption = None
        self._gate_open = False
        self._wake.set()
        if self._successor is not None:
            self._switch()
            if speaking:
                # Rather than wait until the next avatar can be heard.
                self._begin_attempt(self._segments[0], _Route.VOICE, now)

    def hand_over(self, delivery: SpeechDelivery | None, on_switched: Callable[[], None]) -> None:
        """Another avatar stands ready, or (None) the voice is to speak from now on. It is attached
        as soon as nothing is being spoken, and the present one has fallen silent; `on_switched` is
        called at that moment, once."""
        self._successor = (delivery, on_switched)
        self._wake.set()

    def force_hand_over(self) -> None:
        """The hand-over cannot wait for the segment's end: at the next gap between words the other
        avatar is attached, and the voice says the rest of the segment. Without effect if no
        hand-over is pending."""
        if self._successor is None:
            return
        self._forced_at = self._loop.time()
        if self._attempt is not None and self._attempt.route is _Route.VOICE:
            self._switch()

    def withdraw_hand_over(self) -> None:
        """The other avatar is not to be attached after all. Idempotent."""
        self._successor = self._forced_at = self._hush_until = None

    def _switch(self) -> None:
        assert self._successor is not None
        delivery, on_switched = self._successor
        self.withdraw_hand_over()
        self._attach(delivery)
        on_switched()

    def open_gate(self) -> None:
        """Let the avatar be heard before the agent speaks (its own start script)."""
        self._gate_open = True

    def relayed(self, pcm: bytes) -> RelayAction:
        """Tell of the avatar's voice that has arrived, a whole number of 10 ms of it, and learn
        what to do with it. From any one thread; the sound is looked at later, in the event loop."""
        attempt = self._attempt
        unheard = self._delivery is None or (attempt is not None and attempt.route is _Route.VOICE)
        self._arrived.append(_Arrival(self._loop.time(), pcm, None if unheard else attempt))
        if unheard:
            return RelayAction.DROP
        return RelayAction.PASS if self._gate_open else RelayAction.SILENCE

    def worker_finished(self, *, interrupted: bool) -> None:
        """The worker reports that it has played the segment; believed only where the ear agrees,
        and not before it can be true: the report of the segment before may come late."""
        attempt = self._attempt
        if attempt is None or not attempt.ended or interrupted:
            return
        left = (self._segments[0].pushed - attempt.start) / SAMPLE_RATE
        attempt.confirmed = self._loop.time() - attempt.began >= left or attempt.confirmed

    @property
    def latency(self) -> float | None:
        """Seconds from sending speech to relaying it, last measured; None before."""
        return self._latency

    @property
    def speaking(self) -> bool:
        """True while a segment is being captured or spoken."""
        return bool(self._segments)

    async def aclose(self) -> None:
        """Finish whatever is pending as interrupted, and end. Idempotent."""
        self._closed = True
        self._wake.set()
        self._room_in_buffer.set()
        await cancel_and_wait(self._pump)
        if self._segments:
            self._stop_attempt(self._loop.time())
        self._finish_flushed()
        await cancel_and_wait(*self._clear_tasks)

    def _finish_flushed(self) -> None:
        for segment in list(self._segments):
            if segment.flushed:
                self._finish(segment, interrupted=True)

    # -- the pump -------------------------------------------------------------------------------

    async def _run(self) -> None:
        due = self._loop.time()
        while True:
            if not self._segments and self._successor is None:
                await self._rest()
                due = self._loop.time()
            voice = self._tick(self._loop.time())
            if voice is not None:
                await self._microphone.push_audio(voice)
            elif self._delivery is None:
                self._microphone.keep_alive()
            due = max(due + self._step(), self._loop.time() - _MAX_CATCH_UP)
            await asyncio.sleep(due - self._loop.time())

    async def _rest(self) -> None:
        """Until there may be something to do."""
        self._wake.clear()
        alone = self._delivery is None
        if alone:
            self._microphone.keep_alive()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KEEP_ALIVE if alone else None):
                await self._wake.wait()

    def _step(self) -> float:
        """Seconds until the next tick."""
        attempt = self._attempt
        if attempt is None or attempt.route is _Route.VOICE:
            return HOP_SECONDS
        if attempt.ahead(self._loop.time()) >= _AHEAD:
            return 4 * HOP_SECONDS
        return 2 * HOP_SECONDS if attempt.ended else HOP_SECONDS

    def _may_listen_later(self, now: float) -> bool:
        """Whether nothing depends on what has just arrived: the avatar is in mid-speech."""
        attempt = self._attempt
        return (
            attempt is not None
            and attempt.heard_at is not None
            and attempt.ahead(now) >= _AHEAD
            and self._forced_at is None
            and bool(self._arrived)
            and now - self._arrived[0].at < _LISTEN_EVERY
        )

    def _listen(self) -> None:
        """Account for what has arrived. Not as it arrives: looking at some of it at once takes much
        less time, and the relay none."""
        arrived = [self._arrived.popleft() for _ in range(len(self._arrived))]
        if not arrived:
            return
        samples = np.frombuffer(b"".join(arrival.pcm for arrival in arrived), dtype=np.int16)
        levels = hop_levels(samples)
        times, mine = [], 0
        for arrival in arrived:
            count = len(arrival.pcm) // len(SILENCE)
            times += [arrival.at - ago * HOP_SECONDS for ago in range(count - 1, -1, -1)]
            mine += count if arrival.attempt is self._attempt else 0
        for level, at in zip(levels.tolist(), times, strict=True):
            if level > AUDIBLE_DB:
                self._sounded_at = at
            if self._interruption is not None:
                self._interruption.hear(level > AUDIBLE_DB, at)
        attempt = self._attempt
        if attempt is None or attempt.route is not _Route.AVATAR or not mine:
            return
        # An attempt is not taken up again: what is heard of it came last.
        onset = attempt.tracker.hear(levels[-mine:], hop_bands(samples[-mine * HOP :]))
        if onset is not None and attempt.heard_at is None:
            self._on_heard(attempt, times[onset - mine])

    def _falling_silent(self, now: float) -> bool:
        """Whether the avatar still says the end of what counts as heard: its place is known to
        about 0.1 s, and whoever is replaced is cut off."""
        if self._delivery is None or not self._gate_open or self._sounded_at is None:
            return False
        if self._hush_until is None:
            self._hush_until = now + _LONGEST_HUSH
        return now - self._sounded_at < _HUSH and now < self._hush_until

    def _tick(self, now: float) -> bytes | None:
        """One step; returns what the plain voice says in its 10 ms."""
        if not self._may_listen_later(now):
            self._listen()
        if self._successor is not None and self._attempt is None:
            if self._falling_silent(now):
                return None
            self._switch()
        if not self._segments:
            return None
        segment = self._segments[0]
        if segment.cleared:
            assert self._cleared_at is not None
            if segment.flushed or now - self._cleared_at > _CLEAR_FLUSH_TIMEOUT:
                self._finish(segment, interrupted=True)
            return None
        if self._paused:
            return None
        if not self._microphone.reachable:
            self._stop_attempt(now)  # nothing is heard; begun again from there
            return None
        attempt = self._begin(segment, now)
        if attempt is None:
            return None
        if attempt.route is _Route.VOICE:
            return self._speak(segment, now)
        self._deliver(segment, attempt, now)
        return None

    def _begin(self, segment: Segment, now: float) -> _Attempt | None:
        """The attempt at this segment, begun if need be; None if nobody may speak it yet."""
        if self._attempt is None and (route := self._choose_route(now)) is not None:
            self._begin_attempt(segment, route, now)
        return self._attempt

    def _choose_route(self, now: float) -> _Route | None:
        if not self._microphone.subscribed:
            if self._unsubscribed_wait is None:
                self._unsubscribed_wait = now
            if now - self._unsubscribed_wait < SUBSCRIBE_TIMEOUT:
                return None
        else:
            self._unsubscribed_wait = None
        if self._delivery is not None and (self._seen or self._is_patient(now)):
            if self._interruption is None or self._interruption.over(
                now, self._latency or FIRST_LATENCY
            ):
                self._interruption = None
                return _Route.AVATAR
            return _Route.VOICE if self._interruption.late(now) else None
        if self._expected and self._is_patient(now):
            return None
        return _Route.VOICE

    def _is_patient(self, now: float) -> bool:
        """Whether the first speech may still wait for the avatar's face."""
        if self._first_wait is None:
            self._first_wait = now
        return now - self._first_wait < self._wait_for_avatar

    def _begin_attempt(self, segment: Segment, route: _Route, now: float) -> None:
        start = segment.heard
        tracker, unseen = SpeechTracker(segment, start), not self._seen
        self._attempt = _Attempt(
            route, start, now, tracker, sent=start, progress=start, unseen=unseen
        )
        self._gate_open = route is _Route.AVATAR
        self._deadline = None

    # -- the avatar's route ---------------------------------------------------------------------

    def _send_first(self, segment: Segment) -> None:
        """Send the first words of a segment: they do not wait for a tick."""
        if segment is not self._segments[0] or self._successor is not None or self._paused:
            return
        if self._delivery is None or not self._microphone.reachable:
            return
        now = self._loop.time()
        attempt = self._begin(segment, now)
        if attempt is None or attempt.route is not _Route.AVATAR:
            return
        if attempt.sent - attempt.start < _MOST_AT_ONCE:
            self._send(segment, attempt, now)

    def _send(self, segment: Segment, attempt: _Attempt, now: float) -> None:
        """Send on what may be sent now."""
        assert self._delivery is not None
        allowed = attempt.start + int((now - attempt.began + self._delivery.lead) * SAMPLE_RATE)
        if allowed < segment.pushed:  # as far ahead as it may be: no hurry
            allowed -= (allowed - attempt.start) % self._delivery.batch
        end = min(segment.pushed, allowed, attempt.sent + _MOST_AT_ONCE)
        if end > attempt.sent:
            self._delivery.send(segment.read(attempt.sent, end))
            self.stats.sent += end - attempt.sent
            attempt.sent = end
            if attempt.undescribed_since is None:
                attempt.undescribed_since = now

    def _describe(self, segment: Segment, attempt: _Attempt) -> None:
        """Look at what was sent; not while it is being sent, for it would wait."""
        segment.describe(attempt.sent)
        if attempt.first_spoken_sent is None and segment.spoken_after(attempt.start, attempt.sent):
            attempt.first_spoken_sent = attempt.undescribed_since
        attempt.undescribed_since = None

    def _deliver(self, segment: Segment, attempt: _Attempt, now: float) -> None:
        assert self._delivery is not None
        self._send(segment, attempt, now)
        self._describe(segment, attempt)
        if segment.flushed and attempt.sent == segment.pushed and not attempt.ended:
            attempt.ended = True
            self._delivery.finish()
        position = segment.heard = self._position(segment, attempt, now)
        self._watch_buffer()
        if attempt.ended and self._all_heard(segment, attempt, position):
            segment.heard = segment.pushed
            self._finish(segment, interrupted=False)
            return
        if attempt.ended and self._end_is_lost(segment, attempt):
            self._end_anyway(segment, attempt, now)
            return
        if attempt.tracker.foreign:
            # First, while it is known who speaks: detaching may bring the next avatar.
            self._report(SpeechForeign())
            self.detach_avatar()
            return
        if not self._seen and not attempt.tracker.onset:
            if not self._is_patient(now):
                self._stop_attempt(now)
                self._begin_attempt(segment, _Route.VOICE, now)
            return
        if self._forced_at is not None and self._leave_off(segment, attempt, now):
            return
        self._watch_stall(segment, attempt, position, now)
        if self._attempt is attempt:
            self._watch_deadline(segment, attempt, now)

    def _leave_off(self, segment: Segment, attempt: _Attempt, now: float) -> bool:
        """Change speakers inside the segment, if this is a moment for it."""
        assert self._forced_at is not None
        unheard = not attempt.tracker.onset
        between_words = unheard or attempt.tracker.silence >= _WORD_GAP
        if not between_words and now - self._forced_at < _HURRY:
            return False
        self._end_attempt(now, lost=not between_words)
        self._switch()
        self._begin_attempt(segment, _Route.VOICE, now)
        return True

    def _position(self, segment: Segment, attempt: _Attempt, now: float) -> int:
        if attempt.tracker.onset:
            return min(attempt.tracker.position, attempt.sent)
        if segment.spoken_after(attempt.start, attempt.sent):
            return attempt.start
        # Silence cannot be heard: its time passes.
        elapsed = now - attempt.began - (self._latency or 0.0)
        return min(attempt.sent, attempt.start + max(0, int(elapsed * SAMPLE_RATE)))

    def _all_heard(self, segment: Segment, attempt: _Attempt, position: int) -> bool:
        tracker = attempt.tracker
        if not tracker.onset:
            return position >= segment.pushed  # there was nothing to be heard
        enough = 0.2 if attempt.confirmed else 0.3
        if position < segment.pushed and tracker.silence < enough:
            return False
        clear = tracker.clear_position
        believed = attempt.confirmed and tracker.silence >= 0.2 and clear >= position
        missing = 0.5 if believed else _PART_OF_A_WORD
        return segment.spoken_after(clear) / SAMPLE_RATE < missing

    def _end_is_lost(self, segment: Segment, attempt: _Attempt) -> bool:
        """Whether the last word did not come, though all else did: what a data channel carried
        while its connection was restored may come seconds late, or never."""
        tracker = attempt.tracker
        if not tracker.onset or tracker.silence < _LAST_WORD_WAIT:
            return False
        return segment.spoken_after(tracker.clear_position) / SAMPLE_RATE < _LAST_WORD

    def _end_anyway(self, segment: Segment, attempt: _Attempt, now: float) -> None:
        """The voice says the last word, if the avatar speaks as it is told, and so did not."""
        if attempt.tracker.alike:
            self._stop_attempt(now, lost=True)
            self._begin_attempt(segment, _Route.VOICE, now)
        else:
            segment.heard = segment.pushed
            self._finish(segment, interrupted=False)

    def _on_heard(self, attempt: _Attempt, now: float) -> None:
        attempt.heard_at = now - HOP_SECONDS
        segment = self._segments[0]
        if attempt.first_spoken_sent is not None:
            latency = None if attempt.unseen else attempt.heard_at - attempt.first_spoken_sent
            self._latency = latency or self._latency
            if segment.state is SegmentState.WAITING:
                self._report(FirstSpeechHeard(latency))
        self._started(segment, attempt.heard_at)

    def _watch_stall(self, segment: Segment, attempt: _Attempt, position: int, now: float) -> None:
        outstanding = segment.spoken_after(position, attempt.sent) >= 3 * HOP
        if not outstanding:
            attempt.waiting_since = None
            return
        if attempt.waiting_since is None:
            attempt.waiting_since = now + (
                self._latency or FIRST_LATENCY if not attempt.tracker.onset else 0.0
            )
        if position != attempt.progress:
            # It may also be corrected backwards, and goes on from there.
            attempt.progress = position
            attempt.waiting_since = now
        if now - attempt.waiting_since > self._stall_timeout:
            self._report(SpeechStalled(now - attempt.began))
            self.detach_avatar()

    def _watch_deadline(self, segment: Segment, attempt: _Attempt, now: float) -> None:
        if not attempt.ended:
            return
        if self._deadline is None:
            left = (segment.pushed - segment.heard) / SAMPLE_RATE
            self._deadline = now + left + (self._latency or FIRST_LATENCY) + DEADLINE_MARGIN
        elif now > self._deadline:
            pushed, heard = segment.pushed / SAMPLE_RATE, segment.heard / SAMPLE_RATE
            logger.warning(
                "a segment was not heard to its end in time and was finished by force",
                extra={"pushed": pushed, "heard": heard},
            )
            self._stop_attempt(now)
            self.stats.forced += 1
            self._finish(segment, interrupted=False)
            self._report(PlayoutForced(pushed, heard))

    # -- the voice's route ----------------------------------------------------------------------

    def _speak(self, segment: Segment, now: float) -> bytes:
        end = min(segment.heard + HOP, segment.pushed)
        if end - segment.heard < HOP and not segment.flushed:
            return SILENCE  # the speech is slower than real time
        pcm = segment.read(segment.heard, end)
        if pcm and segment.state is SegmentState.WAITING:
            self._started(segment, now)
        segment.heard = end
        self._watch_buffer()
        if segment.flushed and end == segment.pushed:
            self._finish(segment, interrupted=False)
        return pcm.ljust(len(SILENCE), b"\0")

    # -- the ends of segments and attempts ------------------------------------------------------

    def _started(self, segment: Segment, at: float) -> None:
        if segment.state is SegmentState.WAITING:
            segment.move_to(SegmentState.PLAYING)
            self.on_playback_started(created_at=at + self._wall_offset)

    def _stop_attempt(self, now: float, *, lost: bool = False) -> None:
        """End the attempt, and let nothing more of it be heard (barge-in, pause, close)."""
        attempt = self._attempt
        if attempt is None:
            return
        self._end_attempt(now, lost=lost)
        if attempt.route is _Route.AVATAR and self._delivery is not None:
            self._gate_open = False
            if attempt.sent > attempt.start:
                self._interruption = Interruption(now)
                task = self._loop.create_task(
                    self._interruption.notify(self._delivery), name="runway_clear_buffer"
                )
                self._clear_tasks.add(task)
                task.add_done_callback(self._clear_tasks.discard)

    def _end_attempt(self, now: float, *, lost: bool) -> None:
        """Close the books of the attempt: what of it counts as heard."""
        self._listen()
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        segment = self._segments[0]
        if attempt.route is _Route.AVATAR:
            self._describe(segment, attempt)
            position = self._position(segment, attempt, now)
            if attempt.tracker.foreign:
                position = attempt.start  # none of what was heard were its words
            elif lost and attempt.tracker.onset:
                clear = min(position, attempt.tracker.clear_position)
                position = max(attempt.start, segment.restart_point(clear, margin=_MARGIN))
                self.stats.carried_on += 1
            segment.heard = position
        self._report_run(segment, attempt)

    def _report_run(self, segment: Segment, attempt: _Attempt) -> None:
        duration = (segment.heard - attempt.start) / SAMPLE_RATE
        if duration <= 0 or segment.state is not SegmentState.PLAYING:
            return
        began = attempt.began
        if attempt.heard_at is not None:
            began = attempt.heard_at - attempt.tracker.lead_in / SAMPLE_RATE
        self.on_playback_progressed(
            started_at=began + self._wall_offset,
            offset=attempt.start / SAMPLE_RATE,
            duration=duration,
        )

    def _finish(self, segment: Segment, *, interrupted: bool) -> None:
        """The one end of a segment. If it is still being captured, the rest of it is dropped."""
        if self._attempt is not None and self._segments[0] is segment:
            attempt, self._attempt = self._attempt, None
            self._report_run(segment, attempt)
        started = segment.state is SegmentState.PLAYING
        segment.move_to(SegmentState.FINISHED)
        self._segments.remove(segment)
        stats = self.stats
        stats.segments += 1
        stats.interrupted += interrupted
        stats.pushed += segment.pushed
        stats.heard += segment.heard
        stats.dropped += segment.pushed - segment.heard
        segment.cleared = True
        self._deadline = None
        self._watch_buffer()
        # Of a segment that never started, only silence has passed.
        unheard = interrupted and not started
        self.on_playback_finished(
            playback_position=0.0 if unheard else segment.heard / SAMPLE_RATE,
            interrupted=interrupted,
        )

    # -- helpers --------------------------------------------------------------------------------

    def _watch_buffer(self) -> None:
        unheard = sum(segment.pushed - segment.heard for segment in self._segments)
        if unheard > MAX_BUFFERED * SAMPLE_RATE and not self._closed:
            self._room_in_buffer.clear()
        else:
            self._room_in_buffer.set()

    def _normalise(self, frame: rtc.AudioFrame) -> bytes:
        """48 kHz mono."""
        pcm = bytes(frame.data)
        if frame.num_channels > 1:
            mixed = np.frombuffer(pcm, np.int16).reshape(-1, frame.num_channels).mean(axis=1)
            pcm = mixed.astype(np.int16).tobytes()
        if frame.sample_rate == SAMPLE_RATE:
            return pcm
        if self._resampler is None or self._resampler.input_rate != frame.sample_rate:
            self._resampler = Resampler(frame.sample_rate, SAMPLE_RATE)
        return self._resampler.push(pcm)
