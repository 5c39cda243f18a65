"""Avatar workers in the agent's room: hands on the RPCs of each, evicts those of lost sessions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from livekit import rtc

from ..log import logger
from ..playout.ports import WorkerReports
from .worker_protocol import (
    PATIENCE,
    RPC_PLAYBACK_FINISHED,
    RPC_PLAYBACK_STARTED,
    says_interrupted,
    send_end_call,
)


class WorkerRegistry:
    """One for a call: a room has one handler for each RPC method, whoever calls.

    Args:
        remove: puts a participant out of the room, by its identity.
    """

    def __init__(self, room: rtc.Room, remove: Callable[[str], Awaitable[None]]) -> None:
        self._room = room
        self._remove = remove
        self._reports: dict[str, WorkerReports] = {}
        self._unwanted: set[str] = set()
        self._leaving: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[rtc.room.EventTypes, Callable[..., None]] = {
            "participant_active": self._look,
            "track_published": self._look,
            "participant_disconnected": self._on_left,
        }

    def open(self) -> None:
        """The room must be connected."""
        local = self._room.local_participant
        local.register_rpc_method(RPC_PLAYBACK_FINISHED, self._on_finished_rpc)
        local.register_rpc_method(RPC_PLAYBACK_STARTED, self._on_started_rpc)
        for event, handler in self._handlers.items():
            self._room.on(event, handler)
        self._look()

    def listen(self, identity: str, reports: WorkerReports) -> None:
        """Tell `reports` what this worker says of its playing."""
        self._reports[identity] = reports

    def forget(self, identity: str) -> None:
        """Idempotent."""
        self._reports.pop(identity, None)

    def evict(self, identity: str) -> None:
        """Nobody knows the session of this worker, so only here it can be ended, if it comes."""
        self._unwanted.add(identity)
        self._look()

    async def aclose(self) -> None:
        """Wait for the evictions under way, a few seconds at most. Idempotent."""
        for event, handler in self._handlers.items():
            self._room.off(event, handler)
        await asyncio.gather(*self._tasks)
        if self._room.isconnected():
            for method in (RPC_PLAYBACK_FINISHED, RPC_PLAYBACK_STARTED):
                self._room.local_participant.unregister_rpc_method(method)

    def _look(self, *_: object) -> None:
        for identity, participant in self._room.remote_participants.items():
            # One that has published takes part; what is sent to one that is still joining is lost.
            if identity in self._unwanted and participant.track_publications:
                self._unwanted.discard(identity)
                self._leaving[identity] = asyncio.Event()
                task = asyncio.create_task(self._evict(identity), name="runway_evict")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _evict(self, identity: str) -> None:
        logger.warning("the worker of a session whose id was lost has come; it is sent away")
        await send_end_call(self._room, identity)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._leaving[identity].wait()
        if not self._leaving[identity].is_set():
            await self._remove(identity)

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        if (left := self._leaving.get(participant.identity)) is not None:
            left.set()

    def _on_finished_rpc(self, call: rtc.RpcInvocationData) -> str:
        reports = self._reports.get(call.caller_identity)
        if reports is None:
            logger.warning(
                "playback_finished came from someone else than the avatar worker",
                extra={"lk.pii.caller": call.caller_identity},
            )
            return "reject"
        reports.worker_finished(interrupted=says_interrupted(call.payload))
        return "ok"

    def _on_started_rpc(self, call: rtc.RpcInvocationData) -> str:
        if (reports := self._reports.get(call.caller_identity)) is not None:
            reports.worker_started()
        return "ok"  # whoever it was: an answer keeps a worker calm
