"""A process that makes Runway sessions and is killed: `python -m tests.support.mortal JSON`.

It prints the id of each session, once it is consumed, and then "alive"; it goes on until its input
ends, and then closes in good order. JSON: `key`, `url`, `folder`, `sessions`, `guardian`, `fork`.
With `fork` a child is forked before the last line, which does nothing and outlives its parent; its
process id is printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.http import ConnectOptions
from livekit_plugins_runway.runway.journal.keeper import Keeper
from livekit_plugins_runway.runway.models import CreateRealtimeSession, PresetAvatar
from livekit_plugins_runway.runway.session import RealtimeSession

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Mortal:
    """The parent's view of it."""

    process: asyncio.subprocess.Process
    sessions: list[str] = field(default_factory=list)
    child: int = 0
    """The forked one."""

    def guardians(self) -> list[int]:
        """Process ids; Linux only."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()]
        return [p for p in pids if b"guardian" in Path(f"/proc/{p}/cmdline").read_bytes()]

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def close(self) -> None:
        """Its own end, in good order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await self.process.wait() == 0


@asynccontextmanager
async def mortal(
    key: str, url: str, folder: Path, *, environment: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[Mortal]:
    """It is there, with `sessions` sessions (1) and a guardian unless `guardian` is False."""
    told = {"sessions": 1, "guardian": True, "fork": False, **options}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.mortal"),
        json.dumps({"key": key, "url": url, "folder": str(folder), **told}),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        | (environment or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    it = Mortal(process)
    try:
        assert process.stdout is not None
        while line := (await process.stdout.readline()).decode().strip():
            if line == "alive":
                break
            if line.startswith("child "):
                it.child = int(line.removeprefix("child "))
            else:
                it.sessions.append(line)
        else:
            raise AssertionError("it has died by itself")
        yield it
    finally:
        if it.child:
            os.kill(it.child, signal.SIGKILL)
        if process.returncode is None:
            await it.kill()


def _child() -> int:
    child = os.fork()
    if not child:
        os.closerange(0, 3)  # as a daemon does; the test reads to the end of the output
        time.sleep(60)
        os._exit(0)
    return child


async def _main(options: dict[str, Any]) -> None:
    keeper = Keeper(
        options["key"], options["url"], Path(options["folder"]), guardian=options["guardian"]
    )
    client = RunwayClient(
        options["key"],
        base_url=options["url"],
        conn_options=ConnectOptions(max_retry=0),
        journal=keeper.journal,
    )
    made = []
    for _ in range(options["sessions"]):
        request = CreateRealtimeSession(avatar=PresetAvatar(preset_id="influencer"))
        session = RealtimeSession(client, request)
        await session.create()
        await session.consume(await session.wait_until_ready(20.0))
        made.append(session)
        print(session.id, flush=True)
    if options["fork"]:
        print("child", _child(), flush=True)
    print("alive", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for session in made:
        await session.end()
    await client.aclose()
    await keeper.aclose()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the framework's job processes do
    asyncio.run(_main(json.loads(sys.argv[1])))
