"""Keys that `auth set` keeps: each for one address, in a file that only its owner can read."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import typer

from ..errors import ConfigurationError
from .files import write

VARIABLE = "RUNWAY_AVATAR_CREDENTIALS"
"""The file; "off": none is read or written."""


def credentials_path() -> Path | None:
    """Where the keys are kept; None: nowhere."""
    given = os.environ.get(VARIABLE, "")
    if given.lower() == "off":
        return None
    return Path(given) if given else Path(typer.get_app_dir("runway-avatar")) / "credentials.json"


def stored_keys() -> dict[str, str]:
    """The keys by address.

    Raises:
        ConfigurationError: the file cannot be read, or is readable for others.
    """
    path = credentials_path()
    if path is None or not path.is_file():
        return {}
    try:
        if sys.platform != "win32" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigurationError(f"Others can read the keys in {path}: chmod 600 it.")
        keys = json.loads(path.read_text())["keys"]
        return {str(address): str(key) for address, key in keys.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(
            f"{path} cannot be read as kept keys ({type(error).__name__}): "
            "`runway-avatar auth clear --all` removes it."
        ) from None


def store_keys(keys: Mapping[str, str]) -> Path:
    """Keep these and no others.

    Raises:
        ConfigurationError: nothing may be kept, or the file cannot be written.
    """
    path = credentials_path()
    if path is None:
        raise ConfigurationError(f"No keys are kept: {VARIABLE} is off.")
    try:
        if not keys:
            path.unlink(missing_ok=True)
            return path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return write(path, json.dumps({"keys": dict(keys)}, indent=2) + "\n", force=True)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror or type(error).__name__}."
        ) from None


def recognizable(key: str) -> str:
    """Of a key so much that its owner knows which it is: the last four of 24 characters or more."""
    return f"***{key[-4:]}" if len(key) >= 24 else "***"
