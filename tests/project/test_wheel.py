"""What users install: the built wheel, in a venv of its own, beside the official plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 50  # seconds
FACTS = """
import json, sys
from importlib import metadata
import livekit.plugins.runway as official
import livekit_plugins_runway as ours
import livekit_plugins_runway.testing
from livekit.agents import Plugin
print(json.dumps({
    "ours": ours.__file__,
    "official": official.__file__,
    "version": metadata.version("livekit-plugins-runway-bridge"),
    "plugins": sorted(plugin.title for plugin in Plugin.registered_plugins),
    "pytest": [e.value for e in metadata.entry_points(group="pytest11", name="runway_avatar")],
    "different": ours.AvatarSession is not official.AvatarSession,
}))
"""


def run(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=LIMIT, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=LIMIT)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a venv with the wheel. What it depends on is that of this environment: a path
    in a .pth file is not searched for other .pth files, so the checkout itself is not seen."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel)
    [site] = folder.glob("lib/python3*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def test_the_wheel_holds_the_package_and_nothing_of_the_official_one(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "livekit_plugins_runway"
    modules = {str(path.relative_to(ROOT)) for path in package.rglob("*.py")}
    folder = "livekit_plugins_runway/testing/livekit_server_go"
    server = {f"{folder}/go.{end}" for end in ("mod", "sum", "txt")}
    alone = {"livekit_plugins_runway_pytest.py", "livekit_plugins_runway/py.typed"}
    assert names == modules | server | alone
    official = {str(path) for path in metadata.files("livekit-plugins-runway") or ()}
    assert "livekit/plugins/runway/avatar.py" in official
    assert not names & official


def test_both_plugins_are_imported_side_by_side(installed: Path) -> None:
    facts = json.loads(run(installed / "python", "-c", FACTS))
    assert facts["ours"].startswith(str(installed.parent))
    assert facts["official"].startswith(sysconfig.get_path("purelib"))
    assert facts["different"]
    assert {"livekit.plugins.runway", "livekit_plugins_runway"} <= set(facts["plugins"])
    assert facts["version"] == metadata.version("livekit-plugins-runway-bridge")
    assert facts["pytest"] == ["livekit_plugins_runway_pytest"]


def test_pytest_finds_the_fixtures(installed: Path, tmp_path: Path) -> None:
    python = [installed / "python", "-W", "error"]  # pytest warns of plugins that it cannot take
    scope = ["-o", "asyncio_default_fixture_loop_scope=function"]
    told = run(*python, "-m", "pytest", *scope, "--rootdir", tmp_path, "--fixtures", tmp_path)
    for fixture in ("livekit_server", "runway_simulator", "runway_simulator_options"):
        assert f"{fixture} " in told, told


def test_the_command_line_is_installed(installed: Path) -> None:
    assert os.access(installed / "runway-avatar", os.X_OK)
    text = run(installed / "runway-avatar", "--help")
    assert "doctor" in text
    assert "sessions" in text
