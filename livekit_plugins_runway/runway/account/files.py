"""Files of this machine that are given to Runway."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...errors import ConfigurationError

MediaKind = Literal["image", "audio"]

_LARGEST = 200 * 1024 * 1024
"""Bytes: what Runway takes as an upload."""
_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
    ".ogg": "audio/ogg",
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
}


@dataclass(frozen=True)
class MediaFile:
    """A picture, sound or video."""

    name: str
    """Without folders."""
    media_type: str
    content: bytes = field(repr=False)

    def data_uri(self) -> str:
        return f"data:{self.media_type};base64,{base64.b64encode(self.content).decode()}"


def read_media(path: str | os.PathLike[str], kind: MediaKind | None = None) -> MediaFile:
    """Read it whole; what it is, is told by its name.

    Raises:
        ConfigurationError: it cannot be read, is empty or larger than 200 MiB, or its name is not
            that of a picture (`kind="image"`), a sound or a video.
    """
    file = Path(path)
    media_type = _TYPES.get(file.suffix.lower(), "")
    if not media_type.startswith(kind or ""):
        media_type = ""
    if not media_type:
        known = [suffix for suffix, type_ in _TYPES.items() if type_.startswith(kind or "")]
        what = {"image": "a picture", "audio": "a sound"}.get(kind or "", "media")
        raise ConfigurationError(
            f"{file.name} is not {what} by its name: it must end in {', '.join(known)}."
        )
    content = read_file(file)
    return MediaFile(file.name, media_type, content)


def read_text(path: str | os.PathLike[str], most: int) -> str:
    """UTF-8, without a byte order mark.

    Raises:
        ConfigurationError: it cannot be read, is empty, longer than `most` bytes, or no text.
    """
    try:
        return read_file(Path(path), most).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{Path(path).name} is not text in UTF-8.") from None


def read_file(file: Path, most: int = _LARGEST) -> bytes:
    try:
        with file.open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise ConfigurationError(f"{file.name} cannot be read: {error.strerror}.") from None
    if not content:
        raise ConfigurationError(f"{file.name} is empty.")
    if len(content) > most:
        raise ConfigurationError(f"{file.name} is larger than {most} bytes.")
    return content
