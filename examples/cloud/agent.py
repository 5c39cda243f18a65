"""An agent with an avatar for production: one call per core; a deploy waits for running calls.

Settings come from the environment (`docs/deploy.md`): LIVEKIT_URL, LIVEKIT_API_KEY,
LIVEKIT_API_SECRET, RUNWAYML_API_SECRET; RUNWAY_AVATAR_ID or RUNWAY_PRESET_ID; PORT, of the health
check (8081); METRICS_PORT, of the metrics for Prometheus (none).

    python agent.py start
"""

import json
import logging
import os

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli
from livekit.agents.utils.hw import get_cpu_monitor

from livekit_plugins_runway import AvatarSession, RecoveryOptions, RunwayException, SessionEnd

logger = logging.getLogger("cloud_agent")
AGENT_NAME = "runway-cloud-agent"
LONGEST_CALL = 1200  # seconds; a deploy waits for calls under way

CORES = max(1, int(get_cpu_monitor().cpu_count()))

server = AgentServer(
    # An avatar takes up to a quarter of a core, the rest of a voice agent as much or more. LiveKit
    # Cloud measures load itself, and says so in the log.
    load_fnc=lambda worker: min(len(worker.active_jobs) / CORES, 1.0),
    load_threshold=0.99,
    num_idle_processes=1,
    drain_timeout=LONGEST_CALL,
    port=int(os.getenv("PORT", "8081")),
    prometheus_port=int(os.environ["METRICS_PORT"]) if "METRICS_PORT" in os.environ else None,
)


def pipeline() -> AgentSession[None]:
    """Speech recognition, language model and voice; here those of LiveKit Inference."""
    return AgentSession(stt="deepgram/nova-3", llm="openai/gpt-4.1-mini", tts="cartesia/sonic-3")


def face() -> AvatarSession:
    avatar_id = os.getenv("RUNWAY_AVATAR_ID")
    return AvatarSession(
        avatar_id=avatar_id,
        preset_id=None if avatar_id else os.getenv("RUNWAY_PRESET_ID", "influencer"),
        # If the whole machine is killed, a session bills until its maximum: keep that low.
        max_duration=300,
        recovery=RecoveryOptions(on_user_left="close"),
    )


@server.rtc_session(agent_name=AGENT_NAME)
async def entrypoint(ctx: JobContext) -> None:
    caller = json.loads(ctx.job.metadata or "{}")  # what the dispatch says
    session, avatar = pipeline(), face()

    def on_end(end: SessionEnd) -> None:
        logger.info(
            "what the avatar cost",
            extra={"billed_seconds": end.billed_seconds, "confirmed": end.confirmed},
        )

    avatar.on("session_ended", on_end)
    session.on("close", lambda _: ctx.shutdown())  # jobs outlive their session otherwise
    try:
        await avatar.start(session, room=ctx.room)
    except RunwayException as error:
        logger.warning("no face in this call: %s", error)
    await session.start(
        agent=Agent(instructions="You are a friendly guide. Answer in one or two sentences."),
        room=ctx.room,
    )
    session.generate_reply(
        instructions=f"Greet {caller.get('name', 'the user')} and offer your help."
    )


if __name__ == "__main__":
    cli.run_app(server)
