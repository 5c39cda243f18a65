"""The avatars that `bench.py` compares, as the agent's process makes them.

Each factory is called without arguments; `RUNWAYML_BASE_URL`, `RUNWAYML_API_SECRET` and `LIVEKIT_*`
name the simulated Runway and the LiveKit server.
"""

from __future__ import annotations

import importlib
import os
import secrets
import sys
from functools import partial
from typing import Any, Final, Protocol

from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.voice.avatar import DataStreamAudioOutput

from livekit_plugins_runway import AvatarSession, VideoOptions
from livekit_plugins_runway.media.connect import connect
from livekit_plugins_runway.media.ways import VARIABLE
from livekit_plugins_runway.runway.address import DEFAULT_BASE_URL
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import CreateRealtimeSession, PresetAvatar
from livekit_plugins_runway.transport.worker_protocol import send_end_call

_PRESET: Final = "influencer"
_STREAM_RATE = 16_000
"""Hz, as the official plugin sends speech."""


class Avatar(Protocol):
    """What `AvatarSession`s of LiveKit plugins have in common (livekit-agents 1.8.9)."""

    async def start(self, agent_session: AgentSession[Any], room: rtc.Room, /) -> None: ...

    async def aclose(self) -> None: ...


def make(name: str) -> Avatar:
    """The avatar of a factory, `module:function`, which may be in the working directory."""
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    avatar: Avatar = getattr(importlib.import_module(module), function)()
    return avatar


def official() -> Avatar:
    from livekit.plugins import runway

    # The framework's sink, which it uses, knows the calls of a process by this identity alone.
    identity = f"runway-avatar-{secrets.token_hex(4)}"
    avatar: Avatar = runway.AvatarSession(preset_id=_PRESET, avatar_participant_identity=identity)
    return avatar


def _ours(**options: Any) -> AvatarSession:
    """Made before the agent's room is connected, as a job does, and prewarmed meanwhile."""
    avatar = AvatarSession(preset_id=_PRESET, **options)
    avatar.prewarm()
    return avatar


direct = partial(_ours, transport="direct", allow_private_livekit_url=True)
auto = partial(_ours, delivery="datastream")
bridge_datastream = partial(auto, transport="bridge")
bridge_early = partial(bridge_datastream, video=VideoOptions(publish_early=True))


def bridge_public() -> Avatar:
    """Over the SDK's public streams. An agent's process makes one avatar."""
    os.environ[VARIABLE] = "public"
    return bridge_datastream()


bridge_track = partial(_ours, transport="bridge", delivery="track")
voice_first = partial(bridge_datastream, wait_for_avatar=0.0)


class RunwayRoomItself:
    """No plugin: the agent speaks in the room that Runway hosts, and the viewer is there as well.
    What is measured so is the floor: Runway's worker and LiveKit, once."""

    def __init__(self) -> None:
        self._client = RunwayClient(
            os.environ["RUNWAYML_API_SECRET"],
            base_url=os.environ.get("RUNWAYML_BASE_URL", DEFAULT_BASE_URL),
        )
        self._room = rtc.Room()
        self._id: str | None = None

    @property
    def _worker(self) -> str:
        return f"worker:{self._id}"

    async def start(self, agent_session: AgentSession[Any], _: rtc.Room, /) -> None:
        request = CreateRealtimeSession(avatar=PresetAvatar(preset_id=_PRESET))
        self._id = await self._client.create(request)
        ready = await self._client.wait_until_ready(self._id)
        credentials = await self._client.consume(self._id, ready.session_key.get_secret_value())
        await connect(self._room, credentials.url, credentials.token.get_secret_value())
        agent_session.output.replace_audio_tail(
            DataStreamAudioOutput(
                room=self._room,
                destination_identity=self._worker,
                wait_remote_track=rtc.TrackKind.KIND_VIDEO,
                sample_rate=_STREAM_RATE,
            )
        )

    async def aclose(self) -> None:
        await send_end_call(self._room, self._worker)
        await self._room.disconnect()
        if self._id is not None:
            await self._client.delete(self._id)
        await self._client.aclose()
