"""Files that Runway gives by address: without the key, for the address itself opens them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from yarl import URL

from .._common.http import new_session
from ..errors import ProtocolError, UnavailableError
from .files import check_free, create, part_of
from .progress import transfer

_CHUNK = 256 * 1024
_MOST_REDIRECTS = 5
_SUFFIXES = {
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "video/quicktime": ".mov",
    "audio/mpeg": ".mp3",
    "audio/mp4": ".m4a",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/ogg": ".ogg",
    "audio/webm": ".weba",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
}
"""By media type. Another type names no file: it is the server's."""
_STALLED = 60.0
"""Seconds without a byte after which a download is given up."""


async def save(url: str, stem: Path, force: bool, what: str = "recording") -> Path:
    """Fetch it into a file that is named after the type which its server gives.

    Args:
        stem: the file's path without its ending.
        force: replace a file of this name.

    Raises:
        ConfigurationError: the file exists.
        ProtocolError: the address, or one that it leads to, is not https.
        UnavailableError: it was not got whole. Its text does not hold the address.
        OSError: it cannot be written.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=_STALLED)
    part = part_of(stem)
    try:
        async with new_session(timeout=timeout) as http, _get(http, url, what) as response:
            if response.status != 200:
                raise UnavailableError(
                    f"The {what}'s server answered with HTTP {response.status}; its address may "
                    "have expired: try again, which asks for a new one."
                )
            path = stem.with_name(stem.name + suffix(response.content_type))
            check_free(path, force)
            with transfer() as progress, create(part) as file:
                task = progress.add_task(what, total=response.content_length)
                async for chunk in response.content.iter_chunked(_CHUNK):
                    file.write(chunk)
                    progress.advance(task, len(chunk))
        os.replace(part, path)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnavailableError(
            f"The {what} could not be fetched ({type(error).__name__}); try again."
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return path


@asynccontextmanager
async def _get(
    http: aiohttp.ClientSession, url: str, what: str
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Each address on the way has to be https; on this machine also http."""
    for _ in range(_MOST_REDIRECTS):
        address = URL(url)
        local = address.scheme == "http" and address.host in ("127.0.0.1", "localhost")
        if address.scheme != "https" and not local:
            raise ProtocolError(f"The {what}'s address is not https; it is not fetched.")
        async with http.get(address, allow_redirects=False) as response:
            if response.status not in (301, 302, 303, 307, 308):
                yield response
                return
            url = str(address.join(URL(response.headers.get("Location", ""))))
    raise ProtocolError(f"The {what}'s address leads on more than {_MOST_REDIRECTS} times.")


def suffix(content_type: str) -> str:
    return _SUFFIXES.get(content_type, ".bin")
