"""The states of an `AvatarSession`, and the payloads of its events."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import RunwayException

Event = Literal[
    "state_changed",
    "error",
    "restarting",
    "gave_up",
    "replaced",
    "session_ended",
    "usage_updated",
    "stage_reached",
    "playout_forced",
    "tool_called",
    "transport_changed",
]
"""Names of the events of an `AvatarSession`, besides those of the framework."""

Cause = Literal["restart", "renewal", "swap", "resume"]
"""Why another Runway session has become the avatar."""

TransportKind = Literal["bridge", "direct"]
"""The way between Runway and the user: this process relays from the room that Runway hosts, or
Runway's worker joins the agent's room by itself."""

Stage = Literal[
    "created",
    "ready",
    "consumed",
    "connected",
    "worker_joined",
    "first_frame",
    "live",
    "first_speech",
]
"""Stages of a start, in their order. See `lifecycle.timings.StageTimings`."""


class AvatarState(enum.StrEnum):
    NEW = "new"
    STARTING = "starting"
    LIVE = "live"
    VOICE_ONLY = "voice_only"
    """No avatar, for now or to the end of the call; the agent speaks by voice."""
    RENEWING = "renewing"
    """The next session is being made, before the cap or for a swap."""
    PAUSED = "paused"
    """The user has left; nothing bills."""
    CLOSED = "closed"


@dataclass(frozen=True)
class StateChanged:
    """Payload of the `state_changed` event."""

    old: AvatarState
    new: AvatarState
    reason: str


@dataclass(frozen=True)
class Restarting:
    """Payload of the `restarting` event: a new session is made after `delay` seconds.

    Attributes:
        attempt: 1 for the first restart in a row.
        error: why the avatar was lost, or did not come.
    """

    attempt: int
    delay: float
    error: RunwayException


@dataclass(frozen=True)
class AvatarReplaced:
    """Payload of the `replaced` event: another Runway session has become the avatar.

    Attributes:
        freeze: seconds from the last picture of the former session to the first of this one; None
            if one of the two is not known.
        overlap: seconds for which both were billed.
        by_voice: between the two sessions there was no avatar: speech was by voice.
    """

    cause: Cause
    session_id: str
    freeze: float | None
    overlap: float
    by_voice: bool


@dataclass(frozen=True)
class SessionEnd:
    """How a Runway session ended.

    Attributes:
        status: Runway's terminal status; None if Runway had not given one yet, or was not asked.
        how: what ended it. "swept": the session was not of this call, but left by a process that
            was killed.
        confirmed: False if it may still bill; the log says how to end it by hand.
        created_at, ready_at, consumed_at, started_at, ended_at: Unix times in seconds, by the
            machine's clock, which may have been set in between; None for stages that were not
            reached. It is billed from `started_at`, when the worker came.
        billed_seconds: Runway's own figure where it gave one, else estimated by a monotonic clock.
            0 or more.
    """

    session_id: str
    status: str | None
    how: Literal["worker left", "already ended", "end call", "deleted", "unconfirmed", "swept"]
    confirmed: bool
    created_at: float | None
    ready_at: float | None
    started_at: float | None
    ended_at: float
    billed_seconds: float
    estimated: bool
    consumed_at: float | None = None


@dataclass(frozen=True)
class CallUsage:
    """Sums over the sessions of one `AvatarSession` that have ended.

    Attributes:
        sessions: Runway sessions that were created and have ended.
        unconfirmed: how many of them may still bill.
        restarts, renewals, swaps, resumes: new faces after a loss, before the cap, on demand, and
            after a pause.
        billed_seconds: Runway's own figures where it gave them, else estimated.
        overlap_seconds: how long two sessions were billed at once, in renewals and swaps.
        credits: estimated from `billed_seconds`, session by session; one that was consumed and
            whose worker never came counts 2.
    """

    sessions: int = 0
    unconfirmed: int = 0
    restarts: int = 0
    renewals: int = 0
    swaps: int = 0
    resumes: int = 0
    billed_seconds: float = 0.0
    overlap_seconds: float = 0.0
    credits: int = 0


@dataclass(frozen=True)
class ToolCall:
    """Payload of the `tool_called` event.

    Attributes:
        kind: "client_event", which wants no answer, or "backend_rpc", which its handler answers.
        name: of the tool.
        args: by name, as the avatar gave them: not checked.
        session_id: the Runway session whose avatar it was.
    """

    kind: Literal["client_event", "backend_rpc"]
    name: str
    args: dict[str, Any] = field(repr=False)
    session_id: str


@dataclass(frozen=True)
class TransportChanged:
    """Payload of the `transport_changed` event: `transport="auto"` has changed to the other one.

    Attributes:
        error: why the former gave no avatar. To begin with the new one, pass `transport=new`.
    """

    old: TransportKind
    new: TransportKind
    error: RunwayException


@dataclass(frozen=True)
class PlayoutForced:
    """A segment was finished at its deadline although not all of it was heard (seconds)."""

    pushed: float
    heard: float


class CallEvents:
    """Emits the events of one call: one method for each, so that each has a typed payload.

    Args:
        emit: takes the event's name and its payload; does not raise.
    """

    def __init__(self, emit: Callable[[Event, object], None]) -> None:
        self._emit = emit

    def state_changed(self, change: StateChanged) -> None:
        self._emit("state_changed", change)

    def error(self, error: RunwayException) -> None:
        self._emit("error", error)

    def restarting(self, restarting: Restarting) -> None:
        self._emit("restarting", restarting)

    def gave_up(self, error: RunwayException) -> None:
        self._emit("gave_up", error)

    def replaced(self, replaced: AvatarReplaced) -> None:
        self._emit("replaced", replaced)

    def session_ended(self, end: SessionEnd) -> None:
        self._emit("session_ended", end)

    def usage_updated(self, usage: CallUsage) -> None:
        self._emit("usage_updated", usage)

    def stage_reached(self, stage: Stage) -> None:
        self._emit("stage_reached", stage)

    def playout_forced(self, forced: PlayoutForced) -> None:
        self._emit("playout_forced", forced)

    def tool_called(self, call: ToolCall) -> None:
        self._emit("tool_called", call)

    def transport_changed(self, changed: TransportChanged) -> None:
        self._emit("transport_changed", changed)
