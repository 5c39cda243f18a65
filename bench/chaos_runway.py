"""The simulated Runway of `make chaos`, in a process of its own.

Reads commands as lines of JSON on its standard input: `strike` the session that is the face with a
live fault, `faults` for the session that comes next, `count` what there is.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from livekit.rtc.participant import UnpublishTrackError

from bench.lines import commands, keep_for_good, tell
from livekit_plugins_runway.testing import CallFault, Faults, RunwaySimulator, SimulatorOptions

OPTIONS = SimulatorOptions(
    daily_quota=100_000,
    credits=10_000_000,
    queue_delay=0.0,
    provisioning_delay=0.3,
    worker_join_delay=0.2,
    end_call_settle=0.3,
    crash_settle=0.3,
    hidden_cap=45.0,
    start_size=(160, 104),
    full_size=(320, 208),
    fps=15.0,
)
"""A quick service, and an early cap, with a small picture: what is looked at here is not speed."""


def faults(described: dict[str, Any]) -> Faults:
    calls = {
        name: [CallFault(**call) if isinstance(call, dict) else call for call in value]
        for name, value in described.items()
        if isinstance(value, list)
    }
    return Faults(**{**described, **calls})


async def strike(simulator: RunwaySimulator, name: str) -> None:
    running = [s for s in simulator.sessions.values() if s.status == "RUNNING"]
    if running:
        try:
            result = getattr(running[-1], name)()
            if asyncio.iscoroutine(result):
                await result
        except (RuntimeError, UnpublishTrackError) as error:  # the worker or its track is gone
            tell("struck", missed=str(error))
            return
    tell("struck")


async def main() -> None:
    async with RunwaySimulator(
        livekit_url=os.environ["LIVEKIT_URL"],
        livekit_api_key=os.environ["LIVEKIT_API_KEY"],
        livekit_api_secret=os.environ["LIVEKIT_API_SECRET"],
        options=OPTIONS,
    ) as simulator:
        tell("ready", url=simulator.url, api_secret=simulator.api_secret)
        async for command in commands():
            match command["do"]:
                case "strike":
                    await strike(simulator, command["name"])
                case "faults":
                    simulator.faults.for_next_session(faults(command["faults"]))
                case "count":
                    leaked, sessions = simulator.leaked(), simulator.sessions.values()
                    tell(
                        "counted",
                        sessions=len(simulator.sessions),
                        joined=sum(s.worker_joined_at is not None for s in sessions),
                        leaked=[session.status.value for session in leaked],
                    )


if __name__ == "__main__":
    keep_for_good()
    asyncio.run(main())
