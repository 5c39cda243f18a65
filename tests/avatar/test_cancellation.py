"""Cancelled at whatever step, with whatever fault of Runway's REST: nothing is left behind.

`FUZZ_CASES` is the number of cases (default 30; 600 for a release), `FUZZ_SEED` chooses them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from livekit import api, rtc
from livekit.agents import AgentSession, APIConnectOptions

from livekit_plugins_runway import AvatarSession, RecoveryOptions, RunwayException
from livekit_plugins_runway.testing import CallFault, Faults, RunwaySimulator, SimulatorOptions
from livekit_plugins_runway.testing.livekit_server import LiveKitServer

CASES = int(os.environ.get("FUZZ_CASES", "30"))
FAULTS: dict[str, Faults] = {
    "none": Faults(),
    "create is slow": Faults(create=[CallFault(delay=0.2)]),
    "create answers late": Faults(create=[CallFault(answer_delay=0.2)]),
    "create fails": Faults(create=[500, 503]),
    "create is refused": Faults(create=[401]),
    "create is cut before": Faults(create=[CallFault(cut="before_effect")]),
    "create is cut after": Faults(create=[CallFault(cut="after_effect")]),
    "create makes no sense": Faults(create=[CallFault(malformed=True)]),
    "status fails": Faults(get=[500, 502, CallFault(cut="before_effect")]),
    "status is slow": Faults(get=[CallFault(answer_delay=0.2)]),
    "consume is refused": Faults(consume=[404]),
    "consume answers late": Faults(consume=[CallFault(answer_delay=0.2)]),
    "consume is cut after": Faults(consume=[CallFault(cut="after_effect")]),
    "delete fails twice": Faults(delete=[500, CallFault(cut="before_effect")]),
    "delete is cut after": Faults(delete=[CallFault(cut="after_effect")]),
    "delete is slow": Faults(delete=[CallFault(delay=0.3)]),
    "provisioning fails": Faults(fail_while_provisioning="INTERNAL"),
    "the worker does not come": Faults(worker_never_joins=True),
}
OPTIONS = SimulatorOptions(
    queue_delay=0.0,
    provisioning_delay=0.05,
    worker_join_delay=0.0,
    first_frame_delay=0.05,
    end_call_settle=0.0,
    crash_settle=0.0,
    cancelled_slot_hold=0.0,
    unconsumed_ttl=1.0,  # an orphan dies by itself
    no_participant_ttl=1.0,
    consumed_running_delay=0.1,
    concurrency=50,
    daily_quota=100_000,
    credits=10_000_000,
    start_size=(64, 64),
    full_size=(64, 64),
    fps=5.0,
)
STEPS = 160
"""Turns of the event loop after which a call is cancelled, at most; an undisturbed start takes
about as many."""


@dataclass(frozen=True)
class Case:
    fault: str
    what: str
    steps: int
    pause: float
    """Seconds between start and close."""


def cases(seed: int) -> list[Case]:
    """Every fault and every kind of cancellation, in turn; the moments at random."""
    chance = random.Random(seed)
    names = sorted(FAULTS)
    return [
        Case(
            names[n % len(names)],
            ("start", "aclose")[n // len(names) % 2],
            chance.randrange(STEPS) if n // len(names) % 2 == 0 else chance.randrange(60),
            chance.choice([0.0, 0.05, 0.15, 0.4]),
        )
        for n in range(CASES)
    ]


async def cancelled_after(work: Coroutine[Any, Any, None], steps: int) -> bool:
    """Cancel it after so many turns of the loop; False if it had ended before."""
    task = asyncio.create_task(work)
    for _ in range(steps):
        if task.done():
            break
        await asyncio.sleep(0 if steps < 60 else 0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, RunwayException):
        await task
    return task.cancelled()


def handlers(emitter: Any) -> dict[str, list[str]]:
    """By event, the names of the callbacks."""
    events = {name: sorted(map(repr, calls)) for name, calls in emitter._events.items()}
    return {name: calls for name, calls in events.items() if calls}


@pytest.mark.timeout(120 + 3 * CASES)
async def test_whatever_is_cancelled_and_whatever_fails_nothing_is_left(
    livekit_server: LiveKitServer,
) -> None:
    room_name = f"fuzz-{secrets.token_hex(4)}"
    keys = {"api_key": livekit_server.api_key, "api_secret": livekit_server.api_secret}
    livekit: dict[str, Any] = {"livekit_url": livekit_server.url}
    livekit |= {f"livekit_{name}": value for name, value in keys.items()}
    grants = api.VideoGrants(room_join=True, room=room_name)
    token = api.AccessToken(**keys).with_kind("agent").with_identity("agent").with_grants(grants)
    room = rtc.Room()
    options = rtc.RoomOptions(auto_subscribe=False)  # a track has handlers of its own
    await room.connect(livekit_server.url, token.to_jwt(), options)
    seed = int(os.environ.get("FUZZ_SEED", "1"))
    cancelled = 0
    async with RunwaySimulator(**livekit, options=OPTIONS) as simulator:
        for number, case in enumerate(cases(seed)):
            where = f"case {number} of seed {seed}: {case}"
            before = asyncio.all_tasks(), handlers(room)
            simulator.faults.for_next_session(FAULTS[case.fault])
            session: AgentSession[Any] = AgentSession(
                turn_handling={"turn_detection": None}, vad=None
            )
            listeners = handlers(session)
            avatar = AvatarSession(
                preset_id="influencer",
                api_url=simulator.url,
                api_key=simulator.api_secret,
                avatar_participant_identity=f"avatar-{number}",
                recovery=RecoveryOptions(on_loss="audio"),
                conn_options=APIConnectOptions(max_retry=2, retry_interval=0.05, timeout=5.0),
                join_timeout=0.5,
            )
            async with asyncio.timeout(20.0):
                start = avatar.start(session, room, **livekit)
                if case.what == "start":
                    cancelled += await cancelled_after(start, case.steps)
                else:
                    with contextlib.suppress(RunwayException):
                        await start
                    await asyncio.sleep(case.pause)
                    cancelled += await cancelled_after(avatar.aclose(), case.steps)
                await avatar.aclose()
            try:
                await simulator.wait_until(lambda: not simulator.leaked(), 5.0)
            except TimeoutError:
                pytest.fail(f"a session is left running, {where}")
            assert session.output.audio is None, where
            assert handlers(session) == listeners, where
            assert handlers(room) == before[1], where
            left = asyncio.all_tasks() - before[0]
            if left:
                _, left = await asyncio.wait(left, timeout=2.0)
            mine = [task for task in left if "runway" in task.get_name()]
            assert mine == [], where
            assert f"avatar-{number}" not in room.remote_participants or await gone(
                room, f"avatar-{number}"
            ), where
            simulator.sessions.clear()
    await room.disconnect()
    assert cancelled >= CASES // 4


async def gone(room: rtc.Room, identity: str) -> bool:
    """The agent's room learns a little later that the avatar has left."""
    left = asyncio.Event()

    def on_left(participant: rtc.RemoteParticipant) -> None:
        if participant.identity == identity:
            left.set()

    room.on("participant_disconnected", on_left)
    try:
        async with asyncio.timeout(5.0):
            if identity in room.remote_participants:
                await left.wait()
    except TimeoutError:
        return False
    finally:
        room.off("participant_disconnected", on_left)
    return True
