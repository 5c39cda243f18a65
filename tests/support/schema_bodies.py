"""Hypothesis strategies for values that a JSON schema allows.

Knows the keywords that the published schema of Runway's realtime sessions uses, and fails on any
other. (The usual library for this relies on internals that newer Hypothesis releases have lost.)
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_KNOWN = {
    *("type", "const", "enum", "default", "format", "pattern", "minLength", "maxLength"),
    *("minimum", "maximum", "items", "maxItems", "properties", "required", "deprecated"),
    *("additionalProperties", "oneOf"),
}
_TEXT = st.characters(exclude_categories=["Cs"])
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(_TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(_TEXT), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def values_of(schema: dict[str, Any], formats: dict[str, st.SearchStrategy[str]]) -> Any:
    """Values of `schema`; texts of a format that is in `formats` come from there."""
    assert set(schema) <= _KNOWN, f"unknown keywords: {set(schema) - _KNOWN}"
    if "oneOf" in schema:
        return st.one_of([values_of(option, formats) for option in schema["oneOf"]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case None:
            return _ANY
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False)
        case "string":
            return _texts(schema, formats)
        case "array":
            return _arrays(schema, formats)
        case "object":
            return _objects(schema, formats)
    raise AssertionError(f"unknown type: {schema['type']}")


def _texts(schema: dict[str, Any], formats: dict[str, st.SearchStrategy[str]]) -> Any:
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
    if schema.get("format") in formats:
        return formats[schema["format"]]
    if "pattern" in schema:
        return st.from_regex(schema["pattern"]).filter(
            lambda text: shortest <= len(text) <= (longest or len(text))
        )
    drawn = st.text(_TEXT, min_size=shortest, max_size=longest)
    # Long texts are never drawn by themselves.
    return drawn | st.just("x" * longest) if longest else drawn


def _arrays(schema: dict[str, Any], formats: dict[str, st.SearchStrategy[str]]) -> Any:
    inner, longest = values_of(schema["items"], formats), schema["maxItems"]
    return st.lists(inner, max_size=3) | st.lists(inner, min_size=longest, max_size=longest)


def _objects(schema: dict[str, Any], formats: dict[str, st.SearchStrategy[str]]) -> Any:
    fields = {name: values_of(inner, formats) for name, inner in schema["properties"].items()}
    required = {name: fields.pop(name) for name in schema["required"]}
    return st.fixed_dictionaries(required, optional=fields)
