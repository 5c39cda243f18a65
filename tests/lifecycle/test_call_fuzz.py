"""Closed, cancelled and broken at whatever moment, beside whatever is under way: nothing is left.

In virtual time, with a Runway in memory that fails and lies, rooms that do not answer, users who
come and go, and callbacks that raise. `CALL_FUZZ_CASES` is the number of cases (default 200; 10000
for a release), `CALL_FUZZ_SEED` chooses them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast
from unittest import mock

import pytest

from livekit_plugins_runway import AvatarState, RecoveryOptions, RunwayException, StateChanged
from livekit_plugins_runway.errors import LossReason, Operation
from livekit_plugins_runway.lifecycle.supervisor import Phase
from livekit_plugins_runway.runway.journal.writer import VARIABLE
from tests.support.memory_runway import OK, Fault, now
from tests.support.scripted_call import (
    EVENTS,
    LOGGER,
    NEVER,
    Complaints,
    Manners,
    Scripted,
    ScriptedCall,
    handlers,
    in_virtual_time,
    make_call,
)

pytestmark = pytest.mark.sampled

CASES = int(os.environ.get("CALL_FUZZ_CASES", "200"))
SEED = int(os.environ.get("CALL_FUZZ_SEED", "1"))
BATCH = 50
"""Cases for each test."""

FAULTS: dict[Operation, list[Fault]] = {
    "create": [
        Fault(before=2.0),
        Fault(after=3.0),
        Fault(after=20.0),
        Fault(lost=True),
        Fault(unreached=True),
        Fault(status=401),
        Fault(status=429),
        Fault(status=500),
        Fault(status=503, done=True),
        Fault(status=504),
    ],
    "get": [
        Fault(after=2.0),
        Fault(lost=True),
        Fault(status=404),
        Fault(status=500),
        Fault(status=502),
        Fault(lies="COMPLETED"),
        Fault(lies="RUNNING"),
        Fault(lies="NOT_READY"),
    ],
    "consume": [
        Fault(after=2.0),
        Fault(lost=True),
        Fault(status=404),
        Fault(status=503, done=True),
    ],
    "delete": [
        Fault(after=2.0),
        Fault(lost=True),
        Fault(unreached=True),
        Fault(status=500),
        Fault(status=429, retry_after=3.0),
        Fault(status=503, done=True),
    ],
}
ROOMS = [
    Manners(connect=NEVER),
    Manners(connect=3.0),
    Manners(leave=NEVER),
    Manners(leave=1.0),
    Manners(fails_to_leave=True),
    Manners(goodbye=NEVER),
    Manners(goodbye=0.4),
    Manners(obeys=NEVER),
    Manners(obeys=2.0, settles=5.0),
    Manners(worker=NEVER),
    Manners(worker=6.0),
    Manners(first_frame=NEVER),
    Manners(refuses=True),
]
EVICTIONS = ("replaced", "removed", "room_over")
ACTS = [
    "crash", "crash", "stall", "foreign", "media", "ended by runway", "swap", "swap given up",
    "user leaves", "user is back", "pause", "resume", *EVICTIONS,
]  # fmt: skip
ENDS = ["aclose", "agent session", "twice", "given up and again", "start cancelled"]


@dataclass(frozen=True)
class Moment:
    at: float
    """Seconds since the start."""
    turns: int
    """Turns of the event loop after that."""


@dataclass(frozen=True)
class Case:
    faults: dict[Operation, list[Fault]]
    rooms: list[Manners]
    agent_room: Manners
    recovery: RecoveryOptions
    acts: list[tuple[Moment, str]]
    end: Moment
    how: str
    raises: dict[str, type[BaseException]] = field(default_factory=dict)
    """What the callback of an event raises."""
    users: int = 1


def case(seed: int) -> Case:
    chance = random.Random(seed)

    def moment(last: float) -> Moment:
        at = chance.choice([0.0, chance.uniform(0.0, min(last, 5.0)), chance.uniform(0.0, last)])
        return Moment(at, chance.choice([0, 1, 2, 3, 5, 8, 13, 21]))

    def some(faults: list[Fault]) -> list[Fault]:
        calm = chance.random() < 0.5
        return [
            OK if calm or chance.random() < 0.6 else chance.choice(faults)
            for _ in range(chance.randrange(9))
        ]

    last = chance.choice([1.0, 5.0, 20.0, 60.0])
    acts = [(moment(last), chance.choice(ACTS)) for _ in range(chance.randrange(7))]
    return Case(
        faults={kind: some(faults) for kind, faults in FAULTS.items()},
        rooms=[
            Manners() if chance.random() < 0.6 else chance.choice(ROOMS)
            for _ in range(chance.randrange(5))
        ],
        agent_room=Manners() if chance.random() < 0.7 else chance.choice(ROOMS),
        recovery=RecoveryOptions(
            on_loss=chance.choice(["restart", "restart", "audio", "close"]),
            session_cap=chance.choice([None, 12.0, 30.0, 300.0]),
            on_user_left=chance.choice(["keep", "pause", "pause", "close"]),
            user_left_grace=chance.choice([0.0, 1.0]),
            backoff=0.5,
        ),
        acts=sorted(acts, key=lambda act: (act[0].at, act[0].turns)),
        end=moment(last),
        how=chance.choice(ENDS),
        raises={
            event: chance.choice([TypeError, ValueError, asyncio.CancelledError])
            for event in EVENTS
            if chance.random() < 0.1
        },
        users=chance.choice([0, 1, 1, 1, 2]),
    )


class Play:
    """One case, from its start to what is left of it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.call: ScriptedCall = make_call(
            users=case.users,
            recovery=case.recovery,
            join_timeout=4.0,
            create_timeout=10.0,
        )
        self.call.runway.faults = {kind: list(some) for kind, some in case.faults.items()}
        self.call.transport.agent_room = case.agent_room
        self.began = now()
        self.was_starting = False
        """When it was closed."""
        self.asked: list[asyncio.Task[None]] = []
        for event, error in case.raises.items():
            self.call.avatar.on(cast(Any, event), _raising(error))
        self.call.transport.rooms = list(case.rooms)

    async def run(self) -> None:
        starting = asyncio.create_task(self.call.start(), name="the_start")
        acting = asyncio.create_task(self._act(), name="the_acts")

        def on_state(change: StateChanged) -> None:
            if change.new is AvatarState.CLOSED:
                self.was_starting = not starting.done()

        self.call.avatar.on("state_changed", on_state)
        await self._until(self.case.end)
        closed_at = now()
        alive = [one.id for one in self.call.runway.alive if one.told]
        await self._end(starting)
        assert now() - closed_at <= 8.0 + 1e-6, "the close took too long"
        acting.cancel()
        await asyncio.wait({starting, acting, *self.asked}, timeout=10.0)
        assert starting.done(), "start() never returned"
        await asyncio.gather(*self.asked, return_exceptions=True)
        self._check_start(starting)
        if all(fault in (OK, Fault(lies=fault.lies)) for fault in self.case.faults["get"]):
            self._check_promptness(alive, closed_at)
        await asyncio.sleep(120.0)
        self._check_what_is_left()

    async def _until(self, moment: Moment) -> None:
        await asyncio.sleep(max(0.0, self.began + moment.at - now()))
        for _ in range(moment.turns):
            await asyncio.sleep(0)

    async def _act(self) -> None:
        for moment, act in self.case.acts:
            await self._until(moment)
            self._do(act)

    def _do(self, act: str) -> None:
        call = self.call
        instance = call.avatar._instance
        made = call.transport.connections
        if act == "user is back":
            call.room.join("user-9")
        elif act == "user leaves":
            for participant in list(call.room.remote_participants.values()):
                call.room.leave(participant)
        elif act in EVICTIONS:
            call.transport.evict(cast(Any, act))
        elif act.startswith(("swap", "pause", "resume")):
            self._ask(act)
        elif act == "media" and made and made[-1].media is not None:
            if not made[-1].media.fails.done():
                made[-1].media.fails.set_exception(Scripted("media"))
                made[-1].media.fails.exception()  # nobody need look at it
        elif act in ("stall", "foreign") and instance is not None:
            call.avatar._call.output.detach_avatar(instance)  # type: ignore[union-attr]
            reason = LossReason.SPEECH_STALLED if act == "stall" else LossReason.SPEECH_FOREIGN
            instance.report_loss(reason)
        elif act in ("crash", "ended by runway"):
            for session in call.runway.alive:
                session.end("FAILED" if act == "crash" else "COMPLETED")

    def _ask(self, act: str) -> None:
        """For what is answered later."""
        avatar = self.call.avatar
        work = {"pause": avatar.pause, "resume": avatar.resume}.get(act)
        asked = avatar.swap_avatar(preset_id="cat-character") if work is None else work()
        self.asked.append(asyncio.create_task(asked, name="what_was_asked"))
        if act == "swap given up":
            asyncio.get_running_loop().call_later(0.7, self.asked[-1].cancel)

    async def _end(self, starting: asyncio.Task[None]) -> None:
        avatar = self.call.avatar
        match self.case.how:
            case "agent session":
                self.call.agent.emit("close", None)
            case "twice":
                await asyncio.gather(avatar.aclose(), avatar.aclose())
            case "given up and again":
                closing = asyncio.create_task(avatar.aclose())
                await asyncio.sleep(0)
                closing.cancel()
                await asyncio.wait({closing})
            case "start cancelled":
                starting.cancel()
                await asyncio.wait({starting})
        await avatar.aclose()

    def _check_start(self, starting: asyncio.Task[None]) -> None:
        if starting.cancelled():
            assert self.case.how == "start cancelled"
            return
        error = starting.exception()
        assert error is None or isinstance(error, RunwayException), repr(error)
        assert error is not None or not self.was_starting, "start() returned, closed"

    def _check_promptness(self, alive: list[str], closed_at: float) -> None:
        """Each session was being ended a second after the close, whatever its room did."""
        for session in set(alive) - self.call.runway.disowned:
            ended = self.call.runway.sessions[session].ended_at
            if ended is not None and ended <= closed_at + 1.0:
                continue
            said = [at for at, of in self.call.transport.end_calls if of == session]
            sent = [
                at for at, what, of in self.call.runway.tried if (what, of) == ("delete", session)
            ]
            assert min([*said, *sent], default=1e9) <= closed_at + 1.0, f"{session} ended late"

    def _check_what_is_left(self) -> None:
        call = self.call
        ends = Counter(end.session_id for end in call.of("session_ended"))
        assert max(ends.values(), default=1) == 1, f"told twice: {ends}"
        unsure = {end.session_id for end in call.of("session_ended") if not end.confirmed}
        left = {session.id for session in call.runway.alive}
        assert left <= unsure | call.runway.disowned, f"sessions left: {left - unsure}"
        assert call.avatar.usage.sessions == len(ends)
        assert call.transport.people == set(), "somebody is in a room"
        assert call.room.listeners == 0
        assert handlers(call.agent) == 0
        assert call.avatar._background.pending == 0, repr(call.avatar._background)
        assert call.avatar.state is AvatarState.CLOSED
        assert call.agent.output.audio is None
        if call.avatar._call is not None:
            assert call.supervisor.phase in (Phase.NEW, Phase.OVER)
        for session in call.runway.alive:
            session.end("CANCELLED")


def _raising(error: type[BaseException]) -> Any:
    def callback(_: object) -> None:
        raise error

    return callback


def _is_a_fault(record: logging.LogRecord) -> bool:
    """What no case orders."""
    if record.exc_info is None or record.exc_info[1] is None:
        return False
    told = record.getMessage()
    if told == "a listener of an event failed":
        return False
    error = record.exc_info[1]
    return not isinstance(error, Scripted)


async def _play(seed: int, complaints: Complaints) -> None:
    before = asyncio.all_tasks()
    complaints.records.clear()
    # Each on a machine of its own: the ids are the same, and a start sweeps what a call has left.
    machine = {VARIABLE: f"{os.environ[VARIABLE]}/{seed}"}
    with (
        mock.patch.dict(os.environ, machine),
        mock.patch("livekit_plugins_runway.avatar.make_transport") as make_transport,
    ):
        play = Play(case(seed))
        make_transport.return_value = play.call.transport
        await play.run()
    faults = [record for record in complaints.records if _is_a_fault(record)]
    assert faults == [], [record.exc_info for record in faults]
    left = {task.get_name() for task in asyncio.all_tasks() - before}
    assert left == set()


@in_virtual_time
async def _play_all(seeds: range) -> None:
    logger = logging.getLogger(LOGGER)
    complaints = Complaints()
    logger.addHandler(complaints)
    try:
        for seed in seeds:
            try:
                async with asyncio.timeout(600.0):
                    await _play(seed, complaints)
            except BaseException as error:
                error.add_note(f"case {seed}: {case(seed)}")
                raise
    finally:
        logger.removeHandler(complaints)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("batch", range(-(-CASES // BATCH)))
def test_whatever_happens_beside_whatever_nothing_is_left(
    batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, LOGGER)
    logging.getLogger(LOGGER).propagate = False
    try:
        first = SEED * 1_000_000 + batch * BATCH
        _play_all(range(first, first + min(BATCH, CASES - batch * BATCH)))
    finally:
        logging.getLogger(LOGGER).propagate = True
