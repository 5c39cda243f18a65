"""An agent worker whose model hangs up by LiveKit's `EndCallTool` when the user says goodbye."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, llm
from livekit.agents.beta.tools import EndCallTool
from livekit.agents.llm import ChatChunk, ChoiceDelta, FunctionToolCall
from livekit.agents.voice.room_io import RoomOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from offline_agent import report_to_log
from offline_speech import EspeakTTS, ScriptedLLM

from livekit_plugins_runway import AvatarSession

AGENT_NAME = "hanging-up-agent"
FAREWELL = "It was good to talk to you. Goodbye, and take care."


class HangingUpLLM(ScriptedLLM):
    """Calls the tool, and says the farewell once it has the tool's answer."""

    def chat(self, *, chat_ctx: llm.ChatContext, **options: Any) -> llm.LLMStream:
        if chat_ctx.items[-1].type == "function_call_output":
            return super().chat(chat_ctx=chat_ctx, **options)
        return _EndCall(
            self, chat_ctx=chat_ctx, tools=options["tools"], conn_options=options["conn_options"]
        )


class _EndCall(llm.LLMStream):
    async def _run(self) -> None:
        call = FunctionToolCall(name="end_call", arguments="{}", call_id=uuid.uuid4().hex)
        delta = ChoiceDelta(role="assistant", tool_calls=[call])
        self._event_ch.send_nowait(ChatChunk(id=uuid.uuid4().hex, delta=delta))


server = AgentServer(num_idle_processes=1, drain_timeout=5, host="127.0.0.1", port=0)


@server.rtc_session(agent_name=AGENT_NAME)
async def entrypoint(ctx: JobContext) -> None:
    session: AgentSession[None] = AgentSession(
        llm=HangingUpLLM({}, otherwise=FAREWELL),
        tts=EspeakTTS(),
        vad=None,
        turn_handling={"turn_detection": None},
    )
    avatar = AvatarSession(preset_id="influencer")
    report_to_log(ctx.job.room.name, session, avatar)
    await avatar.start(session, room=ctx.room)
    await session.start(
        agent=Agent(instructions="", tools=[EndCallTool()]),
        room=ctx.room,
        room_options=RoomOptions(audio_input=False),
    )
    session.say("Hello.")


if __name__ == "__main__":
    cli.run_app(server)
