"""The choice between the transports."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from livekit import rtc

from .._common.checks import check_choice
from .._common.tasks import BackgroundTasks
from ..errors import ConfigurationError
from ..events import TransportChanged
from ..media.connect import encryption_of
from ..media.video import VideoOptions
from .auto.learned import AccountMemory
from .auto.transport import AutoTransport
from .base import Transport
from .bridge import Bridge
from .direct import Direct
from .livekit_url import check_public, is_public
from .participant_options import ParticipantOptions
from .tokens import RoomCredentials
from .worker_protocol import DeliveryOption

TransportOption = Literal["auto", "bridge", "direct"]

_TOKEN_MARGIN = 60.0


def check_transport(
    transport: str,
    delivery: DeliveryOption,
    video: VideoOptions | None = None,
    room_options: rtc.RoomOptions | None = None,
    participant: ParticipantOptions | None = None,
) -> None:
    """Raises `ConfigurationError` for unknown values, and for options that cannot be combined."""
    check_choice("transport", transport, get_args(TransportOption))
    if transport == "direct" and delivery == "track":
        raise ConfigurationError(
            'transport="direct" cannot go with delivery="track": the user would hear the track, '
            'too. Use delivery="auto" or "datastream".'
        )
    if transport == "direct" and video is not None:
        raise ConfigurationError(
            'transport="direct" cannot go with video=VideoOptions(...): Runway\'s worker publishes '
            'its picture by itself, and none passes through here. Use transport="bridge".'
        )
    if transport == "direct" and room_options is not None:
        raise ConfigurationError(
            'transport="direct" cannot go with room_options: Runway\'s worker joins the room by '
            'itself. Use transport="bridge".'
        )
    if transport == "direct" and participant is not None:
        for name in ("audience", "token"):
            if getattr(participant, name) is not None:
                raise ConfigurationError(
                    f'transport="direct" cannot go with participant=ParticipantOptions({name}=...):'
                    " Runway's worker joins the room by itself, with a token that this process "
                    'makes. Use transport="bridge".'
                )


@dataclass(frozen=True)
class TransportOptions:
    """What both transports are made from.

    Args:
        identity, name: of the avatar participant.
        stall_timeout: of the bridge: seconds without a picture after which the avatar counts as
            lost.
        token_ttl: of direct: seconds for which the worker's token is valid (`worker_token_ttl`).
        allow_private: of direct: do not check the LiveKit URL.
        allow_unencrypted: of direct.
        background: runs the ends that closing the transport does not wait for.
        video, room_options: of the bridge.
    """

    room: rtc.Room
    credentials: RoomCredentials
    identity: str
    name: str
    stall_timeout: float
    token_ttl: datetime.timedelta
    allow_private: bool
    background: BackgroundTasks
    video: VideoOptions | None = None
    room_options: rtc.RoomOptions | None = None
    allow_unencrypted: bool = False

    def bridge(self, *, second: bool = False) -> Bridge:
        return Bridge(
            self.room,
            self.credentials,
            identity=f"{self.identity}-bridge" if second else self.identity,
            name=self.name,
            stall_timeout=self.stall_timeout,
            video=self.video,
            background=self.background,
            room_options=self.room_options,
        )

    def direct(self, *, second: bool = False) -> Direct:
        """Raises `ConfigurationError` if Runway would refuse the LiveKit URL, or its worker would
        send unencrypted media in an encrypted room.
        """
        if why := self._in_the_clear():
            raise ConfigurationError(
                f'{why} Use transport="bridge"; allow_unencrypted=True lifts this check.'
            )
        if not self.allow_private:
            check_public(self.credentials.url)
        return Direct(
            self.room,
            self.credentials,
            identity=f"{self.identity}-direct" if second else self.identity,
            name=self.name,
            token_ttl=self.token_ttl,
            background=self.background,
        )

    def _in_the_clear(self) -> str:
        if self.allow_unencrypted or encryption_of(self.room) is None:
            return ""
        return (
            "The agent's room is end-to-end encrypted, and Runway's worker gets no key: with "
            'transport="direct" its media would not be encrypted, and it could not decrypt the '
            "speech."
        )

    def why_not_direct(self) -> str:
        """Why Runway's worker cannot join this room by itself; "" if it can, as far as is known."""
        given = {
            "video": self.video,
            "room_options": self.room_options,
            "participant.audience": self.credentials.participant.audience,
            "participant.token": self.credentials.participant.token,
        }
        if named := [name for name, value in given.items() if value is not None]:
            return f"{named[0]} goes with the bridge only"
        if why := self._in_the_clear():
            return why
        if not (self.allow_private or is_public(self.credentials.url)):
            return "Runway cannot reach LIVEKIT_URL"
        return ""


def make_transport(
    option: TransportOption,
    options: TransportOptions,
    memory: AccountMemory,
    *,
    delivery: DeliveryOption,
    check_first_words: bool,
    on_changed: Callable[[TransportChanged], None],
) -> Transport:
    """Arguments as `AutoTransport`. Raises as `TransportOptions.direct()`."""
    if option == "bridge":
        return options.bridge()
    if option == "direct":
        return options.direct()
    return AutoTransport(
        options,
        memory,
        delivery=delivery,
        check_first_words=check_first_words,
        on_changed=on_changed,
        background=options.background,
    )


def worker_token_ttl(ready_timeout: float, join_timeout: float) -> datetime.timedelta:
    """Seconds that a worker may take to join, including the time in Runway's queue. Not longer,
    because LiveKit renews the tokens of participants in the room.
    """
    return datetime.timedelta(seconds=ready_timeout + join_timeout + _TOKEN_MARGIN)
