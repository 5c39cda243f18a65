"""Loaded by schemathesis (`SCHEMATHESIS_HOOKS`): what no JSON schema can say is put right."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Tools of the same name are refused, by Runway too, and JSON Schema has no word for that."""
    tools = case.body.get("tools") if isinstance(case.body, dict) else None
    if not isinstance(tools, list):
        return
    names = [tool["name"] for tool in tools if _has_name(tool)]
    if len(set(names)) < len(names):
        named = [
            {**tool, "name": f"{tool['name'][:50]}_{number}"} if _has_name(tool) else tool
            for number, tool in enumerate(tools)
        ]
        case.body = {**case.body, "tools": named}


def _has_name(tool: Any) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("name"), str)
