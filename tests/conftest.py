import asyncio
import gc
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

# Before numpy is imported: its threads spin on the cores that real media need.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A developer's own journals are neither written nor swept: not by processes either, nor by fixtures
# that live longer than a test.
_journals = tempfile.TemporaryDirectory(prefix="runway-avatar-journals-")
os.environ["RUNWAY_AVATAR_JOURNAL"] = _journals.name

pytest_plugins = ["pytester", "tests.support.rerun_budget", "tests.support.secret_watch"]

# Tasks that end by themselves right after a test (a task that was cancelled, a transport's last
# callback) are no leak.
_LEAK_GRACE = 0.5  # seconds


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "browser" not in config.option.markexpr:
        unasked = [item for item in items if item.get_closest_marker("browser")]
        items[:] = [item for item in items if item not in unasked]
        config.hook.pytest_deselected(items=unasked)
    sampled: set[str] = set()
    for item in items:
        if item.get_closest_marker("sampled"):
            if (test := item.nodeid.partition("[")[0]) in sampled:
                item.add_marker("slow")
            sampled.add(test)
        if item.get_closest_marker("real_clients"):
            item.add_marker("slow")
        if "livekit_server" in getattr(item, "fixturenames", ()):
            item.add_marker("server")
        if item.get_closest_marker("server"):
            # Real media in real time: on a machine that stands still for half a second words are
            # lost on the way to the user, as anywhere. `rerun_budget` shows what was repeated.
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """A collection of all that pytest holds would stop the media of a test for 0.1 s and more."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_credentials_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own keys and hosts neither help a test nor are reached by one."""
    for name in list(os.environ):
        ours = name.startswith(("RUNWAYML_", "RUNWAY_SKILLS_", "LIVEKIT_"))
        if ours and not name.startswith("LIVEKIT_SERVER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RUNWAY_AVATAR_CREDENTIALS", "off")


@pytest.fixture(autouse=True)
def journals(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's journals; not made yet."""
    folder = tmp_path_factory.mktemp("state") / "journal"
    monkeypatch.setenv("RUNWAY_AVATAR_JOURNAL", str(folder))
    return folder


@pytest.fixture(autouse=True)
async def _no_task_left_behind() -> AsyncIterator[None]:
    """Fails a test whose event loop still runs a task after its fixtures are gone."""
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=_LEAK_GRACE)
    if left:
        names = "; ".join(sorted(map(repr, left)))
        # Cancelled, it would end the whole run of pytest some seconds later (`media/connect.py`).
        if joining := {task for task in left if task.get_name() == "runway_connect"}:
            await asyncio.wait(joining, timeout=40.0)
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_LEAK_GRACE)
        pytest.fail(f"tasks left behind: {names}")
