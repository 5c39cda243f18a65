"""`make test`: all tests in three runs. All three run; the first failure is the exit code.

One call of real media keeps half a core busy, so those tests come two at a time, and the heavy ones
by themselves.

python tools/run_tests.py [--coverage]

The first run fails, too, if it covers less of the package's core than `pyproject.toml` says. With
`--coverage` the coverage is shown, of the tests without a server and of all; media are slower then.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

WITHOUT_SERVER = ("-m", "not server", "-n", "auto", "--cov")
MEDIA = ("-m", "server and not heavy", "-n", "2")
HEAVY = ("-m", "server and heavy")
ADDED = ("--cov", "--cov-append")
UNSEEN = "--cov-report="


def pytest(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments]).returncode


def main(arguments: Sequence[str]) -> int:
    if arguments == ["--coverage"]:
        runs = [WITHOUT_SERVER, (*MEDIA, *ADDED, UNSEEN), (*HEAVY, *ADDED)]
    elif not arguments:
        runs = [(*WITHOUT_SERVER, UNSEEN), MEDIA, HEAVY]
    else:
        sys.exit(__doc__)
    codes = [pytest(*run) for run in runs]
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
