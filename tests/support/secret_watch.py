"""No test may let a secret out: what each printed and logged is searched when it is over.

A pytest plugin, loaded by `conftest.py`. It looks at the captured output and log, at every record
of this package's own logger, from DEBUG on and with what is in `extra`, and at the `*.log` files in
the test's `tmp_path`. `@pytest.mark.shows_secrets` exempts a test that does so on purpose.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from livekit_plugins_runway.log import logger
from livekit_plugins_runway.testing.livekit_server import LiveKitServer

SHAPES = {
    "a Runway API secret": re.compile(r"key_[0-9a-f]{16,}"),
    "a Runway session key": re.compile(r"stk_[\w-]{20,}"),
    "a room token": re.compile(r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
}
"""What the simulator makes, and the tests make up, looks like this."""
_LARGEST_LOG = 20_000_000  # bytes

_livekit_secrets: set[str] = set()
_records: list[str] = []


def secrets_in(text: str) -> Iterator[str]:
    """Which kinds of secrets are in the text; never the secrets themselves."""
    for kind, shape in SHAPES.items():
        if shape.search(text):
            yield kind
    if any(secret in text for secret in _livekit_secrets):
        yield "a LiveKit API secret"


class _Recorder(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _records.append(f"{record.getMessage()} {vars(record)}")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "shows_secrets: shows a secret on purpose")
    logger.addHandler(_Recorder(logging.DEBUG))
    logger.setLevel(logging.DEBUG)
    create = LiveKitServer.__init__

    def remember(self: LiveKitServer, **options: Any) -> None:
        create(self, **options)
        _livekit_secrets.add(self.api_secret)

    LiveKitServer.__init__ = remember  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when != "teardown":
        return report
    places = [(title, text) for title, text in report.sections]
    places += [("log record", text) for text in _records]
    _records.clear()
    if isinstance(folder := getattr(item, "funcargs", {}).get("tmp_path"), Path):
        for path in sorted(folder.rglob("*.log")):
            if path.is_file() and path.stat().st_size < _LARGEST_LOG:
                places.append((path.name, path.read_text(errors="replace")))
    if item.get_closest_marker("shows_secrets"):
        return report
    found = sorted({f"{kind} in {title}" for title, text in places for kind in secrets_in(text)})
    if found:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} let out: {'; '.join(found)}"
    return report
