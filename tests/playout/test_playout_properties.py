"""Random conversations with random faults, in virtual time: the sink's invariants after every step.

`PLAYOUT_EXAMPLES` is the number of conversations (default 25; 1000 for a release).
"""

from __future__ import annotations

import asyncio
import os

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from livekit_plugins_runway.testing.tones import ALPHABET, ToneScript, missing
from tests.support.speech_world import World, world
from tests.support.virtual_clock import VirtualClockLoop

pytestmark = pytest.mark.slow

SLOTS = st.integers(min_value=1, max_value=6)
SECONDS = st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.7, 1.6, 4.0])
QUIESCENCE = 60.0
"""Seconds after the last fault by which every segment must be finished."""


class Conversation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualClockLoop(0.0)
        self.world: World
        self.spoken: list[tuple[ToneScript, int]] = []  # with the number of its segment
        self.open: list[tuple[ToneScript, int]] = []
        self.captured = 0
        self.next_tone = 0
        self.paused = False
        self.cleared_since_flush = False

    def run(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @initialize(wait=st.sampled_from([0.0, 2.0]), pipeline=st.sampled_from([0.05, 0.25, 1.0]))
    def begin(self, wait: float, pipeline: float) -> None:
        self.pipeline = pipeline
        self.context = world(wait_for_avatar=wait, stall_timeout=1.0, can_pause=True)
        asyncio.set_event_loop(self.loop)
        self.world = self.loop.run_until_complete(self.context.__aenter__())

    def script(self, slots: int) -> ToneScript:
        if self.next_tone + slots > ALPHABET:
            self.next_tone = 0
        script = ToneScript(slots, offset=self.next_tone)
        self.next_tone += slots
        return script

    # -- what the framework does

    @rule(slots=SLOTS)
    def say(self, slots: int) -> None:
        script = self.script(slots)
        if self.open:
            self.flush()
        self.spoken.append((script, self.captured))
        self.captured += 1
        self.loop.run_until_complete(self.world.say(script))
        self.cleared_since_flush = False

    @rule(slots=SLOTS)
    def capture(self, slots: int) -> None:
        async def frames() -> None:
            for frame in script.frames(48_000, 20):
                await self.world.output.capture_frame(frame)

        script = self.script(slots)
        if not self.open:
            self.captured += 1
        self.open.append((script, self.captured - 1))
        self.loop.run_until_complete(frames())

    @precondition(lambda self: self.open)
    @rule()
    def flush(self) -> None:
        self.world.output.flush()
        if not self.cleared_since_flush:
            self.spoken += self.open
        self.open = []
        self.cleared_since_flush = False

    @rule()
    def clear(self) -> None:
        self.world.output.clear_buffer()
        # What was finished before was heard, and stays promised.
        whole = len(self.world.finished)
        self.spoken = [said for said in self.spoken if said[1] < whole]
        self.cleared_since_flush = bool(self.open)
        cut = self.loop.time()
        self.run(0.2)
        assert (self.world.ear.loud_after(cut) or 0.0) <= 0.011

    @rule(slots=st.integers(min_value=4, max_value=8), after=st.sampled_from([0.3, 0.8, 1.3]))
    def barge_in_on_the_avatar(self, slots: int, after: float) -> None:
        self.attach("obeys", 2.0)
        self.say(slots)
        self.run(after)
        self.clear()

    @rule(slots=st.integers(min_value=4, max_value=8), after=st.sampled_from([0.3, 0.8, 1.3, 1.7]))
    def lose_the_avatar_in_mid_sentence(self, slots: int, after: float) -> None:
        self.attach("obeys", 2.0)
        self.say(slots)
        self.run(after)
        self.lose()

    @rule(slots=st.integers(min_value=4, max_value=8), after=st.sampled_from([0.3, 0.8, 1.3, 1.7]))
    def freeze_the_avatar_in_mid_sentence(self, slots: int, after: float) -> None:
        self.attach("obeys", 2.0)
        self.say(slots)
        self.run(after)
        self.world.worker.frozen = True

    @rule()
    def pause(self) -> None:
        self.world.output.pause()
        self.paused = True

    @rule()
    def resume(self) -> None:
        self.world.output.resume()
        self.paused = False

    # -- what Runway does

    @rule(
        clear=st.sampled_from(["obeys", "ignores", "unsupported"]),
        lead=st.sampled_from([0.3, 2.0]),
    )
    def attach(self, clear: str, lead: float) -> None:
        async def attach() -> None:
            for worker in self.world.workers:
                await worker.aclose()
            self.world.output.detach_avatar()
            self.world.attach(latency=self.pipeline, clear=clear, lead=lead)

        self.loop.run_until_complete(attach())

    @rule()
    def lose(self) -> None:
        self.world.output.detach_avatar()

    @precondition(lambda self: self.world.workers)
    @rule(frozen=st.booleans())
    def freeze_or_thaw(self, frozen: bool) -> None:
        self.world.worker.frozen = frozen

    @rule(interrupted=st.booleans())
    def stray_report(self, interrupted: bool) -> None:
        self.world.output.worker_finished(interrupted=interrupted)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.run(seconds)

    # -- what must hold

    @invariant()
    def one_start_and_one_finish_per_segment(self) -> None:
        if not hasattr(self, "world"):
            return
        finished, started = len(self.world.finished), len(self.world.started)
        assert finished <= self.captured
        assert started <= self.captured
        assert all(event.playback_position >= 0 for event in self.world.finished)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if self.open:
                self.flush()
            self.world.output.resume()
            deadline = self.loop.time() + QUIESCENCE
            while len(self.world.finished) < self.captured and self.loop.time() < deadline:
                self.run(0.25)
            assert len(self.world.finished) == self.captured, "a segment hangs"
            tones = self.world.ear.tones()
            for script, _ in self.spoken:
                assert missing(script, tones) == [], "a word was lost"
        finally:
            self.loop.run_until_complete(self.context.__aexit__(None, None, None))
            self.loop.close()


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=int(os.environ.get("PLAYOUT_EXAMPLES", "25")),
    stateful_step_count=20,
    deadline=None,
    # A failing conversation is short enough to read; shrinking it would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
