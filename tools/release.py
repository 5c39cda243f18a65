"""`make release`: build what a release consists of, and try it as a user would.

Builds wheel and sdist, checks what PyPI would show of them, installs each in a fresh environment
away from the checkout and runs a session of the simulated Runway there. Uploads nothing: see
docs/releasing.md. `--any-tree` takes a tree with uncommitted changes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DIST = PROJECT / "dist"


def run(*command: str | Path, cwd: Path = PROJECT, **values: str) -> str:
    """What a command prints, with `values` in its environment; its errors are shown. Raises
    CalledProcessError."""
    done = subprocess.run(
        command, check=True, cwd=cwd, env=_own() | values, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


def _own() -> dict[str, str]:
    """The environment without the checkout, and without anybody's keys."""
    foreign = ("PYTHONPATH", "LIVEKIT_", "RUNWAY")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def environment(folder: Path, *packages: str | Path) -> Path:
    """The `bin` folder of a fresh environment with these packages."""
    venv.create(folder, with_pip=True)
    pip: list[str | Path] = [
        folder / "bin/python",
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
    ]
    run(*pip, "install", *packages, cwd=folder)
    return folder / "bin"


def check_tree() -> str:
    """The version that is released. Exits where the tree or the changelog is not ready for it."""
    if changes := run("git", "status", "--porcelain"):
        sys.exit(f"commit or remove first (or --any-tree):\n{changes}")
    version = built_version()
    if not re.search(rf"^## \[{re.escape(version)}\]", changelog(), re.MULTILINE):
        sys.exit(f"CHANGELOG.md has no section [{version}]: name the one of what is unreleased so")
    return version


def built_version() -> str:
    text = (PROJECT / "livekit_plugins_runway/__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)
    assert found is not None
    return found[1]


def changelog() -> str:
    return (PROJECT / "CHANGELOG.md").read_text()


def build(scratch: Path) -> list[Path]:
    tools = environment(scratch / "tools", "build", "twine")
    for old in DIST.glob("*"):
        old.unlink()
    run(tools / "python", "-m", "build", "--outdir", DIST)
    built = sorted(DIST.iterdir())
    print(run(tools / "twine", "check", "--strict", *built))
    return built


def try_out(artefact: Path, folder: Path) -> None:
    """Install it, and run what users run first, without the checkout."""
    print(f"{artefact.name}: installing", flush=True)
    programs = environment(folder, artefact)
    runway_avatar = programs / "runway-avatar"
    print(run(runway_avatar, "--version", cwd=folder))
    imported = "from livekit_plugins_runway import AvatarSession as it; print(it.__module__)"
    print(run(programs / "python", "-c", imported, cwd=folder))
    simulator: list[str | Path] = [programs / "python", "-m", "livekit_plugins_runway.testing"]
    with subprocess.Popen(
        simulator, cwd=folder, env=_own(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            keys = {"RUNWAYML_BASE_URL": ready["url"], "RUNWAYML_API_SECRET": ready["api_secret"]}
            create = ["--json", "sessions", "create", "--preset", "influencer", "--wait"]
            session = json.loads(run(runway_avatar, *create, cwd=folder, **keys))
            cancel = ["sessions", "cancel", session["id"]]
            print(run(runway_avatar, *cancel, cwd=folder, **keys))
        finally:
            process.terminate()


def audit(scratch: Path) -> None:
    """Known flaws of what the wheel needs, where this machine reaches a list of them."""
    programs = environment(scratch / "audit", "pip-audit")
    site = next((scratch / "wheel").glob("lib/python*/site-packages"))
    command: list[str | Path] = [programs / "pip-audit", "--path", site, "--format", "json"]
    done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True)
    try:
        audited = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print("NOT AUDITED:", (done.stderr.strip().splitlines() or ["no answer"])[-1])
        return
    unknown = [one["name"] for one in audited if "skip_reason" in one]
    print(f"pip-audit: {len(audited) - len(unknown)} packages looked up, {len(unknown)} not")
    if flawed := [one for one in audited if one.get("vulns")]:
        sys.exit(f"update what has known flaws:\n{json.dumps(flawed, indent=2)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--any-tree", action="store_true", help="also with uncommitted changes")
    version = built_version() if parser.parse_args().any_tree else check_tree()
    with (PROJECT / "pyproject.toml").open("rb") as file:
        name = tomllib.load(file)["project"]["name"]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for artefact in build(scratch):
            kind = "wheel" if artefact.suffix == ".whl" else "sdist"
            try_out(artefact, scratch / kind)
        audit(scratch)
    print(f"{name} {version} is in dist/: go on with docs/releasing.md")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {error}")
