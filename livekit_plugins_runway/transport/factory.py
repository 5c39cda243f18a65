"""The choice between the two transports."""

from __future__ import annotations

import datetime
from typing import Literal, get_args

from livekit import rtc

from .._common.checks import check_choice
from .._common.tasks import BackgroundTasks
from ..errors import ConfigurationError
from ..media.connect import encryption_of
from ..media.video import VideoOptions
from .base import Transport
from .bridge import Bridge
from .direct import Direct
from .livekit_url import check_public
from .participant_options import ParticipantOptions
from .tokens import RoomCredentials
from .worker_protocol import DeliveryOption

TransportKind = Literal["bridge", "direct"]

_TOKEN_MARGIN = 60.0


def check_transport(
    transport: str,
    delivery: DeliveryOption,
    video: VideoOptions | None = None,
    room_options: rtc.RoomOptions | None = None,
    participant: ParticipantOptions | None = None,
) -> None:
    """Raises `ConfigurationError` for what does not exist, or cannot go together."""
    check_choice("transport", transport, get_args(TransportKind))
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


def make_transport(
    kind: TransportKind,
    room: rtc.Room,
    credentials: RoomCredentials,
    *,
    identity: str,
    name: str,
    stall_timeout: float,
    token_ttl: datetime.timedelta,
    allow_private: bool,
    video: VideoOptions | None = None,
    background: BackgroundTasks | None = None,
    room_options: rtc.RoomOptions | None = None,
    allow_unencrypted: bool = False,
) -> Transport:
    """Raises `ConfigurationError` where Runway would refuse the LiveKit URL, or its worker would
    speak in the clear in a room that is encrypted.

    Args:
        stall_timeout: of the bridge: seconds without a picture that are a loss.
        token_ttl: of direct: for how long the worker's token admits it (`worker_token_ttl`).
        background: ends what the transport's own end does not wait for.
        room_options: of the bridge: of the avatar participant's connection.
        allow_unencrypted: of direct.
    """
    if kind == "bridge":
        return Bridge(
            room,
            credentials,
            identity=identity,
            name=name,
            stall_timeout=stall_timeout,
            video=video,
            background=background,
            room_options=room_options,
        )
    if not allow_unencrypted and encryption_of(room) is not None:
        raise ConfigurationError(
            "The agent's room is end-to-end encrypted, and Runway's worker gets no key: with "
            'transport="direct" it would be heard and seen in the clear, and could not read the '
            'speech. Use transport="bridge"; allow_unencrypted=True lifts this check.'
        )
    if not allow_private:
        check_public(credentials.url)
    return Direct(
        room,
        credentials,
        identity=identity,
        name=name,
        token_ttl=token_ttl,
        background=background,
    )


def worker_token_ttl(ready_timeout: float, join_timeout: float) -> datetime.timedelta:
    """How long a worker may take to come: while its session is queued, and to join. Not longer, for
    LiveKit renews the tokens of those who are in the room."""
    return datetime.timedelta(seconds=ready_timeout + join_timeout + _TOKEN_MARGIN)
