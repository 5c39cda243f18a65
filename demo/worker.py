"""The demo's agent worker: a process, and what it tells in its log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any


class Worker:
    """The agent's worker process and what it tells in its log."""

    def __init__(
        self, process: asyncio.subprocess.Process, log: Path, note: Callable[[str], None]
    ) -> None:
        self._process = process
        self._log = log
        self._note = note
        self._changed = asyncio.Condition()
        self.registered = False
        self.events: list[dict[str, Any]] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, agent: Path, environment: dict[str, str], log: Path, note: Callable[[str], None]
    ) -> AsyncIterator[Worker]:
        """Start the worker that `agent` (a Python file) is; `note` gets a line per thing to show.

        At the end it gets SIGTERM, and after some seconds its group is killed.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(agent), "start",
            env=_own_environment() | environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
            start_new_session=True,  # Ctrl-C is the demo's: it ends things in order
        )  # fmt: skip
        worker = cls(process, log, note)
        reading = asyncio.create_task(worker._read(), name="worker log")
        try:
            yield worker
        finally:
            await worker._stop()
            await reading

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._process.wait()

    async def wait_for(self, condition: Callable[[Worker], bool], timeout: float) -> None:
        """Wait for a state of the worker's log. Raises TimeoutError."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: condition(self) or self._process.returncode)
        if not condition(self):
            raise TimeoutError

    async def wait_for_event(self, seen: int) -> None:
        """Wait until there are more than `seen` events. Raises EOFError if the worker has ended."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: len(self.events) > seen or self._process.returncode is not None
            )
        if len(self.events) <= seen:
            raise EOFError("the agent's worker has ended: see worker.log")

    def said(self, role: str) -> list[dict[str, Any]]:
        """The messages of the agent's chat history by this role so far."""
        return [e for e in self.events if e["event"] == "said" and e["role"] == role]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        with self._log.open("wb") as log:
            async for line in self._process.stdout:
                log.write(line)
                self._take(line)
                async with self._changed:
                    self._changed.notify_all()
        await self._process.wait()
        async with self._changed:
            self._changed.notify_all()

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            return
        if not isinstance(record, dict):
            return
        if record.get("message") == "registered worker":
            self.registered = True
        if record.get("message") == "demo event":
            event = {"event": record["event"]} | record["lk.pii.values"]
            self.events.append(event)
            if (text := _headline(event)) is not None:
                self._note(text)

    def terminate(self) -> None:
        """Ask it to end, as a deployment does."""
        self._process.terminate()

    async def _stop(self) -> None:
        if self._process.returncode is None:
            self.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 6)
        # Jobs are children of their own; none outlives the demo.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _own_environment() -> dict[str, str]:
    """Without the developer's own keys and hosts, and without a proxy on the way to loopback."""
    foreign = ("LIVEKIT_", "RUNWAY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    kept = ("RUNWAY_AVATAR_JOURNAL",)
    return {k: v for k, v in os.environ.items() if k in kept or not k.upper().startswith(foreign)}


def _headline(event: dict[str, Any]) -> str | None:
    match event["event"]:
        case "stage":
            return f"avatar: {event['stage'].replace('_', ' ')}"
        case "state":
            return f"avatar is {event['state'].replace('_', ' ')}"
        case "said" if event["role"] == "assistant":
            return f"agent: {event['text']}" + (" (interrupted)" if event["interrupted"] else "")
        case "ended":
            return f"Runway session over: {event['status']}, {event['how']}"
        case "error":
            return f"error: {event['text']}"
    return None
