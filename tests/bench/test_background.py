"""Other programs that `make bench --load` measures beside."""

from __future__ import annotations

import asyncio
import time

import psutil
import pytest

from bench.background import Background, background

SHARE = 0.3
OWED = 0.1
"""Seconds of work that each process may make up for, and by which its turn may be late."""


async def used(others: Background, seconds: float) -> None:
    goal = others.seconds() + seconds
    while others.seconds() < goal:  # noqa: ASYNC110  CPU time has no event
        await asyncio.sleep(0.05)


@pytest.mark.timeout(30)
async def test_a_load_takes_no_more_than_its_share_and_leaves_no_process() -> None:
    before = set(psutil.Process().children())
    async with background(SHARE) as others:
        started = set(psutil.Process().children()) - before
        assert len(started) == psutil.cpu_count()
        await used(others, 0.3 * len(started))  # imports
        began = time.monotonic()
        await used(others, 0.3 * len(started))
        assert SHARE * (time.monotonic() - began) + OWED >= 0.3
    assert not any(process.is_running() for process in started)


async def test_no_load_starts_nothing() -> None:
    before = psutil.Process().children()
    async with background(0.0) as others:
        assert psutil.Process().children() == before
        assert others.seconds() == 0
