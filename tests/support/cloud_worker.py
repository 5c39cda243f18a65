"""The cloud example with a voice and a model that need no network."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from livekit.agents import AgentSession, cli

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# In the image (`tools/try_image.py`), where there is no such folder, PYTHONPATH tells the agent.
sys.path += [str(EXAMPLES / "cloud"), str(EXAMPLES)]

from offline_speech import EspeakTTS, ScriptedLLM  # noqa: E402

agent: Any = import_module("agent")

agent.pipeline = lambda: AgentSession(
    llm=ScriptedLLM({}, otherwise="I see."),
    tts=EspeakTTS(),
    vad=None,
    turn_handling={"turn_detection": None},
)
server = agent.server  # where the framework's processes look for it

if __name__ == "__main__":
    cli.run_app(server)
