"""Another avatar in mid-call: the user writes "cook" or "coach", and the avatar changes.

The old avatar stays until the new one has video, on the same tracks. Needs no key but those of
LiveKit and Runway: the voice is offline; replace it by your own STT, LLM and TTS.

    python examples/swap_avatar.py dev
"""

from __future__ import annotations

import logging

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.agents.voice.room_io import RoomOptions, TextInputEvent, TextInputOptions
from offline_speech import EspeakTTS, ScriptedLLM

from livekit_plugins_runway import AvatarReplaced, AvatarSession, RunwayException

logger = logging.getLogger("swap_avatar")
COLLEAGUES = {"cook": "cooking-teacher", "coach": "tennis-coach"}
GREETING = "Hello! Write cook, or coach."

server = AgentServer()


@server.rtc_session(agent_name="swap-agent")
async def entrypoint(ctx: JobContext) -> None:
    session: AgentSession[None] = AgentSession(
        llm=ScriptedLLM({}, otherwise="Write cook, or coach."), tts=EspeakTTS(), vad=None
    )
    avatar = AvatarSession(preset_id="influencer")

    def on_replaced(replaced: AvatarReplaced) -> None:
        logger.info("another face (%s), %s s frozen", replaced.cause, replaced.freeze)

    async def on_text(_: AgentSession[None], event: TextInputEvent) -> None:
        who = event.text.strip().lower()
        if who not in COLLEAGUES:
            session.generate_reply(user_input=event.text)
            return
        session.say(f"I fetch the {who}.")
        try:
            await avatar.swap_avatar(preset_id=COLLEAGUES[who])
        except RunwayException as error:  # and nothing has changed
            logger.warning("no swap: %s", error)
            session.say(f"The {who} cannot come.")
        else:
            session.say(f"Hello, I am the {who}.")

    avatar.on("replaced", on_replaced)
    await avatar.start(session, room=ctx.room)
    await session.start(
        agent=Agent(instructions="You are a host."),
        room=ctx.room,
        room_options=RoomOptions(
            audio_input=False, text_input=TextInputOptions(text_input_cb=on_text)
        ),
    )
    session.say(GREETING)


if __name__ == "__main__":
    cli.run_app(server)
