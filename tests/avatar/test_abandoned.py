"""A session whose create was given up, and which could not be ended, is accounted for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import AgentSession, APIConnectOptions
from prometheus_client import REGISTRY

from livekit_plugins_runway import AvatarSession, CallUsage, SessionEnd
from tests.support.scripted_room import start_in
from tests.support.scripted_runway import Reply, ScriptedRunway
from tests.support.virtual_clock import virtual_clock

ID = "6a3e5d0c-3f4b-4b83-8a8e-0d7a2f2f5b11"


class Nowhere:
    """A transport that reaches nobody."""

    identity = "runway-avatar-agent"
    subscribed = reachable = True

    def __init__(self) -> None:
        self.joining = asyncio.Event()

    @property
    def microphone(self) -> Nowhere:
        return self

    def keep_alive(self) -> None: ...

    def hide_face(self) -> None: ...

    async def go_over(self, error: Exception) -> Exception:
        return error

    def connection(self, _listener: object) -> Any:
        return SimpleNamespace(body=lambda request: request, reject=lambda: None)

    async def join(self, on_evicted: Any = None) -> None:
        self.joining.set()

    async def push_audio(self, pcm: bytes) -> None: ...

    async def aclose(self) -> None: ...


class Room(rtc.EventEmitter[Any]):
    """The agent's, with nobody else in it."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "r"
        self.local_participant = SimpleNamespace(identity="agent")
        self.remote_participants: dict[str, Any] = {}

    def isconnected(self) -> bool:
        return True


def unconfirmed_ends() -> float:
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "runway_avatar_unconfirmed_ends_total"
    )


@virtual_clock
async def _start_cancelled_in_mid_create(transport: Nowhere, told: dict[str, list[Any]]) -> None:
    async with ScriptedRunway().running() as runway:
        runway.script = [Reply(payload={"id": ID}, delay=1.0)]
        runway.delete_script = [Reply(status=500, payload={"error": "broken"})] * 9
        avatar = AvatarSession(
            preset_id="influencer",
            api_key="key_x",
            api_url=runway.url,
            conn_options=APIConnectOptions(max_retry=0),
        )
        avatar.on("session_ended", told["session_ended"].append)
        avatar.on("usage_updated", told["usage_updated"].append)
        session: AgentSession[Any] = AgentSession()
        starting = asyncio.create_task(start_in(Room(), avatar, session))
        await transport.joining.wait()  # so the create was sent
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        told["usage"] = [avatar.usage]
        await session.aclose()


def test_an_abandoned_session_that_may_still_bill_is_told_counted_and_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transport = Nowhere()
    monkeypatch.setattr(
        "livekit_plugins_runway.avatar.make_transport", lambda *_args, **_options: transport
    )
    before = unconfirmed_ends()
    told: dict[str, list[Any]] = {"session_ended": [], "usage_updated": []}
    _start_cancelled_in_mid_create(transport, told)
    (end,) = told["session_ended"]
    assert isinstance(end, SessionEnd)
    assert (end.session_id, end.how, end.confirmed, end.status) == (ID, "unconfirmed", False, None)
    assert told["usage"] == told["usage_updated"] == [CallUsage(sessions=1, unconfirmed=1)]
    assert unconfirmed_ends() == before + 1
