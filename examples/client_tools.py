"""Tools that the avatar uses by itself: one tells your front end, one asks your back end.

Runway's own conversation model calls them, so they matter if the avatar answers by itself. Whether
they are called while an agent does the talking is not known. (Tools of your agent's own language
model need none of this.) The user's front end is not in Runway's room, so this agent passes the
event on. Needs no key but those of LiveKit and Runway.

    python examples/client_tools.py dev
"""

import asyncio
import json
import logging
from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.agents.voice.room_io import RoomOptions
from offline_speech import EspeakTTS, ScriptedLLM

from livekit_plugins_runway import (
    AvatarSession,
    BackendRpcTool,
    ClientEventTool,
    StringParameter,
    Tool,
    ToolCall,
)

logger = logging.getLogger("client_tools")
ORDERS = {"A1": "on its way"}
TOOLS: list[Tool] = [
    ClientEventTool(
        name="show_card",
        description="Show a card with a title to the user.",
        parameters=(StringParameter(name="title", description="At most five words."),),
    ),
    BackendRpcTool(
        name="order_status",
        description="Where an order is.",
        parameters=(StringParameter(name="order_id", description="Such as A1."),),
        timeout_seconds=3,
    ),
]

server = AgentServer()


async def order_status(args: dict[str, Any]) -> dict[str, str]:
    return {"status": ORDERS.get(args["order_id"], "unknown")}


@server.rtc_session(agent_name="tools-agent")
async def entrypoint(ctx: JobContext) -> None:
    session: AgentSession[None] = AgentSession(
        llm=ScriptedLLM({}, otherwise="I see."), tts=EspeakTTS(), vad=None
    )
    avatar = AvatarSession(
        preset_id="influencer", tools=TOOLS, tool_handlers={"order_status": order_status}
    )
    sending: set[asyncio.Task[None]] = set()

    def on_tool(call: ToolCall) -> None:
        logger.info("the avatar uses %s", call.name)
        if call.kind == "client_event":
            message = json.dumps({"tool": call.name, "args": call.args})
            publishing = ctx.room.local_participant.publish_data(message, topic="client_event")
            task = asyncio.create_task(publishing)
            sending.add(task)
            task.add_done_callback(sending.discard)

    avatar.on("tool_called", on_tool)
    await avatar.start(session, room=ctx.room)
    await session.start(
        agent=Agent(instructions="You are a guide."),
        room=ctx.room,
        room_options=RoomOptions(audio_input=False),
    )
    session.say("Hello! I can show you a card, and look up an order.")


if __name__ == "__main__":
    cli.run_app(server)
