"""What npm installs for tests and demo is fixed by version and hash, and names no registry."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = sorted(
    path
    for folder in ("demo", "tests")
    for path in (ROOT / folder).rglob("package.json")
    if "node_modules" not in path.parts
)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_versions_are_exact_and_locked_without_a_registry(manifest: Path) -> None:
    wanted = json.loads(manifest.read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    packages = json.loads(manifest.with_name("package-lock.json").read_text())["packages"]
    for name, version in wanted.items():
        assert packages[f"node_modules/{name}"]["version"] == version
    for name, package in packages.items():
        assert not name or package["integrity"].startswith("sha512-")
        assert "resolved" not in package  # so that npm asks the registry that it is set up for
