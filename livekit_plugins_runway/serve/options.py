"""What a server is told when it is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from .._common.checks import check_choice, check_seconds, is_loopback
from ..errors import ConfigurationError
from .bodies import avatar_named

Response = Literal["credentials", "session-key"]
"""What a front end gets: the room's credentials, or the key with which it takes them itself. The
key is the default: `@runwayml/avatars` 0.17.0 takes only that, `@runwayml/avatars-react` both."""

MCP_PATH = "/mcp"
TOKEN_VARIABLE = "RUNWAY_AVATAR_TOKEN"
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of the server; a wrong one is refused by name.

    Attributes:
        host: where to listen; only this machine can reach the default.
        port: of the REST server; 0 takes a free one.
        mcp_port: of the MCP server; None for none.
        token: what callers must present as `Authorization: Bearer`; needed for a public host.
        allowed_origins: pages that may call, as `https://host[:port]`, or `*` (with a token only).
        avatars: preset ids and avatar ids that callers may ask for, the first being the default;
            empty: any, and callers must name one.
        response: for callers who do not say which they want.
        rate: sessions that one client may make per minute, and at once.
        max_sessions: sessions that may be alive at once.
        max_duration: seconds that a caller may ask for at most.
        ready_timeout: seconds for a session to become READY.
        join_timeout: seconds from there until somebody has consumed it; then it is ended.
        trust_proxy: take the client's address from the last entry of `X-Forwarded-For`.
        metrics: where to serve Prometheus' metrics, to everybody who can reach it: a port of
            127.0.0.1, or an address as `host:port`; None: nowhere.

    Raises:
        ConfigurationError: a value that cannot work.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    mcp_port: int | None = 9090
    token: str | None = field(default=None, repr=False)
    allowed_origins: tuple[str, ...] = ()
    avatars: tuple[str, ...] = ()
    response: Response = "session-key"
    rate: int = 10
    max_sessions: int = 5
    max_duration: int = 300
    ready_timeout: float = 30.0
    join_timeout: float = 30.0
    trust_proxy: bool = False
    metrics: str | None = None

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port."""
        return None if self.metrics is None else _address("metrics", self.metrics)

    def __post_init__(self) -> None:
        _check_token(self.token)
        if not self.host:
            raise ConfigurationError("host is empty: pass an address, such as 127.0.0.1.")
        if self.token is None and not is_loopback(self.host):
            raise ConfigurationError(
                f"host {self.host!r} can be reached from other machines, and each session costs "
                f"money: set {TOKEN_VARIABLE} to a token that callers must present, or listen on "
                "127.0.0.1."
            )
        _check_port("port", self.port)
        if self.mcp_port is not None:
            _check_port("mcp_port", self.mcp_port)
            if self.mcp_port == self.port != 0:
                raise ConfigurationError(f"port and mcp_port are both {self.port}: change one.")
        if (address := self.metrics_address) is not None and address[1] in {
            self.port,
            self.mcp_port,
        } - {0, None}:
            raise ConfigurationError(
                f"metrics {self.metrics!r} is where callers come: choose another number."
            )
        for origin in self.allowed_origins:
            _check_origin(origin, self.token)
        for avatar in self.avatars:
            avatar_named(avatar)
        check_choice("response", self.response, get_args(Response))
        _check_range("rate", self.rate, 1, 1000)
        _check_range("max_sessions", self.max_sessions, 1, 1000)
        _check_range("max_duration", self.max_duration, 10, 1800)
        check_seconds("ready_timeout", self.ready_timeout)
        check_seconds("join_timeout", self.join_timeout)


def _check_token(token: str | None) -> None:
    if token is None:
        return
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise ConfigurationError(
            f"{TOKEN_VARIABLE} must be {_SHORTEST_TOKEN} or more printable ASCII characters; "
            "make one with: openssl rand -hex 32"
        )
    if " " in token:
        raise ConfigurationError(f"{TOKEN_VARIABLE} must not contain spaces.")


def _address(name: str, given: str) -> tuple[str, int]:
    """Of `port` or `host:port`, as in 9464, 0.0.0.0:9464, [::1]:9464."""
    host, _, port = given.rpartition(":")
    if not port.isdecimal() or (host == "" and ":" in given):
        raise ConfigurationError(
            f"{name} must be like 9464, or like 0.0.0.0:9464, and not {given!r}."
        )
    _check_port(name, int(port))
    return host.strip("[]") or "127.0.0.1", int(port)


def _check_port(name: str, port: int) -> None:
    _check_range(name, port, 0, 65535)


def _check_range(name: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise ConfigurationError(f"{name} must be {lowest} to {highest}, not {value!r}.")


def _check_origin(origin: str, token: str | None) -> None:
    if origin == "*":
        if token is None:
            raise ConfigurationError(
                "allowed origin '*' lets every web page that is open on this machine make "
                f"sessions: set {TOKEN_VARIABLE}, or name the origins."
            )
        return
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}":
        raise ConfigurationError(
            f"allowed origin {origin!r} is not like https://example.com or http://localhost:3000 "
            "(no path, no slash at the end)."
        )
