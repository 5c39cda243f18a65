"""Who takes part in `bench.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Place = Literal["agent", "runway"]


@dataclass(frozen=True)
class Candidate:
    """An avatar to be measured.

    Attributes:
        avatar: `module:factory`, see `bench.avatars`.
        speech: how the simulated worker takes speech.
        places: in which rooms a viewer is: the agent's, the one that Runway hosts. The first one is
            the user's; a second one shows what the candidate adds.
        optional: measured only if it is named, and not held against the goals of a bridge.
        short_calls: so many in each turn, for start, speech and barge-in only, divided among the
            pictures: those of equals differ by less than ten calls can tell.
    """

    name: str
    title: str
    avatar: str
    speech: Literal["datastream", "track"] = "datastream"
    places: tuple[Place, ...] = ("agent",)
    short_calls: int = 0
    optional: bool = False


_EQUALS = 4  # short calls of each of the two that are compared with each other
_BOTH: tuple[Place, ...] = ("agent", "runway")
CANDIDATES = {
    candidate.name: candidate
    for candidate in (
        Candidate("official", "official, direct", "bench.avatars:official", short_calls=_EQUALS),
        Candidate("direct", "ours, direct", "bench.avatars:direct", short_calls=_EQUALS),
        Candidate(
            "bridge-datastream",
            "ours, bridge, data stream",
            "bench.avatars:bridge_datastream",
            places=_BOTH,
        ),
        Candidate(
            "bridge-track",
            "ours, bridge, track",
            "bench.avatars:bridge_track",
            speech="track",
            places=_BOTH,
        ),
        Candidate(
            "control",
            "Runway room itself",
            "bench.avatars:RunwayRoomItself",
            places=("runway",),
        ),
        Candidate(
            "bridge-early",
            "ours, bridge, data stream, camera published early",
            "bench.avatars:bridge_early",
            places=_BOTH,
            optional=True,
        ),
        Candidate(
            "auto",
            "ours, auto, data stream",
            "bench.avatars:auto",
            places=_BOTH,
            optional=True,
        ),
        Candidate(
            "bridge-public",
            "ours, bridge, data stream, public way",
            "bench.avatars:bridge_public",
            places=_BOTH,
            optional=True,
        ),
    )
}
VOICE_FIRST = Candidate("voice-first", "ours, voice first", "bench.avatars:voice_first")
USUAL = tuple(name for name, candidate in CANDIDATES.items() if not candidate.optional)
BRIDGES = tuple(name for name in USUAL if len(CANDIDATES[name].places) == 2)
"""Those that are held against the goals of a bridge."""


def parse(text: str) -> Candidate:
    """`name=module:factory`, another plugin's.

    Raises:
        ValueError: it is not of this form, or the name is taken.
    """
    name, _, avatar = text.partition("=")
    if not name or ":" not in avatar:
        raise ValueError(f"{text!r} is not NAME=MODULE:FACTORY")
    if name in CANDIDATES or name in ("voice-first", "scaling"):
        raise ValueError(f"the name {name!r} is taken")
    return Candidate(name, name, avatar)
