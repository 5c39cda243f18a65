"""Runs a case in virtual time, and compares what the sink tells with what the user has heard."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import multiprocessing
import signal
import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from livekit import rtc
from livekit.agents.voice.io import PlaybackFinishedEvent

from bench.ear import sounds
from bench.ear.cases import Case
from bench.ear.dsp import RATE, Pcm
from bench.ear.sentences import SHORT, proof, tuning
from bench.ear.stage import Ear, Manner, Moment, Reply, Worker
from bench.ear.treatments import treatment
from bench.ear.voices import Voice, speech
from livekit_plugins_runway.errors import LossReason
from livekit_plugins_runway.events import PlayoutForced
from livekit_plugins_runway.playout.output import AvatarAudioOutput
from livekit_plugins_runway.playout.ports import PlayoutReport
from tests.support.virtual_clock import VirtualClockLoop

Judged = Literal["own", "foreign", "stalled", "forced", "failed"]
"""What the sink took the avatar for: one that does as it is told, or that it gave up, and why."""

_SHORT_S: dict[str, float] = {"long": 4.5, "foreign": 2.8}
_OTHERWISE_S = 1.6
"""Seconds after which a text of the sample is cut off: of these kinds and events, and others."""
_LINE_GAP_S, _WORD_GAP_S = 0.35, 0.7
_AFTER_S = 12.0
"""Longest time after the last reply in which the avatar may go on."""
_TIMEOUT = 300.0
"""Seconds of virtual time for one reply."""


@dataclass(frozen=True)
class ReplyResult:
    """What became of one reply; in seconds, of sound above -42 dBFS where words are counted."""

    interrupted: bool
    lost: float
    """Words of a reply that counts as heard in whole, which nobody has said."""
    unsaid: float
    """Words before the position that the sink has reported, which nobody has said."""
    twice: float
    false_end: float
    """By how much the reply counted as finished before its last word was heard; 0: it did not."""
    late_end: float
    """From its last sound, or the end of its TTS, until it counted as finished."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    id: str
    name: str
    truth: str
    held_out: bool
    judged: Judged
    replies: tuple[ReplyResult, ...]
    stale: float
    """Seconds of old words that the user has heard after the barge-in."""
    position_error: float | None
    """Of the barge-in: reported less true, in seconds; silence between the two is not counted."""
    latency_error: float | None
    """Of the first reply: what the sink measured less the truth, in seconds."""
    foreign_heard: float
    """Seconds of the avatar's own words that the user has heard."""
    by_voice: float
    """Seconds of words that the plain voice has said."""
    hops: int
    """Of 10 ms that came back from the avatar."""
    cpu: float
    """Seconds of processor time in all; treatments and synthesis are not in it."""
    error: str | None = None

    @property
    def obeys(self) -> bool:
        """The avatar says what it was told, and can be heard."""
        return self.truth in ("own", "stale")

    @property
    def noticed(self) -> bool:
        """The avatar's own words were noticed within 1.5 s of their sound: it was given up or, of a
        word or two, the voice said what the avatar had not."""
        given_up = self.judged in ("foreign", "stalled")
        said_instead = self.by_voice > 0.0 and self.unsaid <= 0.1
        return (given_up or said_instead) and self.foreign_heard <= 1.5

    @property
    def lost(self) -> float:
        return max((reply.lost for reply in self.replies), default=0.0)

    @property
    def twice(self) -> float:
        return max((reply.twice for reply in self.replies), default=0.0)

    @property
    def unsaid(self) -> float:
        return max((reply.unsaid for reply in self.replies), default=0.0)

    @property
    def false_end(self) -> float:
        return max((reply.false_end for reply in self.replies), default=0.0)

    @property
    def late_end(self) -> float:
        return max((reply.late_end for reply in self.replies), default=0.0)


# -- what is said ---------------------------------------------------------------------------------


def replies_of(case: Case) -> list[Reply]:
    """All that is said in it: perhaps a short reply before, the reply, perhaps the next one."""
    changed = treatment(case.treatment)
    said: list[Reply] = []
    if case.first_latency_s is not None:
        said.append(Reply(speech(_short_word(case.voice), case.voice), changed))
    pcm = reply_pcm(case)
    if case.truth == "foreign":
        later = case.place if case.event == "foreign later" else 0.0
        own = changed(_cut(case, speech(case.other, case.other_voice)))
        said.append(Reply(pcm, changed, foreign=own, foreign_from=round(later * len(pcm))))
    else:
        said.append(Reply(pcm, changed))
    if case.event in ("barge-in", "stale"):
        following = _cut(case, speech(case.other, case.other_voice))
        said.append(Reply(following, changed))
    return said


def reply_pcm(case: Case) -> Pcm:
    if case.kind == "click":
        return np.concatenate([sounds.click(10), sounds.silence(0.3)])
    if case.kind == "music":
        return _cut(case, _music())
    if case.kind == "ring tone":
        return _cut(case, _ring_tone())
    if case.kind == "silence":
        return sounds.silence(2.0)
    said = _cut(case, _lines(case.text, case.voice))
    if case.kind == "last word":
        word = speech(_short_word(case.voice), case.voice)
        return np.concatenate([said, sounds.silence(_WORD_GAP_S), word])
    return said


@functools.cache
def _music() -> Pcm:
    return sounds.music(8.0)


@functools.cache
def _ring_tone() -> Pcm:
    """With a little noise, so that no period of it is like another: it is known which is heard."""
    seconds = 4.2
    ring: Pcm = sounds.ring_tone(seconds) + sounds.white_noise(seconds, level_db=-75.0)
    return ring


def _lines(text: str, voice: Voice) -> Pcm:
    gap = sounds.silence(_LINE_GAP_S)
    parts = [piece for line in text.split("\n") for piece in (gap, speech(line, voice))]
    return np.concatenate(parts[1:])


def _short_word(voice: Voice) -> str:
    return (proof(SHORT) if voice.held_out else tuning(SHORT))[0]


def _cut(case: Case, pcm: Pcm) -> Pcm:
    if not case.short:
        return pcm
    longest = _SHORT_S.get(case.kind, _SHORT_S.get(case.truth, _OTHERWISE_S))
    return pcm[: round(longest * RATE)]


# -- what happens ---------------------------------------------------------------------------------

_CHUNKS = {
    "burst": (0.1, 0.0),
    "late end": (0.1, 0.0),
    "pauses": (0.1, 0.0),
    "real time": (0.02, 1.0),
    "1.5x slow in 20 ms": (0.02, 1.5),
    "1.5x slow in 100 ms": (0.1, 1.5),
    "2x slow in 40 ms": (0.04, 2.0),
}
"""Of each pace: seconds of speech in a frame, and how long it takes to give one second."""


@dataclass
class _Scene:
    """A case while it is played."""

    case: Case
    output: AvatarAudioOutput
    ear: Ear
    worker: Worker
    replies: list[Reply]
    reports: list[PlayoutReport]
    finished: list[tuple[float, PlaybackFinishedEvent]] = field(default_factory=list)
    flushed: dict[int, float] = field(default_factory=dict)
    """By reply, when its end was told."""
    cleared: tuple[int, float, int] | None = None
    """The reply that was interrupted, when, and the sample up to which it was heard."""

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def main(self) -> int:
        """The reply that the case is about: there may be a short one before."""
        return int(self.case.first_latency_s is not None)

    def on_finished(self, event: PlaybackFinishedEvent) -> None:
        self.finished.append((self.now, event))
        self.ear.current += 1

    async def say(self, number: int, *, as_is: bool = True) -> None:
        """Capture a reply at the pace of the case (or, `as_is`, at once), and flush it."""
        case = self.case
        chunk_s, slowness = _CHUNKS["burst" if as_is else case.pace]
        pauses = [] if as_is else list(case.pauses)
        pcm, due = self.replies[number].pcm, self.now
        for start in range(0, len(pcm), round(chunk_s * RATE)):
            while pauses and start >= pauses[0][0] * len(pcm):
                due = self.now + pauses.pop(0)[1]
            if due > self.now:
                await asyncio.sleep(due - self.now)
            piece = pcm[start : start + round(chunk_s * RATE)]
            await self.output.capture_frame(rtc.AudioFrame(piece.tobytes(), RATE, 1, len(piece)))
            due += chunk_s * slowness
        await asyncio.sleep(0.0 if as_is else case.late_s)
        self.flush(number)

    def flush(self, number: int) -> None:
        self.flushed.setdefault(number, self.now)
        self.output.flush()

    async def heard_out(self) -> None:
        async with asyncio.timeout(_TIMEOUT):
            await self.output.wait_for_playout()

    async def play(self) -> None:
        number = self.main
        if number:
            await self.say(0)
            await self.heard_out()
            self.worker.manner = _manner(self.case)
        if self.case.event in ("barge-in", "stale"):
            await self._barge_in(number)
            await asyncio.sleep(self.case.gap_s)
            await self.say(number + 1)
        else:
            await self.say(number, as_is=False)
        await self.heard_out()
        await self._until_silent()

    async def _barge_in(self, number: int) -> None:
        saying = asyncio.create_task(self.say(number, as_is=False), name="bench_tts")
        place = round(self.case.place * len(self.replies[number]))
        before = len(self.finished)
        async with asyncio.timeout(_TIMEOUT):
            while self.ear.position(number) < place and len(self.finished) == before:
                await self._tick()
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
        self.flush(number)
        if len(self.finished) == before:
            self.cleared = (number, self.now, self.ear.position(number))
            self.output.clear_buffer()
        await self.heard_out()

    async def _until_silent(self) -> None:
        end = self.now + _AFTER_S
        while not self.worker.is_idle and self.now < end:
            await self._tick()
        await asyncio.sleep(0.1)

    async def _tick(self) -> None:
        await asyncio.sleep(0.01)


def _manner(case: Case, *, first: bool = False) -> Manner:
    latency = case.first_latency_s if first else case.latency_s
    assert latency is not None
    main, length = int(case.first_latency_s is not None), len(reply_pcm(case))
    jump = None if case.jump is None else (main, round(case.jump[0] * length), case.jump[1])
    freeze = (main, round(case.place * length)) if case.event == "freeze" else None
    return Manner(latency, jump, residue=case.residue_s, freeze=freeze)


async def _play(case: Case, said: list[Reply]) -> tuple[Outcome, _Scene]:
    ear = Ear(said)
    reports: list[PlayoutReport] = []
    output = AvatarAudioOutput(ear, report=reports.append)
    manner = _manner(case, first=case.first_latency_s is not None)
    worker = Worker(output, ear, manner)
    scene = _Scene(case, output, ear, worker, said, reports)
    output.on("playback_finished", scene.on_finished)
    output.attach_avatar(worker)
    error = None
    try:
        await scene.play()
    except TimeoutError:
        error = "a reply did not come to its end"
    latency = output.latency
    await output.aclose()
    await worker.aclose()
    return _outcome(scene, latency, error), scene


def run(case: Case) -> Outcome:
    """Plays one case. Its voices must be able to speak on this machine."""
    return _played(case)[0]


def story(case: Case) -> list[str]:
    """What happens in a case, in order: a line for each stretch that the user hears, and for what
    the sink tells."""
    _, scene = _played(case)
    told = [(at, f"given up: {reason.value}") for at, reason in scene.worker.losses]
    told += [(at, _finish_told(event)) for at, event in scene.finished]
    told += [(at, f"the end of reply {number} is told") for number, at in scene.flushed.items()]
    if scene.cleared is not None:
        told.append((scene.cleared[1], f"barge-in at {scene.cleared[2] / RATE:.2f} s"))
    return [f"{at:7.2f} {line}" for at, line in sorted(told + _stretches(scene.ear.moments))]


def _finish_told(event: PlaybackFinishedEvent) -> str:
    how = "interrupted" if event.interrupted else "heard"
    return f"{how} up to {event.playback_position:.2f} s"


def _stretches(moments: list[Moment]) -> list[tuple[float, str]]:
    """What was heard without a break and by one speaker."""
    told: list[tuple[float, str]] = []
    first = 0
    for index, one in enumerate(moments, start=1):
        following = moments[index] if index < len(moments) else None
        if following is None or not _goes_on(one, following):
            told.append((moments[first].at, _stretch(moments[first], one)))
            first = index
    return told


def _goes_on(one: Moment, following: Moment) -> bool:
    same = (one.by, one.reply, one.foreign) == (following.by, following.reply, following.foreign)
    return same and following.at - one.at < 0.1 and (one.foreign or following.start == one.end)


def _stretch(first: Moment, last: Moment) -> str:
    if first.foreign:
        return f"the avatar's own words until {last.at:.2f}"
    said = f"reply {first.reply} from {first.start / RATE:.2f} to {last.end / RATE:.2f} s"
    return f"the {first.by} says {said}, until {last.at:.2f}"


def _played(case: Case) -> tuple[Outcome, _Scene]:
    said = replies_of(case)
    began = time.thread_time()
    with asyncio.Runner(loop_factory=functools.partial(VirtualClockLoop, 0.0)) as runner:
        outcome, scene = runner.run(_play(case, said))
    return dataclasses.replace(outcome, cpu=time.thread_time() - began), scene


# -- what came of it ------------------------------------------------------------------------------


def _outcome(scene: _Scene, latency: float | None, error: str | None) -> Outcome:
    case, moments = scene.case, scene.ear.moments
    return Outcome(
        case.id,
        case.name,
        _truth(scene),
        case.held_out,
        _judged(scene),
        tuple(_reply_result(scene, number) for number in range(len(scene.replies))),
        _stale(scene),
        _position_error(scene),
        _latency_error(scene, latency),
        sum(one.loud for one in moments if one.foreign) / 100,
        sum(one.loud for one in moments if one.by == "voice") / 100,
        round(scene.now * 100) if scene.finished else 0,
        0.0,
        error,
    )


def _truth(scene: _Scene) -> str:
    """That of the case; "inaudible" where the treatment leaves nothing to be heard of the reply, as
    of a low tone above 1 kHz. To give up such an avatar is right."""
    reply = scene.replies[scene.main]
    inaudible = reply.spoken.any() and not reply.sound_is_spoken.any()
    return "inaudible" if inaudible else scene.case.truth


def _judged(scene: _Scene) -> Judged:
    told: dict[LossReason, Judged] = {
        LossReason.SPEECH_FOREIGN: "foreign",
        LossReason.SPEECH_STALLED: "stalled",
    }
    for _, reason in scene.worker.losses:
        return told.get(reason, "failed")
    forced = any(isinstance(report, PlayoutForced) for report in scene.reports)
    return "forced" if forced else "own"


def _reply_result(scene: _Scene, number: int) -> ReplyResult:
    reply = scene.replies[number]
    said = [one for one in scene.ear.moments if one.reply == number and not one.foreign]
    counts = times_said(reply, said)
    heard = times_said(reply, [one for one in said if one.loud])
    finished = scene.finished[number] if number < len(scene.finished) else None
    interrupted = finished is None or finished[1].interrupted
    position = 0 if finished is None else round(finished[1].playback_position * RATE)
    missing = reply.spoken & (counts == 0)
    return ReplyResult(
        interrupted,
        0.0 if interrupted else _seconds(missing),
        _seconds(missing[:position]),
        float(np.sum((heard - 1) * (reply.spoken & (heard > 1)))) / RATE,
        0.0 if interrupted else _false_end(finished, reply, said),
        0.0 if interrupted else _late_end(finished, said, scene.flushed.get(number, 0.0)),
    )


def times_said(reply: Reply, said: list[Moment]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Of each sample, how often the user has heard it."""
    steps = np.zeros(len(reply) + 1, dtype=np.int64)
    for one in said:
        steps[min(one.start, len(reply))] += 1
        steps[min(one.end, len(reply))] -= 1
    return np.cumsum(steps)[:-1]


def _seconds(samples: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    return int(np.count_nonzero(samples)) / RATE


def _false_end(
    finished: tuple[float, PlaybackFinishedEvent] | None, reply: Reply, said: list[Moment]
) -> float:
    words = [one.at for one in said if reply.spoken[one.start : one.end].any()]
    if finished is None or not words:
        return 0.0
    return max(0.0, words[-1] - finished[0])


def _late_end(
    finished: tuple[float, PlaybackFinishedEvent] | None, said: list[Moment], flushed: float
) -> float:
    if finished is None or not said:
        return 0.0
    return max(0.0, finished[0] - max(said[-1].at, flushed))


def _stale(scene: _Scene) -> float:
    if scene.cleared is None:
        return 0.0
    number, at, _ = scene.cleared
    spoken = scene.replies[number].spoken
    late = [one for one in scene.ear.moments if one.reply == number and one.at > at]
    return sum(bool(spoken[one.start : one.end].any()) for one in late) / 100


def _position_error(scene: _Scene) -> float | None:
    if scene.cleared is None or scene.case.truth == "foreign":
        return None
    number, _, true = scene.cleared
    if number >= len(scene.finished):
        return None
    reported = round(scene.finished[number][1].playback_position * RATE)
    first, last = _silence_around(scene.replies[number], true)
    return (reported - min(max(reported, first), last)) / RATE


def _silence_around(reply: Reply, sample: int) -> tuple[int, int]:
    """The samples between the words before and after a place: nobody can tell them apart."""
    before = np.flatnonzero(reply.spoken[:sample])
    after = np.flatnonzero(reply.spoken[sample:])
    first = int(before[-1]) + 1 if len(before) else 0
    return first, sample + int(after[0]) if len(after) else len(reply)


def _latency_error(scene: _Scene, measured: float | None) -> float | None:
    """Of the last reply whose first word the avatar has said."""
    true = [one for n in range(len(scene.replies)) if (one := _latency(scene, n)) is not None]
    return measured - true[-1] if true and measured is not None else None


def _latency(scene: _Scene, number: int) -> float | None:
    """Seconds from the turn of the first word to its sound at the user."""
    spoken = scene.replies[number].spoken
    own = (one for one in scene.ear.moments if one.reply == number and not one.foreign)
    first = next((one for one in own if spoken[one.start : one.end].any()), None)
    turns = scene.worker.turns.get(number, [])
    if first is None or first.by != "avatar" or not turns:
        return None
    sample = first.start + int(np.argmax(spoken[first.start : first.end]))
    start, turn = [one for one in turns if one[0] <= sample][-1]
    return first.at - turn - (sample - start) / RATE


def be_quiet() -> None:
    """From now on this process does not log what the package warns of (there are thousands), and
    leaves Ctrl-C to the one that has started it."""
    logging.disable(logging.ERROR)
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
