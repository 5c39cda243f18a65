"""The search for secrets in the output of all tests finds them, wherever they come out."""

from __future__ import annotations

from pathlib import Path

import pytest

LEAKS = """
import logging
import sys

import pytest

from livekit_plugins_runway.log import logger
from livekit_plugins_runway.testing.livekit_server import LiveKitServer

KEY = "key_" + "0123456789abcdef" * 8
TOKEN = ".".join(["eyJ" + "a" * 20, "eyJ" + "b" * 20, "c" * 20])


def test_stdout(): print("Authorization: Bearer " + KEY)
def test_stderr(): print("stk_" + "a-B" * 20, file=sys.stderr)
def test_log(): logging.getLogger("other").warning("joined with %s", TOKEN)
def test_debug_extra(): logger.debug("create", extra={"lk.pii.headers": {"Authorization": KEY}})
def test_file(tmp_path): (tmp_path / "worker.log").write_text(KEY)
def test_livekit(): print(LiveKitServer().api_secret)
@pytest.fixture
def late():
    yield
    print(KEY)
def test_teardown(late): pass
"""
CLEAN = """
import pytest

from livekit_plugins_runway.testing.livekit_server import LiveKitServer

KEY = "key_" + "0123456789abcdef" * 8


def test_clean(tmp_path):
    LiveKitServer()
    print("key_... was not accepted")
    (tmp_path / "worker.log").write_text("registered worker")
@pytest.mark.shows_secrets
def test_on_purpose(): print(KEY)
"""


@pytest.mark.shows_secrets  # pytester prints what it ran
@pytest.mark.slow
def test_every_way_out_is_watched(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    pytester.makepyfile(test_leaks=LEAKS, test_clean=CLEAN)
    result = pytester.runpytest_subprocess(
        "-p", "tests.support.secret_watch", "--strict-markers", timeout=50
    )
    # The tests themselves pass: what fails is the look at them afterwards.
    result.assert_outcomes(passed=9, errors=7)
    for name, kind in (
        ("stdout", "a Runway API secret in Captured stdout call"),
        ("stderr", "a Runway session key in Captured stderr call"),
        ("log", "a room token in Captured log call"),
        ("debug_extra", "a Runway API secret in log record"),
        ("file", "a Runway API secret in worker.log"),
        ("livekit", "a LiveKit API secret in Captured stdout call"),
        ("teardown", "a Runway API secret in Captured stdout teardown"),
    ):
        result.stdout.fnmatch_lines([f"*test_{name} let out: {kind}*"])
