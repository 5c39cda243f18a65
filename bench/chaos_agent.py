"""The agent of `make chaos`, with its avatar, in a process of its own: one call."""

from __future__ import annotations

import asyncio
import gc
import math
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import asdict
from typing import Any

import psutil
from livekit import api, rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.types import TimedString
from livekit.agents.voice import SpeechHandle
from livekit.agents.voice.room_io import RoomOptions

from bench.agent import speech
from bench.lines import commands, keep_for_good, tell
from livekit_plugins_runway import AvatarSession, AvatarState, RecoveryOptions, StateChanged
from livekit_plugins_runway.testing.tones import ToneScript

RECOVERY = RecoveryOptions(
    max_restarts=1_000,
    backoff=0.2,
    backoff_max=1.0,
    max_sessions=None,
    max_billed_seconds=None,
    session_cap=45.0,
    renew_before=15.0,
)
"""It never gives up: what is looked at here is what comes after."""


CONTROL_ROOMS = 20


async def timed_words(script: ToneScript) -> AsyncIterator[str]:
    """The text with its times, as a TTS with aligned transcripts gives them. Without them the
    framework guesses from the pace of speech which words were heard, and is often a word short."""
    for slot, said in enumerate(script.text.split()):
        start = slot * script.slot_s
        yield TimedString(f"{said} ", start_time=start, end_time=start + script.tone_s)


class Call:
    def __init__(self, runway: dict[str, Any]) -> None:
        self._room = rtc.Room()
        self._session: AgentSession[Any] = AgentSession(
            turn_handling={"turn_detection": None}, vad=None
        )
        self._avatar = AvatarSession(
            preset_id="influencer",
            api_url=runway["url"],
            api_key=runway["api_secret"],
            recovery=RECOVERY,
            join_timeout=3.0,
        )
        self._handles: dict[int, SpeechHandle] = {}
        self._waiting: set[asyncio.Task[None]] = set()
        self._finished = 0

    async def start(self, room: str) -> None:
        await self._room.connect(os.environ["LIVEKIT_URL"], token("agent", room))
        self._avatar.on("state_changed", self._on_state)
        await self._avatar.start(self._session, self._room)
        await self._session.start(
            Agent(instructions=""), room=self._room, room_options=RoomOptions(audio_input=False)
        )
        output = self._session.output.audio
        assert output is not None
        output.on("playback_finished", self._on_finished)

    def _on_finished(self, _: object) -> None:
        self._finished += 1

    def _on_state(self, change: StateChanged) -> None:
        if change.new is AvatarState.LIVE:
            tell("live")

    def say(self, number: int, script: ToneScript) -> None:
        handle = self._handles[number] = self._session.say(
            timed_words(script), audio=speech(script, math.inf)
        )
        task = asyncio.create_task(self._report(number, handle), name="chaos say")
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _report(self, number: int, handle: SpeechHandle) -> None:
        await handle
        del self._handles[number]
        items = [item for item in handle.chat_items if item.type == "message"]
        text = " ".join(item.text_content or "" for item in items)
        tell("said", number=number, text=text, interrupted=handle.interrupted)

    def interrupt(self) -> None:
        if self._handles:
            self._handles[max(self._handles)].interrupt()

    def pause(self, paused: bool) -> None:
        output = self._session.output.audio
        assert output is not None
        output.pause() if paused else output.resume()

    async def hang_up(self) -> None:
        output = self._session.output.audio
        assert output is not None
        await asyncio.gather(*self._waiting)
        await self._avatar.aclose()
        await self._session.aclose()
        await self._room.disconnect()
        await asyncio.sleep(0.5)  # transports close
        left = asyncio.all_tasks() - {asyncio.current_task()}
        tell(
            "hung_up",
            usage=asdict(self._avatar.usage),
            playout=asdict(self._avatar.playout),
            segments={"captured": self._avatar.playout.segments, "finished": self._finished},
            tasks_left=sorted(task.get_name() for task in left if "runway" in task.get_name()),
        )


def token(identity: str, room: str) -> str:
    return (
        api.AccessToken(os.environ["LIVEKIT_API_KEY"], os.environ["LIVEKIT_API_SECRET"])
        .with_kind("agent")
        .with_identity(identity)
        .with_grants(api.VideoGrants(room_join=True, room=room))
        .to_jwt()
    )


async def _use_room(room: str, identity: str) -> None:
    control = rtc.Room()
    tracks = asyncio.Queue[rtc.Track]()
    control.on("track_subscribed", lambda track, *_: tracks.put_nowait(track))
    await control.connect(os.environ["LIVEKIT_URL"], token(identity, room))
    source = rtc.AudioSource(48_000, 1, queue_size_ms=0)
    microphone = rtc.LocalAudioTrack.create_audio_track("control", source)
    await control.local_participant.publish_track(microphone)
    writer = await control.local_participant.stream_bytes(name="control", topic="control")
    await writer.write(bytes(32_000))
    await writer.aclose()
    with suppress(TimeoutError):  # the camera may be muted just now
        async with asyncio.timeout(2.0):
            await _look_and_listen(tracks, source)
    await control.disconnect()
    await source.aclose()


async def _look_and_listen(tracks: asyncio.Queue[rtc.Track], source: rtc.AudioSource) -> None:
    seen: set[rtc.TrackKind.ValueType] = set()
    while len(seen) < 2:
        track = await tracks.get()
        if track.kind in seen:
            continue
        seen.add(track.kind)
        stream: rtc.VideoStream | rtc.AudioStream = (
            rtc.VideoStream(track, capacity=2)
            if track.kind == rtc.TrackKind.KIND_VIDEO
            else rtc.AudioStream(track, frame_size_ms=10)
        )
        async with aclosing(stream):
            for _ in range(5):
                await source.capture_frame(rtc.AudioFrame.create(48_000, 1, 480))
                await anext(stream)


async def rooms_of_the_sdk(room: str, process: psutil.Process) -> float:
    """What the SDK alone keeps of each room that this process uses as an avatar's link uses one: a
    track published, a byte stream sent, voice and picture received. MB, by the second half of twice
    `CONTROL_ROOMS`."""
    rss: list[float] = []
    for number in range(2 * CONTROL_ROOMS):
        await _use_room(room, f"control-{number}")
        gc.collect()
        rss.append(process.memory_info().rss / 1e6)
    return (rss[-1] - rss[CONTROL_ROOMS - 1]) / CONTROL_ROOMS


async def main() -> None:
    call: Call | None = None
    process = psutil.Process()
    async for command in commands():
        match command["do"]:
            case "call":
                call = Call(command["runway"])
                await call.start(command["room"])
            case "measure":
                tell(
                    "measured",
                    rss_mb=process.memory_info().rss / 1e6,
                    tasks=len(asyncio.all_tasks()),
                )
            case "control":
                tell("controlled", mb_per_room=await rooms_of_the_sdk(command["room"], process))
            case action:
                assert call is not None
                match action:
                    case "say":
                        call.say(command["number"], ToneScript(**command["script"]))
                    case "interrupt":
                        call.interrupt()
                    case "pause" | "resume":
                        call.pause(action == "pause")
                    case "hang_up":
                        await call.hang_up()


if __name__ == "__main__":
    keep_for_good()
    asyncio.run(main())
