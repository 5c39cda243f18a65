"""HTTP sessions of this package, used outside a job."""

from __future__ import annotations

import functools
import os
import ssl
import urllib.request
from typing import Any

import aiohttp
import certifi

_KEEP_ALIVE = 120.0
"""Seconds for which an idle connection stays open, as in the framework's session of a job."""


def new_session(**options: Any) -> aiohttp.ClientSession:
    """A session that uses the proxy from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`),
    and trusts certifi's authorities where the system has none (slim images). Made in an event loop,
    and closed by the caller.

    Args:
        options: of `aiohttp.ClientSession`.
    """
    connector = aiohttp.TCPConnector(keepalive_timeout=_KEEP_ALIVE, ssl=_trust())
    # Only where there is one: aiohttp looks for it in a thread, before each request.
    has_proxy = bool(urllib.request.getproxies())
    return aiohttp.ClientSession(connector=connector, trust_env=has_proxy, **options)


def _trust() -> ssl.SSLContext | bool:
    """True: what aiohttp trusts by itself, the system's store, or what `SSL_CERT_FILE` and
    `SSL_CERT_DIR` name."""
    paths = ssl.get_default_verify_paths()
    has_store = any(path and os.path.exists(path) for path in (paths.cafile, paths.capath))
    return True if has_store else _certifi()


@functools.cache
def _certifi() -> ssl.SSLContext:
    """Made once: it takes some 20 ms to read."""
    return ssl.create_default_context(cafile=certifi.where())
