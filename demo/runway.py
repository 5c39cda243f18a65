"""The demo's simulated Runway, in a process of its own: its media must not wait for the demo's.

As a program it takes commands as lines of JSON on its standard input, and answers each: `sessions`
there are, `strike` one of them with a live fault, `credits` of the account, `settle`: wait until
every session has ended. It ends when its input is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.lines import Child, commands, tell
from livekit_plugins_runway.testing import RunwaySimulator, SimulatorOptions, Speech
from livekit_plugins_runway.testing.livekit_server import LiveKitServer

SETTLE = 15.0
"""Seconds that sessions have to end after the call."""
STRIKES = ("crash", "freeze", "hit_cap")
"""What may be done to a session: names of `SimulatedSession`."""
PLENTY = 1_000_000
"""Credits, and sessions a day: nobody shall run out of them unasked."""
LONGEST = 1800.0
"""Seconds after which a session ends by itself, if it asked for so many."""


class Missed(Exception):
    """A fault met no session that it could strike."""


@dataclass(frozen=True)
class RunwaySession:
    """A Runway session, as the simulator knows it."""

    status: str
    ended: bool
    billed_seconds: float
    credits: int
    id: str = ""


class SimulatedRunway:
    """The running program."""

    def __init__(self, child: Child, url: str, api_secret: str) -> None:
        self._child = child
        self._numbers = itertools.count()
        self.url = url
        self.api_secret = api_secret

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, server: LiveKitServer, speech: Speech, log: Path
    ) -> AsyncIterator[SimulatedRunway]:
        """Start it on a LiveKit server; what it complains of is added to `log`."""
        environment = {
            "LIVEKIT_URL": server.url,
            "LIVEKIT_API_KEY": server.api_key,
            "LIVEKIT_API_SECRET": server.api_secret,
            "DEMO_SPEECH": speech.value,
        }
        async with Child.running("demo.runway", environment, log) as child:
            ready = await child.told("ready", timeout=60)
            yield cls(child, ready["url"], ready["api_secret"])

    async def settle(self) -> list[RunwaySession]:
        """Let the sessions end, and return them all."""
        return _sessions(await self._ask("settle", timeout=SETTLE + 10))

    async def sessions(self) -> list[RunwaySession]:
        """Those there were, in order of creation, as they are now."""
        return _sessions(await self._ask("sessions"))

    async def strike(self, name: str, session_id: str | None) -> None:
        """A live fault, one of `STRIKES`, for this session. Raises `Missed`."""
        answer = await self._ask("strike", name=name, session=session_id)
        if answer["missed"]:
            raise Missed(answer["missed"])

    async def set_credits(self, credits: int) -> None:
        """What is left in the account from now on; with less than 2 no session is made."""
        await self._ask("credits", credits=credits)

    async def _ask(self, what: str, *, timeout: float = 20.0, **arguments: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._child.do(what, number=number, **arguments)
        return await self._child.told("answer", number=number, timeout=timeout)


def _sessions(answer: dict[str, Any]) -> list[RunwaySession]:
    return [RunwaySession(**session) for session in answer["sessions"]]


def _described(simulator: RunwaySimulator) -> list[dict[str, Any]]:
    return [
        asdict(
            RunwaySession(
                status=session.status.value,
                ended=session.status.is_terminal,
                billed_seconds=round(session.billed_seconds, 1),
                credits=session.credits,
                id=session.id,
            )
        )
        for session in simulator.sessions.values()
    ]


def _strike(simulator: RunwaySimulator, name: str, session_id: str | None) -> str | None:
    """Returns why nothing was struck."""
    if name not in STRIKES:
        return f"there is no fault {name!r}"
    session = simulator.sessions.get(session_id or "")
    if session is None:
        return "no such session"
    try:
        getattr(session, name)()
    except RuntimeError as error:  # its worker is not there yet, or no more
        return str(error)
    return None


async def _obey(simulator: RunwaySimulator, command: dict[str, Any]) -> dict[str, Any]:
    match command["do"]:
        case "strike":
            return {"missed": _strike(simulator, command["name"], command["session"])}
        case "credits":
            spent = simulator.options.credits - simulator.credit_balance
            credits = spent + command["credits"]
            simulator.options = replace(simulator.options, credits=credits)
            return {}
        case "settle":
            with contextlib.suppress(TimeoutError):
                await simulator.wait_until(lambda: not simulator.leaked(), SETTLE)
    return {"sessions": _described(simulator)}


async def main() -> None:
    async with RunwaySimulator(
        livekit_url=os.environ["LIVEKIT_URL"],
        livekit_api_key=os.environ["LIVEKIT_API_KEY"],
        livekit_api_secret=os.environ["LIVEKIT_API_SECRET"],
        options=SimulatorOptions(
            speech=Speech(os.environ["DEMO_SPEECH"]),
            credits=PLENTY,
            daily_quota=PLENTY,
            hidden_cap=LONGEST,
        ),
    ) as simulator:
        tell("ready", url=simulator.url, api_secret=simulator.api_secret)
        async for command in commands():
            tell("answer", number=command["number"], **await _obey(simulator, command))


if __name__ == "__main__":
    asyncio.run(main())
