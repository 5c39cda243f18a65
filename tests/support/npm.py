"""Packages of npm for tests: installed from a committed lockfile into a folder of the test run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL_TIMEOUT = 120
_UNREACHABLE = {
    "E403",
    "E404",
    "E503",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENETUNREACH",
    "ENOTFOUND",
    "ETIMEDOUT",
}
"""npm's codes for a registry that gives nothing. Anything else is a fault of the lockfile."""


def installed(source: Path, scratch: Path) -> Path:
    """A copy of the folder `source`, with its packages; skips the test where none can be had."""
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        pytest.skip("there is no Node.js with npm")
    folder = scratch / source.name
    shutil.copytree(source, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm took more than {INSTALL_TIMEOUT} s")
    if done.returncode:
        code = re.search(r"npm error code (\w+)", done.stderr)
        if code and code[1] in _UNREACHABLE:
            pytest.skip(f"npm cannot fetch the packages ({code[1]})")
        pytest.fail(done.stderr)
    return folder
