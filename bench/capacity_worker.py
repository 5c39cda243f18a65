"""The agent worker of `python -m bench.capacity`: the framework's own, each call in a process.

`python -m bench.capacity_worker start`. A job's metadata has the options of its avatar.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.agents.voice.room_io import RoomOptions

from bench.agent import speech
from livekit_plugins_runway import AvatarSession
from livekit_plugins_runway.testing.tones import ToneScript

AGENT_NAME = "capacity"
TTS_PACE = 4.0
"""Times real time."""

server = AgentServer(
    load_fnc=lambda: 0.0,  # it takes each call: what too many do is what is measured
    load_threshold=0.99,
    num_idle_processes=0,
    port=0,
    job_memory_warn_mb=0,
)


@server.rtc_session(agent_name=AGENT_NAME)
async def entrypoint(ctx: JobContext) -> None:
    options = json.loads(ctx.job.metadata)
    session: AgentSession[Any] = AgentSession(turn_handling={"turn_detection": None}, vad=None)
    session.on("close", lambda _: ctx.shutdown())
    await AvatarSession(preset_id="influencer", **options).start(session, room=ctx.room)
    await session.start(
        Agent(instructions=""),
        room=ctx.room,
        room_options=RoomOptions(audio_input=False),  # what hears the user is not ours
    )
    for number in itertools.count():
        script = ToneScript(16, slot_s=0.5, gap_s=0.2, offset=number % 2 * 40)
        await session.say(script.text, audio=speech(script, TTS_PACE))


if __name__ == "__main__":
    cli.run_app(server)
