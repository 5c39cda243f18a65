"""A voice agent whose Runway avatar joins the room by itself.

Needs what agent.py needs; LIVEKIT_URL must be a public wss:// address, for Runway's worker.

    python examples/direct.py dev
"""

import logging
import os

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli

from livekit_plugins_runway import AvatarSession, RunwayException

server = AgentServer()


@server.rtc_session(agent_name="runway-direct-agent")
async def entrypoint(ctx: JobContext) -> None:
    session: AgentSession[None] = AgentSession(
        stt="deepgram/nova-3",
        llm="openai/gpt-4.1-mini",
        tts="cartesia/sonic-3",
    )
    avatar = AvatarSession(
        preset_id=os.getenv("RUNWAY_PRESET_ID", "influencer"),
        transport="direct",
    )
    try:
        await avatar.start(session, room=ctx.room)
    except RunwayException as error:  # e.g. an address that Runway cannot reach
        logging.warning("no face in this call: %s", error)

    await session.start(
        agent=Agent(instructions="You are a friendly guide. Answer in one or two sentences."),
        room=ctx.room,
    )
    session.generate_reply(instructions="Greet the user and offer your help.")


if __name__ == "__main__":
    cli.run_app(server)
