"""One session that this server made, and what becomes of it once its caller has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..errors import NotFoundError, RunwayException
from ..log import logger
from ..runway.client import RunwayClient
from ..runway.models import (
    TERMINAL_STATES,
    LiveKitIntegration,
    Ready,
    RealtimeSessionState,
    Running,
)
from ..runway.session import RealtimeSession, SessionState

Outcome = Literal[
    "completed", "failed", "cancelled", "lost", "not_handed_over", "not_joined", "too_long"
]
"""How a session ended: Runway's three words for it; `lost`: Runway does not know it any more; and
three that are this server's doing."""

STARTUP_MARGIN = 120.0
"""Seconds beyond its maximum duration after which a session is ended, if Runway has not done it."""
_LOOK_INTERVAL = 5.0
"""Seconds between two looks at a session that nobody has consumed yet."""
_RUNNING_INTERVAL = 30.0
"""The same, once it runs."""


@dataclass(eq=False)
class Made:
    """A session, from its create call to its end."""

    session: RealtimeSession
    lasts: float
    """Seconds that it may take, counted anew when it is seen to run."""
    alive_until: float
    """Loop time: its end, whatever Runway does."""
    on_ended: Callable[[Outcome], None]
    """Called once."""
    outcome: Outcome | None = None
    """None: it is alive, as far as is known."""

    @property
    def is_alive(self) -> bool:
        return self.outcome is None and asyncio.get_running_loop().time() < self.alive_until

    def ended(self, outcome: Outcome) -> None:
        """The first word counts."""
        if self.outcome is None:
            self.outcome = outcome
            self.on_ended(outcome)

    def told(self, state: RealtimeSessionState) -> None:
        """What Runway says of it."""
        if isinstance(state, TERMINAL_STATES):
            outcomes: dict[str, Outcome] = {"COMPLETED": "completed", "FAILED": "failed"}
            self.ended(outcomes.get(state.status, "cancelled"))

    async def look(self, client: RunwayClient) -> RealtimeSessionState | None:
        """Ask Runway how it is; None: no answer, or it does not know it."""
        try:
            state = await client.get(self.session.id)
        except NotFoundError:
            self.ended("lost")
            client.forget(self.session.id)
        except RunwayException as error:
            logger.debug("no status of a session", extra={"error": type(error).__name__})
        else:
            self.told(state)
            return state
        return None

    async def end(self, outcome: Outcome) -> None:
        """End it; where Runway does not confirm that, it keeps its place until `alive_until`."""
        end = await self.session.end()
        if end.confirmed:
            self.ended(outcome)
        logger.info(
            "a session was ended: %s",
            outcome.replace("_", " "),
            extra={"lk.pii.session_id": self.session.id, "how": end.how},
        )


async def look_after(made: Made, client: RunwayClient, join_seconds: float) -> Outcome | None:
    """Watch a session that was handed over. Returns why it is to be ended: nobody has consumed it
    within `join_seconds` of READY, or it outlives its time; None: it has ended.

    All that Runway tells is the status. RUNNING follows consume, though nobody joined (as measured
    by others), and stays when the user has left: who is in the room is not in the published API.
    """
    clock = asyncio.get_running_loop().time
    # A worker that was invited to a room joins by itself: nobody consumes such a session.
    invited = isinstance(made.session.request.integration, LiveKitIntegration)
    interval = shortest = min(_LOOK_INTERVAL, join_seconds / 4)
    ready_since = clock() if made.session.state is SessionState.READY else None
    runs = False
    while True:
        await asyncio.sleep(interval)
        if made.outcome is not None:
            return None
        state = await made.look(client)
        if isinstance(state, Ready) and not invited:
            ready_since = clock() if ready_since is None else ready_since
            if clock() - ready_since >= join_seconds:
                return "not_joined"
        elif isinstance(state, Running) and not runs:
            runs = True
            made.alive_until = clock() + made.lasts
        if runs:
            interval = max(shortest, min(_RUNNING_INTERVAL, made.alive_until - clock()))
        if made.outcome is None and clock() >= made.alive_until:
            return "too_long"
