"""`make test`: all tests in four runs. All four run; the first failure is the exit code.

One call of real media keeps half a core busy, so those tests come two at a time, and the heavy ones
after the others. One that fails beside another every time is repeated by itself.

python tools/run_tests.py [--coverage]

The first run is that of `make check`, and fails, too, if it covers less of the package's core than
`pyproject.toml` says; what is slow without a server covers hardly anything else, and would be much
slower for it. With `--coverage` the coverage is shown, of the first run and of all but the heavy
tests. Those of media then come one at a time: coverage costs them the other half of the core.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

QUICK = ("-m", "not server and not slow", "-n", "auto", "--cov")
SLOW = ("-m", "not server and slow", "-n", "auto", "--dist", "worksteal")
MEDIA = ("-m", "server and not heavy")
TWO_AT_A_TIME = ("-n", "2", "--dist", "worksteal")
FAILED = ("--last-failed", "--last-failed-no-failures", "none")
HEAVY = ("-m", "server and heavy")
ADDED = ("--cov", "--cov-append")
UNSEEN = "--cov-report="


def run(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments]).returncode


def test() -> list[int]:
    codes = [run(*QUICK, UNSEEN), run(*SLOW)]
    for calls in (MEDIA, HEAVY):
        code = run(*calls, *TWO_AT_A_TIME)
        if code == pytest.ExitCode.TESTS_FAILED:  # and not too many were repeated: `rerun_budget`
            code = run(*calls, *FAILED)
        codes.append(code)
    return codes


def coverage() -> list[int]:
    return [run(*QUICK), run(*SLOW, *ADDED, UNSEEN), run(*MEDIA, *ADDED)]


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case []:
            codes = test()
        case ["--coverage"]:
            codes = coverage()
        case _:
            sys.exit(__doc__)
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
