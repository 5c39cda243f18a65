"""The fixtures that users get, as users get them: in a pytest of their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from livekit_plugins_runway.testing.livekit_binary import _cache_folder

DOC = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text()
LIMIT = 50.0
CACHE = _cache_folder().parent  # before pytester moves the home folder, where no server is built


def block(language: str) -> str:
    """The only block of this language in docs/testing.md."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.mark.slow
def test_a_project_that_does_not_use_it_imports_nothing_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it_costs_nothing(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("runway_avatar")
            heavy = {"livekit", "livekit_plugins_runway", "aiohttp", "numpy"}
            assert heavy.isdisjoint(sys.modules)
        """
    )
    pytester.runpytest_subprocess(timeout=LIMIT).assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_fixture_of_that_name_of_the_projects_own_needs_no_server_of_ours(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_SERVER_BIN", str(pytester.path / "nowhere"))
    pytester.makepyfile(
        """
        import sys
        import pytest

        @pytest.fixture
        def livekit_server():
            return "a server of docker-compose"

        def test_one(livekit_server):
            assert livekit_server.startswith("a server")
            assert "livekit_plugins_runway" not in sys.modules
        """
    )
    pytester.runpytest_subprocess(timeout=LIMIT).assert_outcomes(passed=1)


@pytest.mark.slow
def test_without_a_server_the_test_that_wants_one_says_why(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_SERVER_BIN", str(pytester.path / "nowhere"))
    pytester.makepyfile(
        """
        def test_one(livekit_server): pass
        def test_other(): pass
        """
    )
    result = pytester.runpytest_subprocess(timeout=LIMIT)
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["*LIVEKIT_SERVER_BIN is *nowhere*cannot be run*"])


@pytest.mark.usefixtures("livekit_server")  # built, where it is missing, before the clock runs
def test_the_tests_to_copy_pass_as_they_are(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    pytester.makefile(".toml", pyproject=block("toml"))
    pytester.makepyfile(test_avatar=block("python"))
    result = pytester.runpytest_subprocess("--strict-markers", timeout=LIMIT)
    result.assert_outcomes(passed=2)
