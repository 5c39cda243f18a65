"""Repeated tests are seen: each shows the failure that its repetition hid, and too many are red.

Then the exit code is `EXCEEDED`, so that `make test` does not repeat what failed once more.
A pytest plugin, loaded by `conftest.py`; pytest-rerunfailures repeats the tests. With pytest-xdist
the controller counts. The budget is a share of the tests of one run of pytest that may be repeated
at all (`flaky`), and at least `LEAST`, for a run of a few tests has no share to speak of.
"""

from __future__ import annotations

import pytest

SHARE = 0.03
LEAST = 2
EXCEEDED = 100
"""pytest's own exit codes are below 10."""


class RerunBudget:
    def __init__(self) -> None:
        self.hidden: list[pytest.TestReport] = []
        """The failures, in the order in which they came."""
        self.repeatable: set[str] = set()
        """Node ids of the tests that ran and might be repeated."""

    @property
    def allowed(self) -> int:
        return max(LEAST, int(SHARE * len(self.repeatable)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "flaky" in report.keywords:
            self.repeatable.add(report.nodeid)
        if str(report.outcome) == "rerun":  # an outcome that only pytest-rerunfailures knows
            self.hidden.append(report)

    @pytest.hookimpl(tryfirst=True)  # before the terminal's summary is made
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if len(self.hidden) <= self.allowed:
            return
        text = (
            f"{len(self.hidden)} reruns of {len(self.repeatable)} tests that may be repeated: "
            f"more than {self.allowed} ({SHARE:.0%}, at least {LEAST})"
        )
        # As an error of its own: so the closing line is red, too.
        error = pytest.CollectReport("rerun budget", "failed", text, result=None)
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.stats.setdefault("error", []).append(error)
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            session.exitstatus = EXCEEDED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.hidden:
            return
        terminalreporter.write_sep("=", "FAILURES THAT A RERUN HID", yellow=True, bold=True)
        for report in self.hidden:
            terminalreporter.write_sep("_", f"{report.nodeid} ({report.when})", yellow=True)
            terminalreporter.write_line(report.longreprtext)
            for title, text in report.sections:
                terminalreporter.write_sep("-", title)
                terminalreporter.write_line(text.rstrip("\n"))


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # not in a worker of pytest-xdist
        config.pluginmanager.register(RerunBudget())
