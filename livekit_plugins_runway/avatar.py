"""`AvatarSession`: what a user of this package constructs."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Mapping
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
from livekit.agents.utils import http_context, is_given
from livekit.agents.voice.avatar import AvatarSession as BaseAvatarSession

from . import __version__
from ._common.checks import check_choice, check_seconds, required
from ._common.emitter import SafeEmitter
from ._common.tasks import BackgroundTasks, cancel_and_wait
from ._common.versions import warn_of_untested_versions
from .errors import ConfigurationError
from .events import AvatarState, CallEvents, CallUsage, Event, TransportKind
from .lifecycle.call import AvatarCall, CallOptions, ClosingStack
from .lifecycle.creating import CreateOptions
from .lifecycle.instance import SHORTEST_QUEUE_TIMEOUT, AvatarInstance, InstanceOptions
from .lifecycle.recovery import RecoveryOptions
from .lifecycle.state import StateMachine
from .lifecycle.telemetry import Telemetry
from .lifecycle.timings import StageTimings
from .lifecycle.tools import ToolDispatcher, ToolHandler, checked_handlers
from .log import logger
from .media.video import VideoOptions
from .playout.ports import PlayoutStats
from .runway.address import API_SECRET_VARIABLES, DEFAULT_BASE_URL
from .runway.client import RunwayClient
from .runway.journal.keeper import Keeper
from .runway.journal.sweep import Swept
from .runway.models import Tool
from .runway.requests import realtime_request
from .transport.auto.learned import AccountMemory, LearnedTransports
from .transport.base import Transport
from .transport.factory import (
    TransportOption,
    TransportOptions,
    check_transport,
    make_transport,
    worker_token_ttl,
)
from .transport.identity import DEFAULT_IDENTITY, free_identity
from .transport.participant_options import ParticipantOptions
from .transport.tokens import RoomCredentials
from .transport.worker_protocol import DeliveryKind, DeliveryOption

CLOSE_BUDGET = 8.0
"""Seconds that `aclose()` may take; a job that is shut down has 10."""
_LEAVE_PATIENCE = 3.0
"""The last seconds of them are for leaving rooms. A room that takes longer is left in the
background.
"""
PlayoutOption = Literal["ear", "clock"]
"""How the avatar's position in its speech is found."""
_FrameworkEvent = Literal["metrics_collected"]
"""Emitted by the base class."""


class AvatarSession(SafeEmitter[Event | _FrameworkEvent], BaseAvatarSession[Event]):
    """A Runway Characters avatar for an `AgentSession`.

    Defaults come from the same environment variables as with the official plugin.

    Args:
        avatar_id: id (UUID) of a custom avatar of the key's project. Either this or `preset_id`.
        preset_id: a Runway preset, e.g. "influencer".
        max_duration: seconds after which Runway ends a session, 10 to 1800. Sessions were seen to
            end at about 300 s whatever was asked for. A value below `recovery.session_cap` limits
            the whole call: later sessions get what is left of it.
        api_url: default `RUNWAYML_BASE_URL`, else Runway's production API.
        api_key: default `RUNWAYML_API_SECRET`, else `RUNWAY_API_KEY`.
        avatar_participant_identity: identity of the participant that the user sees; unique in the
            room. The default, "runway-avatar-agent", gets a suffix if another agent's avatar uses
            it already.
        avatar_participant_name: its display name.
        conn_options: retries and connect timeout of the calls to Runway.
        personality: overrides the avatar's, 1 to 10,000 characters.
        start_script: what the avatar says by itself at the start, 1 to 2,000 characters.
        tools: Runway tools of the session, at most 20; each use emits `tool_called`.
        tool_handlers: functions that answer `backend_rpc` tools, by tool name. Each takes the
            arguments as a dict and returns JSON data within the tool's `timeout_seconds`. Use
            coroutine functions; a plain function must not block.
        transport: "bridge": join the room that Runway hosts, and relay. "direct": Runway's worker
            joins the agent's room by itself, at the public address of your LiveKit server. "auto":
            begins with "bridge", and changes to "direct" once in a call, if Runway's worker does
            not say the agent's words in the room that Runway hosts, or that room cannot be used.
            This needs a LiveKit URL that Runway can reach, and `on_loss="restart"`. The key and
            secret of your LiveKit server never leave this process. With "direct", and so perhaps
            with "auto", Runway gets a token that admits one participant to the room.
        learned: passes what one call has found out on to later calls; None: each call finds it out
            for itself. With "auto".
        check_first_words: with "auto" and nothing learned, hold back the avatar's first sound until
            it is known to be the agent's words, so that the user hears no words of the avatar's
            own. Delays a call's first segment by 0.2 s, at most 0.4 s. Not done if the worker
            answers `lk.clear_buffer`: such a worker speaks what it is sent.
        allow_private_livekit_url: with "direct", do not check that Runway can reach your LiveKit
            URL; for a simulator.
        delivery: how speech reaches the avatar worker; "auto" asks the worker ("direct": always
            "datastream").
        wait_for_avatar: seconds that the first speech waits for the avatar; after that the agent
            speaks without it. 0: voice first.
        queue_timeout: seconds, 5 or more, that a session may wait in Runway's queue where the
            account has no free place; the agent speaks by voice meanwhile. After that no more
            sessions are made (`gave_up`). With "direct" at most 60, and then another one is made.
        create_timeout: seconds for Runway to make one session, all retries included.
        join_timeout: seconds for the avatar worker to join its room, and again for its first frame;
            about 8 s are usual. After that the session is given up.
        stall_timeout: the avatar counts as lost after so many seconds without pictures, or without
            progress in speech.
        playout: "ear": compare the avatar's voice with what it was sent. So it is known what the
            user heard, and words of the avatar's own are noticed. "clock": trust time and the
            worker's reports; for an avatar whose voice differs from what it is sent.
        allow_pause: let the framework pause and resume speech (`resume_false_interruption`). What
            was sent and not heard yet is spoken again, after the avatar's usual latency.
        recovery: what happens when the avatar is lost, its session is about to end, or nobody is in
            the room; None: `RecoveryOptions()`.
        video: size, frame rate and encoding of the picture that the user gets; None: as Runway
            sends it. With "bridge" only.
        participant: attributes and metadata of the avatar participant, who may see and hear it, and
            who makes its token; None: `ParticipantOptions()`.
        room_options: of the avatar participant's connection to the agent's room: ICE servers, relay
            only, timeout, keys. Without `encryption` it takes the keys of the agent's own room.
            With "bridge" only.
        allow_unencrypted: with "direct", accept an encrypted room, although Runway's worker has no
            key and sends unencrypted media.
        guardian: run a small process that ends the Runway sessions at once if this process is
            killed. Without it the next start on this machine ends them.
        http_session: an aiohttp session to use and not to close. None: that of the job, with the
            worker's proxy; outside a job an own one, with the proxy from the environment.

    Events (`on(name, callback)`): `state_changed` (`StateChanged`), `error` (`RunwayException`),
    `restarting` (`Restarting`), `gave_up` (`RunwayException`), `replaced` (`AvatarReplaced`),
    `session_ended` (`SessionEnd`), `usage_updated` (`CallUsage`), `stage_reached` (its name),
    `playout_forced` (`PlayoutForced`), `tool_called` (`ToolCall`), `transport_changed`
    (`TransportChanged`), `metrics_collected` (`livekit.agents.metrics.AvatarMetrics`). An exception
    in a callback is logged, and stops nothing.

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
        transport: TransportOption = "auto",
        learned: LearnedTransports | None = None,
        check_first_words: bool = True,
        allow_private_livekit_url: bool = False,
        delivery: DeliveryOption = "auto",
        wait_for_avatar: float = 10.0,
        queue_timeout: float = 600.0,
        create_timeout: float = 45.0,
        join_timeout: float = 30.0,
        stall_timeout: float = 1.5,
        playout: PlayoutOption = "ear",
        allow_pause: bool = True,
        recovery: RecoveryOptions | None = None,
        video: VideoOptions | None = None,
        participant: ParticipantOptions | None = None,
        room_options: rtc.RoomOptions | None = None,
        allow_unencrypted: bool = False,
        guardian: bool = True,
        http_session: aiohttp.ClientSession | None = None,
    ) -> None:
        super().__init__()
        warn_of_untested_versions()
        # Never changed: a swap changes the supervisor's copy.
        request = realtime_request(
            avatar_id or None,
            preset_id or None,
            max_duration if is_given(max_duration) else None,
            personality,
            start_script,
            tools,
        )
        check_choice("delivery", delivery, ("auto", "datastream", "track"))
        check_choice("playout", playout, get_args(PlayoutOption))
        check_transport(transport, delivery, video, room_options, participant)
        check_seconds("wait_for_avatar", wait_for_avatar, zero=True)
        check_seconds("queue_timeout", queue_timeout, least=SHORTEST_QUEUE_TIMEOUT)
        check_seconds("create_timeout", create_timeout)
        check_seconds("join_timeout", join_timeout)
        check_seconds("stall_timeout", stall_timeout)
        api_secret = required("Runway's API secret", "api_key", api_key, *API_SECRET_VARIABLES)
        base_url = api_url or os.getenv("RUNWAYML_BASE_URL") or DEFAULT_BASE_URL
        self._account = api_secret, base_url
        self._keeper = Keeper.on_this_machine(api_secret, base_url, guardian=guardian)
        """Ends what a killed process leaves; at work from `prewarm()` or `start()` on."""
        self._client = RunwayClient(
            api_secret,
            base_url=base_url,
            http_session=http_session or functools.cache(_http_session_of_job),
            conn_options=conn_options,
            journal=self._keeper.journal,
        )
        """Its sessions are the call's, which closes it."""
        self._identity = avatar_participant_identity or DEFAULT_IDENTITY
        self._name = avatar_participant_name or self._identity
        self._transport = transport
        self._learned = learned
        self._check_first_words = check_first_words
        self._allow_private_livekit_url = allow_private_livekit_url
        self._video = video
        self._participant = participant or ParticipantOptions()
        self._room_options = room_options
        self._allow_unencrypted = allow_unencrypted
        self._call_events = CallEvents(self.emit)
        self._options = CallOptions(
            request=request,
            instance=InstanceOptions(
                delivery=delivery,
                queue_timeout=queue_timeout,
                join_timeout=join_timeout,
                stall_timeout=stall_timeout,
                tools=ToolDispatcher(
                    client=self._client,
                    handlers=checked_handlers(tool_handlers, request.tools),
                    on_called=self._call_events.tool_called,
                    on_error=self._call_events.error,
                ),
            ),
            recovery=recovery or RecoveryOptions(),
            create=CreateOptions(conn_options, create_timeout),
            wait_for_avatar=wait_for_avatar,
            allow_pause=allow_pause,
            by_clock=playout == "clock",
            audience=self._participant.audience,
        )

        # State; used by the event loop's thread only.
        self._states = StateMachine(self._call_events)
        self._timings = StageTimings()
        self._call: AvatarCall | None = None
        """Set by `start()`, and kept after the close; None if it was never started."""
        self._background = BackgroundTasks()
        """Runs what `aclose()` does not wait for any longer."""
        self._closing = ClosingStack(self._background)
        """The steps of `_close()`; pushed as the parts are made."""
        self._closing.push("base", self._close_base)
        self._closing.push("keeper", self._keeper.aclose)  # after the client, which is pushed later
        self._warming_task: asyncio.Task[None] | None = None
        """The task of `prewarm()`."""
        self._close_task: asyncio.Task[None] | None = None
        """The task of `_close()`; all closers share it."""
        self._swap_lock = asyncio.Lock()
        """The supervisor takes one swap at a time."""

    # -- state ----------------------------------------------------------------------------------

    @property
    def avatar_identity(self) -> str:
        """Identity of the avatar's participant; with "direct" it changes after a renewal, a swap or
        a restart.
        """
        return self._identity if self._call is None else self._call.transport.identity

    @property
    def provider(self) -> str:
        return "runway"

    @property
    def state(self) -> AvatarState:
        return self._states.state

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
    def transport(self) -> TransportKind | None:
        """The one in use; None before `start()`. With "auto" it may change."""
        return None if self._call is None else self._call.transport.kind

    @property
    def session_id(self) -> str | None:
        """Runway's id of the present session; None while there is none."""
        return None if self._instance is None else self._instance.session.id or None

    @property
    def usage(self) -> CallUsage:
        """The cost of the sessions that have ended, and how often the avatar was replaced."""
        return CallUsage() if self._call is None else self._call.endings.usage

    @property
    def playout(self) -> PlayoutStats:
        """Totals of the agent's speech so far."""
        return PlayoutStats() if self._call is None else self._call.output.stats

    @property
    def speech_latency(self) -> float | None:
        """Seconds from sending speech to the avatar to relaying it, last measured."""
        return None if self._call is None else self._call.output.latency

    def __repr__(self) -> str:
        return f"AvatarSession(state={self.state.value}, delivery={self.delivery})"

    # -- actions --------------------------------------------------------------------------------

    def prewarm(self) -> None:
        """Open the connection to Runway now, to save that time in a `start()` within the next 120
        s.

        Returns at once; needs a running event loop. Nothing bills, and no key is sent unless a
        killed process has left sessions, which are ended; if Runway cannot be reached, `start()`
        raises that. An avatar that is then never started must be closed. No effect the second time,
        after `start()`, and in `console` mode.
        """
        if self.state is AvatarState.NEW and self._warming_task is None and not _in_console():
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
        """Start the avatar; before or after `agent_session.start()`.

        Returns when Runway has accepted the session and the avatar participant is in the room; the
        video follows. From now on everything that the agent says is kept and spoken in order. If it
        raises, or is cancelled, the agent's audio output is as it was before, and nothing bills.

        If Runway has not answered after `wait_for_avatar` seconds (8 at least), or has too many
        requests just now, it returns all the same: the agent begins by voice, another try follows,
        and what Runway refuses later is emitted as `error`.

        With `on_user_left="pause"` and nobody in the room, it makes no session yet: it returns when
        the avatar participant is there, and a later refusal by Runway is emitted as `error`. With
        "direct", a start that failed may leave handlers in the room until the worker's token has
        expired (150 s), to send that worker away.

        Args:
            room: the agent's room; connected, or that of the job.
            livekit_url: your LiveKit server; default `LIVEKIT_URL`.
            livekit_api_key: default `LIVEKIT_API_KEY`.
            livekit_api_secret: default `LIVEKIT_API_SECRET`.

        Raises:
            ConfigurationError: LiveKit credentials are missing, it was started before, or Runway
                would refuse the LiveKit URL ("direct").
            AvatarClosedError: it, or the agent session, was closed meanwhile.
            RunwayException: Runway refused within that time, by kind (see `errors`).
            UnavailableError: the avatar participant could not join the agent room, or it got no
                token, or ("direct") the agent's own voice could not be published there.
        """
        if _in_console():
            logger.warning("console mode: the avatar stays off, nothing is created or billed")
            return
        if self.state is not AvatarState.NEW:
            raise ConfigurationError(
                f"This AvatarSession is {self.state.value}; make a new one for each start()."
            )
        credentials = self._credentials(room, livekit_url, livekit_api_key, livekit_api_secret)
        self._call = call = self._make_call(room, self._make_transport(room, credentials))
        self._states.move_to(AvatarState.STARTING, "start")
        self._keeper.sweep(self._client.delete, self._on_swept)
        try:
            await super().start(agent_session, room)
            agent_session.on("close", self._on_agent_session_close)
            await call.open(agent_session)
        except BaseException:
            # Cancelled, refused or closed: undo everything, then raise the reason.
            await self.aclose()
            raise

    async def swap_avatar(
        self,
        *,
        avatar_id: str | None = None,
        preset_id: str | None = None,
        personality: str | None = None,
        tools: list[Tool] | None = None,
    ) -> None:
        """Show another avatar, or another personality of the same, in mid-call.

        The present avatar stays until the new one has video and the current speech has ended (for
        `SWAP_PATIENCE` seconds at most; then the voice says the rest). Returns when the user sees
        the new one. Later sessions of this call use it, too. Concurrent calls run one after the
        other. If a call is cancelled, its swap may still happen.

        Raises:
            ConfigurationError: the avatar is not started, is closed, or an argument is wrong.
            RunwayException: Runway refused, or the new avatar did not come; the present one stays.
        """
        request = realtime_request(
            avatar_id,
            preset_id,
            self._options.request.max_duration,
            personality,
            None,
            tools,
        )
        async with self._swap_lock:
            await self._running_call("swap_avatar()").swap(request)

    async def pause(self) -> None:
        """Switch the avatar off: the Runway session ends, and nothing bills until `resume()`.

        The agent goes on by voice, on the same track, from the next gap in the speech (15 s at
        most). Returns then; the state is "paused". Idempotent.

        Raises:
            ConfigurationError: the avatar is not started, or is closed.
            AvatarClosedError: it was closed, or resumed, meanwhile.
        """
        await self._running_call("pause()").supervisor.pause()

    async def resume(self) -> None:
        """Switch the avatar on again, with another Runway session. Returns when the user sees it.
        Also works after `gave_up`. With `on_user_left="pause"` and nobody in the room it waits for
        a user. Idempotent.

        Raises:
            ConfigurationError: the avatar is not started, or is closed.
            AvatarClosedError: it was closed, or paused, meanwhile.
            RunwayException: the avatar did not come, after the retries that `recovery` allows.
        """
        await self._running_call("resume()").supervisor.resume()

    def _running_call(self, method: str) -> AvatarCall:
        if self._call is None or not self._call.running:
            raise ConfigurationError(
                f"{method} needs a started avatar; this one is {self.state.value}."
            )
        return self._call

    async def aclose(self) -> None:
        """End the Runway session, confirmed, and leave the room.

        Idempotent, and safe to call from several places at once. Takes at most about 8 s. Restores
        the audio output that `start()` replaced.
        """
        await asyncio.shield(self._close_soon())

    # -- start ----------------------------------------------------------------------------------

    def _credentials(
        self,
        room: rtc.Room,
        livekit_url: NotGivenOr[str],
        livekit_api_key: NotGivenOr[str],
        livekit_api_secret: NotGivenOr[str],
    ) -> RoomCredentials:
        """Raises `ConfigurationError` if credentials are missing, or the room is not one for an
        avatar.
        """
        job = get_job_context(required=False)
        url = required("The LiveKit URL", "livekit_url", livekit_url, "LIVEKIT_URL")
        key = secret = ""
        if self._participant.token is None:
            key = required("The LiveKit key", "livekit_api_key", livekit_api_key, "LIVEKIT_API_KEY")
            secret = required(
                "The LiveKit secret", "livekit_api_secret", livekit_api_secret, "LIVEKIT_API_SECRET"
            )
        if room.isconnected():
            room_name, agent_identity = room.name, room.local_participant.identity
        elif job is not None:  # its room is connected by the agent session
            room_name, agent_identity = job.job.room.name, job.local_participant_identity
        else:
            raise ConfigurationError("Outside a job the room must be connected before start().")
        self._identity = free_identity(self._identity, room, agent_identity)
        return RoomCredentials(url, key, secret, room_name, agent_identity, self._participant)

    def _make_transport(self, room: rtc.Room, credentials: RoomCredentials) -> Transport:
        options = self._options.instance
        return make_transport(
            self._transport,
            TransportOptions(
                room,
                credentials,
                identity=self._identity,
                name=self._name,
                stall_timeout=options.stall_timeout,
                token_ttl=worker_token_ttl(options.ready_timeout, options.join_timeout),
                allow_private=self._allow_private_livekit_url,
                video=self._video,
                background=self._background,
                room_options=self._room_options,
                allow_unencrypted=self._allow_unencrypted,
            ),
            AccountMemory(self._learned, *self._account, credentials.url),
            delivery=options.delivery,
            check_first_words=self._check_first_words,
            on_changed=self._call_events.transport_changed,
        )

    def _make_call(self, room: rtc.Room, transport: Transport) -> AvatarCall:
        return AvatarCall(
            self._options,
            client=self._client,
            transport=transport,
            room=room,
            events=self._call_events,
            states=self._states,
            timings=self._timings,
            telemetry=Telemetry(self, self._timings),
            background=self._background,
            closing=self._closing,
            on_over=self._on_over,
        )

    # -- close ----------------------------------------------------------------------------------

    def _on_agent_session_close(self, _: object) -> None:
        # The room is still connected now; when the shutdown callbacks run it is not.
        self._close_soon()

    def _on_over(self) -> None:
        self._close_soon()

    def _close_soon(self) -> asyncio.Task[None]:
        if self._close_task is None:
            self._close_task = asyncio.create_task(self._close(), name="runway_avatar_close")
        return self._close_task

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CLOSE_BUDGET
        self._states.move_to(AvatarState.CLOSED, "aclose")
        if self._warming_task is not None:
            self._warming_task.cancel()
        if self._call is None:
            self._closing.push("client", self._close_client)
        await self._closing.aclose(deadline)
        await self._background.settle(min(deadline, loop.time() + _LEAVE_PATIENCE))

    def _on_swept(self, swept: Swept) -> None:
        """Emitted, but not counted in `usage`: the session was of another call."""
        self._call_events.session_ended(swept.session_end())

    async def _close_base(self) -> None:
        await cancel_and_wait(self._warming_task)
        if self._agent_session is not None:
            self._agent_session.off("close", self._on_agent_session_close)
        await super().aclose()

    async def _close_client(self) -> None:
        """Of an avatar that was never started."""
        await self._client.aclose()


def _http_session_of_job() -> aiohttp.ClientSession | None:
    """Call it once: if the job has closed its own session, the framework would make another one."""
    try:
        return http_context.http_session()
    except RuntimeError:  # not in a job
        return None


def _in_console() -> bool:
    job = get_job_context(required=False)
    return job is not None and job.is_fake_job()


class _RunwayBridgePlugin(Plugin):
    """The entry of this package in the framework's list of plugins."""

    def __init__(self) -> None:
        # This module and not the package: a worker imports it once, in the process from which all
        # of its jobs are forked. The package alone loads nothing there, so each job's first use
        # would stop its event loop for some 350 ms.
        super().__init__(__name__.partition(".")[0], __version__, __name__, logger)


def _register_plugin() -> None:
    if threading.current_thread() is threading.main_thread():
        Plugin.register_plugin(_RunwayBridgePlugin())
    else:
        # The framework refuses this. Avatars work without it: the list is for its command line.
        logger.debug("not listed as a plugin: this module was imported in a thread")


_register_plugin()
