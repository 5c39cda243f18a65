"""`make test`: all tests in four runs. All four run; the first failure is the exit code.

One call of real media keeps half a core busy, so those tests come two at a time, and the heavy ones
by themselves.

python tools/run_tests.py [--coverage]

The first run is that of `make check`, and fails, too, if it covers less of the package's core than
`pyproject.toml` says; what is slow without a server covers hardly anything else, and would be much
slower for it. With `--coverage` the coverage is shown, of the first run and of all.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

QUICK = ("-m", "not server and not slow", "-n", "auto", "--cov")
SLOW = ("-m", "not server and slow", "-n", "auto", "--dist", "worksteal")
MEDIA = ("-m", "server and not heavy", "-n", "2", "--dist", "worksteal")
HEAVY = ("-m", "server and heavy")
ADDED = ("--cov", "--cov-append")
UNSEEN = "--cov-report="


def pytest(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments]).returncode


def main(arguments: Sequence[str]) -> int:
    if arguments == ["--coverage"]:
        rest = [(*run, *ADDED, UNSEEN) for run in (SLOW, MEDIA)]
        runs = [QUICK, *rest, (*HEAVY, *ADDED)]
    elif not arguments:
        runs = [(*QUICK, UNSEEN), SLOW, MEDIA, HEAVY]
    else:
        sys.exit(__doc__)
    codes = [pytest(*run) for run in runs]
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
