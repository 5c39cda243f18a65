"""A voice agent with a Runway avatar.

Needs LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET and RUNWAYML_API_SECRET; RUNWAY_AVATAR_ID for
an avatar of your own. Speech recognition, language model and voice come from LiveKit Inference.

    python examples/agent.py dev
"""

import os

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli

from livekit_plugins_runway import AvatarSession

server = AgentServer()


@server.rtc_session(agent_name="runway-agent")
async def entrypoint(ctx: JobContext) -> None:
    session: AgentSession[None] = AgentSession(
        stt="deepgram/nova-3",
        llm="openai/gpt-4.1-mini",
        tts="cartesia/sonic-3",
    )
    if avatar_id := os.getenv("RUNWAY_AVATAR_ID"):
        avatar = AvatarSession(avatar_id=avatar_id)
    else:
        avatar = AvatarSession(preset_id=os.getenv("RUNWAY_PRESET_ID", "influencer"))

    await avatar.start(session, room=ctx.room)
    await session.start(
        agent=Agent(instructions="You are a friendly guide. Answer in one or two sentences."),
        room=ctx.room,
    )
    session.generate_reply(instructions="Greet the user and offer your help.")


if __name__ == "__main__":
    cli.run_app(server)
