"""Options of the avatar participant: attributes, who may see it, who makes its token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from ..errors import ConfigurationError

_RESERVED = ("lk.", "runway.")
"""Prefixes of attributes that LiveKit and this package set."""


@dataclass(frozen=True)
class TokenRequest:
    """What a token of the avatar participant must contain.

    Attributes:
        url: of the LiveKit server.
        room: name of the room to join (`room_join`), in which to publish a camera and a microphone
            (`can_publish`), and not to subscribe (`can_subscribe=False`).
        identity: of the participant; a different one if the avatar joins again because its own was
            taken.
        name: the display name.
        kind: "agent".
        attributes: include "lk.publish_on_behalf", by which front ends know the avatar's agent.
        metadata: may be empty.
    """

    url: str
    room: str
    identity: str
    name: str
    attributes: Mapping[str, str]
    metadata: str
    kind: str = "agent"


TokenSource = Callable[[TokenRequest], Awaitable[str]]


@dataclass(frozen=True, kw_only=True)
class ParticipantOptions:
    """The participant that the user sees, apart from its identity and its display name.

    Args:
        attributes: additional attributes, besides "lk.publish_on_behalf"; names must not begin with
            "lk." or "runway.".
        metadata: of the participant.
        audience: identities that may see and hear the avatar. Nobody else is waited for, and no
            session is kept running for anybody else. None: all. Include the recorder if the room is
            recorded. If the avatar participant is removed from the room, the agent goes on by its
            own participant, which everybody can hear. With "bridge" only.
        token: a coroutine function that returns the participant's token; None: this process makes
            one, with the API key and secret, which are not needed otherwise. It is called for each
            attempt to join, and must return within 10 s. An exception in it is raised by `start()`
            as a `RunwayException`; later it is called again. With "bridge" only.

    Raises:
        ConfigurationError: names what is wrong.
    """

    attributes: Mapping[str, str] = field(default_factory=dict)
    metadata: str = ""
    audience: Collection[str] | None = None
    token: TokenSource | None = None

    def __post_init__(self) -> None:
        for name, value in self.attributes.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise ConfigurationError(
                    f"attributes must be strings by strings, not {name!r}: {value!r}."
                )
            if name.startswith(_RESERVED):
                raise ConfigurationError(
                    f"attributes may not have {name!r}: names that begin with 'lk.' or 'runway.' "
                    "are given by LiveKit and this package."
                )
        if isinstance(self.audience, str):
            raise ConfigurationError(
                f"audience must be a collection of identities, not the string {self.audience!r}."
            )
        if self.audience is not None and not self.audience:
            raise ConfigurationError(
                "audience is empty: nobody could see or hear the avatar. Name identities, or pass "
                "None for all."
            )
