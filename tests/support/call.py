"""A whole call: server, simulated Runway, agent session with its avatar, and a user."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from livekit import api, rtc
from livekit.agents import NOT_GIVEN, Agent, AgentSession
from livekit.agents.voice import SpeechHandle
from livekit.agents.voice.room_io import RoomOptions

from livekit_plugins_runway import (
    AvatarReplaced,
    AvatarSession,
    AvatarState,
    RecoveryOptions,
    SessionEnd,
    StateChanged,
)
from livekit_plugins_runway.errors import RunwayException
from livekit_plugins_runway.testing import RunwaySimulator, SimulatedSession, SimulatorOptions
from livekit_plugins_runway.testing.levels import Levels, compare, loudest, too_loud
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import HeardTone, ToneScript, hear, missing
from livekit_plugins_runway.testing.user import SimulatedUser
from livekit_plugins_runway.transport.auto.transport import AutoTransport
from livekit_plugins_runway.transport.bridge import Bridge
from livekit_plugins_runway.transport.tokens import RoomCredentials

RATE = 48_000
HOLES: Any = {"softer": 0.2, "clicks": 40}
"""What `Levels.match()` lets pass where the machine may have stood still."""
QUICK: dict[str, Any] = {
    "queue_delay": 0.0,
    "provisioning_delay": 0.2,
    "worker_join_delay": 0.2,
    "end_call_settle": 0.2,
    "crash_settle": 0.2,
    "start_size": (160, 104),
    "full_size": (320, 208),
    "fps": 10.0,
}
"""A service that is in a hurry, with a small picture: a whole call shares one process here."""
FEW_PICTURES = {"fps": 5.0}
"""For calls of two agents, in one process."""
SMALL_PICTURE: dict[str, Any] = {"start_size": (160, 104), "full_size": (320, 208), "fps": 10.0}
"""For tests in which several processes share the machine."""
DIRECT: dict[str, Any] = {"transport": "direct", "allow_private_livekit_url": True}
"""Options of an avatar whose worker joins the agent's room by itself."""
REAL_PICTURE = {
    "start_size": (556, 360),
    "full_size": (1088, 704),
    "fps": 25.0,
    "upscale_after": 0.5,
}
TRANSPORTS = pytest.mark.parametrize("options", [{}, DIRECT], ids=["bridge", "direct"])
"""For a promise that holds with both: `options` are those of the avatar."""
WORKERS = ["runway-avatar-agent", *(f"runway-avatar-agent-{n}" for n in range(2, 6))]
"""Identities of such workers, one after the other."""
ONE_FACE = RecoveryOptions(on_loss="audio", session_cap=None)
"""Nothing is restarted or renewed unless a test asks for it."""


async def tts(
    script: ToneScript, *, rate: int = 24_000, realtime: bool = False
) -> AsyncIterator[Any]:
    """Frames as a TTS gives them: in bursts faster than real time, or as slow as speech."""
    for frame in script.frames(rate, 20):
        yield frame
        if realtime:
            await asyncio.sleep(0.02)


@dataclass
class Call:
    server: LiveKitServer
    simulator: RunwaySimulator
    room: rtc.Room
    user: SimulatedUser
    session: AgentSession[Any]
    avatar: AvatarSession
    states: list[StateChanged] = field(default_factory=list)
    errors: list[RunwayException] = field(default_factory=list)
    ends: list[SessionEnd] = field(default_factory=list)
    replaced: list[AvatarReplaced] = field(default_factory=list)
    gave_up: list[RunwayException] = field(default_factory=list)
    loudest: float = 0.0
    """RMS of the loudest 100 ms that `say()` was given, 1.0 = full scale."""
    judged_since: float | None = None
    """Time from which on the level is judged at the end; None: from the user's joining on."""
    close_on_disconnect: bool = True
    """The framework's own answer to a user who leaves."""
    stack: AsyncExitStack = field(default_factory=AsyncExitStack, repr=False)
    """What is closed with the call."""

    def api(self) -> api.LiveKitAPI:
        """The server's; to be entered."""
        return api.LiveKitAPI(self.server.http_url, self.server.api_key, self.server.api_secret)

    async def others(self) -> list[str]:
        """Identities of those who are in the room beside the agent, as the server knows them."""
        async with self.api() as livekit:
            listed = await livekit.room.list_participants(
                api.ListParticipantsRequest(room=self.room.name)
            )
        return sorted(p.identity for p in listed.participants if p.identity != "agent")

    async def until_alone(self, timeout: float) -> None:
        """Until the server knows of nobody but the user beside the agent. No event tells."""
        async with asyncio.timeout(timeout):
            while await self.others() != ["user"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    @property
    def bridge(self) -> Bridge:
        """Of a call whose transport it is now."""
        assert self.avatar._call is not None
        transport = self.avatar._call.transport
        if isinstance(transport, AutoTransport):
            transport = transport._current
        assert isinstance(transport, Bridge)
        return transport

    async def join_user(self) -> None:
        """Let the user come, of a call that was begun with `late`."""
        await self.stack.enter_async_context(self.user)

    @property
    def livekit(self) -> dict[str, Any]:
        return {
            "livekit_url": self.server.url,
            "livekit_api_key": self.server.api_key,
            "livekit_api_secret": self.server.api_secret,
        }

    @property
    def runway(self) -> SimulatedSession:
        """The newest session of the simulated Runway."""
        return list(self.simulator.sessions.values())[-1]

    async def start(self, *, avatar_first: bool = True) -> None:
        steps = [self.start_avatar, self.start_session]
        for step in steps if avatar_first else reversed(steps):
            await step()

    async def start_avatar(self) -> None:
        await self.avatar.start(self.session, self.room, **self.livekit)

    async def start_session(self, agent: Agent | None = None, *, audio_output: bool = True) -> None:
        await self.session.start(
            agent or Agent(instructions=""),
            room=self.room,
            # Nobody listens to the user here: no voice detection, which would cost much CPU.
            room_options=RoomOptions(
                audio_input=False,
                close_on_disconnect=self.close_on_disconnect,
                audio_output=NOT_GIVEN if audio_output else False,
            ),
        )

    async def until(self, state: AvatarState, timeout: float = 15.0) -> None:
        await self.until_told("state_changed", lambda: self.avatar.state is state, timeout)

    async def until_told(
        self, event: Any, condition: Callable[[], bool], timeout: float = 15.0
    ) -> None:
        """Until the condition holds, which is looked at after each such event of the avatar."""
        told = asyncio.Event()

        def on_told(_: object) -> None:
            told.set()

        self.avatar.on(event, on_told)
        async with asyncio.timeout(timeout):
            while not condition():
                told.clear()
                await told.wait()
        self.avatar.off(event, on_told)

    def say(self, script: ToneScript, **options: Any) -> SpeechHandle:
        self.loudest = max(self.loudest, loudest(script.pcm(RATE), RATE))
        return self.session.say(script.text, audio=tts(script, **options))

    def levels(self, script: ToneScript, since: float) -> Levels:
        """What the user has heard since then next to what was said."""
        return compare(script.pcm(RATE), self.user.heard(since), RATE)

    def heard(self, since: float) -> list[HeardTone]:
        return hear(self.user.heard(since), RATE)

    async def hears(
        self, *scripts: ToneScript, since: float, fraction: float = 0.5
    ) -> list[HeardTone]:
        """What the user has heard since then, when nothing more comes: all of these scripts at
        least, and of each of their tones that fraction. How late it may be is no matter here: on a
        machine that stood still, a receiver is late for some seconds."""

        def lacks() -> list[int]:
            heard, lacking = self.heard(since), list[int]()
            for script in scripts:
                slots = missing(script, heard, fraction=fraction)
                lacking += [script.indices[slot] for slot in slots]
            return lacking

        await self.user.wait_for_silence(0.4, 5.0)
        if lacking := lacks():
            with suppress(TimeoutError):
                await self.until_heard(lacking[-1], 5.0)
            await self.user.wait_for_silence(0.4, 5.0)
        lacking = lacks()
        assert not lacking, f"tones not heard: {lacking}; heard: {self.heard(since)}"
        return self.heard(since)

    def history(self) -> list[tuple[str, bool]]:
        """What the agent believes to have said: text, and whether it was interrupted."""
        return [
            (item.text_content or "", item.interrupted)
            for item in self.session.history.items
            if item.type == "message" and item.role == "assistant"
        ]

    async def until_heard(self, index: int, timeout: float = 15.0) -> None:
        """Until the user hears the tone with this index: from 0.3 s before the call on."""
        looked_at = now()
        due = looked_at

        def sounds() -> bool:
            nonlocal looked_at, due
            if now() < due:  # a look at the record costs more than a frame
                return False
            since, looked_at = looked_at - 0.3, now()
            due = looked_at + 0.05
            return any(tone.index == index for tone in self.heard(since))

        await self.user.wait_until(sounds, timeout)


@asynccontextmanager
async def calling(
    server: LiveKitServer,
    *,
    simulated: dict[str, Any] | None = None,
    simulator: RunwaySimulator | None = None,
    late: bool = False,
    room: rtc.RoomOptions | None = None,
    user: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Call]:
    """A call whose avatar is not started yet. On leaving all is closed, no session is left, and the
    user has heard nothing that was clipped, or louder than what was said (`Call.judged_since`).

    Args:
        simulated: `SimulatorOptions`.
        simulator: one that several calls share; no session is left once all have ended.
        late: the user is not there yet: `join_user()`.
        room: of the agent's connection to its room.
        user: options of the `SimulatedUser`.
        options: of the avatar.
    """
    name = f"call-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        shared = simulator is not None
        if simulator is None:
            simulator = await stack.enter_async_context(simulating(server, **(simulated or {})))
        # With "direct" the plain voice is on the agent's own participant, and heard all the same.
        heard = ["agent", *WORKERS] if options.get("transport") == "direct" else None
        caller = SimulatedUser(
            server.url,
            name,
            api_key=server.api_key,
            api_secret=server.api_secret,
            **{"listen_to": heard, **(user or {})},
        )
        if not late:
            await stack.enter_async_context(caller)
        agent = rtc.Room()
        token = server.token(name, "agent", kind="agent")
        await agent.connect(server.url, token, room or rtc.RoomOptions())
        stack.push_async_callback(agent.disconnect)
        # The default turn detector loads a model, 150 ms in which the event loop stands still.
        session: AgentSession[Any] = AgentSession(turn_handling={"turn_detection": None}, vad=None)
        stack.push_async_callback(session.aclose)
        avatar = AvatarSession(
            **{
                "preset_id": "influencer",
                "api_url": simulator.url,
                "api_key": simulator.api_secret,
                "recovery": ONE_FACE,
                **options,
            }
        )
        stack.push_async_callback(avatar.aclose)
        call = Call(server, simulator, agent, caller, session, avatar, stack=stack)
        avatar.on("state_changed", call.states.append)
        avatar.on("error", call.errors.append)
        avatar.on("session_ended", call.ends.append)
        avatar.on("replaced", call.replaced.append)
        avatar.on("gave_up", call.gave_up.append)
        yield call
        if call.loudest:  # something was said by `say()`, and nothing else is louder
            wrong = too_loud(call.loudest, caller.heard(call.judged_since), RATE)
            assert wrong is None, wrong
        await avatar.aclose()
        if not shared:
            await nothing_is_left(simulator)


def simulating(server: LiveKitServer, **options: Any) -> RunwaySimulator:
    """A quick Runway; to be entered."""
    return RunwaySimulator(
        livekit_url=server.url,
        livekit_api_key=server.api_key,
        livekit_api_secret=server.api_secret,
        options=SimulatorOptions(**{**QUICK, **options}),
    )


async def nothing_is_left(simulator: RunwaySimulator) -> None:
    """Once all calls have ended: Runway needs a while to settle what it was told."""
    await simulator.wait_until(lambda: not simulator.leaked(), 5.0)


async def close_for_good(avatar: AvatarSession) -> None:
    """And see what it leaves in the background to its end: see `settled()`."""
    await avatar.aclose()
    await settled(avatar)


async def settled(avatar: AvatarSession) -> None:
    """Until nothing of it goes on in the background. An attempt to join that was given up takes the
    SDK 15 s and more, and must not be cancelled (`media/connect.py`)."""
    loop = asyncio.get_running_loop()
    assert await avatar._background.settle(loop.time() + 40.0), avatar._background


def credentials_for(server: LiveKitServer, room: str, agent: str) -> RoomCredentials:
    """With which the avatar of this agent joins this room."""
    return RoomCredentials(server.url, server.api_key, server.api_secret, room, agent)


def now() -> float:
    return time.monotonic()


def loudness(pcm: Any) -> float:
    return float(np.sqrt(np.mean(np.square(pcm.astype(np.float64))))) if len(pcm) else 0.0
