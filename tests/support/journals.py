"""Journals as killed processes leave them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from livekit_plugins_runway.runway.journal.records import (
    Account,
    Contents,
    ended_line,
    parse,
)
from livekit_plugins_runway.runway.journal.writer import Journal

KEY = "key_" + "0123456789abcdef" * 8
URL = "https://runway.test"


def leave(
    folder: Path,
    *ids: str,
    key: str = KEY,
    url: str = URL,
    age: float = 0.0,
    cap: float = 300.0,
    ended_by_guardian: bool = False,
    name: str = "",
) -> Path:
    """The file of a process that was killed, `age` seconds after it had made these sessions."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    account, made_at = Account.of(key, url), time.time() - age
    lines = [account.entry(session_id, made_at, cap).line() for session_id in ids]
    if ended_by_guardian:
        lines += [ended_line(session_id, made_at + 1.0, "guardian") for session_id in ids]
    path = folder / (name or f"4711-{os.urandom(6).hex()}.jsonl")
    path.write_bytes(b"".join(lines))
    return path


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  no event tells
            await asyncio.sleep(0.01)


def contents(folder: Path) -> Contents:
    """Of all files together."""
    return parse(b"".join(path.read_bytes() for path in sorted(folder.glob("*.jsonl"))))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def journal(folder: Path | None, key: str = KEY, url: str = URL) -> Journal:
    return Journal(key, url, folder)
