"""Avatar workers in the agent's room: dispatches their RPCs by sender, and evicts the workers of
lost sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from livekit import rtc

from .._common.tasks import BackgroundTasks
from ..log import logger
from ..playout.ports import WorkerReports
from .tokens import ATTRIBUTE_INVITATION
from .worker_protocol import (
    PATIENCE,
    RPC_PLAYBACK_FINISHED,
    RPC_PLAYBACK_STARTED,
    says_interrupted,
    send_end_call,
)
from .worker_watch import has_left


@dataclass(frozen=True)
class _Unwanted:
    """A worker that must be evicted if it joins."""

    invitation: str
    """The attribute in its token; "": only its identity is known."""
    until: float
    """Loop time in seconds at which its token expires."""

    def is_it(self, participant: rtc.RemoteParticipant) -> bool:
        # A later avatar in the same room may have invited another worker with the same identity.
        told = participant.attributes.get(ATTRIBUTE_INVITATION, "")
        return self.invitation in ("", told)


class WorkerRegistry:
    """One per call, because a room has one handler for each RPC method, for all senders.

    Args:
        remove: removes a participant from the room, by its identity.
        background: evicts workers that join after `aclose()`.
    """

    def __init__(
        self,
        room: rtc.Room,
        remove: Callable[[str], Awaitable[None]],
        background: BackgroundTasks | None = None,
    ) -> None:
        # Used by the event loop's thread only.
        self._room = room
        self._remove = remove
        self._background = background or BackgroundTasks()
        self._reports: dict[str, WorkerReports] = {}
        self._unwanted: dict[str, _Unwanted] = {}
        """Workers to evict, by identity. Removed when the eviction begins."""
        self._leaving: dict[str, asyncio.Event] = {}
        """Set when a worker that is being evicted has left."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering = False
        """The RPC methods are registered: from `open()` until `aclose()`."""
        self._watching = False
        """True while it listens to the room's events: until `aclose()`, or until no unwanted worker
        can join any more.
        """
        self._closed = False
        self._staying: asyncio.Task[None] | None = None
        """The task that runs after `aclose()`, while an unwanted worker may still join."""
        self._changed = asyncio.Event()
        """Set when an unwanted worker has joined, or the room is lost."""
        self._handlers: dict[rtc.room.EventTypes, Callable[..., None]] = {
            "participant_active": self._look,
            "track_published": self._look,
            "participant_disconnected": self._on_left,
            "connection_state_changed": self._on_connection_state_changed,
        }

    def open(self) -> None:
        """The room must be connected."""
        local = self._room.local_participant
        local.register_rpc_method(RPC_PLAYBACK_FINISHED, self._on_finished_rpc)
        local.register_rpc_method(RPC_PLAYBACK_STARTED, self._on_started_rpc)
        self._answering = True
        self._watch()

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            for event, handler in self._handlers.items():
                self._room.on(event, handler)
        self._look()

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            for event, handler in self._handlers.items():
                self._room.off(event, handler)

    def listen(self, identity: str, reports: WorkerReports) -> None:
        """Pass this worker's reports on its playback to `reports`."""
        self._reports[identity] = reports

    def forget(self, identity: str) -> None:
        """Idempotent."""
        self._reports.pop(identity, None)

    def evict(self, identity: str, invitation: str = "", until: float = 0.0) -> None:
        """Evict this worker if it joins. Its session's id was lost, so the session can be ended
        only here.

        Args:
            invitation: distinguishes it from others with this identity; "": all of them are
                unwanted.
            until: loop time in seconds at which its token expires; it is watched for until then,
                also after `aclose()`.
        """
        self._unwanted[identity] = _Unwanted(invitation, until)
        self._changed.set()
        self._watch()
        if self._closed:
            self._stay_or_go()

    async def aclose(self) -> None:
        """Wait for running evictions, a few seconds at most. Idempotent. A worker whose token is
        still valid is evicted in the background if it joins.
        """
        if self._answering and self._room.isconnected():
            for method in (RPC_PLAYBACK_FINISHED, RPC_PLAYBACK_STARTED):
                self._room.local_participant.unregister_rpc_method(method)
        self._answering = False
        self._closed = True
        self._stay_or_go()
        await asyncio.gather(*self._tasks)

    def _stay_or_go(self) -> None:
        if self._staying is not None and not self._staying.done():
            return
        if self._seconds_left() > 0:
            self._staying = self._background.start(self._stay(), "runway_evict_later")
        else:
            self._unwatch()

    def _seconds_left(self) -> float:
        """Seconds for which an unwanted worker may still join."""
        last = max((unwanted.until for unwanted in self._unwanted.values()), default=0.0)
        return last - asyncio.get_running_loop().time()

    async def _stay(self) -> None:
        """Wait until no unwanted worker can join any more, or the room is lost."""
        try:
            while (left := self._seconds_left()) > 0:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._changed.wait()
            await asyncio.gather(*self._tasks)
        finally:
            self._unwatch()

    def _look(self, *_: object) -> None:
        for identity, participant in self._room.remote_participants.items():
            unwanted = self._unwanted.get(identity)
            # Wait until it has published: data sent to a participant that is still joining is lost.
            if unwanted and participant.track_publications and unwanted.is_it(participant):
                del self._unwanted[identity]
                self._leaving[identity] = asyncio.Event()
                task = asyncio.create_task(self._evict(identity), name="runway_evict")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                self._changed.set()

    async def _evict(self, identity: str) -> None:
        logger.warning("the worker of a session whose id was lost has joined; evicting it")
        await send_end_call(self._room, identity)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._leaving[identity].wait()
        if not self._leaving[identity].is_set():
            await self._remove(identity)

    def _on_connection_state_changed(self, state: rtc.ConnectionState.ValueType) -> None:
        if state == rtc.ConnectionState.CONN_DISCONNECTED:
            self._unwanted.clear()
            self._changed.set()
        else:
            self._look()

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        left = self._leaving.get(participant.identity)
        if left is not None and has_left(participant):
            left.set()

    def _on_finished_rpc(self, call: rtc.RpcInvocationData) -> str:
        reports = self._reports.get(call.caller_identity)
        if reports is None:
            logger.warning(
                "playback_finished came from a participant that is not the avatar worker",
                extra={"lk.pii.caller": call.caller_identity},
            )
            return "reject"
        reports.worker_finished(interrupted=says_interrupted(call.payload))
        return "ok"

    def _on_started_rpc(self, call: rtc.RpcInvocationData) -> str:
        if (reports := self._reports.get(call.caller_identity)) is not None:
            reports.worker_started()
        return "ok"  # answer in any case, so that the caller does not time out
