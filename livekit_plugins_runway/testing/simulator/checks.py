"""What a value of a body must be, on raw JSON, and how what is wrong with it is told.

The wording `Unrecognized key: "..."` and `Too big: ...` was published by users of the live service;
the other wordings and the issue codes are inferred from these, which are those of the validation
library Zod 4. Strings are measured in UTF-16 code units, as JavaScript does.
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


def text(shortest: int, longest: int, pattern: re.Pattern[str] | None = None) -> Check:
    def check(value: object, path: Path) -> Iterator[Issue]:
        if not isinstance(value, str):
            yield wrong_type("string", value, path)
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


def number(least: int, most: int, *, whole: bool = False) -> Check:
    def check(value: object, path: Path) -> Iterator[Issue]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield wrong_type("number", value, path)
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


def choice(*allowed: str) -> Check:
    names = "|".join(f'"{name}"' for name in allowed)
    wording = f"Invalid option: expected one of {names}"
    if len(allowed) == 1:
        wording = f"Invalid input: expected {names}"

    def check(value: object, path: Path) -> Iterator[Issue]:
        if value not in allowed:
            yield Issue("invalid_value", wording, path)

    return check


def boolean(value: object, path: Path) -> Iterator[Issue]:
    if not isinstance(value, bool):
        yield wrong_type("boolean", value, path)


def anything(value: object, path: Path) -> Iterator[Issue]:
    yield from ()


def list_of(most: int, item: Check) -> Check:
    def check(value: object, path: Path) -> Iterator[Issue]:
        if not isinstance(value, list):
            yield wrong_type("array", value, path)
            return
        if len(value) > most:
            message = f"Too big: expected array to have <={most} items"
            yield Issue("too_big", message, path)
        for index, entry in enumerate(value):
            yield from item(entry, (*path, index))

    return check


def record(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    def check(value: object, path: Path) -> Iterator[Issue]:
        if not isinstance(value, dict):
            yield wrong_type("object", value, path)
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


def tagged(variants: Mapping[str, tuple[Mapping[str, Check], Mapping[str, Check]]]) -> Check:
    """One of several objects, told apart by their `type`."""

    def check(value: object, path: Path) -> Iterator[Issue]:
        if not isinstance(value, dict):
            yield wrong_type("object", value, path)
            return
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in variants:
            yield Issue("invalid_union", "Invalid input", (*path, "type"))
            return
        required, optional = variants[kind]
        yield from record({"type": anything, **required}, optional)(value, path)

    return check


def url(allow_private: bool) -> Check:
    def check(value: object, path: Path) -> Iterator[Issue]:
        if not isinstance(value, str):
            yield wrong_type("string", value, path)
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


def wrong_type(expected: str, value: object, path: Path) -> Issue:
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


def uuid4(value: object, path: Path) -> Iterator[Issue]:
    if not isinstance(value, str):
        yield wrong_type("string", value, path)
    elif not _UUID4.fullmatch(value):
        yield Issue("invalid_format", "Invalid UUID", path)


def nullable(inner: Check) -> Check:
    def check(value: object, path: Path) -> Iterator[Issue]:
        if value is not None:
            yield from inner(value, path)

    return check


def one_of(*alternatives: Check) -> Check:
    """Right for at least one of them."""

    def check(value: object, path: Path) -> Iterator[Issue]:
        if all(list(alternative(value, path)) for alternative in alternatives):
            yield Issue("invalid_union", "Invalid input", path)

    return check
