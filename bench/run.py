"""One call of `make bench` with one candidate, and several at once in one process."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.background import Background
from bench.call import HOLD, SETTLE, Line
from bench.candidates import VOICE_FIRST, Candidate, Place
from bench.lines import Child
from bench.reading import (
    Sent,
    Window,
    added,
    frame_rate,
    lost_pictures,
    picture_latencies,
    skews,
    voice_latencies,
)
from bench.views import View
from livekit_plugins_runway.testing import SimulatorOptions
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.onsets import Onsets
from livekit_plugins_runway.testing.options import Picture
from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.tones import Pcm, ToneScript, silence_after

GREETING = ToneScript(3, offset=90)
BARGE_INS = 4
LONG = ToneScript(14, slot_s=0.5, gap_s=0.2)
TTS_PACE = 4.0
"""Times real time. With ten seconds of speech at once the official plugin sends 500 packets in a
tenth of a second, for which the simulated worker's own media stand still, as Runway's would not."""
WATCHED = 5.5
"""Seconds of the long utterance in which pictures, voice and CPU are measured."""
SETTLED = SimulatorOptions().upscale_after + SETTLE
"""Seconds from the first picture on: the picture has its full size, buffers theirs."""
_START_TIMEOUT = 20.0
_SESSION_TIMEOUT = 5.0


@dataclass
class Run:
    """What one call gave; seconds, cores (1.0: one core), bytes."""

    turn: int = 0
    """Candidates take turns; those of one turn are compared with each other."""
    picture: Picture = "drawn"
    load: float = 0.0
    """Share of the machine that other programs were to take, 0 to 1."""
    short: bool = False
    """For start, speech and barge-in only."""
    first_frame: float | None = None
    first_frame_after_worker: float | None = None
    """From the worker's capture of its first picture."""
    first_word: float | None = None
    voice_start: float | None = None
    """From `session.start()` to the first word."""
    speech: list[float] = field(default_factory=list)
    barge_in: list[float] = field(default_factory=list)
    voice: list[float] = field(default_factory=list)
    video: list[float] = field(default_factory=list)
    skew: list[float] = field(default_factory=list)
    added_voice: list[float] = field(default_factory=list)
    """Of the user's room, over the Runway room of the same session, sound by sound; the next two
    likewise."""
    added_video: list[float] = field(default_factory=list)
    added_skew: list[float] = field(default_factory=list)
    frame_rate: float | None = None
    lost: int | None = None
    unread: int = 0
    size: tuple[int, int] = (0, 0)
    cpu: float | None = None
    rss: int | None = None
    busy: float | None = None
    """Of all cores of the machine, 0 to 1."""
    others: float | None = None
    """The part of it that programs of `bench.background` took."""


@dataclass
class Scale:
    """What several calls in one agent process gave, in mid-speech."""

    sessions: int
    cpu: float
    rss: int
    busy: float
    frame_rates: list[float]


class Load:
    """CPU time of a process, of the machine, and of other programs on it, since it was made."""

    def __init__(self, pid: int, others: Background) -> None:
        self._process = psutil.Process(pid)
        self._others = others
        self._began = time.monotonic()
        self._used = self._seconds()
        psutil.cpu_percent()

    def _seconds(self) -> tuple[float, float]:
        times = self._process.cpu_times()
        return float(times.user + times.system), self._others.seconds()

    def read(self) -> tuple[float, int, float, float]:
        """Cores, resident bytes, share of the machine that is busy, and that the others take."""
        took = time.monotonic() - self._began
        own, others = (
            (now - then) / took for now, then in zip(self._seconds(), self._used, strict=True)
        )
        busy = psutil.cpu_percent() / 100
        return own, int(self._process.memory_info().rss), busy, others / (psutil.cpu_count() or 1)


@dataclass
class Stage:
    """The server and the simulated Runways, one for each way of speech, which show one picture."""

    server: LiveKitServer
    picture: Picture
    runways: dict[str, Child]
    addresses: dict[str, dict[str, Any]]
    environment: dict[str, str]
    log: Path
    others: Background = field(default_factory=lambda: Background([]))
    """What else runs on the machine at present."""

    @contextlib.asynccontextmanager
    async def agent(self, speech: str) -> AsyncIterator[Child]:
        """A fresh process for an agent, as a job has."""
        at = self.addresses[speech]
        environment = self.environment | {
            "RUNWAYML_BASE_URL": at["url"],
            "RUNWAYML_API_SECRET": at["api_secret"],
        }
        async with Child.running("bench.agent", environment, self.log) as child:
            yield child

    async def session_since(self, speech: str, since: float) -> str:
        """Id of the session that was made after `since`."""
        while True:
            told = await self.runways[speech].told("session", timeout=_SESSION_TIMEOUT)
            if told["at"] >= since:
                return str(told["session"])

    async def record(self, speech: str, session: str) -> Sent:
        self.runways[speech].do("record", session=session)
        told = await self.runways[speech].told("record", session=session)
        return Sent(told["captured"], told["onsets"])


@dataclass
class _Call:
    line: Line
    views: dict[Place, View]
    began: float
    session: str | None

    @property
    def view(self) -> View:
        """The user's."""
        return next(iter(self.views.values()))


@contextlib.asynccontextmanager
async def _call(stage: Stage, agent: Child, candidate: Candidate) -> AsyncIterator[_Call]:
    """A call that has begun; the agent greets the user as soon as it can."""
    room = f"bench-{secrets.token_hex(4)}"
    async with contextlib.AsyncExitStack() as stack:
        views: dict[Place, View] = {}
        if "agent" in candidate.places:
            views["agent"] = await stack.enter_async_context(
                View.of(stage.server, room, identity="user")
            )
        agent.do(
            "call_with",
            room=room,
            avatar=candidate.avatar,
            greeting=asdict(GREETING),
            tts_pace=TTS_PACE,
        )
        told = await agent.told("starting", room=room, timeout=_START_TIMEOUT)
        began = float(told["at"])
        session: str | None = None
        try:
            session = await stage.session_since(candidate.speech, began)
        except TimeoutError:  # other plugins may have a service of their own
            if "runway" in candidate.places:
                raise
        if "runway" in candidate.places:
            assert session is not None
            views["runway"] = await stack.enter_async_context(
                View.of(stage.server, session, identity="viewer", worker=f"worker:{session}")
            )
        user = views[candidate.places[0]].user
        call = _Call(Line(agent, room, user, session or ""), views, began, session)
        try:
            yield call
        finally:
            call.line.do("hang_up")


async def run(stage: Stage, candidate: Candidate, result: Run) -> None:
    """Begin a call, be greeted, interrupt a few times, and listen for a while unless it is short.

    Args:
        result: what is measured goes there.

    Raises:
        TimeoutError: something that must happen did not.
    """
    async with _started(stage, candidate, result) as call:
        await _barge_ins(call, SETTLE if result.short else SETTLED, result)
        if not result.short:
            await _watch(stage, candidate, call, result)
            result.size, result.unread = call.view.size, call.view.unread


async def voice_first(stage: Stage) -> Run:
    """Only the start, with an avatar that speaks before it is seen."""
    result = Run()
    async with _started(stage, VOICE_FIRST, result):
        return result


@contextlib.asynccontextmanager
async def _started(stage: Stage, candidate: Candidate, result: Run) -> AsyncIterator[_Call]:
    """A call in which the agent was seen and has greeted."""
    async with (
        stage.agent(candidate.speech) as agent,
        _call(stage, agent, candidate) as call,
    ):
        seen = await call.view.wait_for_picture(_START_TIMEOUT)
        result.first_frame = seen - call.began
        if call.session is not None:
            captured = (await stage.record(candidate.speech, call.session)).pictures
            result.first_frame_after_worker = seen - captured[0] if captured else None
        starting = await call.line.told("session_starting")
        await call.line.over()
        heard = _first_sound(call.line.user.heard(call.began))
        if heard is not None:
            result.first_word = heard
            result.voice_start = call.began + heard - starting
        yield call


def _first_sound(pcm: Pcm) -> float | None:
    """Seconds until something is heard. To the sample: in the 5 ms of `tones.first_sound` medians
    of equals differ by 1 %."""
    onsets = Onsets(SAMPLE_RATE).push(pcm)
    return onsets[0] / SAMPLE_RATE if onsets else None


async def _barge_ins(call: _Call, settled: float, result: Run) -> None:
    """From `settled` seconds after the first picture on."""
    assert result.first_frame is not None
    await asyncio.sleep(call.began + result.first_frame + settled - time.monotonic())
    for n in range(BARGE_INS):
        await _barge_in(call.line, n, result)


async def _barge_in(line: Line, n: int, result: Run) -> None:
    """The tones have no gaps: one at the right moment would flatter."""
    said = await line.say(ToneScript(40, offset=n % 2 * 40, gap_s=0.0))
    await line.speak_for(0.3 + n % 5 * 0.07, said)
    line.do("interrupt")
    cut = await line.told("interrupting", number=line.number)
    await line.over()
    if (heard := _first_sound(line.user.heard(said, cut))) is not None:
        result.speech.append(heard)
    silent = silence_after(line.user.heard(cut), SAMPLE_RATE, 0.0, hold_s=HOLD)
    if silent is not None:
        result.barge_in.append(silent)


async def _watch(stage: Stage, candidate: Candidate, call: _Call, result: Run) -> None:
    """A long utterance, from its first sound on."""
    said = await call.line.say(LONG)
    start = await call.line.user.wait_for_audio(5.0, since=said)
    load = Load(call.line.agent.pid, stage.others)
    await asyncio.sleep(start + WATCHED - time.monotonic())
    result.cpu, result.rss, result.busy, result.others = load.read()
    await call.line.over()
    if call.session is None:
        return
    window = Window(start, start + WATCHED)
    sent = await stage.record(candidate.speech, call.session)
    until = time.monotonic()
    seen = {place: view.seen(said, until) for place, view in call.views.items()}
    mine = seen[candidate.places[0]]
    pictures, voices = picture_latencies(sent, mine, window), voice_latencies(sent, mine, window)
    skew = skews(sent, mine, window)
    result.video, result.voice = list(pictures.values()), list(voices.values())
    result.skew = list(skew.values())
    result.frame_rate = frame_rate(mine, window)
    result.lost = lost_pictures(sent, mine, window)
    if len(seen) == 2:
        floor = seen["runway"]
        result.added_video = added(pictures, picture_latencies(sent, floor, window))
        result.added_voice = added(voices, voice_latencies(sent, floor, window))
        result.added_skew = added(skew, skews(sent, floor, window))


async def scale(stage: Stage, candidate: Candidate, sessions: int) -> Scale:
    """Several calls at once in one agent process, which all speak."""
    alone = Candidate(candidate.name, candidate.title, candidate.avatar, candidate.speech)
    async with contextlib.AsyncExitStack() as stack:
        agent = await stack.enter_async_context(stage.agent(candidate.speech))
        calls = []
        for _ in range(sessions):
            call = await stack.enter_async_context(_call(stage, agent, alone))
            calls.append(call)
            await call.view.wait_for_picture(_START_TIMEOUT)
            await call.line.over()
        await asyncio.sleep(SETTLED)
        said = [await call.line.say(LONG) for call in calls]
        for call, since in zip(calls, said, strict=True):
            await call.line.user.wait_for_audio(5.0, since=since)
        start = time.monotonic()
        load = Load(agent.pid, stage.others)
        await asyncio.sleep(start + WATCHED - 1.0 - time.monotonic())
        cpu, rss, busy, _ = load.read()
        window = Window(start, time.monotonic())
        rates = [frame_rate(call.view.seen(start, window.end), window) for call in calls]
        for call in calls:
            await call.line.over()
    return Scale(sessions, cpu, rss, busy, rates)
