"""The page's call: one at a time, what is told about it, and what is broken in it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import offline_agent
from livekit import api

from demo.feed import Feed
from demo.runway import PLENTY, Missed
from demo.stage import Stage

OUTAGE = 4.0
"""Seconds for which nothing comes through when the network is cut."""
_BILL_INTERVAL = 1.0


@dataclass(frozen=True)
class Ticket:
    """What a browser needs to join."""

    url: str
    token: str
    room: str


class Busy(Exception):
    """Another fault is not over yet, or there is no call."""


class PageCall:
    """The call that the page shows. A new one ends the former."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._room: str | None = None
        self._face: str | None = None
        self._sessions_before = 0
        self._breaking = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._feed = Feed()
        self.faults: dict[str, Callable[[], Awaitable[None]]] = {
            "crash": lambda: self._strike("crash"),
            "freeze": lambda: self._strike("freeze"),
            "cap": lambda: self._strike("hit_cap"),
            "network": self._cut_network,
            "credits": self._run_out_of_credits,
            "top-up": self._top_up,
        }
        """All that may be asked for, by name."""

    @classmethod
    @contextlib.asynccontextmanager
    async def on(cls, stage: Stage) -> AsyncIterator[PageCall]:
        """Make it, and pass on what is told about it."""
        call = cls(stage)
        call._tasks = [
            asyncio.create_task(call._pass_on_events(), name="demo events"),
            asyncio.create_task(call._pass_on_bill(), name="demo bill"),
        ]
        try:
            yield call
        finally:
            call._feed.close()
            for task in call._tasks:
                task.cancel()
            await asyncio.gather(*call._tasks, return_exceptions=True)

    async def until_broken(self) -> None:
        """Returns never; raises EOFError when the agent's worker has ended, RuntimeError when the
        simulated Runway has."""
        await asyncio.gather(*self._tasks)

    def feed_of(self, room: str) -> Feed | None:
        """What is told about the call in this room; None if it is not the present one."""
        return self._feed if room and room == self._room else None

    async def begin(self) -> Ticket:
        """End the present call, if any, and make another."""
        stage = self._stage
        async with self._breaking:
            await stage.runway.set_credits(PLENTY)
            former, self._room, self._face = self._room, f"demo-{uuid.uuid4().hex[:8]}", None
            self._feed.close()
            self._feed = Feed()
            if former is not None:
                async with stage.livekit_api() as livekit:
                    with contextlib.suppress(api.TwirpError):  # it is gone already
                        await livekit.room.delete_room(api.DeleteRoomRequest(room=former))
            self._sessions_before = len(await stage.runway.sessions())
            await stage.dispatch(self._room, offline_agent.PAGE)
        token = (
            api.AccessToken(stage.server.api_key, stage.server.api_secret)
            .with_identity(f"visitor-{uuid.uuid4().hex[:6]}")
            .with_grants(api.VideoGrants(room_join=True, room=self._room))
            .to_jwt()
        )
        return Ticket(stage.server.url, token, self._room)

    async def break_it(self, name: str) -> None:
        """Apply a fault, and return when it is over; what it does to the call is in the feed.

        Raises:
            KeyError: there is none of this name.
            Busy: one is in force, or nobody calls.
            Missed: there is no avatar to strike at the moment.
        """
        fault = self.faults[name]
        if self._breaking.locked() or self._room is None:
            raise Busy
        async with self._breaking:
            self._feed.publish("fault", name=name, phase="begins")
            try:
                await fault()
            except Missed:
                self._feed.publish("fault", name=name, phase="missed")
                raise
            self._feed.publish("fault", name=name, phase="over")

    async def _strike(self, name: str) -> None:
        await self._stage.runway.strike(name, self._face)

    async def _cut_network(self) -> None:
        server = self._stage.server
        try:
            await asyncio.to_thread(server.pause)
            await asyncio.sleep(OUTAGE)
        finally:
            await asyncio.to_thread(server.resume)

    async def _run_out_of_credits(self) -> None:
        await self._stage.runway.set_credits(0)
        await self._strike("crash")  # how Runway ends such a session is not known

    async def _top_up(self) -> None:
        await self._stage.runway.set_credits(PLENTY)

    # -- what is told ---------------------------------------------------------------------------

    async def _pass_on_events(self) -> None:
        worker, seen = self._stage.worker, 0
        while True:
            events = worker.events[seen:]
            seen += len(events)
            for event in events:
                if event["room"] != self._room:
                    continue  # the end of a former call
                if event["event"] == "state":
                    self._face = event["session"]
                values = {k: v for k, v in event.items() if k not in ("event", "room")}
                self._feed.publish(event["event"], **values)
            await worker.wait_for_event(seen)

    async def _pass_on_bill(self) -> None:
        told: dict[str, float] = {}
        feed = self._feed
        while True:
            sessions = (await self._stage.runway.sessions())[self._sessions_before :]
            bill = {
                "sessions": len(sessions),
                "running": sum(not session.ended for session in sessions),
                "seconds": round(sum(session.billed_seconds for session in sessions), 1),
                "credits": sum(session.credits for session in sessions),
            }
            if bill != told or feed is not self._feed:
                feed, told = self._feed, bill
                feed.publish("bill", **bill)
            await asyncio.sleep(_BILL_INTERVAL)
