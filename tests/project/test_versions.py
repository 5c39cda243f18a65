"""A version of LiveKit's packages that was never tested is warned of, once, and taken."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import metadata

import pytest

from livekit_plugins_runway import AvatarSession
from livekit_plugins_runway._common import versions as _versions
from livekit_plugins_runway._common.versions import TESTED_AGENTS, TESTED_LIVEKIT, untested_versions
from livekit_plugins_runway.cli.doctor import offline

TESTED = {"livekit-agents": TESTED_AGENTS[-1], "livekit": TESTED_LIVEKIT[-1]}


@pytest.fixture(autouse=True)
def _not_warned_yet() -> Iterator[None]:
    _versions.warn_of_untested_versions.cache_clear()
    yield
    _versions.warn_of_untested_versions.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    """As if these versions were installed."""

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(_versions, "version", version)


async def avatar() -> None:
    await AvatarSession(preset_id="influencer", api_key="key").aclose()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


async def test_a_tested_version_is_no_news(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, TESTED)
    await avatar()
    assert untested_versions() == []
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("versions", "named"),
    [
        (TESTED | {"livekit-agents": "1.9.0"}, "livekit-agents 1.9.0 (tested: 1.8.9)"),
        (TESTED | {"livekit": "1.9.9"}, "livekit 1.9.9 (tested: 1.1.21, 1.2.1)"),
        ({"livekit": "1.2.1"}, "livekit-agents of an unknown version (tested: 1.8.9)"),
    ],
)
async def test_another_is_taken_and_warned_of_once_in_a_process(
    versions: dict[str, str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    install(monkeypatch, versions)
    await avatar()
    await avatar()
    (warning,) = warnings(caplog)
    assert named in warning


@pytest.mark.parametrize(
    ("agents", "status"), [("1.8.8", "fail"), ("1.8.9", "ok"), ("1.9.0", "warn"), ("2.0.0", "fail")]
)
def test_the_doctor_tells_tested_untested_and_refused(
    agents: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = TESTED | {"livekit-agents": agents}
    install(monkeypatch, versions)
    monkeypatch.setattr(offline, "package_versions", lambda: versions)
    (check,) = offline._packages()
    assert check.status == status
    assert ("1.9.0" in check.advice) is (status == "warn")
