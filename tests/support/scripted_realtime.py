"""A realtime model: it hears the user, decides by itself when to speak, and streams speech.

Its pacing is that of the vendors, in three numbers; what it says is what a test says.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

from livekit import rtc
from livekit.agents import llm
from livekit.agents.llm import GenerationCreatedEvent, MessageGeneration, RealtimeCapabilities
from livekit.agents.llm.realtime import InputSpeechStartedEvent

from livekit_plugins_runway.testing.tones import ToneScript

RATE = 24_000
"""Hz; of OpenAI's and of Gemini's realtime models."""


@dataclass(frozen=True)
class Pacing:
    """How a model's speech arrives. Times in seconds."""

    chunk: float = 0.1
    """Of speech that comes at a time."""
    speed: float = math.inf
    """Seconds of speech that come in a second."""
    late_end: float = 0.0
    """From the last sound to the end of the stream."""
    pause: float = 0.0
    """In which nothing comes, in the middle."""


@dataclass
class Truncation:
    """What the model is told of what was heard of it."""

    audio_end_ms: int
    transcript: str


@dataclass
class _Generation:
    script: ToneScript
    pacing: Pacing
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def event(self, *, asked: bool) -> GenerationCreatedEvent:
        modalities = asyncio.get_running_loop().create_future()
        modalities.set_result(["audio", "text"])
        message = MessageGeneration("message", self._text(), self._audio(), modalities)
        return GenerationCreatedEvent(_one(message), _none(), user_initiated=asked)

    async def _text(self) -> AsyncIterator[str]:
        """Ahead of the sound, as from each of the vendors."""
        first, *rest = self.script.text.split()
        yield first
        for word in rest:
            yield f" {word}"

    async def _audio(self) -> AsyncIterator[rtc.AudioFrame]:
        frames = list(self.script.frames(RATE, round(1000 * self.pacing.chunk)))
        for n, frame in enumerate(frames):
            if n == len(frames) // 2:
                await self._wait(self.pacing.pause)
            if self.stopped.is_set():
                return
            yield frame
            await self._wait(frame.duration / self.pacing.speed)
        await self._wait(self.pacing.late_end)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.stopped.wait()
        except TimeoutError:
            pass


async def _one(message: MessageGeneration) -> AsyncIterator[MessageGeneration]:
    yield message


async def _none() -> AsyncIterator[llm.FunctionCall]:
    for nothing in list[llm.FunctionCall]():  # so that it is a generator
        yield nothing


class ScriptedRealtime(llm.RealtimeModel):
    """One for each agent. Its sessions say the next script when asked, or by themselves."""

    def __init__(self, pacing: Pacing = Pacing()) -> None:
        super().__init__(
            capabilities=RealtimeCapabilities(
                message_truncation=True,
                turn_detection=True,
                user_transcription=False,
                auto_tool_reply_generation=False,
                audio_output=True,
                manual_function_calls=False,
            )
        )
        self.pacing = pacing
        self.script = ToneScript(16)
        """What is said next."""
        self.newest: ScriptedRealtimeSession | None = None
        self.truncations: list[Truncation] = []

    def session(self, *, turn_detection_disabled: bool = False) -> ScriptedRealtimeSession:
        self.newest = ScriptedRealtimeSession(self)
        return self.newest

    def hear_the_user(self) -> None:
        """The user begins to speak, and the model notices."""
        assert self.newest is not None
        self.newest.emit("input_speech_started", InputSpeechStartedEvent())

    def answer(self) -> None:
        """Speak without being asked: the user has said something."""
        assert self.newest is not None
        self.newest.emit("generation_created", self.newest.generate(asked=False))

    async def aclose(self) -> None:
        pass


class ScriptedRealtimeSession(llm.RealtimeSession[Literal["never"]]):
    def __init__(self, model: ScriptedRealtime) -> None:
        super().__init__(model)
        self._model = model
        self._chat_ctx = llm.ChatContext.empty()
        self._generation: _Generation | None = None

    def generate(self, *, asked: bool) -> GenerationCreatedEvent:
        self._generation = _Generation(self._model.script, self._model.pacing)
        return self._generation.event(asked=asked)

    def generate_reply(self, **_: Any) -> asyncio.Future[GenerationCreatedEvent]:
        made = asyncio.get_running_loop().create_future()
        made.set_result(self.generate(asked=True))
        return made

    def interrupt(self) -> None:
        if self._generation is not None:
            self._generation.stopped.set()

    def truncate(self, *, audio_end_ms: int, audio_transcript: Any = "", **_: Any) -> None:
        self._model.truncations.append(Truncation(audio_end_ms, audio_transcript or ""))

    @property
    def chat_ctx(self) -> llm.ChatContext:
        return self._chat_ctx

    @property
    def tools(self) -> llm.ToolContext:
        return llm.ToolContext.empty()

    async def update_instructions(self, instructions: str) -> None:
        pass

    async def update_chat_ctx(self, chat_ctx: llm.ChatContext) -> None:
        self._chat_ctx = chat_ctx

    async def update_tools(self, tools: list[llm.Tool]) -> None:
        pass

    def update_options(self, **_: Any) -> None:
        pass

    def push_audio(self, frame: rtc.AudioFrame) -> None:
        pass

    def push_video(self, frame: rtc.VideoFrame) -> None:
        pass

    def commit_audio(self) -> None:
        pass

    def clear_audio(self) -> None:
        pass

    async def aclose(self) -> None:
        self.interrupt()
