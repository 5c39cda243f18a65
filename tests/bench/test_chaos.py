"""The short version of `make chaos`. `CHAOS_MINUTES` makes it longer."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

MINUTES = float(os.environ.get("CHAOS_MINUTES", "1"))


@pytest.mark.server
@pytest.mark.heavy
@pytest.mark.timeout(120 + 60 * MINUTES)
async def test_whatever_goes_wrong_every_word_is_heard_and_nothing_is_left(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.chaos", "--minutes", str(MINUTES), "--seed", "3",
        env=os.environ | {"CHAOS_OUT": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    report, _ = await process.communicate()
    assert process.returncode == 0, report.decode()
