"""Promises of the sink, in virtual time: a segment never hangs, no word is lost, nothing stale."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np
import pytest
from livekit import rtc

from livekit_plugins_runway.errors import LossReason
from livekit_plugins_runway.playout.ports import FirstSpeechHeard, PlayoutStats
from livekit_plugins_runway.testing.tones import (
    ToneScript,
    foreign,
    in_order,
    missing,
    repeated_seconds,
)
from tests.support.speech_world import world
from tests.support.virtual_clock import timers_only

pytestmark = pytest.mark.sampled

TEN_SECONDS = ToneScript(40)
SHORT = ToneScript(8)
OTHER = ToneScript(6, offset=40)


@timers_only
async def test_the_avatar_speaks_all_and_the_segment_ends_when_the_user_has_heard_it() -> None:
    async with world() as w:
        w.attach(latency=0.3)
        await w.say(TEN_SECONDS)
        end = await w.spoken()
        assert not end.interrupted
        assert end.playback_position == pytest.approx(10.0, abs=0.01)
        assert missing(TEN_SECONDS, w.ear.tones()) == []
        assert in_order(TEN_SECONDS, w.ear.tones())
        assert repeated_seconds(TEN_SECONDS, w.ear.tones()) == 0
        assert w.started == [pytest.approx(0.3, abs=0.05)]
        assert w.now == pytest.approx(10.3, abs=0.15)
        assert w.output.stats == PlayoutStats(
            pushed=480_000, sent=480_000, heard=480_000, segments=1
        )


@timers_only
async def test_the_first_words_are_sent_as_they_come() -> None:
    async with world() as w:
        worker = w.attach()
        frames = list(SHORT.frames(24_000, 20))
        await w.output.capture_frame(frames[0])
        await asyncio.sleep(0.001)
        began = w.now
        for frame in frames[1:8]:
            await w.output.capture_frame(frame)
        assert w.now == began
        assert worker.sent >= 7 * 960


@timers_only
async def test_a_microphone_that_nobody_else_writes_to_is_told_so_every_second() -> None:
    async with world(wait_for_avatar=0.0) as w:
        await asyncio.sleep(3.0)
        await w.say(SHORT)  # by the voice
        await w.spoken()
        spoken = w.now
        await asyncio.sleep(3.0)
        told = w.ear.kept_alive
        quiet = [t for t in told if t < 3.0], [t for t in told if t > spoken]
        assert quiet[0][0] < 0.1
        assert quiet[1][0] < spoken + 0.1
        for times in quiet:
            assert max(b - a for a, b in itertools.pairwise(times)) < 1.0
        w.attach()
        attached = w.now
        await asyncio.sleep(3.0)
        assert [t for t in told if t > attached + 0.1] == []


@timers_only
async def test_a_worker_that_starves_for_a_second_is_waited_for_and_not_cut_short() -> None:
    async with world(stall_timeout=3.0) as w:
        worker = w.attach()
        await w.say(SHORT)
        await asyncio.sleep(1.0)
        worker.frozen = True
        await asyncio.sleep(0.05)
        stopped = w.now
        # It is alive, but has nothing to say: silence comes in place of words.
        while w.now < stopped + 1.0:
            w.output.relayed(bytes(960))
            await asyncio.sleep(0.01)
        worker.frozen = False
        await w.spoken()
        assert missing(SHORT, w.ear.tones()) == []
        assert w.now == pytest.approx(3.3, abs=0.2)


@timers_only
async def test_speech_slower_than_real_time_is_spoken_whole() -> None:
    async with world() as w:
        w.attach()
        for n, frame in enumerate(SHORT.frames(24_000, 50)):
            await w.output.capture_frame(frame)
            if n % 10 == 9:  # two tones, then nothing for a second
                await asyncio.sleep(1.0)
        w.output.flush()
        end = await w.spoken()
        assert missing(SHORT, w.ear.tones()) == []
        assert end.playback_position == pytest.approx(2.0, abs=0.02)


@timers_only
async def test_the_first_speech_waits_for_the_face_and_is_spoken_whole() -> None:
    async with world(wait_for_avatar=10.0) as w:
        await w.say(SHORT)
        await asyncio.sleep(4.0)
        assert w.started == []
        w.attach()
        await w.spoken()
        assert missing(SHORT, w.ear.tones()) == []
        assert w.worker.sent >= SHORT.duration_s * 48_000


@timers_only
async def test_without_a_face_the_first_speech_is_spoken_by_voice_after_the_wait() -> None:
    async with world(wait_for_avatar=2.0) as w:
        await w.say(SHORT)
        await w.spoken()
        assert w.started == [pytest.approx(2.0, abs=0.05)]
        assert missing(SHORT, w.ear.tones()) == []
        began = w.now
        await w.say(OTHER)
        await w.spoken()
        assert w.started[1] == pytest.approx(began + 2.0, abs=0.1) or w.started[1] - began < 0.1


@timers_only
async def test_voice_first_speaks_at_once() -> None:
    async with world(wait_for_avatar=0.0) as w:
        await w.say(SHORT)
        await w.spoken()
        assert w.started == [pytest.approx(0.0, abs=0.05)]


@timers_only
async def test_speech_waits_for_somebody_to_subscribe_but_not_for_ever() -> None:
    async with world() as w:
        w.ear.subscribed = False
        w.attach()
        await w.say(SHORT)
        await asyncio.sleep(1.0)
        assert w.started == []
        w.ear.subscribed = True
        await w.spoken()
        assert missing(SHORT, w.ear.tones()) == []


@timers_only
@pytest.mark.parametrize("lost_after", [0.1, 0.5, 1.37, 2.4])
async def test_a_loss_in_mid_sentence_is_carried_on_by_voice_in_the_same_segment(
    lost_after: float,
) -> None:
    async with world() as w:
        worker = w.attach()
        await w.say(TEN_SECONDS)
        await asyncio.sleep(lost_after)
        worker.frozen = True
        await asyncio.sleep(0.3)
        w.output.detach_avatar()
        end = await w.spoken()
        tones = w.ear.tones()
        assert missing(TEN_SECONDS, tones, fraction=0.9) == []
        assert in_order_but_for_repeats(tones)
        assert repeated_seconds(TEN_SECONDS, tones, tolerance=0.01) <= 0.32
        assert not end.interrupted
        assert end.playback_position == pytest.approx(10.0, abs=0.01)
        assert len(w.started) == len(w.finished) == 1
        assert w.output.stats.carried_on == (lost_after > 0.25)
        assert w.output.stats.heard == w.output.stats.pushed == 480_000


def in_order_but_for_repeats(tones: list) -> bool:  # type: ignore[type-arg]
    """Ascending, except that the voice may begin up to two slots before the loss."""
    indices = [tone.index for tone in tones]
    return all(b >= a - 2 for a, b in itertools.pairwise(indices))


@timers_only
async def test_speech_that_is_far_ahead_goes_out_in_few_pieces() -> None:
    async with world() as w:
        worker = w.attach()
        await w.say(TEN_SECONDS)
        await w.spoken()
        assert worker.sent == 480_000
        assert worker.sends <= 60  # 1,000 hops
        assert missing(TEN_SECONDS, w.ear.tones(), fraction=0.9) == []


@pytest.mark.slow
@timers_only
@pytest.mark.parametrize("late", [2.1, 2.9, 5.0, 1e6])  # speech is sent two seconds ahead
@pytest.mark.parametrize("seconds", [0.25, 0.31])  # 0.31: 10 ms of the word before it
async def test_a_last_word_that_reached_the_avatar_late_or_never_is_said_once(
    seconds: float, late: float
) -> None:
    async with world() as w:
        w.attach().end_is_late = (seconds, late)
        await w.say(TEN_SECONDS)
        end = await w.spoken()
        assert not end.interrupted
        assert missing(TEN_SECONDS, w.ear.tones(), fraction=0.9) == []
        w.worker.end_is_late = None
        since = w.now
        await w.say(SHORT)
        await w.spoken()
        last = len(TEN_SECONDS.indices) - 1
        assert [tone.index for tone in w.ear.tones(since)] == list(SHORT.indices)
        assert sum(tone.index == last for tone in w.ear.tones()) == 1
        assert w.losses == []
        assert w.output.stats.carried_on == (late > 2.6)


@timers_only
async def test_a_frozen_worker_is_noticed_by_the_missing_speech() -> None:
    async with world(stall_timeout=1.5) as w:
        worker = w.attach()
        await w.say(TEN_SECONDS)
        await asyncio.sleep(3.0)
        worker.frozen = True
        await w.spoken()
        assert missing(TEN_SECONDS, w.ear.tones(), fraction=0.9) == []
        assert w.losses == [LossReason.SPEECH_STALLED]
        assert w.now < 10.0 + 0.3 + 1.5 + 0.5


@pytest.mark.slow
@timers_only
@pytest.mark.parametrize("stretched", [0.0, 0.06])
@pytest.mark.parametrize("at", [1.5 + step * 0.08 for step in range(4)])
async def test_what_a_receiver_made_up_after_a_freeze_does_not_count_as_heard(
    at: float, stretched: float
) -> None:
    async with world(stall_timeout=1.0) as w:
        w.attach().stretch_the_start(stretched)
        await w.say(TEN_SECONDS)
        await asyncio.sleep(at)
        # Seconds of it that were heard, by the worker's latency.
        before = round(at - 0.25 - stretched, 6)
        w.worker.freeze_and_fade(0.5)
        await w.spoken()
        assert missing(TEN_SECONDS, w.ear.tones(), fraction=0.9) == []
        by_avatar, by_voice = w.progressed
        assert by_avatar.offset == 0.0
        assert before - 0.45 <= by_voice.offset <= before


@timers_only
@pytest.mark.parametrize("left", [0.04 * step for step in range(1, 15)])
async def test_a_freeze_just_before_the_end_costs_no_last_word(left: float) -> None:
    script = ToneScript(5, offset=43)
    async with world(stall_timeout=1.0) as w:
        w.attach()
        await w.say(script)
        await asyncio.sleep(0.25 + script.duration_s - left)
        w.worker.freeze_and_fade(0.5)
        await w.spoken()
        assert missing(script, w.ear.tones()) == []


@timers_only
@pytest.mark.parametrize("told", [0.5, 1.3])  # late, of the segment before; or while it is frozen
@pytest.mark.parametrize("left", [0.22, 0.24])
async def test_a_worker_that_claims_to_have_finished_a_word_nobody_heard_is_not_believed(
    left: float, told: float
) -> None:
    script = ToneScript(4, offset=28)
    async with world(stall_timeout=1.0) as w:
        w.attach()
        await w.say(script)
        report = asyncio.get_running_loop().call_later(
            told, lambda: w.output.worker_finished(interrupted=False)
        )
        await asyncio.sleep(0.25 + script.duration_s - left)
        w.worker.freeze_and_hiss(0.4)
        await w.spoken()
        report.cancel()
        assert missing(script, w.ear.tones(), fraction=0.9) == []


@timers_only
async def test_an_avatar_without_a_face_yet_gets_the_first_words_and_may_take_its_time() -> None:
    async with world(stall_timeout=1.0, wait_for_avatar=10.0) as w:
        worker = w.attach(seen=False)
        worker.starved = True
        await w.say(SHORT)
        await asyncio.sleep(6.0)
        assert worker.sent == SHORT.duration_s * 48_000
        worker.starved = False
        w.output.avatar_seen()
        await w.spoken()
        assert missing(SHORT, w.ear.tones(), fraction=0.9) == []
        assert w.reports[0] == FirstSpeechHeard(None)  # the wait was not for its answer
        assert w.output.latency is None
        await w.say(OTHER)
        await w.spoken()
        assert w.output.latency == pytest.approx(0.25, abs=0.03)


@timers_only
async def test_a_face_that_does_not_come_in_time_leaves_the_first_words_to_the_voice() -> None:
    async with world(stall_timeout=1.0, wait_for_avatar=2.0) as w:
        worker = w.attach(seen=False)
        worker.starved = True
        await w.say(SHORT)
        await w.spoken()
        assert w.now == pytest.approx(2.0 + SHORT.duration_s, abs=0.1)
        await w.say(OTHER)
        await w.spoken()
        sent = worker.sent
        assert sent == SHORT.duration_s * 48_000  # of what was said after that, nothing
        worker.starved = False
        w.output.avatar_seen()
        since = w.now
        await w.say(SHORT)
        await w.spoken()
        assert worker.sent > sent
        assert repeated_seconds(SHORT, w.ear.tones(since)) == 0
        assert missing(SHORT, w.ear.tones(since)) == missing(OTHER, w.ear.tones()) == []
        [report] = [told for told in w.reports if isinstance(told, FirstSpeechHeard)]
        assert report.latency == pytest.approx(0.25, abs=0.03)


@timers_only
async def test_a_late_report_of_the_segment_before_does_not_end_this_one() -> None:
    script = ToneScript(4)
    async with world() as w:
        worker = w.attach()
        await w.say(script)
        await asyncio.sleep(0.5)
        w.output.worker_finished(interrupted=False)
        await asyncio.sleep(0.5)
        worker.starved = True  # in the gap before the last word
        await asyncio.sleep(0.4)
        assert w.finished == []
        worker.starved = False
        await w.spoken()
        assert missing(script, w.ear.tones(), fraction=0.9) == []


@timers_only
async def test_a_held_word_is_not_taken_for_the_next_one_that_sounds_alike() -> None:
    script = ToneScript(4, offset=51)  # high tones, which lie in one band of the ear
    async with world(stall_timeout=1.0) as w:
        worker = w.attach()
        await w.say(script)
        await asyncio.sleep(0.75)
        worker.stretch_the_start(0.2)
        await asyncio.sleep(0.385)
        worker.freeze_and_fade(0.3)
        await w.spoken()
        assert missing(script, w.ear.tones()) == []


@timers_only
async def test_a_worker_that_thaws_says_nothing_stale() -> None:
    async with world(stall_timeout=1.0) as w:
        worker = w.attach()
        await w.say(TEN_SECONDS)
        await asyncio.sleep(2.0)
        worker.frozen = True
        await asyncio.sleep(2.0)
        thawed = w.now
        worker.frozen = False
        await w.spoken()
        tones = [t.index for t in w.ear.tones(thawed)]
        assert tones == sorted(tones)
        assert repeated_seconds(TEN_SECONDS, w.ear.tones()) <= 0.32


@timers_only
async def test_a_worker_that_never_speaks_does_not_hang_the_segment() -> None:
    async with world(stall_timeout=1.5) as w:
        w.attach().frozen = True
        await w.say(SHORT)
        end = await w.spoken()
        assert missing(SHORT, w.ear.tones()) == []
        assert not end.interrupted


@timers_only
async def test_words_that_the_avatar_makes_up_do_not_count_as_heard() -> None:
    async with world() as w:
        w.attach().own_words = ToneScript(40, offset=50).pcm(48_000).tobytes()
        await w.say(TEN_SECONDS)
        await w.spoken()
        assert w.losses == [LossReason.SPEECH_FOREIGN]
        assert missing(TEN_SECONDS, w.ear.tones()) == []


BARGE_INS = [
    ({}, 1.1),
    ({"clear": "ignores"}, 1.1),
    ({"clear": "unsupported", "lead": 0.3}, 1.1),
    ({"clear": "unsupported", "lead": 0.3, "latency": 1.2}, 2.5),
    ({"clear_delay": 0.7}, 1.1),
    ({"latency": 1.0}, 0.4),  # before anything was heard
]


@timers_only
@pytest.mark.parametrize(("worker", "at"), BARGE_INS)
@pytest.mark.parametrize("pause_before_next", [0.0, 0.5, 4.0])
async def test_a_barge_in_is_silent_at_once_and_nothing_of_it_leaks_into_the_next_segment(
    worker: dict[str, Any], at: float, pause_before_next: float
) -> None:
    async with world() as w:
        w.attach(**worker)
        await w.say(TEN_SECONDS)
        await asyncio.sleep(at)
        heard_before = w.ear.tones()
        cut = w.now
        w.output.clear_buffer()
        end = await w.spoken()
        assert end.interrupted
        assert w.now - cut <= 0.05
        await asyncio.sleep(pause_before_next)
        assert (w.ear.loud_after(cut) or 0.0) <= 0.01
        if heard_before:
            assert end.playback_position == pytest.approx(
                heard_before[-1].index * 0.25 + 0.125, abs=0.2
            )
        else:
            assert end.playback_position == 0.0
        await w.say(OTHER)
        await w.spoken()
        assert foreign(OTHER, w.ear.tones(cut + 0.02)) == []
        assert missing(OTHER, w.ear.tones(cut), fraction=0.9) == []


@timers_only
async def test_an_avatar_that_cannot_confirm_speaks_soon_after_barge_ins_in_its_first_words() -> (
    None
):
    """Too little of it was heard to be sure of its voice, and so of its latency."""
    async with world() as w:
        worker = w.attach(clear="unsupported", lead=0.3)
        for n in range(4):
            sent = worker.sent
            await w.say(ToneScript(40, offset=n % 2 * 40, gap_s=0.0))
            await asyncio.sleep(0.6)
            assert worker.sent > sent
            w.output.clear_buffer()
            await w.spoken()
        assert w.losses == []


@timers_only
@pytest.mark.parametrize("at", [0.7, 0.85, 0.9, 0.95, 1.1, 1.35, 1.85])
async def test_in_speech_without_pauses_exactly_what_was_heard_counts(at: float) -> None:
    """Tones in a row look like one another where they do not change: the place must be kept."""
    async with world() as w:
        w.attach()
        await w.say(ToneScript(16, gap_s=0.0))
        await asyncio.sleep(at)
        heard = np.count_nonzero(w.ear.pcm()) / 48_000
        w.output.clear_buffer()
        end = await w.spoken()
        assert end.playback_position == pytest.approx(heard, abs=0.03)


@timers_only
async def test_interrupted_before_anything_was_heard_reports_position_zero_and_no_start() -> None:
    async with world() as w:
        await w.say(SHORT)
        await asyncio.sleep(0.2)
        w.output.clear_buffer()
        end = await w.spoken()
        assert end.interrupted
        assert end.playback_position == 0.0
        assert w.started == []
        assert len(w.finished) == 1


@timers_only
async def test_a_barge_in_while_the_speech_is_still_captured_drops_the_rest_of_it() -> None:
    async with world() as w:
        w.attach()
        frames = list(SHORT.frames(48_000, 20))
        for frame in frames[:60]:
            await w.output.capture_frame(frame)
        await asyncio.sleep(0.6)
        w.output.clear_buffer()
        for frame in frames[60:]:
            await w.output.capture_frame(frame)
        w.output.flush()
        end = await w.spoken()
        assert end.interrupted
        cut = w.now
        await w.say(OTHER)
        await w.spoken()
        assert foreign(OTHER, w.ear.tones(cut)) == []
        assert missing(OTHER, w.ear.tones(cut)) == []
        assert len(w.finished) == 2


@timers_only
async def test_a_barge_in_over_the_voice_is_silent_at_once() -> None:
    async with world(wait_for_avatar=0.0) as w:
        await w.say(TEN_SECONDS)
        await asyncio.sleep(1.0)
        cut = w.now
        w.output.clear_buffer()
        await w.spoken()
        await asyncio.sleep(1.0)
        assert (w.ear.loud_after(cut) or 0.0) <= 0.011


@timers_only
@pytest.mark.parametrize("options", [{}, {"clear": "unsupported", "lead": 0.3}])
async def test_after_a_pause_it_goes_on_from_the_word_that_was_not_heard(
    options: dict[str, Any],
) -> None:
    async with world(can_pause=True) as w:
        w.attach(**options)
        await w.say(TEN_SECONDS)
        await asyncio.sleep(2.0)
        paused = w.now
        w.output.pause()
        await asyncio.sleep(2.0)
        assert (w.ear.loud_after(paused) or 0.0) <= 0.01
        w.output.resume()
        end = await w.spoken()
        assert not end.interrupted
        assert missing(TEN_SECONDS, w.ear.tones()) == []
        assert repeated_seconds(TEN_SECONDS, w.ear.tones()) <= 0.1
        assert len(w.started) == len(w.finished) == 1


@timers_only
async def test_a_new_face_speaks_from_the_next_segment_on() -> None:
    async with world(wait_for_avatar=0.0) as w:
        await w.say(SHORT)
        await asyncio.sleep(0.5)
        worker = w.attach()
        await w.spoken()
        assert worker.sent == 0
        assert missing(SHORT, w.ear.tones()) == []
        began = w.now
        await w.say(OTHER)
        await w.spoken()
        assert worker.sent == OTHER.duration_s * 48_000
        assert missing(OTHER, w.ear.tones(began)) == []


@timers_only
async def test_segments_in_a_row_are_spoken_in_order() -> None:
    async with world() as w:
        w.attach()
        scripts = [ToneScript(4, offset=4 * n) for n in range(8)]
        for script in scripts:
            await w.say(script)
        await w.spoken()
        assert [t.index for t in w.ear.tones()] == list(range(32))
        assert len(w.started) == len(w.finished) == 8


@timers_only
async def test_closing_finishes_what_is_pending_as_interrupted() -> None:
    async with world() as w:
        w.attach()
        await w.say(TEN_SECONDS)
        await w.say(OTHER)
        await asyncio.sleep(1.0)
        await w.output.aclose()
        assert [event.interrupted for event in w.finished] == [True, True]
        assert w.finished[0].playback_position == pytest.approx(0.75, abs=0.15)
        await w.output.aclose()


@timers_only
async def test_progress_is_reported_for_what_was_heard() -> None:
    async with world() as w:
        w.attach()
        await w.say(TEN_SECONDS)
        await asyncio.sleep(2.25)
        w.output.detach_avatar()
        await w.spoken()
        first, second = w.progressed
        assert first.offset == 0.0
        assert second.offset == pytest.approx(first.duration, abs=0.001)
        assert first.duration + second.duration == pytest.approx(10.0, abs=0.02)


@timers_only
async def test_frames_of_another_rate_or_stereo_are_spoken_as_they_are_meant() -> None:
    async with world(wait_for_avatar=0.0) as w:
        for frame in SHORT.frames(22_050, 20):
            mono = bytes(frame.data)
            stereo = b"".join(mono[i : i + 2] * 2 for i in range(0, len(mono), 2))
            await w.output.capture_frame(
                rtc.AudioFrame(stereo, 22_050, 2, frame.samples_per_channel)
            )
        w.output.flush()
        end = await w.spoken()
        assert missing(SHORT, w.ear.tones()) == []
        assert end.playback_position == pytest.approx(2.0, abs=0.02)


@timers_only
async def test_the_latency_of_the_avatar_is_measured_and_reported_once_per_segment() -> None:
    async with world() as w:
        w.attach(latency=0.4)
        await w.say(SHORT)
        await w.spoken()
        assert w.output.latency == pytest.approx(0.4, abs=0.05)
        assert [r for r in w.reports if isinstance(r, FirstSpeechHeard)] == [
            FirstSpeechHeard(w.output.latency)
        ]


@timers_only
async def test_another_avatar_takes_over_between_two_segments() -> None:
    async with world() as w:
        old = w.attach()
        await w.say(SHORT)
        await asyncio.sleep(0.5)
        new, switched = await w.stand_by()
        await w.say(OTHER)
        await w.spoken()
        await w.spoken()
        assert switched == [pytest.approx(w.finished_at[0] + 0.06, abs=0.06)]
        assert old.sent == SHORT.duration_s * 48_000
        assert new.sent == OTHER.duration_s * 48_000
        assert missing(SHORT, w.ear.tones()) == missing(OTHER, w.ear.tones()) == []


@timers_only
async def test_whoever_is_replaced_finishes_what_counts_as_heard_already() -> None:
    """A first sound that was drawn out, in an utterance too short to notice it."""
    short = ToneScript(2, gap_s=0.0)
    async with world() as w:
        w.attach().stretch_the_start(0.12)
        await w.say(short)
        await asyncio.sleep(0.1)
        await w.stand_by()
        await w.say(OTHER)
        await w.spoken()
        await w.spoken()
        assert missing(short, w.ear.tones(), fraction=0.85) == []
        assert missing(OTHER, w.ear.tones(), fraction=0.85) == []


@timers_only
async def test_an_avatar_that_will_not_fall_silent_is_replaced_all_the_same() -> None:
    async with world() as w:
        w.attach()
        await w.say(SHORT)
        await w.spoken()
        w.worker.send(TEN_SECONDS.pcm(48_000).tobytes())  # nobody has told it to
        await asyncio.sleep(0.5)
        began = w.now
        _, switched = await w.stand_by()
        await asyncio.sleep(1.0)
        assert switched == [pytest.approx(began + 0.5, abs=0.05)]


@timers_only
async def test_another_avatar_takes_over_at_once_while_nobody_speaks() -> None:
    async with world() as w:
        w.attach()
        began = w.now
        _, switched = await w.stand_by()
        await asyncio.sleep(0.1)
        assert switched == [pytest.approx(began, abs=0.02)]


@timers_only
@pytest.mark.parametrize("at", [0.1, 1.0, 1.13, 2.6])
async def test_in_a_hurry_it_takes_over_between_two_words_and_the_voice_says_the_rest(
    at: float,
) -> None:
    async with world() as w:
        w.attach()
        await w.say(TEN_SECONDS)
        await asyncio.sleep(at)
        new, switched = await w.stand_by()
        w.output.force_hand_over()
        end = await w.spoken()
        assert not end.interrupted
        assert switched[0] <= at + 0.6
        assert new.sent == 0
        tones = w.ear.tones()
        assert missing(TEN_SECONDS, tones, fraction=0.9) == []
        assert [tone.index for tone in tones] == list(TEN_SECONDS.indices)
        await w.say(OTHER)
        await w.spoken()
        assert new.sent > 0
        assert len(w.started) == len(w.finished) == 2


@timers_only
async def test_an_avatar_that_is_lost_before_the_next_took_over_is_carried_on_by_voice() -> None:
    async with world() as w:
        w.attach()
        await w.say(TEN_SECONDS)
        await asyncio.sleep(2.0)
        new, switched = await w.stand_by()
        w.worker.frozen = False
        w.output.detach_avatar()
        lost = w.now
        await asyncio.sleep(0.001)
        assert switched == [lost]
        await w.spoken()
        assert missing(TEN_SECONDS, w.ear.tones(), fraction=0.9) == []
        assert new.sent == 0


@timers_only
async def test_a_withdrawn_avatar_does_not_take_over() -> None:
    async with world() as w:
        old = w.attach()
        await w.say(SHORT)
        new, switched = await w.stand_by()
        await w.withdraw()
        w.output.force_hand_over()
        await w.spoken()
        await w.say(OTHER)
        await w.spoken()
        assert switched == []
        assert new.sent == 0
        assert old.sent == (SHORT.duration_s + OTHER.duration_s) * 48_000


@timers_only
async def test_the_voice_takes_over_between_two_segments_if_no_other_avatar_is_there_yet() -> None:
    async with world() as w:
        old = w.attach()
        await w.say(SHORT)
        await asyncio.sleep(0.5)
        switched = await w.hand_over(None)
        await w.spoken()
        await w.say(OTHER)
        await w.spoken()
        assert len(switched) == 1
        assert old.sent == SHORT.duration_s * 48_000
        assert missing(OTHER, w.ear.tones()) == []


@timers_only
@pytest.mark.parametrize("face", [True, False])
async def test_what_would_be_said_into_a_broken_connection_is_said_when_it_is_back(
    face: bool,
) -> None:
    async with world(wait_for_avatar=0.0) as w:
        if face:
            w.attach()
        await w.say(TEN_SECONDS)
        await asyncio.sleep(2.0)
        w.ear.reachable = False
        away = w.now
        w.ear.frames[:] = [frame for frame in w.ear.frames if frame[0] < away - 0.15]  # on its way
        await asyncio.sleep(4.0)
        assert (w.ear.loud_after(away) or 0.0) <= 0.02
        w.ear.reachable = True
        end = await w.spoken()
        assert not end.interrupted
        assert missing(TEN_SECONDS, w.ear.tones(), fraction=0.8) == []
