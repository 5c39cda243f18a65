"""`doctor --live`: one real session, from create to its confirmed end, with everything timed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from livekit import rtc

from ...errors import (
    AvatarJoinError,
    AvatarLostError,
    LossReason,
    RoomTokenError,
    RunwayException,
    SessionNotReadyError,
)
from ...events import SessionEnd
from ...runway.client import RunwayClient
from ...runway.models import CreateRealtimeSession
from ...runway.session import RealtimeSession
from ...transport.worker_protocol import DeliveryKind, clear_buffer
from .places import HostedPlace, Place
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
    worker_identity: str = ""
    """With "<session id>" in place of that."""
    statuses: list[str] = field(default_factory=list)
    """What GET has said of the session, each once, in order."""
    second_session: str = ""
    """What became of another session beside this one: "ready", "queued", or an error's name; "":
    not tried."""

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
    place: Callable[[Callable[[LossReason], None]], Place] = HostedPlace,
    patience: Patience | None = None,
    told: Callable[[str], None] = lambda _: None,
    findings: Findings | None = None,
    beside: bool = False,
) -> Findings:
    """Make a session, try it, end it. Whatever happens, also cancellation, the session is ended.

    Args:
        phrase: speech to send, int16 mono at 48 kHz.
        place: makes the room in which its worker is met.
        told: called with the name of each stage as it is reached.
        findings: filled and returned; for a caller who wants them although it is cancelled.
        beside: see at the end whether the account has a place for a second session.
    """
    losses: list[LossReason] = []
    findings = findings or Findings()
    visit = _Visit(client, place(losses.append), losses, patience or Patience(), findings, told)
    await visit.run(request, phrase, beside=beside)
    return findings


class _Visit:
    """One examination. All of it is written by `run()` and what that calls."""

    def __init__(
        self,
        client: RunwayClient,
        place: Place,
        losses: list[LossReason],
        patience: Patience,
        findings: Findings,
        told: Callable[[str], None],
    ) -> None:
        self._client = client
        self._place = place
        self._losses = losses
        self._patience = patience
        self._findings = findings
        self._stages = _Stages(findings, told)

    async def run(self, request: CreateRealtimeSession, phrase: bytes, *, beside: bool) -> None:
        findings, place = self._findings, self._place
        try:
            try:
                session = RealtimeSession(self._client, await place.invite(request))
                await session.create()
            except RunwayException as error:
                findings.error = error
                return
            findings.session_id = session.id
            self._stages.reached("created")
            try:
                await self._meet(session, phrase)
                if beside:
                    findings.second_session = await try_beside(self._client, request)
            except RunwayException as error:
                findings.error = error
            finally:
                findings.end = await session.end(
                    say_goodbye=place.send_end_call, worker_gone=place.worker_gone
                )
        finally:
            await place.aclose()
        self._stages.reached("ended")
        if findings.end.status is None and findings.end.how != "deleted":
            settled = await session.settled(findings.end, self._patience.settle)
            findings.end = settled or findings.end
            self._stages.reached("settled" if settled else "not settled")
        self._note_status(findings.end.status or "")

    async def _meet(self, session: RealtimeSession, phrase: bytes) -> None:
        place, patience, stages = self._place, self._patience, self._stages
        await place.enter(session, patience.ready, stages.reached)
        await self._ask_status(session)
        await place.wait_for_worker(patience.join)
        session.worker_joined()
        stages.reached("worker_joined")
        audio, video = await place.wait_for_media(patience.join)
        stages.reached("tracks")
        async with watching(audio, video) as witness:
            await self._first_frame(session, witness)
            stages.reached("first_frame", witness.first_frame_at)
            self._describe(session)
            await self._ask_status(session)
            try:
                await self._try_deliveries(witness, phrase)
            finally:
                self._findings.sizes = list(witness.sizes)
                self._findings.frame_rate = witness.frame_rate

    async def _ask_status(self, session: RealtimeSession) -> None:
        with contextlib.suppress(RunwayException):
            self._note_status((await self._client.get(session.id)).status)

    def _note_status(self, status: str) -> None:
        if status and status not in self._findings.statuses:
            self._findings.statuses.append(status)

    async def _first_frame(self, session: RealtimeSession, witness: Witness) -> None:
        timeout = self._patience.join
        try:
            async with asyncio.timeout(timeout):
                await witness.first_frame.wait()
        except TimeoutError:
            raise AvatarJoinError(session_id=session.id, missing="video", waited=timeout) from None

    def _describe(self, session: RealtimeSession) -> None:
        worker = self._worker
        self._findings.worker_identity = worker.replace(session.id, "<session id>")
        self._findings.tracks = _described(self._place.room.remote_participants[worker])

    @property
    def _worker(self) -> str:
        """Its identity. Raises AvatarLostError if it has left."""
        worker = next(filter(self._place.is_worker, self._place.room.remote_participants), None)
        if worker is None:
            raise _lost(LossReason.WORKER_LEFT)
        return worker

    async def _try_deliveries(self, witness: Witness, phrase: bytes) -> None:
        findings, patience, place = self._findings, self._patience, self._place
        # Before it is told to be silent.
        await witness.wait_for_quiet(0.8, patience.quiet)
        findings.spoke_unasked = witness.audible
        findings.answers_rpc = await clear_buffer(place.room, self._worker)
        await witness.wait_for_quiet(0.5, patience.quiet)
        for kind in place.kinds:
            self._check()
            try:
                delivery = await place.open_delivery(kind)
            except RoomTokenError as error:
                findings.deliveries[kind] = error
                continue
            heard = await witness.try_phrase(delivery, phrase, patience.reaction, self._check)
            findings.deliveries[kind] = heard
            self._stages.reached(f"tried_{kind}")
            await witness.wait_for_quiet(0.5, patience.quiet)

    def _check(self) -> None:
        """Raises what ends the examination."""
        if self._losses:
            raise _lost(self._losses[0])


def _lost(reason: LossReason) -> AvatarLostError:
    return AvatarLostError(
        f"The avatar was lost in the middle of the examination ({reason}).", reason=reason
    )


async def try_beside(
    client: RunwayClient, request: CreateRealtimeSession, patience: float = 4.0
) -> str:
    """Whether the account has a place for one more session beside one that is there. It is ended
    without a worker, so it costs nothing but one of the day's sessions.

    Returns:
        "ready", "queued", or the name of the error.
    """
    session = RealtimeSession(client, request)
    try:
        await session.create()
    except RunwayException as error:
        return type(error).__name__
    try:
        await session.wait_until_ready(patience)
    except SessionNotReadyError as error:
        return "queued" if error.queued else type(error).__name__
    except RunwayException as error:
        return type(error).__name__
    finally:
        await session.end()
    return "ready"


def _described(worker: rtc.RemoteParticipant) -> list[dict[str, Any]]:
    """The worker's tracks as it published them."""
    found = []
    for publication in worker.track_publications.values():
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
