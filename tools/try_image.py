"""Build the image of examples/cloud, and hold a call in it.

The wheel, the image and the agent are as in docs/deploy.md; LiveKit server and simulated Runway run
beside it. Speech recognition, model and voice of the agent are replaced by ones that need no key.
Needs docker or podman, or buildah alone where neither can run a container.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from livekit import api

from livekit_plugins_runway.testing import RunwaySimulator
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.user import SimulatedUser

ROOT = Path(__file__).resolve().parent.parent
CLOUD = ROOT / "examples/cloud"
TAG = "localhost/runway-cloud-agent"
AGENT_NAME = "runway-cloud-agent"
PORT = 8081
# Where the agent's replaced parts are in the container, beside the image's own agent.py.
MOUNTED = {
    ROOT / "tests/support/cloud_worker.py": "/app/tests/support/cloud_worker.py",
    ROOT / "examples/offline_speech.py": "/app/examples/offline_speech.py",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    engines = [name for name in ("docker", "podman", "buildah") if shutil.which(name)]
    parser.add_argument("--engine", choices=["docker", "podman", "buildah"], default=engines[:1])
    parser.add_argument("--python", help="base image; the Dockerfile's own if not given")
    parser.add_argument(
        "--option", action="append", default=[], help="one more of the engine's build command"
    )
    given = parser.parse_args()
    if not given.engine:
        parser.error("install docker, podman or buildah")
    if isinstance(given.engine, list):
        [given.engine] = given.engine
    return given


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def build(engine: str, base: str | None, options: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "my-agent")
        shutil.copytree(CLOUD, folder)
        wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        run(*wheel, "--wheel-dir", folder / "wheels", ROOT)
        how = {
            "docker": ["build"],
            "podman": ["build", "--format", "docker"],
            "buildah": ["bud", "--format", "docker", "--isolation", "chroot", "--network", "host"],
        }[engine]
        chosen = ["--build-arg", f"PYTHON={base}"] if base else []
        run(engine, *how, *options, *chosen, "--tag", TAG, folder)


@asynccontextmanager
async def container(
    engine: str, environment: dict[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The image's worker, with a voice that needs no key; it ends as a deploy would end it."""
    spec = importlib.util.find_spec("espeakng_loader")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    mounted = MOUNTED | {Path(spec.submodule_search_locations[0]): "/app/espeakng_loader"}
    volumes = [f"--volume={source}:{target}:ro" for source, target in mounted.items()]
    values = [f"--env={name}={value}" for name, value in environment.items()]
    command = ["python", "/app/tests/support/cloud_worker.py", "start"]
    if engine == "buildah":
        name = run(engine, "from", TAG)
        start = [engine, "run", "--isolation", "chroot", "--network", "host", *volumes, *values]
        start += [name, "--", *command]
    else:
        name = "runway-cloud-agent"
        start = [engine, "run", "--rm", f"--name={name}", "--network=host", *volumes, *values]
        start += [TAG, *command]
    process = await asyncio.create_subprocess_exec(*start, start_new_session=True)
    try:
        yield process
    finally:
        if engine != "buildah":
            run(engine, "stop", name)
        elif process.returncode is None:
            # Its own process would die of the signal, and not pass it on.
            run("pkill", "-TERM", "-f", f"^[^ ]*{' '.join(command)}$")
        await asyncio.wait_for(process.wait(), 60)
        if engine == "buildah":
            run(engine, "rm", name)


async def until_healthy(process: asyncio.subprocess.Process) -> None:
    """Raises RuntimeError if the worker ends, or has not come to LiveKit within a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.returncode is None:
        try:
            await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{PORT}/", timeout=2)
        except OSError:
            await asyncio.sleep(0.5)
        else:
            return
    raise RuntimeError("the worker in the image did not become healthy")


async def bring_agent(admin: api.LiveKitAPI, user: SimulatedUser, room: str) -> None:
    """A dispatch before the worker has registered is lost. Raises RuntimeError after five."""
    asked = api.CreateAgentDispatchRequest(agent_name=AGENT_NAME, room=room)
    for _ in range(5):
        await admin.agent_dispatch.create_dispatch(asked)
        try:
            await user.wait_until(lambda: bool(user.room.remote_participants), 10.0)
        except TimeoutError:
            continue
        return
    raise RuntimeError("the agent did not come")


async def call(engine: str) -> None:
    room = f"image-{os.getpid()}"
    async with (
        LiveKitServer() as server,
        RunwaySimulator(
            livekit_url=server.url,
            livekit_api_key=server.api_key,
            livekit_api_secret=server.api_secret,
        ) as runway,
    ):
        environment = {
            "LIVEKIT_URL": server.url,
            "LIVEKIT_API_KEY": server.api_key,
            "LIVEKIT_API_SECRET": server.api_secret,
            "RUNWAYML_API_SECRET": runway.api_secret,
            "RUNWAYML_BASE_URL": runway.url,
            "NUM_CPUS": "1",
            "PORT": str(PORT),
            "PYTHONPATH": "/app",
        }
        async with container(engine, environment) as process:
            await until_healthy(process)
            keys = server.api_key, server.api_secret
            async with (
                api.LiveKitAPI(server.http_url, *keys) as admin,
                SimulatedUser(server.url, room, api_key=keys[0], api_secret=keys[1]) as user,
            ):
                await bring_agent(admin, user, room)
                began = time.monotonic()
                seen = await user.wait_for_video(30.0) - began
                heard = await user.wait_for_audio(30.0) - began
                silent = await user.wait_for_silence(1.0, 30.0) - began
            await runway.wait_until(lambda: not runway.leaked(), 20.0)
        print(f"face after {seen:.1f} s, voice from {heard:.1f} to {silent:.1f} s")
        print(f"no session left; the worker ended with {process.returncode}")


def main() -> None:
    given = arguments()
    build(given.engine, given.python, given.option)
    asyncio.run(call(given.engine))


if __name__ == "__main__":
    main()
