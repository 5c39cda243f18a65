"""Checks whether Runway may be able to reach a LiveKit URL. Imports nothing of LiveKit."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from ..errors import ConfigurationError

_PRIVATE_NAMES = (".local", ".localhost", ".internal", ".lan", ".home.arpa")
_INSTEAD = (
    'Pass the public address of your server as livekit_url, or use transport="bridge", which gives '
    "Runway nothing of your server. allow_private_livekit_url=True lifts this check, for a Runway "
    "simulator."
)


def check_public(url: str) -> None:
    """Refuse an address of which Runway is known to say no. By its looks: no name is resolved.

    Raises:
        ConfigurationError: says why, and what to do.
    """
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".")
    except ValueError:
        scheme = host = ""
    if not host:
        raise ConfigurationError(f"The LiveKit URL is not an address with a host. {_INSTEAD}")
    if scheme not in ("wss", "https"):
        raise ConfigurationError(
            'transport="direct" hands the LiveKit URL to Runway, which takes wss:// and https:// '
            f"only, not {scheme}://. {_INSTEAD}"
        )
    if _is_private(host):
        raise ConfigurationError(
            'transport="direct" hands the LiveKit URL to Runway, whose worker joins from outside: '
            f"{host!r} is a private host. {_INSTEAD}"
        )


def is_public(url: str) -> bool:
    """True if Runway may be able to reach this address, judged by the address only, as
    `check_public()`.
    """
    try:
        check_public(url)
    except ConfigurationError:
        return False
    return True


def _is_private(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        mapped = getattr(address, "ipv4_mapped", None)
        return not (mapped or address).is_global
    try:  # the short and odd ways to write an IPv4 address: 127.1, 0x7f000001
        return not ipaddress.ip_address(socket.inet_aton(host)).is_global
    except OSError:
        return "." not in host or host.endswith(_PRIVATE_NAMES)
