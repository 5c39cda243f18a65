"""Files for their owner alone: they hold what people have said, or a key."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import BinaryIO

from ..errors import ConfigurationError


def write(path: Path, text: str, force: bool) -> Path:
    """In whole or not at all, through no link. Raises what `check_free` raises, and `OSError`."""
    check_free(path, force)
    part = part_of(path)
    try:
        with create(part) as file:
            file.write(text.encode())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def check_free(path: Path, force: bool) -> None:
    if os.path.lexists(path) and not force:
        raise ConfigurationError(f"{path} exists: pass --force to replace it.")


def part_of(path: Path) -> Path:
    """Beside it, under a name that nobody can have prepared."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


def create(path: Path) -> BinaryIO:
    """A new file. Raises `OSError`, also where there is a link of this name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600), "wb")
