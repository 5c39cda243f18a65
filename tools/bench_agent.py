"""The agent of `bench_speech.py`, with its avatar: one process, one call after the other.

Reads commands as lines of JSON on its standard input, tells events the same way with the `room`
they belong to, and ends when the input is closed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from bench_lines import commands, tell
from livekit import api, rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.voice import SpeechHandle
from livekit.agents.voice.io import AudioOutput
from livekit.agents.voice.room_io import RoomOptions

from livekit_plugins_runway import AvatarSession, AvatarState, RecoveryOptions, StateChanged
from livekit_plugins_runway.testing.tones import ToneScript


async def speech(script: ToneScript) -> AsyncIterator[rtc.AudioFrame]:
    """Frames as a fast TTS gives them, all at once."""
    for frame in script.frames(24_000, 20):
        yield frame


class Call:
    """An agent session with an avatar, in a room of its own."""

    def __init__(self, room: str, runway: dict[str, Any], options: dict[str, Any]) -> None:
        self._name = room
        self._room = rtc.Room()
        self._session: AgentSession[Any] = AgentSession()
        recovery = RecoveryOptions(**options.pop("recovery", {"on_loss": "audio"}))
        self._avatar = AvatarSession(
            preset_id="influencer",
            api_url=runway["url"],
            api_key=runway["api_secret"],
            recovery=recovery,
            **options,
        )
        self._handle: SpeechHandle | None = None
        self._number = 0

    def _tell(self, event: str, **values: Any) -> None:
        tell(event, room=self._name, **values)

    @property
    def _output(self) -> AudioOutput:
        output = self._session.output.audio
        assert output is not None
        return output

    async def start(self) -> None:
        url, key, secret = (
            os.environ[name] for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
        )
        token = (
            api.AccessToken(key, secret)
            .with_kind("agent")
            .with_identity("agent")
            .with_grants(api.VideoGrants(room_join=True, room=self._name))
            .to_jwt()
        )
        await self._room.connect(url, token)
        self._avatar.on("state_changed", self._on_state)
        self._avatar.on("replaced", lambda replaced: self._tell("replaced", **asdict(replaced)))
        await self._avatar.start(self._session, self._room)
        # Nobody listens to the user here: no voice detection, which would cost much CPU.
        await self._session.start(
            Agent(instructions=""), room=self._room, room_options=RoomOptions(audio_input=False)
        )
        wall = time.time() - time.monotonic()
        self._output.on(
            "playback_started",
            lambda event: self._tell("relayed", number=self._number, at=event.created_at - wall),
        )

    def _on_state(self, change: StateChanged) -> None:
        if change.new in (AvatarState.LIVE, AvatarState.VOICE_ONLY):
            self._tell(change.new.value, session=self._avatar.session_id, why=change.reason)

    def say(self, number: int, script: ToneScript) -> None:
        self._number = number
        self._tell("saying", number=number)
        self._handle = self._session.say(script.text, audio=speech(script))
        self._handle.add_done_callback(lambda _: self._tell("said", number=number))

    def interrupt(self) -> None:
        assert self._handle is not None
        self._tell("interrupting", number=self._number)
        self._handle.interrupt()

    def pause(self) -> None:
        self._tell("pausing", number=self._number)
        self._output.pause()

    def resume(self) -> None:
        self._tell("resuming", number=self._number)
        self._output.resume()

    async def hang_up(self) -> None:
        await self._avatar.aclose()
        await self._session.aclose()
        await self._room.disconnect()
        self._tell("hung_up")


async def main() -> None:
    calls: dict[str, Call] = {}
    async with asyncio.TaskGroup() as endings:
        async for command in commands():
            room = command["room"]
            match command["do"]:
                case "call":
                    calls[room] = Call(room, command["runway"], command["options"])
                    await calls[room].start()
                case "say":
                    calls[room].say(command["number"], ToneScript(**command["script"]))
                case "interrupt":
                    calls[room].interrupt()
                case "pause":
                    calls[room].pause()
                case "resume":
                    calls[room].resume()
                case "hang_up":  # the next call need not wait for it
                    endings.create_task(calls.pop(room).hang_up(), name="hang up")
        for call in calls.values():
            endings.create_task(call.hang_up(), name="hang up")


if __name__ == "__main__":
    asyncio.run(main())
