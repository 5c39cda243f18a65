"""`AvatarSession`: what a user of this package constructs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import aiohttp
from livekit import rtc
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    AgentSession,
    APIConnectOptions,
    NotGivenOr,
    Plugin,
    get_job_context,
)
from livekit.agents.utils import is_given
from livekit.agents.voice.avatar import AvatarSession as BaseAvatarSession
from livekit.agents.voice.io import AudioOutput

from . import __version__
from ._common.checks import check_choice, check_seconds, required
from ._common.emitter import SafeEmitter
from ._common.tasks import cancel_and_wait
from ._common.versions import warn_of_untested_versions
from .errors import ConfigurationError
from .events import AvatarState, CallUsage, Event, PlayoutForced, StateChanged
from .lifecycle.instance import AvatarInstance, InstanceOptions
from .lifecycle.presence import UserPresence
from .lifecycle.recovery import RecoveryOptions
from .lifecycle.state import ALLOWED
from .lifecycle.supervisor import Supervisor, SupervisorContext
from .lifecycle.telemetry import Telemetry
from .lifecycle.timings import StageTimings
from .lifecycle.tools import ToolDispatcher, ToolHandler, checked_handlers
from .log import logger
from .media.video import VideoOptions
from .playout.output import AvatarAudioOutput
from .playout.ports import (
    FirstSpeechHeard,
    PlayoutReport,
    PlayoutStats,
)
from .runway.client import DEFAULT_BASE_URL, RunwayClient
from .runway.journal.keeper import Keeper
from .runway.journal.sweep import Swept
from .runway.models import Tool
from .runway.requests import realtime_request
from .runway.session import abandoned
from .transport.base import Transport
from .transport.factory import TransportKind, check_transport, make_transport, worker_token_ttl
from .transport.tokens import RoomCredentials
from .transport.worker_protocol import DeliveryKind, DeliveryOption

CLOSE_BUDGET = 8.0
"""Seconds that `aclose()` may take; a job that is shut down has 10."""
PlayoutOption = Literal["ear", "clock"]
"""What tells how far the avatar is in what it says."""
_IDENTITY = "runway-avatar-agent"
_FrameworkEvent = Literal["metrics_collected"]
"""Emitted by the base class."""


@dataclass(frozen=True)
class _Call:
    """What an avatar has from `start()` on, until `_close()` has closed each of them."""

    transport: Transport
    output: AvatarAudioOutput
    presence: UserPresence
    supervisor: Supervisor
    telemetry: Telemetry


class AvatarSession(SafeEmitter[Event | _FrameworkEvent], BaseAvatarSession[Event]):
    """A Runway Characters avatar as the face of an `AgentSession`.

    What is not given comes from the environment, under the names that the official plugin uses.

    Args:
        avatar_id: id (UUID) of a custom avatar of the key's project. Either this or `preset_id`.
        preset_id: a Runway preset, e.g. "influencer".
        max_duration: seconds after which Runway ends the session, 10 to 1800. It is known to end
            sessions at about 300 s whatever was asked for.
        api_url: default `RUNWAYML_BASE_URL`, else Runway's production API.
        api_key: default `RUNWAYML_API_SECRET`.
        avatar_participant_identity: identity of the participant that the user sees; unique in the
            room.
        avatar_participant_name: its display name.
        conn_options: retries and connect timeout of the calls to Runway.
        personality: overrides the avatar's, 1 to 10,000 characters.
        start_script: what the avatar says by itself at the start, 1 to 2,000 characters.
        tools: Runway tools of the session, at most 20; `tool_called` tells of each use.
        tool_handlers: answer `backend_rpc` tools: by the tool's name a coroutine function that
            takes the arguments as a dict and returns what JSON can hold, in the tool's
            `timeout_seconds`.
        transport: "bridge": join the room that Runway hosts, and relay. "direct": Runway's worker
            joins the agent's room by itself, at the public address of your LiveKit server.
        allow_private_livekit_url: do not check that address; for "direct" with a simulator.
        delivery: how speech reaches the avatar worker; "auto" asks the worker ("direct": always
            "datastream").
        wait_for_avatar: seconds that the first speech waits for the face, and then does without.
            0: voice first.
        join_timeout: seconds for the avatar worker to join its room, and again for its first frame;
            about 8 s are usual. Then it is given up.
        stall_timeout: seconds without pictures, or without progress in speech, that are a loss.
        playout: "ear": the avatar's voice is compared with what it was told, so what was heard is
            known, and other words are noticed. "clock": time and the worker's reports are trusted
            instead; for an avatar whose voice does not come back alike.
        allow_pause: let the framework pause and resume speech (`resume_false_interruption`). What
            the avatar had in flight is spoken again, after its usual latency.
        recovery: what happens when the face is lost, is about to end, or has no one to look at it;
            None: `RecoveryOptions()`.
        video: size, pace and encoding of the picture that the user gets; None: as Runway sends it.
            With "bridge" only.
        guardian: start a small process beside this one that ends the Runway sessions at once when
            this one is killed. Without it the next start on this machine does.
        http_session: an aiohttp session to use and not to close.

    Events (`on(name, callback)`): `state_changed` (`StateChanged`), `error` (`RunwayException`),
    `restarting` (`Restarting`), `gave_up` (`RunwayException`), `replaced` (`AvatarReplaced`),
    `session_ended` (`SessionEnd`), `usage_updated` (`CallUsage`), `stage_reached` (its name),
    `playout_forced` (`PlayoutForced`), `tool_called` (`ToolCall`), `metrics_collected`
    (`livekit.agents.metrics.AvatarMetrics`). What a callback raises is logged, and stops nothing.

    Raises:
        ConfigurationError: names the argument that is wrong.
    """

    def __init__(
        self,
        *,
        avatar_id: NotGivenOr[str | None] = NOT_GIVEN,
        preset_id: NotGivenOr[str | None] = NOT_GIVEN,
        max_duration: NotGivenOr[int] = NOT_GIVEN,
        api_url: NotGivenOr[str] = NOT_GIVEN,
        api_key: NotGivenOr[str] = NOT_GIVEN,
        avatar_participant_identity: NotGivenOr[str] = NOT_GIVEN,
        avatar_participant_name: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        personality: str | None = None,
        start_script: str | None = None,
        tools: list[Tool] | None = None,
        tool_handlers: Mapping[str, ToolHandler] | None = None,
        transport: TransportKind = "bridge",
        allow_private_livekit_url: bool = False,
        delivery: DeliveryOption = "auto",
        wait_for_avatar: float = 10.0,
        join_timeout: float = 30.0,
        stall_timeout: float = 1.5,
        playout: PlayoutOption = "ear",
        allow_pause: bool = True,
        recovery: RecoveryOptions | None = None,
        video: VideoOptions | None = None,
        guardian: bool = True,
        http_session: aiohttp.ClientSession | None = None,
    ) -> None:
        super().__init__()
        warn_of_untested_versions()
        # What was asked for: not changed any more. A swap changes the supervisor's copy of the
        # request.
        self._request = realtime_request(
            avatar_id or None,
            preset_id or None,
            max_duration if is_given(max_duration) else None,
            personality,
            start_script,
            tools,
        )
        check_choice("delivery", delivery, ("auto", "datastream", "track"))
        check_choice("playout", playout, get_args(PlayoutOption))
        check_transport(transport, delivery, video)
        check_seconds("wait_for_avatar", wait_for_avatar, zero=True)
        check_seconds("join_timeout", join_timeout)
        check_seconds("stall_timeout", stall_timeout)
        api_secret = required("Runway's API secret", "api_key", api_key, "RUNWAYML_API_SECRET")
        base_url = api_url or os.getenv("RUNWAYML_BASE_URL") or DEFAULT_BASE_URL
        self._keeper = Keeper.on_this_machine(api_secret, base_url, guardian=guardian)
        """Ends what a killed process leaves; at work from `prewarm()` or `start()` on."""
        self._client = RunwayClient(
            api_secret,
            base_url=base_url,
            http_session=http_session,
            conn_options=conn_options,
            journal=self._keeper.journal,
        )
        """Its sessions are the supervisor's; it is closed here."""
        self._conn_options = conn_options
        self._identity = avatar_participant_identity or _IDENTITY
        self._name = avatar_participant_name or self._identity
        self._transport_kind = transport
        self._allow_private_livekit_url = allow_private_livekit_url
        self._wait_for_avatar = wait_for_avatar
        self._playout: PlayoutOption = playout
        self._allow_pause = allow_pause
        self._recovery = recovery or RecoveryOptions()
        self._video = video
        self._instance_options = InstanceOptions(
            delivery=delivery,
            join_timeout=join_timeout,
            stall_timeout=stall_timeout,
            tools=ToolDispatcher(
                client=self._client,
                handlers=checked_handlers(tool_handlers, self._request.tools),
                on_called=partial(self.emit, "tool_called"),
                on_error=partial(self.emit, "error"),
            ),
        )

        # What becomes of it, all in the event loop's thread.
        self._state = AvatarState.NEW
        """Written by `_move_to()` alone."""
        self._timings = StageTimings()
        """Each stage is written once, by `_on_stage()`."""
        self._call: _Call | None = None
        """From STARTING on, also after it was closed; None for an avatar that was never started."""
        self._former_output: AudioOutput | None = None
        """What `_call.output` has replaced in the agent session, to be put back."""
        self._warming_task: asyncio.Task[None] | None = None
        """From `prewarm()` on."""
        self._run_task: asyncio.Task[None] | None = None
        """The supervisor's run, from when `start()` has succeeded. It ends when it is closed, and
        when the options say so."""
        self._close_task: asyncio.Task[None] | None = None
        """The one `_close()`, whoever asked for it first."""
        self._swap_lock = asyncio.Lock()
        """The supervisor takes one swap at a time."""

    # -- what it tells --------------------------------------------------------------------------

    @property
    def avatar_identity(self) -> str:
        """Of the participant that has the face: with "direct" another one after a renewal, a swap
        or a restart."""
        return self._identity if self._call is None else self._call.transport.identity

    @property
    def provider(self) -> str:
        return "runway"

    @property
    def state(self) -> AvatarState:
        return self._state

    @property
    def timings(self) -> StageTimings:
        """Stage times in seconds since `start()`."""
        return self._timings

    @property
    def _instance(self) -> AvatarInstance | None:
        return None if self._call is None else self._call.supervisor.instance

    @property
    def delivery(self) -> DeliveryKind | None:
        """How speech reaches the avatar; None until that is known."""
        return None if self._instance is None else self._instance.delivery_kind

    @property
    def session_id(self) -> str | None:
        """Runway's id of the present session; None while there is none."""
        return None if self._instance is None else self._instance.session.id or None

    @property
    def usage(self) -> CallUsage:
        """What the sessions that have ended have cost, and how often the face was replaced."""
        return CallUsage() if self._call is None else self._call.supervisor.usage

    @property
    def playout(self) -> PlayoutStats:
        """What became of the agent's speech so far."""
        return PlayoutStats() if self._call is None else self._call.output.stats

    @property
    def speech_latency(self) -> float | None:
        """Seconds from sending speech to the avatar to relaying it, last measured."""
        return None if self._call is None else self._call.output.latency

    def __repr__(self) -> str:
        return f"AvatarSession(state={self._state.value}, delivery={self.delivery})"

    # -- what it does ---------------------------------------------------------------------------

    def prewarm(self) -> None:
        """Open the connection to Runway now, so that `start()` within the next 15 s need not.

        Returns at once; wants a running event loop. Nothing bills, and no key is sent unless a
        killed process has left sessions, which are ended; that Runway cannot be reached is left to
        `start()` to say. An avatar that is then never started must be closed. No effect the second
        time, after `start()`, and in `console` mode.
        """
        if self._state is AvatarState.NEW and self._warming_task is None and not _in_console():
            self._warming_task = asyncio.create_task(self._client.prewarm(), name="runway_prewarm")
            self._keeper.sweep(self._client.delete, self._on_swept)

    async def start(
        self,
        agent_session: AgentSession[Any],
        room: rtc.Room,
        *,
        livekit_url: NotGivenOr[str] = NOT_GIVEN,
        livekit_api_key: NotGivenOr[str] = NOT_GIVEN,
        livekit_api_secret: NotGivenOr[str] = NOT_GIVEN,
    ) -> None:
        """Give the agent its face. Before or after `agent_session.start()`.

        Returns when Runway has accepted the session and the avatar participant is in the room; the
        face follows. From now on everything that the agent says is kept and spoken in order. If it
        raises, or is cancelled, the agent's audio output is as it was before, and nothing bills.

        Args:
            room: the agent's room; connected, or that of the job.
            livekit_url, livekit_api_key, livekit_api_secret: default `LIVEKIT_URL`,
                `LIVEKIT_API_KEY`, `LIVEKIT_API_SECRET`.

        Raises:
            ConfigurationError: LiveKit credentials are missing, it was started before, or Runway
                would refuse the LiveKit URL ("direct").
            RunwayException: Runway refused, by kind (see `errors`).
            UnavailableError: the avatar participant could not join the agent room, or ("direct")
                the voice not be published there.
        """
        if _in_console():
            logger.warning("console mode: the avatar stays off, nothing is created or billed")
            return
        if self._state is not AvatarState.NEW:
            raise ConfigurationError(
                f"This AvatarSession is {self._state.value}; make a new one for each start()."
            )
        job = get_job_context(required=False)
        url = required("The LiveKit URL", "livekit_url", livekit_url, "LIVEKIT_URL")
        key = required("The LiveKit key", "livekit_api_key", livekit_api_key, "LIVEKIT_API_KEY")
        secret = required(
            "The LiveKit secret", "livekit_api_secret", livekit_api_secret, "LIVEKIT_API_SECRET"
        )
        if room.isconnected():
            room_name, agent_identity = room.name, room.local_participant.identity
            if self._identity in room.remote_participants:
                raise ConfigurationError(
                    f"There is a participant {self._identity!r} in the room: pass another "
                    "avatar_participant_identity."
                )
        elif job is not None:  # its room is connected by the agent session
            room_name, agent_identity = job.job.room.name, job.local_participant_identity
        else:
            raise ConfigurationError("Outside a job the room must be connected before start().")
        transport = make_transport(
            self._transport_kind,
            room,
            RoomCredentials(url, key, secret, room_name, agent_identity),
            identity=self._identity,
            name=self._name,
            stall_timeout=self._instance_options.stall_timeout,
            token_ttl=worker_token_ttl(
                self._instance_options.ready_timeout, self._instance_options.join_timeout
            ),
            allow_private=self._allow_private_livekit_url,
            video=self._video,
        )
        self._call = call = self._make_call(room, transport)
        self._move_to(AvatarState.STARTING, "start")
        self._keeper.sweep(self._client.delete, self._on_swept)
        try:
            await super().start(agent_session, room)
            agent_session.on("close", self._on_agent_session_close)
            self._install_output(agent_session, call.output)
            await self._create_and_join(call)
        except BaseException:
            # Cancelled or refused: nothing may stay behind, and the caller must see why.
            await self.aclose()
            raise
        self._run_task = asyncio.create_task(self._run(call), name="runway_avatar")
        self._run_task.add_done_callback(partial(self._on_run_done, call))

    async def swap_avatar(
        self,
        *,
        avatar_id: str | None = None,
        preset_id: str | None = None,
        personality: str | None = None,
        tools: list[Tool] | None = None,
    ) -> None:
        """Show another avatar, or another personality of the same, in mid-call.

        The present face stays until the new one has pictures, and until the end of what it says
        (for `SWAP_PATIENCE` seconds at most; then the voice says the rest). Returns when the user
        sees the new one. Later sessions of this call use it, too. Calls wait for one another;
        cancelled, the swap may still come about.

        Raises:
            ConfigurationError: the avatar is not started, is closed, or an argument is wrong.
            RunwayException: Runway refused, or the new avatar did not come; the present one stays.
        """
        request = realtime_request(
            avatar_id,
            preset_id,
            self._request.max_duration,
            personality,
            None,
            tools,
        )
        async with self._swap_lock:
            call, running = self._call, self._run_task
            if call is None or running is None or running.done():
                raise ConfigurationError(
                    f"swap_avatar() needs a started avatar; this one is {self._state.value}."
                )
            await call.supervisor.swap(request)

    async def aclose(self) -> None:
        """End the Runway session, confirmed, and leave the room.

        Idempotent, and safe to call from several places at once. Takes at most about 8 s. Restores
        the audio output that `start()` replaced.
        """
        await asyncio.shield(self._close_soon())

    # -- start ----------------------------------------------------------------------------------

    def _make_call(self, room: rtc.Room, transport: Transport) -> _Call:
        on_stage = partial(self._on_stage, asyncio.get_running_loop().time())
        output = AvatarAudioOutput(
            transport.microphone,
            report=partial(self._on_playout_report, on_stage),
            wait_for_avatar=self._wait_for_avatar,
            stall_timeout=self._instance_options.stall_timeout,
            can_pause=self._allow_pause,
            by_clock=self._playout == "clock",
        )
        presence = UserPresence(room)
        context = SupervisorContext(
            client=self._client,
            transport=transport,
            output=output,
            presence=presence,
            instance_options=self._instance_options,
            recovery=self._recovery,
            create_retries=self._conn_options.max_retry,
            move_to=self._move_to,
            emit=self.emit,
            on_stage=on_stage,
        )
        return _Call(
            transport=transport,
            output=output,
            presence=presence,
            supervisor=Supervisor(self._request, context),
            telemetry=Telemetry(self, self._timings),
        )

    def _install_output(self, agent_session: AgentSession[Any], output: AvatarAudioOutput) -> None:
        self._former_output = tail = _tail(agent_session.output.audio)
        if tail is None and _is_running(agent_session):
            logger.warning(
                "the agent session was started without an audio output: transcripts are not "
                "synchronised with speech and nothing is recorded. Call avatar.start() before "
                "session.start(), or do not pass audio_output=False"
            )
        agent_session.output.replace_audio_tail(output)

    async def _create_and_join(self, call: _Call) -> None:
        """Side by side, but the request leaves first: the avatar's start hangs on it."""
        sent = asyncio.Event()

        async def join() -> None:
            await sent.wait()
            await call.transport.join()

        joining = asyncio.create_task(join(), name="runway_join")
        try:
            await call.supervisor.create(sent.set)
            await joining
        finally:
            await cancel_and_wait(joining)

    async def _run(self, call: _Call) -> None:
        await call.supervisor.run()
        self._close_soon()

    def _on_run_done(self, call: _Call, task: asyncio.Task[None]) -> None:
        """A fault of ours must not cost the user the agent's voice."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.error("the avatar is given up", exc_info=error)
        call.output.detach_avatar()
        self._move_to(AvatarState.VOICE_ONLY, "internal error")

    # -- close ----------------------------------------------------------------------------------

    def _on_agent_session_close(self, _: object) -> None:
        # The room is still connected now; when the shutdown callbacks run it is not.
        self._close_soon()

    def _close_soon(self) -> asyncio.Task[None]:
        if self._close_task is None:
            self._close_task = asyncio.create_task(self._close(), name="runway_avatar_close")
        return self._close_task

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        deadline, call = loop.time() + CLOSE_BUDGET, self._call
        self._move_to(AvatarState.CLOSED, "aclose")
        await cancel_and_wait(self._warming_task, self._run_task)
        if self._agent_session is not None:
            self._agent_session.off("close", self._on_agent_session_close)
            if call is not None:
                try:
                    self._restore_output(self._agent_session, call.output)
                except Exception:  # noqa: BLE001  of an output that is somebody else's
                    logger.exception("the agent's former audio output was not restored")
        if call is not None:
            await call.output.aclose()
            call.presence.close()
            await call.supervisor.aclose(deadline - loop.time() - 1.0)
            await call.transport.aclose()
        unconfirmed = await self._client.aclose(max(0.5, deadline - loop.time()))
        if call is not None:
            for session_id in unconfirmed:
                call.supervisor.account_for(abandoned(session_id))
            call.telemetry.end(call.supervisor.usage)
        await self._keeper.aclose()
        await super().aclose()

    def _restore_output(self, agent_session: AgentSession[Any], output: AvatarAudioOutput) -> None:
        if _tail(agent_session.output.audio) is not output:
            return  # the framework has taken it off already, or somebody else has replaced it
        if agent_session.output.audio is output:
            agent_session.output.audio = self._former_output
        elif self._former_output is not None:
            agent_session.output.replace_audio_tail(self._former_output)
        else:
            logger.warning(
                "the avatar is closed while the agent session goes on, which has no audio output "
                "of its own: the agent is silent from now on"
            )

    # -- events ---------------------------------------------------------------------------------

    def _move_to(self, state: AvatarState, reason: str) -> None:
        """The one place that changes the state. Late news of a closed avatar change nothing."""
        if state is self._state or self._state is AvatarState.CLOSED:
            return
        if state not in ALLOWED[self._state]:
            raise RuntimeError(f"cannot go from {self._state.value} to {state.value}")
        old, self._state = self._state, state
        logger.debug("avatar state changed", extra={"old": old.value, "new": state.value})
        self.emit("state_changed", StateChanged(old, state, reason))

    def _on_stage(self, started_at: float, stage: str) -> None:
        elapsed = asyncio.get_running_loop().time() - started_at
        logger.debug("avatar stage reached", extra={"stage": stage, "seconds": round(elapsed, 3)})
        if getattr(self._timings, stage) is None:
            setattr(self._timings, stage, elapsed)
            self.emit("stage_reached", stage)

    def _on_swept(self, swept: Swept) -> None:
        """Told, but not counted in `usage`: it was another call's."""
        self.emit("session_ended", swept.session_end())

    def _on_playout_report(self, on_stage: Callable[[str], None], report: PlayoutReport) -> None:
        match report:
            case FirstSpeechHeard():
                if self._timings.first_speech is None:
                    on_stage("first_speech")
            case PlayoutForced():
                self.emit("playout_forced", report)


def _in_console() -> bool:
    job = get_job_context(required=False)
    return job is not None and job.is_fake_job()


def _tail(output: AudioOutput | None) -> AudioOutput | None:
    """The sink at the end of a chain of audio outputs."""
    while output is not None and output.next_in_chain is not None:
        output = output.next_in_chain
    return output


def _is_running(agent_session: AgentSession[Any]) -> bool:
    try:
        agent_session.current_agent  # noqa: B018  raises unless the session was started
    except RuntimeError:
        return False
    return True


class _RunwayBridgePlugin(Plugin):
    """The entry of this package in the framework's list of plugins."""

    def __init__(self) -> None:
        package = __name__.partition(".")[0]
        super().__init__(package, __version__, package, logger)


def _register_plugin() -> None:
    if threading.current_thread() is threading.main_thread():
        Plugin.register_plugin(_RunwayBridgePlugin())
    else:
        # The framework refuses, and an avatar works without: the list is for its command line.
        logger.debug("not listed as a plugin: this module was first imported in a thread")


_register_plugin()
