"""What the sink does in the event loop of a call."""

from __future__ import annotations

import subprocess
import sys

import pytest

CALL = """
import asyncio, sys
from livekit_plugins_runway.testing.tones import ToneScript
from tests.support.speech_world import world
from tests.support.virtual_clock import VirtualClockLoop

async def call():
    async with world() as w:
        w.attach()
        await asyncio.sleep(1.0)
        await w.say(ToneScript(8), rate=24_000)
        await w.spoken()
        await w.say(ToneScript(12))
        await asyncio.sleep(1.0)
        w.output.clear_buffer()
        await w.spoken()
        await w.say(ToneScript(12))
        await asyncio.sleep(1.2)
        w.worker.freeze_and_fade(0.5)
        await w.spoken()
        await w.say(ToneScript(4))
        await w.spoken()
    assert w.losses, "it was to be given up"

loaded = set(sys.modules)
with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(0.0)) as runner:
    runner.run(call())
print(*sorted(set(sys.modules) - loaded))
"""


@pytest.mark.slow
def test_no_module_is_loaded_in_a_call() -> None:
    """`numpy.ma` alone takes 0.1 s, in the middle of the first words."""
    done = subprocess.run(
        [sys.executable, "-c", CALL], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []
