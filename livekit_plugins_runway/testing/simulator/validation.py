"""Refuses request bodies as Runway does, on raw JSON.

Limits are those of Runway's published API schema 2024-11-06. That unknown keys are refused, the
shape of the answer, and the wording `Unrecognized key: "..."` and `Too big: ...` were published by
users of the live service; the other wordings and the issue codes are inferred from these, which
are those of the validation library Zod 4. Strings are measured in UTF-16 code units, as
JavaScript does.

Written on its own: it shares nothing with the models of the client, so that a mistake there shows.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Path = tuple[str | int, ...]
Check = Callable[[object, Path], Iterator["Issue"]]

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
_UUID4 = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
)


@dataclass(frozen=True)
class Issue:
    """One reason for a refusal, as it appears in the answer."""

    code: str
    message: str
    path: Path = ()

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "path": list(self.path)}


def create_issues(
    body: object, *, accept_deprecated_livekit: bool = False, allow_private_url: bool = True
) -> list[Issue]:
    """What is wrong with the body of `POST /v1/realtime_sessions`; empty if nothing is."""
    address = _url(allow_private_url)
    room = {
        "url": address,
        "token": _text(1, 2048),
        "roomName": _text(1, 256),
    }
    agent = {"agentIdentity": _text(1, 256)}
    optional: dict[str, Check] = {
        "maxDuration": _number(10, 1800, whole=True),
        "personality": _text(1, 10_000),
        "startScript": _text(1, 2000),
        "tools": _tools,
        "integration": _tagged(
            {
                "livekit": (room, agent),
                "elevenlabs": ({"signedUrl": _url(allow_private_url)}, {}),
            }
        ),
    }
    if accept_deprecated_livekit:
        optional["livekit"] = _record(room, agent)
    check = _record({"model": _choice("gwm1_avatars"), "avatar": _avatar}, optional)
    return list(check(body, ()))


def _text(shortest: int, longest: int, pattern: re.Pattern[str] | None = None) -> Check:
    def check(value: object, path: Path) -> Iterator[Issue]:
        if not isinstance(value, str):
            yield _wrong_type("string", value, path)
            return
        length = len(value.encode("utf-16-le", "surrogatepass")) // 2
        if length < shortest:
            message = f"Too small: expected string to have >={shortest} characters"
            yield Issue("too_small", message, path)
        elif length > longest:
            message = f"Too big: expected string to have <={longest} characters"
            yield Issue("too_big", message, path)
        if pattern is not None and not pattern.fullmatch(value):
            message = f"Invalid string: must match pattern /^{pattern.pattern}$/"
            yield Issue("invalid_format", message, path)

    return check


def _number(least: int, most: int, *, whole: bool = False) -> Check:
    def check(value: object, path: Path) -> Iterator[Issue]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield _wrong_type("number", value, path)
        elif not math.isfinite(value):
            yield Issue("invalid_type", "Invalid input: expected number, received Infinity", path)
        elif whole and value != int(value):
            message = "Invalid input: expected int, received number"
            yield Issue("invalid_type", message, path)
        elif value < least:
            yield Issue("too_small", f"Too small: expected number to be >={least}", path)
        elif value > most:
            yield Issue("too_big", f"Too big: expected number to be <={most}", path)

    return check


def _choice(*allowed: str) -> Check:
    names = "|".join(f'"{name}"' for name in allowed)
    wording = f"Invalid option: expected one of {names}"
    if len(allowed) == 1:
        wording = f"Invalid input: expected {names}"

    def check(value: object, path: Path) -> Iterator[Issue]:
        if value not in allowed:
            yield Issue("invalid_value", wording, path)

    return check


def _boolean(value: object, path: Path) -> Iterator[Issue]:
    if not isinstance(value, bool):
        yield _wrong_type("boolean", value, path)


def _anything(value: object, path: Path) -> Iterator[Issue]:
    yield from ()


def _list(most: int, item: Check) -> Check:
    def check(value: object, path: Path) -> Iterator[Issue]:
        if not isinstance(value, list):
            yield _wrong_type("array", value, path)
            return
        if len(value) > most:
            message = f"Too big: expected array to have <={most} items"
            yield Issue("too_big", message, path)
        for index, entry in enumerate(value):
            yield from item(entry, (*path, index))

    return check


def _record(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    def check(value: object, path: Path) -> Iterator[Issue]:
        if not isinstance(value, dict):
            yield _wrong_type("object", value, path)
            return
        for name, inner in required.items():
            if name in value:
                yield from inner(value[name], (*path, name))
            else:
                message = "Invalid input: expected a value, received undefined"
                yield Issue("invalid_type", message, (*path, name))
        for name, inner in optional.items():
            if name in value:
                yield from inner(value[name], (*path, name))
        unknown = [name for name in value if name not in required and name not in optional]
        if unknown:
            plural = "s" if len(unknown) > 1 else ""
            names = ", ".join(f'"{name}"' for name in unknown)
            yield Issue("unrecognized_keys", f"Unrecognized key{plural}: {names}", path)

    return check


def _tagged(variants: Mapping[str, tuple[Mapping[str, Check], Mapping[str, Check]]]) -> Check:
    """One of several objects, told apart by their `type`."""

    def check(value: object, path: Path) -> Iterator[Issue]:
        if not isinstance(value, dict):
            yield _wrong_type("object", value, path)
            return
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in variants:
            yield Issue("invalid_union", "Invalid input", (*path, "type"))
            return
        required, optional = variants[kind]
        yield from _record({"type": _anything, **required}, optional)(value, path)

    return check


def _url(allow_private: bool) -> Check:
    def check(value: object, path: Path) -> Iterator[Issue]:
        if not isinstance(value, str):
            yield _wrong_type("string", value, path)
            return
        try:
            parts = urlsplit(value)
            host = parts.hostname
        except ValueError:
            host = None
        if not host or not parts.scheme:
            yield Issue("invalid_format", "Invalid URL", path)
        elif not allow_private and (parts.scheme not in ("wss", "https") or _is_private(host)):
            message = "Must be a wss:// or https:// URL that resolves to a public host"
            yield Issue("custom", message, path)

    return check


def _is_private(host: str) -> bool:
    """By its looks; the simulator asks no name server."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal"))


def _wrong_type(expected: str, value: object, path: Path) -> Issue:
    received = {
        type(None): "null",
        bool: "boolean",
        int: "number",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
    }[type(value)]
    message = f"Invalid input: expected {expected}, received {received}"
    return Issue("invalid_type", message, path)


def _uuid4(value: object, path: Path) -> Iterator[Issue]:
    if not isinstance(value, str):
        yield _wrong_type("string", value, path)
    elif not _UUID4.fullmatch(value):
        yield Issue("invalid_format", "Invalid UUID", path)


_described = {"name": _text(1, 64, _NAME), "description": _text(1, 1024)}
_maybe = {"required": _boolean}
_item = _record({"type": _choice("string", "integer", "number", "boolean")}, {})
_parameter = _tagged(
    {
        "string": (_described, {**_maybe, "enum": _list(20, _text(0, 64))}),
        "integer": (_described, _maybe),
        "number": (_described, _maybe),
        "boolean": (_described, _maybe),
        "array": ({**_described, "items": _item}, _maybe),
        # The schema leaves open what a property looks like.
        "object": ({**_described, "properties": _list(20, _anything)}, _maybe),
    }
)
_parameters = {"parameters": _list(20, _parameter)}
_tool = _tagged(
    {
        "client_event": (_described, _parameters),
        "backend_rpc": (_described, {**_parameters, "timeoutSeconds": _number(1, 8)}),
    }
)
_avatar = _tagged(
    {
        "runway-preset": ({"presetId": _choice(*PRESETS)}, {}),
        "custom": ({"avatarId": _uuid4}, {}),
    }
)


def _tools(value: object, path: Path) -> Iterator[Issue]:
    yield from _list(20, _tool)(value, path)
    if not isinstance(value, list):
        return
    seen: set[str] = set()
    for index, tool in enumerate(value):
        name = tool.get("name") if isinstance(tool, dict) else None
        if isinstance(name, str) and name in seen:
            yield Issue("custom", "Tool names must be unique", (*path, index, "name"))
        elif isinstance(name, str):
            seen.add(name)
