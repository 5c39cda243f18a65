"""Starts the guardian, a small process that ends this process's sessions if it is killed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ...log import logger
from .records import Held

_PROGRAM = Path(__file__).with_name("guardian_process.py")
_KEPT = {
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "SYSTEMROOT"),
}
"""The environment variables that it needs; none of them is a key."""
_REAP_SECONDS = 1.0
_REAP_INTERVAL = 0.01


class Guardian:
    """One per journal. Without it, a killed process's sessions wait for the next sweep.

    Args:
        journal: the file, which this process has locked.
        url: the URL of Runway's sessions, to which an id is appended.
        headers: the headers of a call that ends one; they hold the key.
    """

    def __init__(self, journal: Path, url: str, headers: Mapping[str, str]) -> None:
        self._journal = journal
        task = {"journal": str(journal), "url": url, "headers": dict(headers)}
        self._task = json.dumps(task).encode()
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Held | None = None
        """Our end of a pipe, which the system closes when this process ends, in whatever way."""

    def start(self) -> None:
        """Start it; takes some milliseconds. Does not raise; a failure is logged."""
        if not _is_python(sys.executable) or not _PROGRAM.is_file():
            logger.warning(
                "no Python was found to start the guardian with; guardian=False avoids this warning"
            )
            return
        reading, writing = os.pipe()
        self._lifeline = Held(writing)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM)],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=os.path.abspath(os.sep),
                env={name: value for name, value in os.environ.items() if name.upper() in _KEPT},
                # A session of its own, so that Ctrl-C and signals to the process group do not reach
                # it.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
            self._lifeline.write(os.fsencode(self._journal) + b"\n" + self._task)
        except OSError as error:
            logger.warning("the guardian was not started", extra={"error": type(error).__name__})
            self._lifeline.close()
        finally:
            os.close(reading)

    async def aclose(self, *, wait: bool) -> None:
        """Release it: it ends at once if the journal is empty, else after its work, for which it
        has a minute. Idempotent.

        Args:
            wait: wait until it has ended, for a second at most.
        """
        if self._lifeline is not None:
            self._lifeline.close()
        process, self._process = self._process, None
        if process is None or not wait:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _REAP_SECONDS
        while process.poll() is None and loop.time() < deadline:  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(_REAP_INTERVAL)


def _is_python(executable: str | None) -> bool:
    """In a frozen program, or a server that embeds Python, `sys.executable` would start that
    program once more.
    """
    name = os.path.basename(executable or "").lower()
    return name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)
