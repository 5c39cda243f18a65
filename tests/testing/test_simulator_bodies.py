"""The simulated account refuses a body just when Runway's published schema does."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from livekit_plugins_runway.testing.simulator.account import bodies
from livekit_plugins_runway.testing.simulator.checks import Check
from tests.support.near_bodies import near
from tests.support.published import ACCOUNT, strict

AN_ID = "17f20503-6c24-4c16-946b-35dbbce2af2f"
PRESET = {"type": "runway-live-preset", "presetId": "luna"}
OWN = {"type": "custom", "id": AN_ID}
AVATAR = {
    "name": "Ada",
    "referenceImage": "https://example.com/face.png",
    "personality": "Kind.",
    "startScript": "Hello",
    "voice": PRESET,
    "documentIds": [AN_ID],
    "imageProcessing": "none",
}
PROMPT = {"prompt": "A warm voice with a friendly tone", "model": "eleven_ttv_v3"}
SAMPLE = {"type": "audio", "audio": "data:audio/mp3;base64,AAAA"}
VIDEO = {"model": "gwm1_avatars", "avatar": {"type": "custom", "avatarId": AN_ID}}
TEXT = {"type": "text", "text": "Hi", "voice": {"type": "preset", "presetId": "clara"}}
DOCUMENT = {"name": "FAQ", "content": "text"}

CASES: list[tuple[str, Check, dict[str, Any]]] = [
    ("avatar_create", bodies.CREATE_AVATAR, AVATAR),
    ("avatar_create", bodies.CREATE_AVATAR, {**AVATAR, "voice": OWN}),
    ("avatar_update", bodies.UPDATE_AVATAR, AVATAR),
    ("document_create", bodies.CREATE_DOCUMENT, DOCUMENT),
    ("document_update", bodies.UPDATE_DOCUMENT, DOCUMENT),
    ("voice_create", bodies.CREATE_VOICE, {"name": "N", "from": SAMPLE, "description": "d"}),
    ("voice_create", bodies.CREATE_VOICE, {"name": "N", "from": {"type": "text", **PROMPT}}),
    ("voice_update", bodies.UPDATE_VOICE, {"name": "N", "description": "d"}),
    ("voice_preview", bodies.PREVIEW_VOICE, PROMPT),
    ("avatar_video", bodies.CREATE_VIDEO, {**VIDEO, "speech": TEXT}),
    ("avatar_video", bodies.CREATE_VIDEO, {**VIDEO, "speech": SAMPLE}),
    ("upload", bodies.CREATE_UPLOAD, {"filename": "a.png", "type": "ephemeral"}),
    (
        "credit_usage",
        bodies.QUERY_CREDITS,
        {"startDate": "2026-11-01", "beforeDate": "2026-11-30"},
    ),
]


@pytest.mark.parametrize(("kind", "check", "body"), CASES, ids=[kind for kind, *_ in CASES])
def test_a_body_is_refused_just_when_the_schema_refuses_it(
    kind: str, check: Check, body: dict[str, Any]
) -> None:
    schema = Draft202012Validator(strict(ACCOUNT[kind]["request"]), format_checker=FormatChecker())
    assert schema.is_valid(body)
    refused = 0
    for other in near(body):
        if not other:
            continue  # that a change says something is published in words
        issues = list(check(other, ()))
        refused += bool(issues)
        assert bool(issues) is not schema.is_valid(other), (str(other)[:300], issues)
    assert refused > 5
