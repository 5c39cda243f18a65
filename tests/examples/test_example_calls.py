"""The examples of one call each, run as they are on a LiveKit server and a simulated Runway."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import AgentSession

from livekit_plugins_runway import AvatarSession
from livekit_plugins_runway.testing import RunwaySimulator, SimulatorOptions
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.user import SimulatedUser
from tests.support.call import QUICK

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def runway_simulator_options() -> SimulatorOptions:
    return SimulatorOptions(**{**QUICK, "worker_join_delay": 0.5})


@asynccontextmanager
async def running(
    example: str,
    server: LiveKitServer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    agent_session: Callable[..., AgentSession[Any]] = AgentSession,
    avatar_session: Callable[..., AvatarSession] = AvatarSession,
) -> AsyncIterator[SimulatedUser]:
    """The example's entrypoint in a room with a user; the call is over at the end of the block."""
    module = __import__(example)
    made: list[Any] = []
    for name, kind in (("AgentSession", agent_session), ("AvatarSession", avatar_session)):

        def make(*args: Any, _kind: Any = kind, **kwargs: Any) -> Any:
            made.append(_kind(*args, **kwargs))
            return made[-1]

        monkeypatch.setattr(module, name, make)
    name = f"example-{secrets.token_hex(4)}"
    room = rtc.Room()
    async with SimulatedUser(
        server.url, name, api_key=server.api_key, api_secret=server.api_secret
    ) as user:
        await room.connect(server.url, server.token(name, "agent", kind="agent"))
        try:
            await module.entrypoint(SimpleNamespace(room=room))
            yield user
        finally:
            for part in made:
                await part.aclose()
            await room.disconnect()


@pytest.mark.parametrize(
    "runway_simulator_options", [SimulatorOptions(**{**QUICK, "worker_join_delay": 2.0})]
)
async def test_voice_first_is_heard_before_the_avatar_is_there(
    livekit_server: LiveKitServer,
    runway_simulator: RunwaySimulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running("voice_first", livekit_server, monkeypatch) as user:
        heard = await user.wait_for_audio(10, since=0.0)
        await user.wait_for_video(20, since=0.0)
        [session] = runway_simulator.sessions.values()
        assert session.worker_joined_at is not None
        assert heard < session.worker_joined_at
    await runway_simulator.wait_until(lambda: not runway_simulator.leaked())


async def test_the_swapped_avatar_is_the_one_that_was_asked_for(
    livekit_server: LiveKitServer,
    runway_simulator: RunwaySimulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running("swap_avatar", livekit_server, monkeypatch) as user:
        await user.wait_for_video(20, since=0.0)
        await user.say("Cook")
        await user.wait_until(lambda: any("I am the cook" in c.text for c in user.captions), 20)
        assert [
            s.create_body["avatar"]["presetId"] for s in runway_simulator.sessions.values()
        ] == [
            "influencer",
            "cooking-teacher",
        ]
        assert len({track.sid for track in user.tracks if track.source == "camera"}) == 1
    await runway_simulator.wait_until(lambda: not runway_simulator.leaked())


async def test_the_avatars_tools_reach_front_end_and_back_end(
    livekit_server: LiveKitServer,
    runway_simulator: RunwaySimulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running("client_tools", livekit_server, monkeypatch) as user:
        cards: asyncio.Queue[tuple[str | None, Any]] = asyncio.Queue()
        user.room.on(
            "data_received",
            lambda packet: cards.put_nowait((packet.topic, json.loads(packet.data))),
        )
        await user.wait_for_video(20, since=0.0)
        [session] = runway_simulator.sessions.values()
        await session.call_tool("show_card", title="Welcome")
        card = {"tool": "show_card", "args": {"title": "Welcome"}}
        assert await asyncio.wait_for(cards.get(), 5) == ("client_event", card)
        assert await session.call_tool("order_status", order_id="A1") == {"status": "on its way"}
        with pytest.raises(rtc.RpcError, match="order_status failed"):
            await session.call_tool("order_status", wrong="A1")
    await runway_simulator.wait_until(lambda: not runway_simulator.leaked())


@pytest.mark.parametrize("example", ["agent", "direct"])
async def test_the_agents_to_copy_greet_the_user_with_a_face(
    livekit_server: LiveKitServer,
    runway_simulator: RunwaySimulator,
    monkeypatch: pytest.MonkeyPatch,
    example: str,
) -> None:
    """Their ears, mind and voice are LiveKit's, which needs a key: here they are offline."""
    speech = __import__("offline_speech")
    models: list[dict[str, Any]] = []

    def offline(**of_livekit: Any) -> AgentSession[Any]:
        models.append(of_livekit)
        llm = speech.ScriptedLLM({}, otherwise="Hello, how can I help you?")
        return AgentSession(
            llm=llm, tts=speech.EspeakTTS(), vad=None, turn_handling={"turn_detection": None}
        )

    private: dict[str, Any] = {"allow_private_livekit_url": True} if example == "direct" else {}
    async with running(
        example,
        livekit_server,
        monkeypatch,
        agent_session=offline,
        avatar_session=partial(AvatarSession, **private),
    ) as user:
        await user.wait_for_video(20, since=0.0)
        await user.wait_until(lambda: any("help you" in c.text for c in user.captions), 20)
        await user.wait_for_audio(10, since=0.0)
        assert [sorted(names) for names in models] == [["llm", "stt", "tts"]]
    await runway_simulator.wait_until(lambda: not runway_simulator.leaked())
