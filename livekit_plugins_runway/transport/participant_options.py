"""What the participant that the user sees says of itself, who may see it, and who admits it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from ..errors import ConfigurationError

_RESERVED = ("lk.", "runway.")
"""How attributes begin that LiveKit and this package give it."""


@dataclass(frozen=True)
class TokenRequest:
    """What a token of the avatar participant has to say.

    Attributes:
        url: of the LiveKit server.
        room: name of the room to join (`room_join`), in which to publish a camera and a microphone
            (`can_publish`), and not to subscribe (`can_subscribe=False`).
        identity: another one where the avatar joins again because its own was taken.
        name: the display name.
        kind: "agent".
        attributes: with "lk.publish_on_behalf", by which front ends know whose face this is.
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
    """The participant that the user sees, beside its identity and its display name.

    Args:
        attributes: of its own, beside "lk.publish_on_behalf"; no name may begin with "lk." or
            "runway.".
        metadata: of its own.
        audience: identities of those who may see and hear it; who is in the room and not among them
            is not waited for either, and is no reason for a face. None: all. Whoever records the
            room has to be among them. Should the avatar participant be removed from the room, the
            agent goes on by its own participant, whom all can hear. With "bridge" only.
        token: a coroutine function that returns the participant's token; without it this process
            makes one, with the API key and secret, which are not needed then. It is asked for each
            attempt to join, and must answer within 10 s; what it raises is a `RunwayException` of
            `start()`, and later a reason to ask again. With "bridge" only.

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
