"""`examples/cloud`: dispatched both ways, one call per core, drained on a deploy; Dockerfile."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from importlib.metadata import requires
from pathlib import Path
from types import ModuleType

import aiohttp
import pytest
from livekit import rtc
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from demo.worker import Worker
from livekit_plugins_runway.testing import RunwaySimulator, SimulatorOptions
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from tests.support.call import SMALL_PICTURE

ROOT = Path(__file__).resolve().parents[2]
CLOUD = ROOT / "examples" / "cloud"
WORKER = ROOT / "tests/support/cloud_worker.py"
PLUGIN = "livekit-plugins-runway-bridge"
DOCKERFILE = (CLOUD / "Dockerfile").read_text()


@pytest.fixture
def runway_simulator_options() -> SimulatorOptions:
    return SimulatorOptions(**SMALL_PICTURE, provisioning_delay=0.2, worker_join_delay=0.2)


@pytest.fixture
def dispatch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cloud_dispatch", CLOUD / "dispatch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def working(log: Path, **settings: str) -> AsyncIterator[tuple[Worker, int]]:
    """A registered worker process of the example on a machine of one core, and its port."""
    port = free_port()
    mine = {name: value for name, value in os.environ.items() if name.startswith(("LIVE", "RUN"))}
    environment = {**mine, "NUM_CPUS": "1", "PORT": str(port), **settings}
    running = Worker.running(WORKER, environment, log, lambda _: None)
    async with running as worker:
        await worker.wait_for(lambda w: w.registered, 40)
        yield worker, port


class Caller:
    """A user in a room of their own, who waits for an agent with a face."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.room = rtc.Room()
        self._stack = stack
        self._face = asyncio.Event()
        self._camera: rtc.Track | None = None
        self.room.on("track_subscribed", self._on_track)

    async def join(self, url: str, token: str) -> None:
        await self.room.connect(url, token)
        self._stack.push_async_callback(self.room.disconnect)

    async def open_media(self) -> None:
        async with asyncio.timeout(20):
            await self._face.wait()

    def _on_track(self, track: rtc.Track, _: object, participant: rtc.RemoteParticipant) -> None:
        is_avatar = participant.identity == "runway-avatar-agent"
        if is_avatar and track.kind == rtc.TrackKind.KIND_VIDEO:
            self._camera = track
            self._face.set()

    async def see(self, pictures: int) -> None:
        """So many from now on."""
        assert self._camera is not None
        async with asyncio.timeout(20), aclosing(rtc.VideoStream(self._camera)) as stream:
            for _ in range(pictures):
                await anext(stream)


def jobs(worker: Worker) -> int:
    """How many calls a worker was given, by its log."""
    text = worker._log.read_text()
    return len(re.findall(r'"received job request"', text))


@pytest.mark.heavy
@pytest.mark.timeout(120)
async def test_two_workers_share_the_calls_and_one_drains(
    livekit_server: LiveKitServer,
    runway_simulator: RunwaySimulator,
    dispatch: ModuleType,
    tmp_path: Path,
) -> None:
    url, room = livekit_server.url, f"cloud-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        running = await asyncio.gather(
            *(stack.enter_async_context(working(tmp_path / f"{name}.log")) for name in "ab")
        )
        workers = [worker for worker, _ in running]
        first, second = Caller(stack), Caller(stack)
        await first.join(url, dispatch.token(room, "first", name="Ada"))
        await first.open_media()
        await dispatch.now(f"{room}-2")  # before anybody is there
        await second.join(url, livekit_server.token(f"{room}-2", "second"))
        await second.open_media()
        # One core, one call: the second went to the other worker.
        assert sorted(map(jobs, workers)) == [1, 1]
        assert await asyncio.to_thread(health_status, running[0][1]) == 0

        for worker in workers:
            worker.terminate()
        await first.room.disconnect()
        await runway_simulator.wait_until(lambda: len(runway_simulator.leaked()) == 1)
        # A deploy is no reason to hang up: the other call goes on until its user leaves.
        assert "runway-avatar-agent" in second.room.remote_participants
        await second.room.disconnect()
        ended = (asyncio.wait_for(worker.wait(), 15) for worker in workers)
        assert await asyncio.gather(*ended) == [0, 0]
        await runway_simulator.wait_until(lambda: not runway_simulator.leaked())


@pytest.mark.heavy
@pytest.mark.timeout(120)
async def test_load_is_told_by_calls_and_a_worker_that_is_stopped_cuts_none_of_two(
    livekit_server: LiveKitServer,
    runway_simulator: RunwaySimulator,
    dispatch: ModuleType,
    tmp_path: Path,
) -> None:
    url, room, metrics = livekit_server.url, f"cloud-{secrets.token_hex(4)}", free_port()
    settings = {
        "NUM_CPUS": "2",
        "METRICS_PORT": str(metrics),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),  # as in kubernetes.yaml
    }
    async with AsyncExitStack() as stack:
        log = tmp_path / "worker.log"
        worker, _ = await stack.enter_async_context(working(log, **settings))
        callers = [Caller(stack), Caller(stack)]
        for number, caller in enumerate(callers, 1):
            await caller.join(url, dispatch.token(f"{room}-{number}", "user"))
            await caller.open_media()
            await until_told(metrics, scaled_by(), number / 2)
        worker.terminate()
        async with asyncio.timeout(40):
            while '"draining worker"' not in log.read_text():  # noqa: ASYNC110  of a file
                await asyncio.sleep(0.1)
        await asyncio.gather(*(caller.see(20) for caller in callers))
        assert len(runway_simulator.leaked()) == 2  # they are under way
        for caller in callers:
            await caller.room.disconnect()
        assert await asyncio.wait_for(worker.wait(), 20) == 0
        await runway_simulator.wait_until(lambda: not runway_simulator.leaked())


def scaled_by() -> str:
    """The metric of a pod by which the manifest's autoscaler counts."""
    manifest = (CLOUD / "kubernetes.yaml").read_text()
    found = re.findall(r"- type: Pods\n +pods:\n +metric: \{name: (\w+)\}", manifest)
    assert len(found) == 1
    return str(found[0])


async def until_told(port: int, name: str, value: float) -> None:
    """Until a worker's metric has that value; it is measured twice a second."""
    told: list[float] = []
    async with asyncio.timeout(10), aiohttp.ClientSession() as http:
        while told != [value]:
            async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                text = await answer.text()
            found = re.findall(rf"^{name}{{.*}} (\S+)$", text, re.MULTILINE)
            told = [float(one) for one in found]


def health_status(port: int) -> int:
    """Exit status of the image's health check for a worker with this port."""
    found = re.search(r"HEALTHCHECK .*\\\n  CMD (.*)", DOCKERFILE)
    assert found
    command = found[1].replace("python", sys.executable, 1)
    environment = os.environ | {"PORT": str(port)}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, timeout=10)
    return done.returncode


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_health_check_fails_where_nobody_answers() -> None:
    assert health_status(free_port()) != 0


def test_the_image_is_small_and_holds_no_secret_and_no_root() -> None:
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert stages == ["${PYTHON}"] * 2
    assert "\nARG PYTHON=python:3.12-slim\n" in DOCKERFILE
    last = DOCKERFILE.rpartition("FROM")[2]
    assert last.index("USER agent") < last.index("CMD [")
    assert json.loads(re.findall(r"^CMD (.*)$", last, re.MULTILINE)[0]) == [
        "python", "agent.py", "start",
    ]  # fmt: skip
    assert re.findall(r"^COPY ([^-].*) \S+$", last, re.MULTILINE) == ["agent.py"]
    assert "SECRET" not in DOCKERFILE
    ignored = (CLOUD / ".dockerignore").read_text().split()
    assert {".env*", ".git"} <= set(ignored)


def test_the_image_installs_what_was_locked_and_the_plugin_by_its_file_alone() -> None:
    installs = re.findall(r"pip install (.*)", DOCKERFILE)
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert "--no-index" in installs[1]
    lock = (CLOUD / "requirements.lock").read_text()
    locked = {
        canonicalize_name(name): version
        for name, version in re.findall(r"^(\S+?)==([^\s;]+)", lock, re.MULTILINE)
    }
    assert lock.count("--hash=sha256:") >= len(locked)
    assert PLUGIN not in locked
    for wanted in map(Requirement, requires(PLUGIN) or ()):
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), wanted


@pytest.mark.parametrize(
    ("file", "time"),
    [
        ("kubernetes.yaml", r"terminationGracePeriodSeconds: (\d+)"),
        ("compose.yaml", r"stop_grace_period: (\d+)s"),
    ],
)
def test_who_stops_the_agent_waits_until_its_last_call_has_ended(file: str, time: str) -> None:
    longest = re.search(r"^LONGEST_CALL = (\d+)", (CLOUD / "agent.py").read_text(), re.MULTILINE)
    granted = re.search(time, (CLOUD / file).read_text())
    assert longest
    assert granted
    assert int(granted[1]) >= int(longest[1]) + 30


def test_agent_and_dispatch_agree_on_the_name(dispatch: ModuleType) -> None:
    [name] = re.findall(r'^AGENT_NAME = "(.*)"', (CLOUD / "agent.py").read_text(), re.MULTILINE)
    assert name == dispatch.AGENT_NAME
