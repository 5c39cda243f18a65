"""Lines of JSON between the processes of `make bench` and `make bench-speech`.

Commands go to a child's standard input, events come from its standard output. Each event carries
`at`, seconds of `time.monotonic()`, which all processes of one machine share on Linux.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

_END_TIMEOUT = 20.0
_LONGEST_LINE = 1 << 20
"""Bytes: a record of a call's pictures takes tens of thousands."""


def keep_for_good() -> None:
    """Take what was imported out of the garbage collector's sight, as the framework does in its job
    processes on Linux (livekit-agents 1.8.9, ipc/_preload_freeze.py). Else a collection holds up
    everything for 110 to 140 ms (measured, 2 cores), about every eight seconds of a call, and the
    receivers' jitter buffers remember it."""
    gc.collect()
    gc.freeze()


def tell(event: str, **values: Any) -> None:
    """Print an event, of now unless it says `at`."""
    # In one piece: threads of a program tell, too.
    sys.stdout.write(json.dumps({"event": event, "at": time.monotonic()} | values) + "\n")
    sys.stdout.flush()


async def commands() -> AsyncIterator[dict[str, Any]]:
    """What the parent wants done, until it closes the pipe or ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield json.loads(line)


class Child:
    """A running program that speaks in such lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._events: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self._ended = False

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, program: str, environment: dict[str, str], log: Path
    ) -> AsyncIterator[Child]:
        """Start a module, "bench.agent" say; on leaving its input is closed, and it ends. What it
        writes to standard error is added to `log`."""
        with log.open("ab") as complaints:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", program,
                env=os.environ | environment,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=complaints,
                start_new_session=True,  # Ctrl-C is the parent's: it ends things in order
                limit=_LONGEST_LINE,
            )  # fmt: skip
        child = cls(process)
        reading = asyncio.create_task(child._read(), name=f"lines of {program}")
        try:
            yield child
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), _END_TIMEOUT)
            except BaseException:  # also a second Ctrl-C: the child must not outlive this
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                raise
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._events.append(json.loads(line))
            self._news.set()
        self._ended = True
        self._news.set()

    def do(self, command: str, **arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps({"do": command} | arguments) + "\n").encode())

    async def told(self, name: str, *, timeout: float = 20.0, **values: Any) -> dict[str, Any]:
        """The first event of this name with these values; each is told once.

        Raises:
            TimeoutError: it did not come within `timeout` seconds.
            RuntimeError: the program has ended.
        """
        wanted = {"event": name} | values
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for index, event in enumerate(self._events):
                        if wanted.items() <= event.items():
                            return self._events.pop(index)
                    if self._ended:
                        raise RuntimeError(f"a program ended before it told of {name!r}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"no {name!r} within {timeout:g} s") from None
