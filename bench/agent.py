"""The agent of `make bench` and `make bench-speech`, with its avatar, any avatar plugin's: one
process, one call after the other or several at once.

Reads commands as lines of JSON on its standard input, tells events the same way with the `room`
they belong to, and ends when the input is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from livekit import api, rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.testing import fake_job_context
from livekit.agents.utils import http_context
from livekit.agents.voice import SpeechHandle
from livekit.agents.voice.io import AudioOutput
from livekit.agents.voice.room_io import RoomOptions

from bench.avatars import Avatar, make
from bench.ear.dsp import RATE, Pcm
from bench.ear.samples import sample
from bench.lines import commands, keep_for_good, tell
from livekit_plugins_runway import AvatarSession, AvatarState, RecoveryOptions, StateChanged
from livekit_plugins_runway.testing.tones import ToneScript

_TTS_LEAD = 0.2
"""Seconds of speech that a TTS with a pace gives at once."""

_FRAME = RATE // 50


async def speech(script: ToneScript, pace: float) -> AsyncIterator[rtc.AudioFrame]:
    """Frames as a TTS gives them that is `pace` times as fast as it sounds."""
    loop = asyncio.get_running_loop()
    began, given = loop.time(), 0.0
    for frame in script.frames(24_000, 20):
        if (early := began + (given - _TTS_LEAD) / pace - loop.time()) > 0:
            await asyncio.sleep(early)
        given += frame.duration
        yield frame


async def sound(pcm: Pcm, stops: Sequence[Sequence[float]] = ()) -> AsyncIterator[rtc.AudioFrame]:
    """Frames as a TTS gives them that has all of it at once; with `stops` as one that is as fast as
    it sounds, and stops after so many seconds of speech for so many seconds."""
    loop, left = asyncio.get_running_loop(), list(stops)
    due = loop.time()
    for start in range(0, len(pcm), _FRAME):
        piece = pcm[start : start + _FRAME]
        if left and start >= left[0][0] * RATE:
            due += left.pop(0)[1]
        if stops and due > loop.time():
            await asyncio.sleep(due - loop.time())
        yield rtc.AudioFrame(piece.tobytes(), RATE, 1, len(piece))
        due += len(piece) / RATE


def block(seconds: float) -> None:
    """Keep the event loop, as a user's code does that computes, or calls what waits."""
    time.sleep(seconds)


async def block_each_second(seconds: float) -> None:
    while True:
        block(seconds)
        await asyncio.sleep(1.0 - seconds)


def ours(runway: dict[str, Any], options: dict[str, Any]) -> AvatarSession:
    recovery = RecoveryOptions(**options.pop("recovery", {"on_loss": "audio"}))
    return AvatarSession(
        preset_id="influencer",
        api_url=runway["url"],
        api_key=runway["api_secret"],
        recovery=recovery,
        **{"transport": "bridge", **options},
    )


class Call:
    """An agent session with an avatar, in a room of its own."""

    def __init__(
        self, room: str, avatar: Avatar, *, tts_pace: float = math.inf, in_job: bool = False
    ) -> None:
        """`in_job`: behind a job's context, which other plugins want."""
        self._name = room
        self._in_job = in_job
        self._tts_pace = tts_pace
        self._room = rtc.Room()
        self._session: AgentSession[Any] = AgentSession(
            turn_handling={"turn_detection": None}, vad=None
        )
        self._avatar = avatar
        self._handle: SpeechHandle | None = None
        self._number = 0
        self._swapping: asyncio.Task[None] | None = None

    def _tell(self, event: str, **values: Any) -> None:
        tell(event, room=self._name, **values)

    @property
    def _output(self) -> AudioOutput:
        output = self._session.output.audio
        assert output is not None
        return output

    async def start(self, greeting: ToneScript | None = None) -> None:
        """Begin the call; what is to be said first is said as soon as the session has started."""
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
        if isinstance(self._avatar, AvatarSession):
            self._avatar.on("state_changed", self._on_state)
            self._avatar.on("replaced", lambda replaced: self._tell("replaced", **asdict(replaced)))
        with self._job(token):
            self._tell("starting")
            await self._avatar.start(self._session, self._room)
            self._tell("session_starting")
            # Nobody listens to the user here: no voice detection, which would cost much CPU.
            await self._session.start(
                Agent(instructions=""),
                room=self._room,
                room_options=RoomOptions(audio_input=False),
            )
        self._tell("started")
        wall = time.time() - time.monotonic()
        self._output.on(
            "playback_started",
            lambda event: self._tell("relayed", number=self._number, at=event.created_at - wall),
        )
        if greeting is not None:
            self.say(0, greeting)

    @contextlib.contextmanager
    def _job(self, token: str) -> Iterator[None]:
        if not self._in_job:
            yield
            return
        with fake_job_context(room=self._room, job_id=self._name) as job:
            # Plugins read the agent's identity from the job's token; in a job that says that it is
            # fake ours takes itself for running in a console.
            info = replace(job._info, token=token, fake_job=False)  # noqa: SLF001
            job._info = info  # noqa: SLF001  the framework has no other way
            yield

    def _on_state(self, change: StateChanged) -> None:
        assert isinstance(self._avatar, AvatarSession)
        if change.new in (AvatarState.LIVE, AvatarState.VOICE_ONLY):
            self._tell(change.new.value, session=self._avatar.session_id, why=change.reason)

    def say(self, number: int, script: ToneScript) -> None:
        self._say(number, script.text, speech(script, self._tts_pace))

    def say_sample(self, number: int, name: str, stops: Sequence[Sequence[float]]) -> None:
        self._say(number, name, sound(sample(name), stops))

    def _say(self, number: int, text: str, audio: AsyncIterator[rtc.AudioFrame]) -> None:
        self._number = number
        self._tell("saying", number=number)
        self._handle = self._session.say(text, audio=audio)
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

    def swap(self) -> None:
        """Another session, of the same avatar; "replaced" tells of it."""
        assert isinstance(self._avatar, AvatarSession)
        swapping = self._avatar.swap_avatar(preset_id="influencer")
        self._swapping = asyncio.create_task(swapping, name="swap")

    async def hang_up(self) -> None:
        if self._swapping is not None:
            await self._swapping
        await self._avatar.aclose()
        await self._session.aclose()
        await self._room.disconnect()
        self._tell("hung_up")


class Thread:
    """A thread with an event loop of its own, as each job has with the framework's thread executor
    (livekit-agents 1.8.9, ipc/job_thread_executor.py).
    """

    def __init__(self) -> None:
        self._commands: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(main(self._told()))

    async def _told(self) -> AsyncIterator[dict[str, Any]]:
        while (command := await self._commands.get()) is not None:
            yield command

    def do(self, command: dict[str, Any] | None) -> None:
        """None: end."""
        self._loop.call_soon_threadsafe(self._commands.put_nowait, command)

    async def end(self) -> None:
        self.do(None)
        await asyncio.to_thread(self._thread.join)


async def main(told: AsyncIterator[dict[str, Any]]) -> None:
    async with http_context.open():  # as in a job
        await obey(told)


class Blocking:
    """Blocks the event loop, once or in each second."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def each_second(self, seconds: float) -> None:
        """0: no more."""
        if self._task is not None:
            self._task.cancel()
        self._task = None
        if seconds:
            self._task = asyncio.create_task(block_each_second(seconds), name="block")


async def obey(told: AsyncIterator[dict[str, Any]]) -> None:
    calls: dict[str, Call] = {}
    threads: dict[str, Thread] = {}
    blocking = Blocking()
    async with asyncio.TaskGroup() as endings:
        async for command in told:
            room = command["room"]
            if command.pop("thread", False):
                threads[room] = Thread()
            if room in threads:
                threads[room].do(command)
                continue
            match command["do"]:
                case "call":
                    calls[room] = Call(room, ours(command["runway"], command["options"]))
                    await calls[room].start()
                case "call_with":
                    pace = command["tts_pace"]
                    calls[room] = Call(room, make(command["avatar"]), tts_pace=pace, in_job=True)
                    await calls[room].start(ToneScript(**command["greeting"]))
                case "block":
                    block(command["seconds"])
                case "block_each_second":
                    blocking.each_second(command["seconds"])
                case "measure":
                    gc.collect()
                    counts = {"tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}
                    tell("measured", room=room, **counts)
                case "hang_up":  # the next call need not wait for it
                    endings.create_task(calls.pop(room).hang_up(), name="hang up")
                case _:
                    act(calls[room], command)
        blocking.each_second(0.0)
        for call in calls.values():
            endings.create_task(call.hang_up(), name="hang up")
        for thread in threads.values():
            endings.create_task(thread.end(), name="end thread")


def act(call: Call, command: dict[str, Any]) -> None:
    match command["do"]:
        case "say":
            call.say(command["number"], ToneScript(**command["script"]))
        case "say_sample":
            call.say_sample(command["number"], command["name"], command["stops"])
        case "interrupt" | "pause" | "resume" | "swap":
            getattr(call, command["do"])()


if __name__ == "__main__":
    keep_for_good()
    asyncio.run(main(commands()))
