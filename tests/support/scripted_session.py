"""An agent session without a room, in virtual time, whose speech goes to a `Stage`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from livekit import rtc
from livekit.agents import NOT_GIVEN, Agent, AgentSession, ModelSettings, llm, stt, vad
from livekit.agents.voice import SpeechHandle
from livekit.agents.voice.transcription import TranscriptSynchronizer

from livekit_plugins_runway.testing.tones import ToneScript, words_to_tones
from tests.support.framework_stage import Captions, Listener, Stage, now

FALSE_INTERRUPTION = 1.0
"""Seconds after the user's noise at which the session takes the speech up again."""


class Noise(vad.VAD):
    """A user who makes a noise when told to."""

    def __init__(self) -> None:
        super().__init__(capabilities=vad.VADCapabilities(update_interval=0.05))
        self.events: asyncio.Queue[vad.VADEvent] = asyncio.Queue()

    def stream(self) -> vad.VADStream:
        return _NoiseStream(self)

    async def make(self, seconds: float) -> None:
        """Sound for so long; returns when the end of it has been detected."""

        def event(kind: vad.VADEventType, done: float, silence: float = 0.0) -> None:
            self.events.put_nowait(
                vad.VADEvent(
                    type=kind,
                    samples_index=0,
                    timestamp=now(),
                    speech_duration=done,
                    silence_duration=silence,
                    raw_accumulated_silence=silence,
                    speaking=not silence,
                )
            )

        event(vad.VADEventType.START_OF_SPEECH, 0.05)
        for n in range(round(seconds / 0.05)):
            await asyncio.sleep(0.05)
            event(vad.VADEventType.INFERENCE_DONE, (n + 1) * 0.05)
        await asyncio.sleep(0.2)
        event(vad.VADEventType.END_OF_SPEECH, seconds, 0.2)
        await asyncio.sleep(0)


class _NoiseStream(vad.VADStream):
    async def _main_task(self) -> None:
        assert isinstance(self._vad, Noise)
        while True:
            self._event_ch.send_nowait(await self._vad.events.get())


class _DeafStt(stt.STT[str]):
    """Makes nothing of what the user says: a cough is no turn."""

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=False))

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        raise NotImplementedError


class _IdleLlm(llm.LLM[str]):
    """Stands for the model that `_Speaker.llm_node` does without."""

    def chat(self, **_: Any) -> llm.LLMStream:
        raise NotImplementedError


class _Speaker(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="")
        self.answer: ToneScript | None = None

    async def stt_node(
        self, audio: AsyncIterable[rtc.AudioFrame], _: ModelSettings
    ) -> AsyncIterator[stt.SpeechEvent]:
        async for _frame in audio:
            pass
        for nothing in list[stt.SpeechEvent]():  # so that it is a generator
            yield nothing

    async def llm_node(self, *_: Any) -> AsyncIterator[str]:
        assert self.answer is not None
        yield self.answer.text

    async def tts_node(
        self, text: AsyncIterable[str], _: ModelSettings
    ) -> AsyncIterator[rtc.AudioFrame]:
        assert self.answer is not None
        async for _word in text:
            pass
        for frame in self.answer.frames(24_000, 20):
            yield frame
            await asyncio.sleep(0)


@dataclass
class Talk:
    """An agent session whose audio goes to `stage`, with synchronised captions."""

    session: AgentSession[Any]
    stage: Stage
    captions: Captions
    listener: Listener
    noise: Noise
    resumed: list[bool] = field(default_factory=list)

    def say(
        self, script: ToneScript, *, realtime: bool = False, lead_in: float = 0.0
    ) -> SpeechHandle:
        """Speech at 24 kHz, in a burst or in real time, after `lead_in` seconds of silence."""

        async def voice() -> AsyncIterator[rtc.AudioFrame]:
            silence = round(lead_in * 24_000)
            if silence:
                yield rtc.AudioFrame(bytes(2 * silence), 24_000, 1, silence)
            for frame in script.frames(24_000, 20):
                yield frame
                await asyncio.sleep(frame.duration if realtime else 0)

        return self.session.say(script.text, audio=voice())

    def reply(self, script: ToneScript) -> SpeechHandle:
        """The agent's own answer to what the user typed, by way of its LLM and TTS."""
        assert isinstance(self.session.current_agent, _Speaker)
        self.session.current_agent.answer = script
        return self.session.generate_reply(user_input="and then?")

    async def done(self, handle: SpeechHandle) -> SpeechHandle:
        async with asyncio.timeout(60.0):
            return await handle

    @property
    def history(self) -> list[tuple[list[int], bool]]:
        """What the agent is on record to have said, as tones, and whether it was interrupted."""
        return [
            (words_to_tones(item.text_content or ""), item.interrupted)
            for item in self.session.history.items
            if isinstance(item, llm.ChatMessage) and item.role == "assistant"
        ]


@asynccontextmanager
async def talking(
    s: Stage, *, hears_user: bool = False, realtime: llm.RealtimeModel | None = None
) -> AsyncIterator[Talk]:
    """
    Args:
        realtime: speaks, and notices the user, in place of STT, LLM and TTS.
    """
    noise = Noise()
    session: AgentSession[Any] = AgentSession(
        vad=noise if hears_user else None,
        stt=_DeafStt() if hears_user else NOT_GIVEN,
        llm=realtime or _IdleLlm(),
        turn_handling={
            "turn_detection": _turn_detection(hears_user, realtime),
            "interruption": {
                "mode": "vad",
                "min_duration": 0.3,
                "false_interruption_timeout": FALSE_INTERRUPTION,
            },
        },
        aec_warmup_duration=None,
    )
    captions = Captions()
    sync = TranscriptSynchronizer(next_in_chain_audio=s.sink, next_in_chain_text=captions)
    session.output.audio = sync.audio_output
    session.output.transcription = sync.text_output
    talk = Talk(session, s, captions, Listener().listen(sync.audio_output), noise)
    session.on("agent_false_interruption", lambda ev: talk.resumed.append(ev.resumed))
    await session.start(_Speaker())
    try:
        yield talk
    finally:
        await session.aclose()
        await sync.aclose()


def _turn_detection(
    hears_user: bool, realtime: llm.RealtimeModel | None
) -> Literal["vad", "manual", "realtime_llm"]:
    if realtime is not None:
        return "realtime_llm"
    return "vad" if hears_user else "manual"
