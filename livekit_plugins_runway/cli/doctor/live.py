"""`doctor --live`: one real session, from create to its confirmed end, with everything timed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from livekit import rtc

from ...errors import AvatarJoinError, AvatarLostError, LossReason, RoomTokenError, RunwayException
from ...events import SessionEnd
from ...runway.client import RunwayClient
from ...runway.models import CreateRealtimeSession
from ...runway.session import RealtimeSession
from ...transport.runway_room import WORKER_PREFIX, RunwayRoom
from ...transport.worker_protocol import DeliveryKind, clear_buffer
from .witness import Heard, Witness, watching


@dataclass(frozen=True)
class Patience:
    """In seconds."""

    ready: float = 60.0
    join: float = 30.0
    """For the worker, for its tracks, and for its first picture."""
    quiet: float = 10.0
    """For an avatar that speaks unasked to fall silent."""
    reaction: float = 6.0
    """From the end of the phrase to the first sound."""
    settle: float = 20.0
    """For Runway's final status; 7 to 12 s were seen after END_CALL."""


@dataclass
class Findings:
    """What was found out, as far as it went."""

    stages: dict[str, float] = field(default_factory=dict)
    """Seconds from the create call to the end of each stage."""
    tracks: list[dict[str, Any]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    frame_rate: float | None = None
    spoke_unasked: float = 0.0
    """Seconds of sound before anything was said to it."""
    answers_rpc: bool | None = None
    """It answered `lk.clear_buffer`; None: not asked."""
    deliveries: dict[DeliveryKind, Heard | RoomTokenError] = field(default_factory=dict)
    error: RunwayException | None = None
    """What cut the examination short."""
    end: SessionEnd | None = None
    session_id: str = ""

    @property
    def end_call_obeyed(self) -> bool | None:
        """Whether END_CALL ended the session; None: it could not be tried."""
        if self.end is None or not self.deliveries:
            return None
        return self.end.how in ("worker left", "end call")


class _Stages:
    def __init__(self, findings: Findings, told: Callable[[str], None]) -> None:
        self._findings = findings
        self._told = told
        self._began = asyncio.get_running_loop().time()

    def reached(self, name: str, at: float | None = None) -> None:
        now = asyncio.get_running_loop().time() if at is None else at
        self._findings.stages[name] = round(now - self._began, 3)
        self._told(name)


async def examine(
    client: RunwayClient,
    request: CreateRealtimeSession,
    phrase: bytes,
    *,
    patience: Patience | None = None,
    told: Callable[[str], None] = lambda _: None,
    findings: Findings | None = None,
) -> Findings:
    """Make a session, try it, end it. Whatever happens, also cancellation, the session is ended.

    Args:
        phrase: speech to send, int16 mono at 48 kHz.
        told: called with the name of each stage as it is reached.
        findings: filled and returned; for a caller who wants them although it is cancelled.
    """
    patience = patience or Patience()
    findings = findings or Findings()
    stages = _Stages(findings, told)
    session = RealtimeSession(client, request)
    try:
        await session.create()
    except RunwayException as error:
        findings.error = error
        return findings
    findings.session_id = session.id
    stages.reached("created")
    losses: list[LossReason] = []
    room = RunwayRoom(session.id, on_lost=losses.append, reports=None)
    try:
        await _visit(session, room, losses, phrase, patience, findings, stages)
    except RunwayException as error:
        findings.error = error
    finally:
        try:
            findings.end = await session.end(
                say_goodbye=room.send_end_call, worker_gone=room.worker_gone
            )
        finally:
            await room.aclose()
    stages.reached("ended")
    if findings.end.status is None and findings.end.how != "deleted":
        settled = await session.settled(findings.end, patience.settle)
        findings.end = settled or findings.end
        stages.reached("settled" if settled else "not settled")
    return findings


async def _visit(
    session: RealtimeSession,
    room: RunwayRoom,
    losses: list[LossReason],
    phrase: bytes,
    patience: Patience,
    findings: Findings,
    stages: _Stages,
) -> None:
    ready = await session.wait_until_ready(patience.ready)
    stages.reached("ready")
    credentials = await session.consume(ready)
    stages.reached("consumed")
    await room.join(credentials)
    stages.reached("connected")
    await room.wait_for_worker(patience.join)
    session.worker_joined()
    stages.reached("worker_joined")
    audio, video = await room.wait_for_media(patience.join)
    stages.reached("tracks")
    async with watching(audio, video) as witness:
        await _first_frame(session, witness, patience.join)
        stages.reached("first_frame", witness.first_frame_at)
        findings.tracks = _described(room.room)
        try:
            await _try_deliveries(room, witness, losses, phrase, patience, findings, stages)
        finally:
            findings.sizes = list(witness.sizes)
            findings.frame_rate = witness.frame_rate


async def _first_frame(session: RealtimeSession, witness: Witness, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await witness.first_frame.wait()
    except TimeoutError:
        raise AvatarJoinError(session_id=session.id, missing="video", waited=timeout) from None


async def _try_deliveries(
    room: RunwayRoom,
    witness: Witness,
    losses: list[LossReason],
    phrase: bytes,
    patience: Patience,
    findings: Findings,
    stages: _Stages,
) -> None:
    def check() -> None:
        if losses:
            raise AvatarLostError(
                f"The avatar was lost in the middle of the examination ({losses[0]}).",
                reason=losses[0],
            )

    worker = next(i for i in room.room.remote_participants if i.startswith(WORKER_PREFIX))
    findings.answers_rpc = await clear_buffer(room.room, worker)
    await witness.wait_for_quiet(0.8, patience.quiet)
    findings.spoke_unasked = witness.audible
    # In this order: opening the data stream takes the microphone off the room.
    kinds: tuple[DeliveryKind, ...] = ("track", "datastream")
    for kind in kinds:
        check()
        try:
            _, delivery = await room.open_delivery(kind)
        except RoomTokenError as error:
            findings.deliveries[kind] = error
            continue
        heard = await witness.try_phrase(delivery, phrase, patience.reaction, check)
        findings.deliveries[kind] = heard
        stages.reached(f"tried_{kind}")
        await witness.wait_for_quiet(0.5, patience.quiet)


def _described(room: rtc.Room) -> list[dict[str, Any]]:
    """The worker's tracks as it published them."""
    found = []
    for identity, participant in room.remote_participants.items():
        if not identity.startswith(WORKER_PREFIX):
            continue
        for publication in participant.track_publications.values():
            track: dict[str, Any] = {
                "kind": rtc.TrackKind.Name(publication.kind).removeprefix("KIND_").lower(),
                "source": rtc.TrackSource.Name(publication.source).removeprefix("SOURCE_").lower(),
                "codec": publication.mime_type,
            }
            if publication.kind == rtc.TrackKind.KIND_VIDEO:
                track |= {
                    "announced_size": [publication.width, publication.height],
                    "simulcast": publication.simulcasted,
                }
            found.append(track)
    return found
