"""Where Runway is: an address that is checked before anything is asked of it; and what the key to
it is called."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from ..errors import ConfigurationError, ProtocolError

DEFAULT_BASE_URL = "https://api.dev.runwayml.com"
"""Runway's production API."""

API_SECRET_VARIABLES = ("RUNWAYML_API_SECRET", "RUNWAY_API_KEY")
"""Environment variables of the key, the first that is set counts: that of Runway's SDKs, and
another name that Runway's tools use."""


def checked_base_url(base_url: str) -> str:
    """Remove a slash at the end, and `/v1`: each path begins with it here, but other tools count it
    as part of the address.
    """
    address = base_url.strip()
    if fault := _fault_of(address):
        # The value is not shown: a password may be in it.
        raise ConfigurationError(
            f"The Runway base URL (api_url, RUNWAYML_BASE_URL) {fault}. It must be like "
            "https://api.dev.runwayml.com"
        )
    return address.rstrip("/").removesuffix("/v1").rstrip("/")


def checked_upload_url(address: str, base_url: str) -> str:
    """Where Runway wants a file to be sent: over TLS, unless Runway itself is asked without.

    Raises:
        ProtocolError: somewhere else. The address is not shown: it may be signed.
    """
    try:
        parts = urlsplit(address)
        schemes = ("https", "http") if urlsplit(base_url).scheme == "http" else ("https",)
        if parts.scheme in schemes and _can_be_looked_up(parts) and "@" not in parts.netloc:
            return address
    except ValueError:
        pass
    raise ProtocolError("Runway names a place for the file that is no https:// address.")


def _fault_of(address: str) -> str:
    """Describes what is wrong with the address of a service; "" if nothing is."""
    if not address.isprintable() or " " in address:
        return "has a blank or a control character in it"
    try:
        parts = urlsplit(address)
    except ValueError:
        return "is no address"
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return "does not begin with http:// or https:// and a host"
    if "@" in parts.netloc:
        return "has a user name or a password in it; Runway takes the API key alone"
    if "?" in address or "#" in address:
        return "has a query or a fragment"
    if not _can_be_looked_up(parts):
        return (
            "has a host or a port that cannot be: a part of a host's name has 1 to 63 characters, "
            "and a port is a number up to 65535"
        )
    return ""


def _can_be_looked_up(parts: SplitResult) -> bool:
    """Names beyond ASCII are not checked here, because their rules have changed over the years; the
    resolver does that.
    """
    try:
        host = parts.hostname or ""
        if host.isascii():
            host.encode("idna")
        return bool(host) and parts.port != 0
    except ValueError:  # a UnicodeError is one
        return False
