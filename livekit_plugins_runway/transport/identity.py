"""The identity of the avatar participant. Identities are unique in a room: LiveKit removes the
first of two.
"""

from __future__ import annotations

import secrets

from livekit import rtc
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF

from ..errors import ConfigurationError
from ..log import logger

DEFAULT_IDENTITY = "runway-avatar-agent"
ATTRIBUTE_GAVE_WAY = "runway.gave_way"
"""Holds the identity that an avatar has given up to another one while it was joining. The SDK
cannot be kept from trying to join once more after 15 s (docs/sdk-quirks.md), which would remove the
other one. So the other one gives the identity up, too, as soon as it sees this attribute.
"""


def another(identity: str) -> str:
    """An unused identity, for use if this one is taken."""
    return f"{identity}-{secrets.token_hex(2)}"


def free_identity(wanted: str, room: rtc.Room, agent_identity: str) -> str:
    """The identity to join the room with; the room may be connected, or not yet. An avatar whose
    agent is gone, or is this agent, was left by a killed job, or is about to leave: it is removed.
    If another agent's avatar has the default identity, this one gets another.

    Raises:
        ConfigurationError: it is the agent's own, or it was passed by the user and is taken.
    """
    if wanted == agent_identity:
        raise ConfigurationError(
            f"avatar_participant_identity is {wanted!r}, which is the agent's own identity: "
            "the avatar would remove its agent from the room. Pass another one."
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
