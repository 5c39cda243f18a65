"""A voice and a language model that need no network: eSpeak NG, and replies from a script.

Both are ordinary framework parts (`tts.TTS`, `llm.LLM`), so the agent's real pipeline runs.
eSpeak NG is GPLv3 and comes with the extra `testing` (`espeakng_loader`).
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import threading
import uuid
from collections.abc import Mapping

import espeakng_loader
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, llm, tts
from livekit.agents.llm import ChatChunk, ChatContext, ChoiceDelta, Tool, ToolChoice
from livekit.agents.types import NotGivenOr

SAMPLE_RATE = 22_050
"""Sample rate of the voice in Hz; int16 mono."""

# Names and values of eSpeak NG 1.52, espeak-ng/speak_lib.h
_SYNCHRONOUS, _DONT_EXIT, _UTF8, _BY_CHARACTER, _RATE = 2, 0x8000, 1, 1, 1
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class _Espeak:
    """The library. Its state is that of the process: one of it, used under `_lock`."""

    def __init__(self) -> None:
        self._samples = bytearray()
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._callback = _Callback(self._collect)  # must outlive the library's use of it
        data = espeakng_loader.get_data_path().encode()
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT)
        if rate != SAMPLE_RATE:
            raise RuntimeError(f"eSpeak NG did not start: espeak_Initialize returned {rate}")
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_SetVoiceByName(b"en-us")

    def speak(self, text: str, words_per_minute: int) -> bytes:
        data = text.encode() + b"\0"
        self._samples.clear()
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
        failed = self._library.espeak_Synth(
            data, ctypes.c_size_t(len(data)), 0, _BY_CHARACTER, 0, _UTF8, None, None
        )
        if failed:
            raise RuntimeError(f"eSpeak NG refused the text: error {failed}")
        return bytes(self._samples)

    def _collect(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _: int) -> int:
        if count > 0:
            self._samples += ctypes.string_at(samples, count * 2)
        return 0


_lock = threading.Lock()


@functools.cache
def _espeak() -> _Espeak:
    return _Espeak()


def synthesize(text: str, *, words_per_minute: int = 165) -> bytes:
    """Speech as int16 mono samples at 22,050 Hz. Blocks for some milliseconds."""
    with _lock:
        return _espeak().speak(text, words_per_minute)


class EspeakTTS(tts.TTS[str]):
    """eSpeak NG as the agent's voice."""

    def __init__(self, *, words_per_minute: int = 165) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=False),
            sample_rate=SAMPLE_RATE,
            num_channels=1,
        )
        self.words_per_minute = words_per_minute

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return _Utterance(tts=self, input_text=text, conn_options=conn_options)


class _Utterance(tts.ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        assert isinstance(self._tts, EspeakTTS)
        output_emitter.initialize(
            request_id=uuid.uuid4().hex,
            sample_rate=SAMPLE_RATE,
            num_channels=1,
            mime_type="audio/pcm",
        )
        pace = self._tts.words_per_minute
        output_emitter.push(
            await asyncio.to_thread(synthesize, self.input_text, words_per_minute=pace)
        )
        output_emitter.flush()


class ScriptedLLM(llm.LLM[str]):
    """Replies by keyword, word by word.

    Args:
        replies: the first key that occurs in the user's last message decides; lower case.
        otherwise: the reply when none does.
        word_delay: seconds between two words, as a model streams them.
    """

    def __init__(
        self, replies: Mapping[str, str], *, otherwise: str, word_delay: float = 0.02
    ) -> None:
        super().__init__()
        self._replies = dict(replies)
        self._otherwise = otherwise
        self.word_delay = word_delay

    def reply_to(self, text: str) -> str:
        """What the script answers to `text`."""
        matching = (reply for key, reply in self._replies.items() if key in text.lower())
        return next(matching, self._otherwise)

    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, object]] = NOT_GIVEN,
    ) -> llm.LLMStream:
        return _Reply(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Reply(llm.LLMStream):
    async def _run(self) -> None:
        assert isinstance(self._llm, ScriptedLLM)
        users = [message for message in self._chat_ctx.messages() if message.role == "user"]
        last = (users[-1].text_content or "") if users else ""
        reply_id = uuid.uuid4().hex
        for word in self._llm.reply_to(last).split():
            delta = ChoiceDelta(role="assistant", content=word + " ")
            self._event_ch.send_nowait(ChatChunk(id=reply_id, delta=delta))
            await asyncio.sleep(self._llm.word_delay)
