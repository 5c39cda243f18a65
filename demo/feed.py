"""What happens in the demo's call, numbered, for every page that follows it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

_KEPT = 2000


@dataclass(frozen=True)
class News:
    """One thing that happened. `at` is in Unix seconds."""

    number: int
    at: float
    event: str
    values: dict[str, Any]

    def as_sse(self) -> bytes:
        """As a server-sent event, whose id a browser repeats when it connects anew."""
        data = json.dumps(self.values | {"event": self.event, "at": self.at})
        return f"id: {self.number}\ndata: {data}\n\n".encode()


class Feed:
    """The news of one call; the oldest are forgotten."""

    def __init__(self) -> None:
        self._news: list[News] = []
        self._next = 1
        self._closed = False
        self._changed = asyncio.Event()

    def publish(self, event: str, /, **values: Any) -> None:
        if self._closed:
            return
        self._news.append(News(self._next, time.time(), event, values))
        self._next += 1
        del self._news[:-_KEPT]
        self._wake()

    def close(self) -> None:
        """No more news; those who follow get what there is, and come to an end."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, after: int = 0) -> AsyncIterator[News]:
        """Everything with a number above `after`, as it comes, until the feed is closed."""
        while True:
            changed = self._changed
            for news in [news for news in self._news if news.number > after]:
                after = news.number
                yield news
            if changed is self._changed:
                if self._closed:
                    return
                await changed.wait()
