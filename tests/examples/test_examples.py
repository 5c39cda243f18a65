"""What the examples promise: a voice and a model that behave as the framework expects, offline."""

from __future__ import annotations

import asyncio
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from livekit.agents import AgentServer, llm

from demo import report, runway
from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.tones import Pcm, first_sound, gaps, voiced_seconds

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = "Everything that you see and hear is made on this machine."


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    folders = [str(ROOT / "examples")]
    sys.path[:0] = folders
    yield
    for folder in folders:
        sys.path.remove(folder)


@pytest.fixture
def speech() -> ModuleType:
    return __import__("offline_speech")


def at_48_khz(voice: bytes) -> Pcm:
    """The voice's samples, 22.05 kHz, as a listener has them."""
    samples = np.frombuffer(voice, np.int16).astype(float)
    at = np.arange(round(len(samples) * SAMPLE_RATE / 22_050)) * 22_050 / SAMPLE_RATE
    heard: Pcm = np.interp(at, np.arange(len(samples)), samples).astype(np.int16)
    return heard


async def test_the_voice_speaks_as_a_tts_of_the_framework(speech: ModuleType) -> None:
    voice = speech.EspeakTTS()
    frame = await voice.synthesize(SENTENCE).collect()
    assert (frame.sample_rate, frame.num_channels) == (voice.sample_rate, 1) == (22_050, 1)
    assert 2 < frame.duration < 5
    samples = np.frombuffer(frame.data, np.int16)
    assert voiced_seconds(samples, 22_050) > 0.7 * frame.duration
    slow = await speech.EspeakTTS(words_per_minute=100).synthesize(SENTENCE).collect()
    assert slow.duration > 1.3 * frame.duration


async def test_voices_that_speak_at_once_do_not_mix(speech: ModuleType) -> None:
    texts = [f"Number {n} and {'more ' * n}" for n in range(8)]
    alone = [len(speech.synthesize(text)) for text in texts]
    together = await asyncio.gather(*(asyncio.to_thread(speech.synthesize, t) for t in texts))
    # eSpeak NG is not exact: a few samples more or less.
    assert [len(voice) for voice in together] == pytest.approx(alone, rel=0.01)


async def test_the_scripted_model_streams_the_reply_that_fits(speech: ModuleType) -> None:
    model = speech.ScriptedLLM({"time": "It is late."}, otherwise="Pardon?", word_delay=0)
    context = llm.ChatContext.empty()
    for text, reply in (("Hello", "Pardon?"), ("what TIME is it", "It is late.")):
        context.add_message(role="user", content=text)
        async with model.chat(chat_ctx=context) as stream:
            words = [chunk.delta.content async for chunk in stream if chunk.delta]
        assert "".join(words).strip() == reply
        assert len(words) == len(reply.split())


@pytest.mark.parametrize(
    ("example", "name"), [("agent.py", "runway-agent"), ("direct.py", "runway-direct-agent")]
)
def test_what_a_user_copies_is_short_and_registers_an_agent(example: str, name: str) -> None:
    path = ROOT / "examples" / example
    assert len(path.read_text().splitlines()) <= 42
    server = runpy.run_path(str(path))["server"]
    assert isinstance(server, AgentServer)
    assert server._agent_name == name


def test_the_offline_agent_answers_the_demo(speech: ModuleType) -> None:
    agent = __import__("offline_agent")
    model = speech.ScriptedLLM(agent.REPLIES, otherwise="?")
    for text, key in (
        ("Who are you?", "who are you"),
        ("Please tell me a story.", "tell me"),
        ("Wait, may I interrupt you?", "wait"),
        ("Thank you, goodbye!", "goodbye"),
    ):
        assert model.reply_to(text) == agent.REPLIES[key]


def test_a_sentence_counts_as_heard_only_if_it_was(
    speech: ModuleType,
) -> None:
    other = "I am a voice agent with a face."
    heard = np.concatenate([np.zeros(20_000, np.int16), at_48_khz(speech.synthesize(SENTENCE))])
    both = report.compare(f"{SENTENCE} {other}", "", False, heard)
    assert [sentence.heard for sentence in both.sentences] == [True, False]
    assert both.missing == [other]
    assert both.sentences[0].at == pytest.approx(first_sound(heard, SAMPLE_RATE), abs=0.1)
    assert report.compare(SENTENCE, "", False, heard[:100]).missing == [SENTENCE]


def test_a_hole_in_a_sentence_is_reported(
    speech: ModuleType,
) -> None:
    heard = at_48_khz(speech.synthesize(SENTENCE)).copy()
    assert not report.compare(SENTENCE, "", False, heard).has_holes
    heard[40_000:70_000] = 0
    assert report.compare(SENTENCE, "", False, heard).has_holes


def test_an_interrupted_answer_owes_only_what_the_history_holds(
    speech: ModuleType,
) -> None:
    first, second = "This is the first sentence.", "And here comes the second of them."
    heard = at_48_khz(speech.synthesize(first))
    cut = report.compare(f"{first} {second}", f"{first} And here", True, heard)
    assert cut.missing == []
    unheard = np.zeros_like(heard)
    assert report.compare(f"{first} {second}", f"{first} And", True, unheard).missing == [first]


def test_the_tail_of_an_interrupted_answer_is_timed() -> None:
    voice = np.full(SAMPLE_RATE, 5_000, np.int16)
    heard = np.concatenate([voice[:24_000], voice[:48_000] * 0, voice])
    assert gaps(heard, SAMPLE_RATE)[0].start_s == pytest.approx(0.5)
    assert report.last_sound_before(heard, 1.4) == pytest.approx(0.5, abs=0.01)
    assert report.last_sound_before(heard[24_000:], 0.9) == 0.0


def test_the_report_fails_for_what_must_not_be() -> None:
    fine = report.Report(first_frame=1.0, barge_in_silence=0.1, avatar_tracks=2)
    fine.utterances = [report.Utterance("a", "a", True, 1.0, 0.5, [])]
    fine.sessions = [runway.RunwaySession("COMPLETED", True, 20.0, 8)]
    fine.judge()
    assert fine.failures == []
    bad = report.Report()
    bad.utterances = [report.Utterance("a", "a", False, 2.0, 0.5, [report.Sentence("a", 0.2, 0.0)])]
    bad.sessions = [
        runway.RunwaySession("RUNNING", False, 20.0, 8),
        runway.RunwaySession("FAILED", True, 20.0, 8),
    ]
    bad.judge()
    assert len(bad.failures) == 8
