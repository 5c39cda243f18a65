"""The demo's agent: a whole voice pipeline and an avatar, with no key and no network.

`make demo` starts it as a worker and lets you talk to it. It reports its events to the log, one
`demo event` per line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from livekit import rtc
from livekit.agents import (
    Agent,
    AgentServer,
    AgentSession,
    AgentStateChangedEvent,
    CloseEvent,
    ConversationItemAddedEvent,
    JobContext,
    StopResponse,
    cli,
    inference,
)
from livekit.agents.llm import ChatContext, ChatMessage
from livekit.agents.voice.room_io import RoomOptions, TextInputEvent, TextInputOptions
from offline_speech import EspeakTTS, ScriptedLLM

from livekit_plugins_runway import (
    AvatarReplaced,
    AvatarSession,
    RecoveryOptions,
    Restarting,
    RunwayException,
    SessionEnd,
    StateChanged,
)

logger = logging.getLogger("offline_agent")

AGENT_NAME = "offline-agent"
GREETING = "Hello, and welcome! Everything that you see and hear is made on this machine."
STORY = (
    "Once upon a time there was an agent without a face.",
    "It could listen, and it could talk, but nobody could see it smile.",
    "One day it met an avatar, who had a face but nothing to say.",
    "They built a bridge, and over it went every word that the agent spoke.",
    "Back came a picture and a voice, and nobody could tell the two apart.",
    "And if the bridge has not fallen, they are talking still.",
)
UNHEARD = "You spoke, and I stopped at once. I cannot tell words offline, so please write to me."
REPLIES = {
    "who are you": "I am a voice agent with a face. My words travel to an avatar, and it speaks "
    "them back to you.",
    "tell me": " ".join(STORY),
    "wait": "Of course. I stop as soon as you speak.",
    "goodbye": "Goodbye! It was good to see you.",
}
PAGE = "page"
"""Metadata of the dispatch for the page's call, in which a visitor breaks things."""
PAGE_OPTIONS: dict[str, Any] = {
    # The visitor ends sessions on purpose, often and at any age. So never give up, learn no cap,
    # and limit no cost: nothing is paid for.
    "max_duration": 1800,
    "recovery": RecoveryOptions(
        max_restarts=1_000, backoff=0.1, backoff_max=0.1, max_sessions=None, session_cap=None
    ),
}

server = AgentServer(
    # By the number of jobs: a busy machine must not refuse the only call.
    load_fnc=lambda worker: min(len(worker.active_jobs) / 4, 0.99),
    num_idle_processes=1,
    drain_timeout=5,
    host="127.0.0.1",
    port=0,  # any free one
)


class Guide(Agent):
    async def on_enter(self) -> None:
        self.session.say(GREETING)

    async def on_user_turn_completed(self, turn_ctx: ChatContext, new_message: ChatMessage) -> None:
        if not new_message.text_content:  # somebody spoke, and there is no speech recognition
            await self.session.interrupt()  # what else was to be said
            self.session.say(UNHEARD)
            raise StopResponse


@server.rtc_session(agent_name=AGENT_NAME)
async def entrypoint(ctx: JobContext) -> None:
    on_page = ctx.job.metadata == PAGE
    session: AgentSession[None] = AgentSession(
        llm=ScriptedLLM(REPLIES, otherwise="I did not catch that."),
        tts=EspeakTTS(),
        vad=inference.VAD() if on_page else None,
        user_away_timeout=None,
    )
    avatar = AvatarSession(preset_id="influencer", **PAGE_OPTIONS if on_page else {})
    report_to_log(ctx.job.room.name, session, avatar)
    session.on("close", lambda _: ctx.shutdown())
    await avatar.start(session, room=ctx.room)
    await session.start(
        agent=Guide(instructions="You are a guide."),
        room=ctx.room,
        room_options=(
            RoomOptions(text_input=TextInputOptions(text_input_cb=answer_on_page))
            if on_page
            else RoomOptions(audio_input=False)  # the user writes
        ),
    )

    async def show_face(_: rtc.RpcInvocationData) -> str:
        """The visitor has bought credits: bring back an avatar that was given up."""
        try:
            await avatar.swap_avatar(preset_id="influencer")
        except RunwayException as error:
            raise rtc.RpcError(rtc.RpcError.ErrorCode.APPLICATION_ERROR, str(error)) from error
        return ""

    ctx.room.local_participant.register_rpc_method("show_face", show_face)


async def answer_on_page(session: AgentSession[None], written: TextInputEvent) -> None:
    """A story is told sentence by sentence: a new face appears between two utterances."""
    await session.interrupt()
    if "story" not in written.text.lower():
        session.generate_reply(user_input=written.text)
        return
    for sentence in STORY:
        session.say(sentence)


def report_to_log(room: str, session: AgentSession[None], avatar: AvatarSession) -> None:
    """Write what the demo shows to the log: stages, states, what was said, how it ended."""

    def event(name: str, /, **values: object) -> None:
        extra = {"event": name, "lk.pii.values": values | {"room": room}}
        logger.info("demo event", extra=extra)

    report_talk(event, session, avatar)
    report_face(event, avatar)


def report_talk(
    event: Callable[..., None], session: AgentSession[None], avatar: AvatarSession
) -> None:
    """What the agent said, and what state it was in."""

    def on_item(added: ConversationItemAddedEvent) -> None:
        if isinstance(item := added.item, ChatMessage):
            event("said", role=item.role, text=item.text_content, interrupted=item.interrupted)

    def on_agent_state(change: AgentStateChangedEvent) -> None:
        event("agent", state=change.new_state, speech_latency=avatar.speech_latency)

    def on_close(closed: CloseEvent) -> None:
        event("closed", reason=closed.reason.value)

    session.on("conversation_item_added", on_item)
    session.on("agent_state_changed", on_agent_state)
    session.on("close", on_close)


def report_face(event: Callable[..., None], avatar: AvatarSession) -> None:
    """What became of the avatar."""

    def on_state(change: StateChanged) -> None:
        event(
            "state",
            state=change.new.value,
            reason=change.reason,
            delivery=avatar.delivery,
            session=avatar.session_id,
        )

    def on_end(end: SessionEnd) -> None:
        event("ended", how=end.how, status=end.status, billed_seconds=end.billed_seconds)

    def on_error(error: RunwayException) -> None:
        event("error", kind=type(error).__name__, text=str(error))

    def on_restarting(restarting: Restarting) -> None:
        event("restarting", attempt=restarting.attempt, delay=restarting.delay)

    def on_replaced(replaced: AvatarReplaced) -> None:
        event("replaced", cause=replaced.cause, freeze=replaced.freeze, by_voice=replaced.by_voice)

    def on_gave_up(error: RunwayException) -> None:
        event("gave_up", kind=type(error).__name__)

    def on_stage(stage: str) -> None:
        event("stage", stage=stage, timings=asdict(avatar.timings))

    avatar.on("stage_reached", on_stage)
    avatar.on("state_changed", on_state)
    avatar.on("session_ended", on_end)
    avatar.on("error", on_error)
    avatar.on("restarting", on_restarting)
    avatar.on("replaced", on_replaced)
    avatar.on("gave_up", on_gave_up)


if __name__ == "__main__":
    cli.run_app(server)
