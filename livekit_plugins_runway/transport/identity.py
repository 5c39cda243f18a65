"""The identity of the avatar participant, which no two in a room can have: LiveKit puts the first
one out."""

from __future__ import annotations

import secrets

from livekit import rtc
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF

from ..errors import ConfigurationError
from ..log import logger

DEFAULT_IDENTITY = "runway-avatar-agent"
ATTRIBUTE_GAVE_WAY = "runway.gave_way"
"""The identity that an avatar has left to another one while it joined. The SDK cannot be kept from
trying once more after 15 s (docs/sdk-quirks.md), which puts the other one out: so that one leaves
the identity, too, as soon as it sees this."""


def another(identity: str) -> str:
    """One that nobody has, for where that one is taken."""
    return f"{identity}-{secrets.token_hex(2)}"


def free_identity(wanted: str, room: rtc.Room, agent_identity: str) -> str:
    """The identity with which to join a room that is connected, or not yet.

    An avatar whose agent is gone, or the same one, is a leftover of a killed job, or about to
    leave: it is put out. Where another agent's avatar has the default identity, this one gets
    another.

    Raises:
        ConfigurationError: it is the agent's own, or was asked for and somebody has it.
    """
    if wanted == agent_identity:
        raise ConfigurationError(
            f"avatar_participant_identity is {wanted!r}, which is the agent's own identity: the "
            "avatar would put its agent out of the room. Pass another one."
        )
    there = room.remote_participants.get(wanted) if room.isconnected() else None
    if there is None:
        return wanted
    speaks_for = there.attributes.get(ATTRIBUTE_PUBLISH_ON_BEHALF)
    if speaks_for is not None and speaks_for not in room.remote_participants:
        logger.warning("an avatar that an earlier job has left in the room is replaced")
        return wanted
    if wanted == DEFAULT_IDENTITY:
        return another(wanted)
    raise ConfigurationError(
        f"There is a participant {wanted!r} in the room: pass another avatar_participant_identity."
    )
