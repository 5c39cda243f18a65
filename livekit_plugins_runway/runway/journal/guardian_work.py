"""The guardian's work: ends the sessions that its owner has left. Loaded by `guardian_process.py`
when needed; standard library only.

It reaches Runway as the environment says: the usual variables for proxies, `SSL_CERT_FILE`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

SECONDS = 60.0
"""Seconds for all of its work; the rest is left to the next sweep."""
ANSWER_SECONDS = 10.0
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 4.0
THREADS = 8
LOOK_AGAIN = 0.02
"""Seconds between checks of a lock that its dead owner still holds."""


def work(told: dict[str, Any]) -> None:
    """End the sessions in the owner's journal, unless another process does."""
    deadline = time.monotonic() + SECONDS
    records = _records()
    held = take_over(records, told["journal"], deadline)
    if held is None:
        return
    contents = records.parse(held.read())
    now = time.time()
    left = [id for id, entry in contents.alive.items() if not entry.is_over(now)]
    if left:
        end_all(records, held, left, told, deadline)
    elif not contents.untold and not contents.unknown:
        held.remove(records.Path(told["journal"]))


def _records() -> Any:
    """Load `records.py`, without the package."""
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "records.py")
    spec: Any = spec_from_file_location("records", place)
    module = sys.modules["records"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def take_over(records: Any, journal: str, deadline: float) -> Any:
    """The file, once its owner has ended; None if another process sweeps it, or has done so."""
    while time.monotonic() < deadline:
        held = records.take_over(records.Path(journal))
        if held is not None or not os.path.exists(journal):
            return held
        time.sleep(LOOK_AGAIN)
    return None


def end_all(
    records: Any, held: Any, left: list[str], told: dict[str, Any], deadline: float
) -> None:
    def run() -> None:
        while left:
            try:
                session_id = left.pop()
            except IndexError:
                return
            if ended(session_id):
                held.write(records.ended_line(session_id, time.time(), "guardian"))

    ended = ender(told, deadline)
    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(THREADS, len(left)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def ender(told: dict[str, Any], deadline: float) -> Callable[[str], bool]:
    """A function that ends a session, and returns whether it has."""

    def status(session_id: str) -> int:
        """The HTTP status; 0: no answer."""
        url = told["url"] + urllib.parse.quote(session_id, safe="")
        request = urllib.request.Request(url, headers=told["headers"], method="DELETE")
        seconds = max(0.1, min(ANSWER_SECONDS, deadline - time.monotonic()))
        try:
            # Redirects of a DELETE are not followed, so that the key goes to one host only.
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except Exception:  # noqa: BLE001  whatever the error is, there was no answer
            return 0

    def ended(session_id: str) -> bool:
        pause = FIRST_PAUSE
        while True:
            code = status(session_id)
            if 200 <= code < 300 or code == 404:
                return True
            may_pass = code == 0 or code >= 500 or code in (408, 429)
            if not may_pass or time.monotonic() + pause >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    return ended
