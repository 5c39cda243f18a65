"""A repeated test shows the failure that it hid; a run with many is red. In a pytest of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.rerun_budget import EXCEEDED

pytestmark = pytest.mark.slow

FAILS_ONCE = """
import logging
from pathlib import Path

import pytest


@pytest.mark.flaky(reruns=1)
@pytest.mark.parametrize("number", range({tests}))
def test_of_media(number):
    ran = Path(f"ran-{{number}}")
    if number < {failing} and not ran.exists():
        ran.touch()
        logging.getLogger().warning("nothing heard in call %s", number)
        assert "silence" == "speech"
"""


def run(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    tests: int,
    failing: int,
    *workers: str,
) -> pytest.RunResult:
    """A run of `tests` tests, of which the first `failing` fail once."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))  # of the workers
    # Only what is tested and what it needs: the other plugins take a second to load.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(FAILS_ONCE.format(tests=tests, failing=failing))
    plugins = ["pytest_rerunfailures", "tests.support.rerun_budget"]
    if workers:
        plugins.append("xdist")
    options = [option for plugin in plugins for option in ("-p", plugin)]
    return pytester.runpytest_inprocess(*options, *workers)


def test_a_rerun_shows_the_failure_that_it_hid(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(pytester, monkeypatch, 1, 1)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "*FAILURES THAT A RERUN HID*",
            "*test_of_media?0? (call)*",
            '>*assert "silence" == "speech"',
            "*Captured log call*",
            "WARNING *nothing heard in call 0",
        ]
    )


@pytest.mark.parametrize(
    "workers",
    [
        pytest.param((), id="alone"),
        pytest.param(("-n", "2"), id="workers"),
    ],
)
@pytest.mark.parametrize(
    ("tests", "failing", "allowed"),
    [(4, 2, True), (4, 3, False), (100, 3, True), (100, 4, False)],
)
def test_more_reruns_than_the_budget_allows_are_red(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    tests: int,
    failing: int,
    allowed: bool,
    workers: tuple[str, ...],
) -> None:
    result = run(pytester, monkeypatch, tests, failing, *workers)
    result.assert_outcomes(passed=tests, errors=0 if allowed else 1)
    assert result.ret == (pytest.ExitCode.OK if allowed else EXCEEDED)
    if not allowed:
        result.stdout.fnmatch_lines([f"*{failing} reruns of {tests} tests*: more than*"])
    assert result.stdout.str().count("nothing heard in call") == 2 * failing  # code and log


def test_a_test_that_may_not_be_repeated_widens_no_budget(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        test_quick="""
        import pytest

        @pytest.mark.parametrize("number", range(200))
        def test_quick(number): pass
        """
    )
    result = run(pytester, monkeypatch, 3, 3)
    result.stdout.fnmatch_lines(["*3 reruns of 3 tests*: more than 2*"])
    assert result.ret == EXCEEDED
