"""Fixtures for pytest: a LiveKit server and a Runway on this machine (`docs/testing.md`).

pytest loads this module in every project that has the package installed. So this is a module of its
own, and the package is imported only when a test uses a fixture.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

try:
    import pytest_asyncio
except ImportError:
    _async_fixture: Callable[[Any], Any] = pytest.fixture
else:
    _async_fixture = pytest_asyncio.fixture

if TYPE_CHECKING:
    from livekit_plugins_runway.testing import RunwaySimulator, SimulatorOptions
    from livekit_plugins_runway.testing.livekit_server import LiveKitServer

_no_server = pytest.StashKey[Exception]()
_OURS = "livekit_server_of_runway_bridge"
"""A name of our own, so that no server is built for a project's own fixture `livekit_server`."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build a missing livekit-server here, because it takes minutes, longer than a test may."""
    if session.config.option.collectonly:
        return
    if any(_OURS in getattr(item, "fixturenames", ()) for item in session.items):
        from livekit_plugins_runway.testing.livekit_binary import LiveKitServerError, provision

        try:
            provision()
        except LiveKitServerError as error:
            session.config.stash[_no_server] = error


@pytest.fixture(scope="session", name=_OURS)
def _livekit_server(pytestconfig: pytest.Config) -> Iterator[LiveKitServer]:
    """The server of the fixture `livekit_server`."""
    if (error := pytestconfig.stash.get(_no_server, None)) is not None:
        raise error
    from livekit_plugins_runway.testing.livekit_server import LiveKitServer

    with LiveKitServer() as server:
        yield server


@pytest.fixture(scope="session")
def livekit_server(livekit_server_of_runway_bridge: LiveKitServer) -> LiveKitServer:
    """A real livekit-server on loopback; one for all tests, so use room names of your own."""
    return livekit_server_of_runway_bridge


@pytest.fixture
def runway_simulator_options() -> SimulatorOptions | None:
    """How `runway_simulator` behaves; override or parametrize it. `None`: the defaults."""
    return None


@_async_fixture
async def runway_simulator(
    livekit_server: LiveKitServer,
    runway_simulator_options: SimulatorOptions | None,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[RunwaySimulator]:
    """A Runway on loopback, on `livekit_server`; a new one for each test.

    Until the test ends `RUNWAYML_BASE_URL`, `RUNWAYML_API_SECRET`, `LIVEKIT_URL`,
    `LIVEKIT_API_KEY` and `LIVEKIT_API_SECRET` name the two, so an agent runs as it is, and no key
    of a developer's own is used.
    """
    from livekit_plugins_runway.testing import RunwaySimulator

    async with RunwaySimulator(
        livekit_url=livekit_server.url,
        livekit_api_key=livekit_server.api_key,
        livekit_api_secret=livekit_server.api_secret,
        options=runway_simulator_options,
    ) as runway:
        monkeypatch.setenv("LIVEKIT_URL", livekit_server.url)
        monkeypatch.setenv("LIVEKIT_API_KEY", livekit_server.api_key)
        monkeypatch.setenv("LIVEKIT_API_SECRET", livekit_server.api_secret)
        monkeypatch.setenv("RUNWAYML_BASE_URL", runway.url)
        monkeypatch.setenv("RUNWAYML_API_SECRET", runway.api_secret)
        yield runway
