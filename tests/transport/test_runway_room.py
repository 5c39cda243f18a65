"""What a room token denies, as far as it can be read."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from livekit import api

from livekit_plugins_runway.transport.runway_room import _missing_grants

SECRET = "a-secret-of-32-bytes-or-more-0123"
NEEDED = ["canPublish", "canPublishData", "canSubscribe"]


def token(**grants: Any) -> str:
    made = api.AccessToken("key", SECRET).with_identity("me")
    return made.with_grants(api.VideoGrants(room_join=True, room="r", **grants)).to_jwt()


def test_what_a_token_denies_outright_is_missing() -> None:
    assert _missing_grants(token(can_publish_data=False), NEEDED) == ["canPublishData"]
    assert _missing_grants(token(can_publish=False, can_subscribe=False), ["canPublish"]) == [
        "canPublish"
    ]


def test_what_a_token_does_not_mention_is_granted() -> None:
    bare = jwt.encode({"video": {"roomJoin": True}}, SECRET)
    assert _missing_grants(bare, NEEDED) == []


def test_an_expired_token_is_read_all_the_same() -> None:
    old = jwt.encode({"exp": 1, "video": {"canPublish": False}}, SECRET)
    assert _missing_grants(old, NEEDED) == ["canPublish"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no token",
        "a.b.c",
        "eyJhbGciOiJIUzI1NiJ9.bm90IGpzb24.c2ln",  # its claims are no JSON
        jwt.encode({}, SECRET),
        jwt.encode({"video": ["canPublish"]}, SECRET),
    ],
)
def test_of_what_is_no_room_token_nothing_is_known_to_be_missing(text: str) -> None:
    assert _missing_grants(text, NEEDED) == []
