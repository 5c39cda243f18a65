"""The voice speaks at once; the avatar joins later.

A Runway avatar takes some 5 to 10 s to start. By default the first words wait for it, 10 s at most;
with `wait_for_avatar=0` they do not. Needs no key but those of LiveKit and Runway: the voice is
offline; replace it by your own STT, LLM and TTS.

    python examples/voice_first.py dev
"""

import logging

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.agents.voice.room_io import RoomOptions
from offline_speech import EspeakTTS, ScriptedLLM

from livekit_plugins_runway import AvatarSession, AvatarState, StateChanged

logger = logging.getLogger("voice_first")
GREETING = "Hello! You hear me already, and you will see me in a moment."
HERE_I_AM = "And here I am."

server = AgentServer()


@server.rtc_session(agent_name="voice-first-agent")
async def entrypoint(ctx: JobContext) -> None:
    session: AgentSession[None] = AgentSession(
        llm=ScriptedLLM({}, otherwise="I did not catch that."), tts=EspeakTTS(), vad=None
    )
    avatar = AvatarSession(preset_id="influencer", wait_for_avatar=0)

    def on_state(change: StateChanged) -> None:
        logger.info("avatar is %s: %s", change.new, change.reason)
        if change.old is AvatarState.STARTING and change.new is AvatarState.LIVE:
            session.say(HERE_I_AM)  # what is said from now on, the face says

    avatar.on("state_changed", on_state)
    await avatar.start(session, room=ctx.room)
    await session.start(
        agent=Agent(instructions="You are a guide."),
        room=ctx.room,
        room_options=RoomOptions(audio_input=False),  # the user writes
    )
    session.say(GREETING)


if __name__ == "__main__":
    cli.run_app(server)
