"""Refuses the bodies of create calls as Runway does, on raw JSON.

Limits are those of Runway's published API schema 2024-11-06. That unknown keys are refused, and the
shape of the answer, were published by users of the live service.

Written on its own: it shares nothing with the models of the client, so that a mistake there shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .checks import (
    Check,
    Issue,
    Path,
    anything,
    boolean,
    choice,
    list_of,
    number,
    record,
    tagged,
    text,
    url,
    uuid4,
)

PRESETS = (
    "game-character",
    "music-superstar",
    "game-character-man",
    "cat-character",
    "influencer",
    "tennis-coach",
    "human-resource",
    "fashion-designer",
    "cooking-teacher",
)
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def create_issues(
    body: object, *, accept_deprecated_livekit: bool = False, allow_private_url: bool = True
) -> list[Issue]:
    """What is wrong with the body of `POST /v1/realtime_sessions`; empty if nothing is."""
    address = url(allow_private_url)
    room = {
        "url": address,
        "token": text(1, 2048),
        "roomName": text(1, 256),
    }
    agent = {"agentIdentity": text(1, 256)}
    optional: dict[str, Check] = {
        "maxDuration": number(10, 1800, whole=True),
        "personality": text(1, 10_000),
        "startScript": text(1, 2000),
        "tools": _tools,
        "integration": tagged(
            {
                "livekit": (room, agent),
                "elevenlabs": ({"signedUrl": url(allow_private_url)}, {}),
            }
        ),
    }
    if accept_deprecated_livekit:
        optional["livekit"] = record(room, agent)
    check = record({"model": choice("gwm1_avatars"), "avatar": AVATAR}, optional)
    return list(check(body, ()))


_described = {"name": text(1, 64, _NAME), "description": text(1, 1024)}
_maybe = {"required": boolean}
_item = record({"type": choice("string", "integer", "number", "boolean")}, {})
_parameter = tagged(
    {
        "string": (_described, {**_maybe, "enum": list_of(20, text(0, 64))}),
        "integer": (_described, _maybe),
        "number": (_described, _maybe),
        "boolean": (_described, _maybe),
        "array": ({**_described, "items": _item}, _maybe),
        # The schema leaves open what a property looks like.
        "object": ({**_described, "properties": list_of(20, anything)}, _maybe),
    }
)
_parameters = {"parameters": list_of(20, _parameter)}
_tool = tagged(
    {
        "client_event": (_described, _parameters),
        "backend_rpc": (_described, {**_parameters, "timeoutSeconds": number(1, 8)}),
    }
)
AVATAR = tagged(
    {
        "runway-preset": ({"presetId": choice(*PRESETS)}, {}),
        "custom": ({"avatarId": uuid4}, {}),
    }
)


def _tools(value: object, path: Path) -> Iterator[Issue]:
    yield from list_of(20, _tool)(value, path)
    if not isinstance(value, list):
        return
    seen: set[str] = set()
    for index, tool in enumerate(value):
        name = tool.get("name") if isinstance(tool, dict) else None
        if isinstance(name, str) and name in seen:
            yield Issue("custom", "Tool names must be unique", (*path, index, "name"))
        elif isinstance(name, str):
            seen.add(name)
