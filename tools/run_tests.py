"""`make test`: all tests in three runs. All three run; the first failure is the exit code.

One call of real media keeps half a core busy, so those tests come two at a time, and the heavy ones
by themselves.
"""

from __future__ import annotations

import subprocess
import sys

WITHOUT_SERVER = ("-m", "not server", "-n", "4")
MEDIA = ("-m", "server and not heavy", "-n", "2")
HEAVY = ("-m", "server and heavy")


def pytest(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments]).returncode


def main() -> int:
    codes = [pytest(*run) for run in (WITHOUT_SERVER, MEDIA, HEAVY)]
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
