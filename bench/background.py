"""Other programs on the machine of `make bench --load`: they take a share of it all the time.

A process for each core works and sleeps in turns of some milliseconds, as programs do that wait for
requests. What counts is CPU time and not the clock: a process that had to wait for its core works
on until it has had its share. Niceness is the usual one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence

import psutil

MOST_LOAD = 0.9
_TURN = (0.002, 0.02)
"""Seconds of a turn, of work and sleep together, shortest and longest."""
_MOST_OWED = 0.05
"""Seconds of work that are made up for; beyond that the machine is full."""


class Background:
    """The running processes."""

    def __init__(self, processes: Sequence[psutil.Process]) -> None:
        self._processes = processes

    def seconds(self) -> float:
        """CPU time that all of them have taken so far."""
        times = [process.cpu_times() for process in self._processes]
        return float(sum(time.user + time.system for time in times))


@contextlib.asynccontextmanager
async def background(share: float) -> AsyncIterator[Background]:
    """Keep a share of all cores busy, 0 to `MOST_LOAD`; 0 starts nothing."""
    processes: list[asyncio.subprocess.Process] = []
    try:
        for n in range(psutil.cpu_count() or 1 if share else 0):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.background", str(share), str(n),
                start_new_session=True,  # Ctrl-C is the parent's: it ends things in order
            )  # fmt: skip
            processes.append(process)
        yield Background([psutil.Process(process.pid) for process in processes])
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*(process.wait() for process in processes))


def keep_busy(share: float, seed: int) -> None:
    """Until the process that started this one has ended."""
    turns, parent = random.Random(seed), os.getppid()
    owed, worked, began = 0.0, time.process_time(), time.monotonic()
    while os.getppid() == parent:
        time.sleep(max(0.0, began + turns.uniform(*_TURN) - time.monotonic()))
        last, began = began, time.monotonic()
        owed = min(owed + share * (began - last), _MOST_OWED)
        while (done := time.process_time() - worked) < owed:
            sum(range(500))
        owed, worked = owed - done, worked + done


if __name__ == "__main__":
    keep_busy(float(sys.argv[1]), int(sys.argv[2]))
