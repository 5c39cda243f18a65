"""The cloud example with a voice and a model that need no network."""

from __future__ import annotations

import sys
from pathlib import Path

from livekit.agents import AgentSession, cli

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

from cloud import agent  # noqa: E402
from offline_speech import EspeakTTS, ScriptedLLM  # noqa: E402

agent.pipeline = lambda: AgentSession(
    llm=ScriptedLLM({}, otherwise="I see."),
    tts=EspeakTTS(),
    vad=None,
    turn_handling={"turn_detection": None},
)
server = agent.server  # where the framework's processes look for it

if __name__ == "__main__":
    cli.run_app(server)
