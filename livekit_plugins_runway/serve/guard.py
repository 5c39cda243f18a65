"""Who may call: rate, host, origin and token. Knows neither web framework."""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from .._common.checks import is_loopback
from .options import TOKEN_VARIABLE, ServeOptions
from .refusals import Refused

MAX_BODY = 64 * 1024
"""Bytes of a request's body: room for a long personality and twenty described tools."""

_CALLS_PER_CREATE = 30
_REMEMBERED = 1024


def joined(lines: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers of a request by their names in title case. Of lines with the same name all, as
    one: that is what they mean (RFC 9110, 5.3)."""
    values: dict[str, list[str]] = {}
    for name, value in lines:
        values.setdefault(name.title(), []).append(value)
    return {name: ", ".join(all_of_it) for name, all_of_it in values.items()}


class RateLimit:
    """A bucket of `rate` calls for each key, refilled evenly over a minute.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> float:
        """Take one call; 0, or the seconds after which there will be one."""
        now = self._clock()
        if len(self._buckets) >= _REMEMBERED and key not in self._buckets:
            self._forget(now)
        left = self._left(key, now)
        if left < 1:
            return (1 - left) * 60 / self._rate
        self._buckets[key] = (left - 1, now)
        return 0.0

    def _left(self, key: str, now: float) -> float:
        left, since = self._buckets.get(key, (float(self._rate), now))
        return min(float(self._rate), left + (now - since) * self._rate / 60)

    def _forget(self, now: float) -> None:
        """Full buckets say nothing. Where too many are in use the oldest give way, so that memory
        is bounded: who has that many addresses has that many times the rate anyway."""
        for key in [key for key in self._buckets if self._left(key, now) >= self._rate]:
            del self._buckets[key]
        oldest_first = sorted(self._buckets, key=lambda key: self._buckets[key][1])
        for key in oldest_first[: max(0, len(oldest_first) - _REMEMBERED // 2)]:
            del self._buckets[key]


class Guard:
    """Lets a request in, or refuses it."""

    def __init__(self, options: ServeOptions) -> None:
        self.options = options
        self._calls = RateLimit(options.rate * _CALLS_PER_CREATE)
        self._strangers = RateLimit(options.rate * _CALLS_PER_CREATE)
        """Of calls without the token, behind a proxy perhaps from the same address as those with
        it."""

    def client(self, headers: Mapping[str, str], peer: str | None) -> str:
        """The address that limits are counted for."""
        forwarded = headers.get("X-Forwarded-For", "") if self.options.trust_proxy else ""
        # Only the last entry, of all lines, was written by the proxy that this server stands
        # behind.
        return forwarded.rpartition(",")[2].strip() or peer or "unknown"

    def check(self, headers: Mapping[str, str], peer: str | None, *, preflight: bool) -> None:
        """Check a request before its body is read.

        Args:
            headers: as `joined()` returns them.
            preflight: a browser asks whether it may call; it cannot send the token with that.

        Raises:
            Refused: 401, 403 or 429, with what to do.
        """
        token, given = self.options.token, headers.get("Authorization", "")
        known = token is None or hmac.compare_digest(_bearer(given) or b"", token.encode())
        limit = self._calls if known else self._strangers
        if wait := limit.take(self.client(headers, peer)):
            raise too_many(wait, "requests")
        self._check_host(headers.get("Host", ""))
        origin = headers.get("Origin")
        if origin is not None and not self.allows(origin):
            raise Refused(
                403,
                f"Pages of the origin {origin[:200]!r} may not call this server; "
                "it can be allowed with --allow-origin.",
            )
        if not (preflight or known):
            raise _without_token(given)

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may call."""
        allowed = self.options.allowed_origins
        return "*" in allowed or origin in allowed

    def _check_host(self, host: str) -> None:
        # Without a token, a page could reach a server on loopback under a name of its own that it
        # lets point to 127.0.0.1 (DNS rebinding), and then count as the same origin.
        if self.options.token is None and not _names_loopback(host):
            raise Refused(
                403,
                f"This server has no token and answers only as localhost, not as {host[:200]!r}; "
                f"set {TOKEN_VARIABLE} to serve it under another name.",
                reason="host",
            )


def _bearer(authorization: str) -> bytes | None:
    """What is given as a token, whatever its bytes are; None: nothing of the kind."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return None
    return given.strip().encode(errors="surrogateescape")


def _without_token(authorization: str) -> Refused:
    if _bearer(authorization) is None:
        return Refused(401, "A token is needed: send it as 'Authorization: Bearer <token>'.")
    return Refused(401, "The token is not the one of this server.")


def too_many(wait: float, what: str) -> Refused:
    """The refusal for a client that has used up its rate."""
    return Refused(
        429,
        f"Too many {what} from this client: try again in {math.ceil(wait)} s.",
        retry_after=wait,
    )


def _names_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)
