"""JSON schemas of Runway's API, as published (`schema/`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

_FOLDER = Path(__file__).parent / "schema"
REALTIME: dict[str, Any] = json.loads((_FOLDER / "realtime.json").read_text())
ACCOUNT: dict[str, Any] = json.loads((_FOLDER / "account.json").read_text())


def strict(schema: Any) -> Any:
    """A published schema as the server applies it.

    Unknown keys are refused at every level, `$` means the end of the text as in ECMAScript (for
    Python it also matches before a last newline), and the deprecated `livekit` twin is left out.
    """
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: strict(v) for k, v in schema.items() if k not in ("$schema", "discriminator")}
    if out.get("type") == "object":
        out["additionalProperties"] = False
        if isinstance(properties := out.get("properties"), dict):
            properties.pop("livekit", None)
    if isinstance(pattern := out.get("pattern"), str):
        out["pattern"] = pattern.removesuffix("$") + r"\Z"
    return out


REQUEST = strict(REALTIME["create_request"])
VALIDATOR = Draft202012Validator(REQUEST, format_checker=FormatChecker())
"""Of the body of a create call, as strict as the server."""
