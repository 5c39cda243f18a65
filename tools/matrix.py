"""`make matrix`: the tests on the versions that users have, each in an environment of its own.

python tools/matrix.py [--list] [--only NAME ...] [--quick | --media] [--again]
    [--publish]

Environments are kept in the user's cache folder. What passed on the present files is not run again,
so that a run that was broken off can be started anew. A Python that this machine does not have is
reported, and does not fail the run.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PAGE = PROJECT / "docs/compatibility.md"
BEGIN, END = "<!-- written by make matrix: begin -->", "<!-- written by make matrix: end -->"

QUICK = "quick"
TYPES = "types"
NATIVE, PUBLIC = "media, native", "media, public"
STEPS = (QUICK, TYPES, NATIVE, PUBLIC)
MEDIA_TESTS = (
    "tests/avatar/test_call.py",
    "tests/transport/test_loss.py",
    "tests/transport/test_direct.py",
    "tests/transport/test_sdk_quirks.py",
    "tests/media",
)
"""One call, its losses, barge-in, the direct way, and sound and pictures."""
NEED_NEWER = ("tests/serve/test_serve_mcp.py", "tests/clients")
"""Need the `serve` extra, and Runway's SDK, which ask for newer packages than this one does."""
TEST_TOOLS = ("pytest", "hypothesis", "jsonschema", "trustme", "hatchling", "livekit-plugins-run")
"""Of the development dependencies, by how their names begin: what the quick tests need."""
STEP_TIMEOUT = 3600.0
"""Seconds."""


@dataclass(frozen=True)
class Environment:
    """What is installed, and which steps are run in it."""

    name: str
    what: str
    python: str
    livekit: str | None = None
    """Put in place of the version that livekit-agents pins."""
    lowest: bool = False
    """The lowest declared version of each dependency, without the `serve` extra."""
    steps: tuple[str, ...] = (QUICK,)


ENVIRONMENTS = (
    *(
        Environment(f"python-{python}", f"Python {python}, newest versions", python)
        for python in ("3.11", "3.12", "3.13", "3.14")
    ),
    Environment("lowest", "lowest declared versions", "3.11", lowest=True),
    *(
        Environment(f"livekit-{livekit}", f"livekit {livekit}", "3.11", livekit, steps=STEPS)
        for livekit in ("1.1.21", "1.2.1")
    ),
)


@dataclass(frozen=True)
class Result:
    """What became of one step."""

    passed: bool
    summary: str
    tree: str
    commit: str
    date: str


class SetupError(Exception):
    """An environment could not be made."""


class Store:
    """Results by environment and step, and what was installed; a file in the cache folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text() if path.exists() else "{}"
        self._kept: dict[str, dict[str, dict[str, str | bool]]] = json.loads(text)

    def result(self, environment: Environment, step: str) -> Result | None:
        kept = self._kept.get(environment.name, {}).get(step)
        return None if kept is None else Result(**kept)  # type: ignore[arg-type]

    def keep(self, environment: Environment, step: str, result: Result) -> None:
        self._kept.setdefault(environment.name, {})[step] = dataclasses.asdict(result)
        self._write()

    def versions(self, environment: Environment) -> dict[str, str]:
        kept = self._kept.get(environment.name, {}).get("versions", {})
        return {name: str(version) for name, version in kept.items()}

    def keep_versions(self, environment: Environment, versions: dict[str, str]) -> None:
        self._kept.setdefault(environment.name, {})["versions"] = dict(versions)
        self._write()

    def _write(self) -> None:
        scratch = self._path.with_suffix(".new")
        scratch.write_text(json.dumps(self._kept, indent=1))
        scratch.replace(self._path)


# -- interpreters ---------------------------------------------------------------------------------


@functools.cache
def find_python(version: str) -> Path | None:
    """An interpreter of this version ("3.12") that can make environments; None if there is none.

    Tried by running them: a name on PATH may be a stub of pyenv for a version that is switched off.
    """
    for candidate in _candidates(version):
        code = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])"
        try:
            told = subprocess.run(
                [candidate, "-c", code], capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if told.returncode == 0 and told.stdout.strip() == version:
            return candidate
    return None


def _candidates(version: str) -> Iterator[Path]:
    yield Path(getattr(sys, "_base_executable", sys.executable))
    for name in (f"python{version}", "python3", "python"):
        if (found := shutil.which(name)) is not None:
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}*/bin/python"), reverse=True)
    if (uv := shutil.which("uv")) is not None:
        told = subprocess.run(
            [uv, "python", "find", "--no-project", version], capture_output=True, text=True
        )
        if told.returncode == 0:
            yield Path(told.stdout.strip())


# -- environments ---------------------------------------------------------------------------------


def cache_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    folder = base / "livekit-plugins-runway-bridge/matrix"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def lower_bounds(requirements: list[str]) -> list[str]:
    """Constraints that pin each requirement to the lowest version that it allows."""
    pins = []
    for requirement in requirements:
        found = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)(?:,.*)?", requirement)
        if found is None:
            raise SetupError(f"{requirement!r} does not say its lowest version")
        pins.append(f"{found[1]}=={found[2]}")
    return pins


def _declared() -> tuple[list[str], dict[str, list[str]]]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return project["dependencies"], project["optional-dependencies"]


def installs(environment: Environment) -> list[list[str]]:
    """What `pip install` is called with, one call after the other, before the project itself."""
    dependencies, extras = _declared()
    dev = [need for need in extras["dev"] if not need.startswith("livekit-plugins-runway-bridge")]
    if environment.lowest:
        tools = [need for need in dev if need.startswith(TEST_TOOLS)]
        return [[*lower_bounds(dependencies), *tools, *extras["testing"]]]
    calls = [[*dependencies, *dev, *extras["testing"], *extras["serve"]]]
    if environment.livekit is not None:
        # livekit-agents pins livekit exactly, and pip would not take another.
        calls.append(["--no-deps", f"livekit=={environment.livekit}"])
    return calls


def set_up(environment: Environment, python: Path, log: Path) -> Path:
    """The interpreter of the environment, which is made or brought up to date.

    Raises:
        SetupError: pip failed; the log says why.
    """
    folder = cache_folder() / environment.name
    inside = folder / "bin/python"
    calls = installs(environment)
    stamp = folder / "installed.json"
    wanted = json.dumps([str(python), calls])
    if not (inside.exists() and stamp.exists() and stamp.read_text() == wanted):
        print(f"{environment.name}: making its environment", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _run([python, "-m", "venv", folder], log)
        for call in calls:
            _run([inside, "-m", "pip", "install", "--quiet", *call], log)
        stamp.write_text(wanted)
    # Each time: checkouts share the environments.
    project = ["--no-deps", "--no-build-isolation", "--editable", str(PROJECT)]
    _run([inside, "-m", "pip", "install", "--quiet", *project], log)
    return inside


def _run(command: list[str | Path], log: Path) -> None:
    with log.open("a") as out:
        out.write(f"$ {' '.join(map(str, command))}\n")
        out.flush()
        code = subprocess.run(command, stdout=out, stderr=out, cwd=PROJECT).returncode
    if code != 0:
        raise SetupError(f"{command[1:5]} ended with {code}")


def installed(python: Path) -> dict[str, str]:
    """The versions of Python and of what this package declares."""
    names = [re.split(r"[\[<>=]", need)[0] for need in _declared()[0]]
    code = (
        "import json, platform, sys; from importlib.metadata import version;"
        "print(json.dumps({'Python': platform.python_version()}"
        " | {name: version(name) for name in sys.argv[1:]}))"
    )
    told = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(told.stdout)
    return versions


# -- steps ----------------------------------------------------------------------------------------


def commands(environment: Environment, step: str) -> list[list[str]]:
    """What a step runs, each with the environment's Python."""
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    if step == TYPES:
        return [["-m", "mypy"]]
    if step == QUICK:
        ignored = [f"--ignore={tests}" for tests in NEED_NEWER] if environment.lowest else []
        return [[*pytest, "-m", "not server", "-n", "2", "--ignore=tests/project", *ignored]]
    # User, agent and Runway of a test share a process. On the public way each 10 ms of sound takes
    # its interpreter lock several times more: two such processes are too much for two cores.
    processes = "1" if step == PUBLIC else "2"
    return [
        [*pytest, "-m", "server and not heavy", "-n", processes, *MEDIA_TESTS],
        [*pytest, "-m", "server and heavy", *MEDIA_TESTS],
    ]


def run_step(environment: Environment, step: str, python: Path, log: Path) -> tuple[bool, str]:
    """Whether it passed, and what its last lines say."""
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings["OPENBLAS_NUM_THREADS"] = "1"
    settings.pop("RUNWAY_AVATAR_MEDIA", None)
    if step in (NATIVE, PUBLIC):
        settings["RUNWAY_AVATAR_MEDIA"] = "native" if step == NATIVE else "public"
    passed, said = True, []
    log.write_text("")
    for command in commands(environment, step):
        with log.open("a") as out:
            try:
                code = subprocess.run(
                    [python, *command],
                    cwd=PROJECT,
                    env=settings,
                    stdout=out,
                    stderr=out,
                    timeout=STEP_TIMEOUT,
                ).returncode
            except subprocess.TimeoutExpired:
                code = -1
        no_such_test = code == 5 and "pytest" in command
        passed = passed and (code == 0 or no_such_test)
        said.append(log.read_text().rstrip().rpartition("\n")[2])
    return passed, summary(step, said)


def summary(step: str, last_lines: list[str]) -> str:
    """ "120 passed, 2 reruns": the counts of pytest's last lines, added up."""
    if step == TYPES:
        return last_lines[-1]
    counts: dict[str, int] = {}
    for line in last_lines:
        for number, kind in re.findall(r"(\d+) (passed|failed|skipped|error|rerun)", line):
            counts[kind] = counts.get(kind, 0) + int(number)
    return ", ".join(f"{number} {kind}" for kind, number in counts.items()) or "broken off"


def fingerprint() -> str:
    """Of all files of the checkout but the page that is written: other files, other results."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    told = subprocess.run(listed, cwd=PROJECT, capture_output=True, text=True, check=True)
    content = hashlib.sha256()
    for name in sorted(set(told.stdout.split("\0")) - {""}):
        path = PROJECT / name
        if path != PAGE and path.is_file():
            content.update(name.encode() + b"\0" + path.read_bytes())
    return content.hexdigest()


def commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.strip()


@contextmanager
def _alone(environment: Environment) -> Iterator[None]:
    """Nobody else changes the environment meanwhile, and another run waits for this one."""
    with (cache_folder() / f"{environment.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(environment: Environment, steps: list[str], store: Store, *, again: bool) -> bool:
    """Whether all steps have passed, or this machine has no such Python."""
    python = find_python(environment.python)
    if python is None:
        print(f"{environment.name}: Python {environment.python} is not available here", flush=True)
        return True
    tree, at = fingerprint(), commit()
    fine = True
    with _alone(environment):
        setup_log = cache_folder() / f"{environment.name}.setup.log"
        setup_log.write_text("")
        try:
            inside = set_up(environment, python, setup_log)
        except SetupError as error:
            print(f"{environment.name}: SET-UP FAILED: {error}; see {setup_log}", flush=True)
            date = datetime.date.today().isoformat()
            for step in steps:
                store.keep(environment, step, Result(False, "set-up failed", tree, at, date))
            return False
        store.keep_versions(environment, installed(inside))
        for step in steps:
            former = store.result(environment, step)
            if former is not None and former.passed and former.tree == tree and not again:
                print(f"{environment.name}: {step}: passed before: {former.summary}", flush=True)
                continue
            fine = _report(environment, step, inside, store, tree, at) and fine
    return fine


def _report(
    environment: Environment, step: str, inside: Path, store: Store, tree: str, at: str
) -> bool:
    log = cache_folder() / f"{environment.name}.{step.replace(', ', '-')}.log"
    print(f"{environment.name}: {step} ...", flush=True)
    began = time.monotonic()
    passed, said = run_step(environment, step, inside, log)
    date = datetime.date.today().isoformat()
    store.keep(environment, step, Result(passed, said, tree, at, date))
    verdict = "passed" if passed else "FAILED"
    took = time.monotonic() - began
    print(f"{environment.name}: {step}: {verdict}: {said} ({took:.0f} s; {log})", flush=True)
    if not passed:
        print("\n".join(log.read_text().splitlines()[-25:]), flush=True)
    return passed


# -- what is told ---------------------------------------------------------------------------------


def cell(environment: Environment, step: str, store: Store) -> str:
    if step not in environment.steps:
        return ""
    if (result := store.result(environment, step)) is not None:
        return result.summary if result.passed else f"**failed**: {result.summary}"
    return "not run" if find_python(environment.python) else "not available"


def table(store: Store, former: str = "") -> str:
    """The results as a Markdown table.

    Args:
        former: the page's, which has the rows of environments that this machine has not run.
    """
    kept = {line.split(" | ")[0]: line for line in former.splitlines() if line.startswith("| ")}
    head = ["environment", "Python", "livekit", *STEPS, "at"]
    lines = [_row(head), _row(["---"] * len(head))]
    for environment in ENVIRONMENTS:
        versions = store.versions(environment)
        results = [store.result(environment, step) for step in environment.steps]
        places = sorted({f"{it.commit}, {it.date}" for it in results if it is not None})
        row = [
            environment.what,
            versions.get("Python", environment.python),
            versions.get("livekit", ""),
            *(cell(environment, step, store) for step in STEPS),
            "; ".join(places),
        ]
        former_row = None if places else kept.get(f"| {environment.what}")
        lines.append(former_row or _row(row))
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def former_versions(former: str) -> dict[str, dict[str, str]]:
    """What the page says of each environment's packages."""
    _, begin, rest = former.partition("\n| | ")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rest.splitlines()[2:]]
    names = [name.strip() for name in rest.split("\n")[0].split("|")[:-1]]
    return {
        name: {row[0]: row[place] for row in rows if len(row) > place and row[place]}
        for place, name in enumerate(names if begin else [], 1)
    }


def page_text(text: str, store: Store) -> str:
    """The page with the present results between its two marks. Of environments without any, it
    keeps what it says."""
    before, begin, rest = text.partition(BEGIN)
    former, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE.name} has lost its marks {BEGIN} and {END}")
    told = [f"On {platform.system()} {platform.machine()}, with livekit-agents as pinned there:"]
    told += ["", table(store, former), "", "Versions, where they differ:", ""]
    kept = former_versions(former)
    named = [(it, store.versions(it) or kept.get(it.name, {})) for it in ENVIRONMENTS]
    known = [(it, versions) for it, versions in named if versions]
    names = list(dict.fromkeys(name for _, versions in known for name in versions))
    told.append(f"| | {' | '.join(it.name for it, _ in known)} |")
    told.append(f"|---|{'---|' * len(known)}")
    for name in names:
        told.append(f"| {name} | {' | '.join(it.get(name, '') for _, it in known)} |")
    return f"{before}{begin}\n" + "\n".join(told) + f"\n{end}{after}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = [environment.name for environment in ENVIRONMENTS]
    parser.add_argument("--list", action="store_true", help="the environments, and nothing else")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=" ".join(names))
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--quick", action="store_true", help="only the quick tests")
    parts.add_argument("--media", action="store_true", help="only the tests on a livekit-server")
    parser.add_argument("--again", action="store_true", help="also what has passed on these files")
    parser.add_argument("--publish", action="store_true", help=f"write {PAGE.name} at the end")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    chosen = [it for it in ENVIRONMENTS if not arguments.only or it.name in arguments.only]
    if arguments.list:
        for environment in chosen:
            python = find_python(environment.python) or "not available"
            print(f"{environment.name}: {'; '.join(environment.steps)} (Python: {python})")
        return 0
    store = Store(cache_folder() / "results.json")
    fine = True
    for environment in chosen:
        wanted = (QUICK,) if arguments.quick else (NATIVE, PUBLIC) if arguments.media else STEPS
        steps = [step for step in environment.steps if step in wanted]
        fine = run(environment, steps, store, again=arguments.again) and fine
    print(table(store))
    if arguments.publish:
        PAGE.write_text(page_text(PAGE.read_text(), store))
        print(f"written: {PAGE.relative_to(PROJECT)}")
    return 0 if fine else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
