"""Simulates Runway's avatar worker, as a real participant on a real LiveKit server."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import threading
from collections.abc import Callable
from typing import Any, TypeVarTuple

from livekit import rtc

from ...log import logger
from ..faults import ActiveFaults
from ..options import SimulatorOptions, Speech, WorkerManners
from .face import Face
from .hearing import Answer, ByteStreams, Deaf, Microphone
from .media import Media
from .performance import HeardSegment, Performance
from .speech import EchoVoice, SegmentVoice

_RPC_TRIES = 3
_RPC_RETRY_DELAY = 0.1
_RPC_ROUND_TRIP = 7.0
"""Seconds that the SDK subtracts from a call's time-out for the round trip."""


Args = TypeVarTuple("Args")


class Departure(enum.Enum):
    """Why a worker left."""

    END_CALL = "end_call"
    CAP = "cap"
    CRASHED = "crashed"
    USER_LEFT = "user_left"
    ROOM_LOST = "room_lost"


class WorkerUnreachable(Exception):
    """The worker could not join: wrong address or token, or no server."""


def from_any_thread(
    loop: asyncio.AbstractEventLoop, call: Callable[[*Args], None]
) -> Callable[[*Args], None]:
    """The same from any thread: at once in this one, which is that of the loop, else soon."""
    thread = threading.get_ident()

    def called(*args: *Args) -> None:
        if threading.get_ident() == thread:
            call(*args)
        else:
            loop.call_soon_threadsafe(call, *args)

    return called


class AvatarWorker:
    """Joins a room, publishes video and voice, and speaks what it is sent until it leaves.

    The protocol is that of livekit-agents 1.8.9 (`voice/avatar/_datastream_io.py`), from the side
    of the avatar. It obeys one participant, the speaker: the one with the given identity, else the
    first agent that speaks.
    """

    def __init__(
        self,
        *,
        url: str,
        token: str,
        speaker: str | None,
        options: SimulatorOptions,
        manners: WorkerManners,
        faults: ActiveFaults,
        performance: Performance,
        face: Face,
        cap: float,
        on_joined: Callable[[], None],
    ) -> None:
        """`cap` is in seconds of wall clock, from the join."""
        self._url = url
        self._token = token
        self._speaker = speaker
        self._options = options
        self._manners = manners
        self._speech = manners.speech or options.speech
        self._faults = faults
        self._performance = performance
        self._cap = cap
        self._on_joined = on_joined
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._room = rtc.Room()
        self._departure: asyncio.Future[Departure] = loop.create_future()
        self._timers: list[asyncio.TimerHandle] = []
        self._awake = asyncio.Event()
        self._awake.set()
        self._dead = False
        self._end_call_pending = False
        self._notices: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._ear: ByteStreams | Microphone | Deaf
        self._voice: SegmentVoice | EchoVoice
        segments = SegmentVoice(
            options.render_latency,
            performance,
            from_any_thread(loop, self._notice_started),
            from_any_thread(loop, self._notice_finished),
            manners,
        )
        self._segments = segments
        pause = manners.answer_after_silence
        pause = options.answer_after_silence if pause is None else pause
        if self._speech is Speech.DATASTREAM:
            self._voice = segments
            self._ear = ByteStreams(segments, self._is_speaker, self._listens)
        elif self._speech is Speech.SILENT:
            self._voice, self._ear = segments, Deaf()
        elif self._speech is Speech.CONVERSATION:
            self._voice = segments
            answer = Answer(segments, manners.answer)
            self._ear = Microphone(pause, performance, self._is_speaker, answer=answer)
        else:
            self._voice = EchoVoice(options.render_latency, manners.pace)
            self._ear = Microphone(pause, performance, self._is_speaker, echo=self._voice)
        self._media = Media(self._voice.take, face, options, performance, manners.publish_audio)

    def _listens(self) -> bool:
        return not self._manners.deaf_until_seen or self._performance.first_frame_at is not None

    # Live faults.

    def leave(self, departure: Departure) -> None:
        """Leave the room now; the first reason counts."""
        if not self._departure.done():
            self._departure.set_result(departure)

    def die_after(self, delay: float) -> None:
        """Frozen for good from now on, out of the room after `delay` seconds of wall clock."""
        self.freeze()
        self._dead = True
        self._timers.append(self._loop.call_later(delay, self.leave, Departure.CRASHED))

    def freeze(self) -> None:
        self._awake.clear()
        self._media.freeze(True)

    def thaw(self) -> None:
        if self._dead:
            raise RuntimeError("a killed worker does not come back")
        self._awake.set()
        self._media.freeze(False)
        if self._end_call_pending:
            self.leave(Departure.END_CALL)

    def stall(self, *, audio: bool | None = None, video: bool | None = None) -> None:
        self._media.stall(audio=audio, video=video)

    async def unpublish(self) -> None:
        await self._media.unpublish(self._room)

    # Tools.

    async def send_client_event(self, tool: str, args: dict[str, Any]) -> None:
        """Tell everybody in the room, as Runway's browser client reads it."""
        message = {"type": "client_event", "tool": tool, "args": args}
        await self._room.local_participant.publish_data(json.dumps(message), reliable=True)

    async def call_backend(
        self, identity: str, tool: str, args: dict[str, Any], wait: float
    ) -> Any:
        """The decoded answer of the participant that handles RPC. Raises `rtc.RpcError`."""
        answer = await self._room.local_participant.perform_rpc(
            destination_identity=identity,
            method=tool,
            payload=json.dumps({"args": args}),
            response_timeout=wait + _RPC_ROUND_TRIP,
        )
        return json.loads(answer)

    # The performance.

    async def run(self) -> Departure:
        """Join, perform, leave; says why it left. Cancelled, it leaves the room and re-raises.

        Raises:
            WorkerUnreachable: it could not join.
        """
        self._listen_to_room()
        options = rtc.RoomOptions(auto_subscribe=False, connect_timeout=5.0)
        # A connect that is cut off half-way would leave a participant behind.
        connecting = asyncio.ensure_future(self._room.connect(self._url, self._token, options))
        try:
            try:
                await asyncio.shield(connecting)
            except rtc.ConnectError as error:
                raise WorkerUnreachable from error
            return await self._perform()
        finally:
            await asyncio.wait({connecting})
            for timer in self._timers:
                timer.cancel()
            await self._room.disconnect()
            if self._performance.joined_at is not None:
                self._performance.left_at = self._loop.time()
                self._performance.notify()

    async def _perform(self) -> Departure:
        if self._speech is Speech.DATASTREAM:
            self._room.local_participant.register_rpc_method("lk.clear_buffer", self._clear_buffer)
        self._ear.attend(self._room)
        self._performance.joined_at = self._loop.time()
        self._timers.append(self._loop.call_later(self._cap, self.leave, Departure.CAP))
        if self._manners.leaves_after is not None:
            leaving = self._loop.call_later(
                self._manners.leaves_after, self.leave, Departure.CRASHED
            )
            self._timers.append(leaving)
        if self._manners.greeting is not None:
            Answer(self._segments, self._manners.greeting).say(self._loop.time())
        self._on_joined()
        self._performance.notify()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._media.run(self._room), name="simulated-media"),
                group.create_task(self._ear.run(), name="simulated-ear"),
                group.create_task(self._send_notices(), name="simulated-notices"),
            ]
            departure = await self._departure
            for task in tasks:
                task.cancel()
        return departure

    def _is_speaker(self, participant: rtc.RemoteParticipant | str | None) -> bool:
        """Whether to obey this participant. `None`, a sender that the SDK does not know yet, is
        nobody: whom the worker obeys was in the room before it, and is known from its join on."""
        if participant is None:
            return False
        if isinstance(participant, str):
            identity = participant
            known = self._room.remote_participants.get(identity)
        else:
            identity, known = participant.identity, participant
        if self._speaker is not None:
            return identity == self._speaker
        return known is not None and known.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT

    def _listen_to_room(self) -> None:
        self._room.on("data_received", self._on_data)
        self._room.on("participant_connected", self._on_participant_connected)
        self._room.on("participant_disconnected", self._on_participant_disconnected)
        self._room.on("disconnected", self._on_disconnected)

    def _on_data(self, packet: rtc.DataPacket) -> None:
        if packet.topic or not self._is_speaker(packet.participant):
            return
        try:
            message = json.loads(packet.data)
        except ValueError:
            return
        if not isinstance(message, dict) or message.get("type") != "END_CALL":
            return
        self._performance.end_calls += 1
        self._performance.notify()
        if self._awake.is_set():
            self.leave(Departure.END_CALL)
        else:
            self._end_call_pending = True

    def _on_participant_connected(self, participant: rtc.RemoteParticipant) -> None:
        if self._is_speaker(participant):
            self._performance.speaker_left_at = None

    def _on_participant_disconnected(self, participant: rtc.RemoteParticipant) -> None:
        if not self._is_speaker(participant):
            return
        self._performance.speaker_left_at = self._loop.time()
        self._performance.notify()
        if self._options.user_left_ends_after is not None:
            patience = self._options.scaled(self._options.user_left_ends_after)
            self._timers.append(self._loop.call_later(patience, self._leave_if_alone))

    def _leave_if_alone(self) -> None:
        if self._performance.speaker_left_at is not None:
            self.leave(Departure.USER_LEFT)

    def _on_disconnected(self, _: object) -> None:
        self.leave(Departure.ROOM_LOST)

    # RPC.

    async def _clear_buffer(self, call: rtc.RpcInvocationData) -> str:
        if not self._is_speaker(call.caller_identity):
            return "reject"
        if self._manners.rpc_error:
            raise rtc.RpcError(1500, "the method failed")
        if self._faults.settings.rpc_ignore:
            await self._loop.create_future()  # the SDK cancels this when the caller gives up
        await self._awake.wait()
        self._performance.clears += 1
        self._ear.clear()
        self._performance.notify()
        await asyncio.sleep(self._faults.settings.rpc_delay)
        return "ok"

    def _notice_started(self, _: HeardSegment) -> None:
        if self._speech is Speech.DATASTREAM and self._options.playback_started:
            self._notices.put_nowait(("lk.playback_started", ""))

    def _notice_finished(self, segment: HeardSegment, interrupted: bool) -> None:
        if self._speech is not Speech.DATASTREAM:
            return
        position = segment.played_seconds
        self._performance.finished.append((position, interrupted))
        self._performance.notify()
        payload = json.dumps({"playback_position": position, "interrupted": interrupted})
        for _ in range(self._faults.copies_of_playback_finished()):
            self._notices.put_nowait(("lk.playback_finished", payload))

    async def _send_notices(self) -> None:
        while True:
            method, payload = await self._notices.get()
            await self._awake.wait()
            await asyncio.sleep(self._faults.settings.rpc_delay)
            if (listener := self._listener()) is None:
                continue
            for attempt in range(_RPC_TRIES):
                try:
                    await self._room.local_participant.perform_rpc(
                        destination_identity=listener, method=method, payload=payload
                    )
                    break
                except rtc.RpcError as error:
                    logger.debug(
                        "simulated worker's RPC was not taken",
                        extra={"method": method, "code": error.code, "attempt": attempt + 1},
                    )
                    await asyncio.sleep(_RPC_RETRY_DELAY)

    def _listener(self) -> str | None:
        """The participant to report to; `None` if there is none."""
        with contextlib.suppress(StopIteration):
            return next(
                identity
                for identity, participant in self._room.remote_participants.items()
                if self._is_speaker(participant)
            )
        return None
