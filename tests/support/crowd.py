"""Many agents with one Runway account, in virtual time: real avatars, clients and sinks, the real
simulator over HTTP, and between them rooms and workers without WebRTC, which speak what they are
sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest import mock

import numpy as np

from livekit_plugins_runway import AvatarSession, AvatarState
from livekit_plugins_runway._common.tasks import cancel_and_wait
from livekit_plugins_runway.errors import RunwayException
from livekit_plugins_runway.lifecycle.supervisor import Phase
from livekit_plugins_runway.playout.output import AvatarAudioOutput
from livekit_plugins_runway.runway.journal.writer import VARIABLE
from livekit_plugins_runway.testing import RunwaySimulator, SimulatedSession, SimulatorOptions
from livekit_plugins_runway.testing.tones import HeardTone, ToneScript, hear
from livekit_plugins_runway.transport.worker_protocol import DeliveryKind
from tests.support.scripted_call import (
    EPOCH,
    Manners,
    ScriptedAgent,
    ScriptedConnection,
    ScriptedTransport,
)
from tests.support.scripted_room import ScriptedRoom, start_in
from tests.support.virtual_clock import VirtualClockLoop

RATE = 48_000
HOP = 480
LATENCY = 0.25
"""Seconds from speech sent to a worker to its voice."""
UTTERANCE = 4
"""Tones of what an agent says at a time, 1 s."""
_AUDIBLE = 300


def now() -> float:
    return asyncio.get_running_loop().time()


def in_a_crowd(work: Callable[[], Any]) -> Any:
    """Run it on a clock of its own. The sockets are of this process, so what was sent is there."""
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(0.0)) as runner:
        clock = runner.get_loop().time
        with (
            mock.patch.object(time, "time", side_effect=lambda: EPOCH + clock()),
            mock.patch.dict(os.environ, {VARIABLE: "off"}),
        ):
            return runner.run(work())


class Hosted:
    """A simulated session whose worker is played here: what `ScriptedConnection` asks of one."""

    def __init__(self, session: SimulatedSession) -> None:
        self.session = session
        self.id = session.id
        self.on_end: Callable[[], None] = lambda: None
        notify = session.notify

        def on_change() -> None:
            if session.status.is_terminal and session.performance.left_at is None:
                session.performance.left_at = now()
                self.on_end()
            notify()

        session.notify = on_change

    @property
    def alive(self) -> bool:
        return not self.session.status.is_terminal

    @property
    def running_at(self) -> float | None:
        return self.session.performance.joined_at

    def run(self) -> None:
        self.session.performance.joined_at = now()

    def end(self, _as: str) -> None:
        """As COMPLETED. It bills until its worker leaves."""
        with contextlib.suppress(RuntimeError):  # it has ended, or does not run
            self.session.hit_cap()


class Speaker:
    """The delivery of speech to a worker, and its voice. Silent, it costs nothing here."""

    lead, batch, room = 2.0, 9600, 10 * RATE

    def __init__(self, output: AvatarAudioOutput, ear: Ear) -> None:
        self._output = output
        self._ear = ear
        self._queue: deque[tuple[float, bytes]] = deque()
        self._rest = bytearray()
        self._some = asyncio.Event()
        self.task = asyncio.create_task(self._play(), name="crowd_worker")

    def send(self, pcm: bytes) -> None:
        self._rest += pcm
        while len(self._rest) >= 2 * HOP:
            self._queue.append((now() + LATENCY, bytes(self._rest[: 2 * HOP])))
            del self._rest[: 2 * HOP]
        self._some.set()

    def finish(self) -> None:
        if self._rest:
            self.send(bytes(2 * HOP - len(self._rest)))

    async def clear(self) -> bool:
        self._queue.clear()
        self._rest.clear()
        return True

    async def _play(self) -> None:
        """Silence is spoken for half a second after each utterance."""
        due = quiet_from = now()
        while True:
            if not self._queue and now() > quiet_from:
                self._some.clear()
                await self._some.wait()
                due = now()
            pcm = bytes(2 * HOP)
            if self._queue:
                quiet_from = now() + 0.5
                if self._queue[0][0] <= now():
                    pcm = self._queue.popleft()[1]
            heard = self._output.relayed(pcm)
            if heard is not None:
                await self._ear.push_audio(heard)
            due += 0.01
            await asyncio.sleep(due - now())


class Ear:
    """The user's end of the microphone track. Keeps what is audible."""

    subscribed = reachable = True

    def __init__(self) -> None:
        self.frames: list[tuple[float, bytes]] = []

    async def push_audio(self, pcm: bytes) -> None:
        if np.abs(np.frombuffer(pcm, np.int16)).max(initial=0) > _AUDIBLE or (
            self.frames and now() - self.frames[-1][0] < 0.3
        ):
            self.frames.append((now(), pcm))

    def keep_alive(self) -> None: ...

    def first_sound(self, since: float) -> float | None:
        return next((at for at, _ in self.frames if at >= since), None)

    def tones(self, since: float) -> list[HeardTone]:
        pcm = b"".join(pcm for at, pcm in self.frames if at >= since)
        return hear(np.frombuffer(pcm, np.int16), RATE)


class CrowdConnection(ScriptedConnection):
    transport: CrowdTransport
    doubts_first_words = False

    @property
    def made(self) -> Any:
        assert self.session is not None
        return self.transport.account.hosted(self.session.id)

    async def open_delivery(self, _option: object) -> tuple[DeliveryKind, Any]:
        speaker = Speaker(self.transport.output, self.transport.ear)
        self.transport.speakers.append(speaker)
        self._speaker = speaker
        return "datastream", speaker

    def _on_end(self) -> None:
        if (speaker := getattr(self, "_speaker", None)) is not None:
            speaker.task.cancel()
        super()._on_end()

    async def send_end_call(self) -> bool:
        """The worker leaves; Runway says so later, and frees the place then."""
        made = self.made
        if not self._joined or made.running_at is None or self.worker_gone.is_set():
            return False
        await asyncio.sleep(self.manners.goodbye)
        loop, manners = asyncio.get_running_loop(), self.manners

        def leave() -> None:
            if made.session.performance.left_at is None:
                made.session.performance.left_at = now()
                self._on_end()

        loop.call_later(manners.obeys, leave)
        loop.call_later(self.transport.account.end_call_settle, lambda: made.end("COMPLETED"))
        return True


class CrowdTransport(ScriptedTransport):
    def __init__(self, account: Account) -> None:
        super().__init__(cast(Any, account))
        self.account = account
        self.ear = Ear()
        self.speakers: list[Speaker] = []
        self.output: AvatarAudioOutput
        """Set when the avatar is started."""

    @property
    def microphone(self) -> Any:
        return self.ear

    def connection(self, listener: object) -> Any:
        self.output = cast(AvatarAudioOutput, listener)
        self.connections.append(CrowdConnection(self))
        return self.connections[-1]


class Account:
    """What `ScriptedConnection` asks of a Runway, of the simulator."""

    def __init__(self, simulator: RunwaySimulator, cap: float | None) -> None:
        self.simulator = simulator
        self.cap = cap
        options = simulator.options
        self.end_call_settle = options.scaled(options.end_call_settle)
        self._hosted: dict[str, Hosted] = {}

    def hosted(self, session_id: str) -> Hosted:
        if session_id not in self._hosted:
            self._hosted[session_id] = Hosted(self.simulator.sessions[session_id])
        return self._hosted[session_id]

    def requests(self, method: str) -> list[float]:
        """Times at which such calls arrived; POST: creates only."""
        return [
            request.at
            for request in self.simulator.requests
            if request.method == method and not request.path.endswith("/consume")
        ]

    def refused(self, status: int) -> list[float]:
        """Times of the calls that were answered so."""
        return [r.at for r in self.simulator.requests if r.status == status]


@dataclass
class Said:
    at: float
    """Loop time, as all times here."""
    missing: int
    """Tones that the user did not hear, or heard out of their order."""
    after: float | None
    """Seconds until the user heard something."""
    hung: bool


@dataclass
class Caller:
    """One agent with its user."""

    name: str
    avatar: AvatarSession
    transport: CrowdTransport
    agent: ScriptedAgent
    room: ScriptedRoom
    began: float = 0.0
    started: float | None = None
    """When `start()` returned."""
    refused: RunwayException | None = None
    """What it raised."""
    ended: float | None = None
    states: list[tuple[float, AvatarState]] = field(default_factory=list)
    gave_up: list[RunwayException] = field(default_factory=list)
    errors: list[RunwayException] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    close_took: float = 0.0

    @property
    def face_after(self) -> float | None:
        """Seconds from the call's beginning."""
        live = [at for at, state in self.states if state is AvatarState.LIVE]
        return live[0] - self.began if live else None

    @property
    def face_seconds(self) -> float:
        """For how long there was a face."""
        total, since = 0.0, None
        for at, state in [*self.states, (self.ended or now(), AvatarState.CLOSED)]:
            has = state in (AvatarState.LIVE, AvatarState.RENEWING)
            if has and since is None:
                since = at
            elif not has and since is not None:
                total, since = total + at - since, None
        return total

    async def start(self) -> None:
        self.began = now()
        self.avatar.on("state_changed", lambda change: self.states.append((now(), change.new)))
        self.avatar.on("gave_up", self.gave_up.append)
        self.avatar.on("error", self.errors.append)
        try:
            await start_in(self.room, self.avatar, cast(Any, self.agent))
        except RunwayException as error:
            self.refused = error
        else:
            self.started = now()

    async def say(self, script: ToneScript, limit: float = 30.0) -> Said:
        """As the agent's session does; returns when it was heard."""
        output = self.agent.output.audio
        if output is None:  # a plain agent, which is none of ours
            said = Said(now(), 0, 0.0, hung=False)
            self.said.append(said)
            return said
        began, hung = now(), False
        for frame in script.frames(24_000, 20):
            await output.capture_frame(frame)
        output.flush()
        try:
            async with asyncio.timeout(limit):
                await output.wait_for_playout()
        except TimeoutError:
            hung = True
        await asyncio.sleep(0.5)
        heard = [tone.index for tone in self.transport.ear.tones(began)]
        missing = sum(index not in heard for index in script.indices)
        first = self.transport.ear.first_sound(began)
        self.transport.ear.frames.clear()
        self.said.append(Said(began, missing, None if first is None else first - began, hung))
        return self.said[-1]

    async def talk(self, until: float, every: float) -> None:
        """One utterance after the other, `every` so many seconds."""
        number = 0
        while now() < until:
            await self.say(ToneScript(UTTERANCE, offset=number % 10 * UTTERANCE))
            number += 1
            await asyncio.sleep(max(0.0, min(every, until - now())))

    async def close(self) -> None:
        began = now()
        await self.avatar.aclose()
        self.ended, self.close_took = now(), now() - began
        for speaker in self.transport.speakers:
            await cancel_and_wait(speaker.task)
        if self.avatar._call is not None:
            assert self.avatar._call.supervisor.phase in (Phase.NEW, Phase.OVER)

    @property
    def sessions(self) -> int:
        """How many were made."""
        return len({c.session.id for c in self.transport.connections if c.session is not None})


@dataclass
class Crowd:
    simulator: RunwaySimulator
    account: Account
    callers: list[Caller] = field(default_factory=list)

    def add(self, **options: Any) -> Caller:
        name = f"call-{len(self.callers) + 1}"
        room = ScriptedRoom()
        room.join(f"user-of-{name}")
        avatar = AvatarSession(
            **{
                "preset_id": "influencer",
                "api_url": self.simulator.url,
                "api_key": self.simulator.api_secret,
                "guardian": False,
                **options,
            }
        )
        transport = CrowdTransport(self.account)
        cast(Any, avatar)._make_transport = lambda *_: transport
        transport.manners = Manners(connect=0.3, worker=self.worker_delay, first_frame=2.5)
        self.callers.append(Caller(name, avatar, transport, ScriptedAgent(), room))
        return self.callers[-1]

    @property
    def worker_delay(self) -> float:
        options = self.simulator.options
        return options.scaled(options.worker_join_delay)


@asynccontextmanager
async def crowd(*, cap: float | None = 300.0, **options: Any) -> AsyncIterator[Crowd]:
    """An account at the pace that was measured of the live service, and nobody calling yet. All
    calls are closed at the end."""
    settings: dict[str, Any] = {
        "concurrency": 5,
        "daily_quota": 1000,
        "credits": 1_000_000,
        "create_delay": 3.0,
        "queue_delay": 1.0,
        "provisioning_delay": 1.0,
        "cancelled_slot_hold": 5.0,
        "worker_join_delay": 5.0,
        "end_call_settle": 9.0,
        "no_participant_ttl": 1e9,
    }
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(
            RunwaySimulator(options=SimulatorOptions(**{**settings, **options}))
        )
        everybody = Crowd(simulator, Account(simulator, cap))
        yield everybody
        closing = [caller.close() for caller in everybody.callers if caller.ended is None]
        await asyncio.gather(*closing)
        await asyncio.sleep(60.0)
