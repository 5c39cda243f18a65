"""The base of all bodies of Runway's API: strict for requests, tolerant for answers.

Requests refuse unknown fields, because Runway refuses them too. Answers tolerate fields they do not
know. Both are immutable, and never show a value that was given in the text of a validation error.

Names are Python's (`max_duration`); Runway's (`maxDuration`) are accepted as input as well. Lengths
are counted in UTF-16 code units, as JavaScript counts; the published schema counts characters. They
differ beyond U+FFFF (most emoji count twice), where the stricter count satisfies both.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from .._common.text import one_line

_MOST_ISSUES, _LONGEST_TEXT, _DEEPEST = 5, 1000, 16
_UTF_16 = codecs.lookup("utf-16-le")
"""Imported now, because Python would import it at its first use, which would delay the start of the
first call.
"""
UUID4 = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$"


def utf16_length(text: str) -> int:
    return len(_UTF_16.encode(text)[0]) // 2


@dataclass(frozen=True)
class _AtMost:
    longest: int

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "maxLength": self.longest}

    def _check(self, text: str) -> str:
        if (length := utf16_length(text)) > self.longest:
            raise ValueError(f"at most {self.longest} UTF-16 code units, this has {length}")
        return text


def at_most(longest: int) -> _AtMost:
    """How long a string may be. A JSON schema tells it in characters."""
    return _AtMost(longest)


class WireRequest(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
    )


class WireResponse(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        hide_input_in_errors=True,
    )


def as_text(value: object) -> str | None:
    """Text or a number as printable text; None for anything else."""
    match value:
        case bool():
            return None
        case str() | int() | float():
            return str(value).encode("utf-8", "replace").decode()
        case _:
            return None


def as_id(value: object) -> object:
    """Accepts a number instead of text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Shown = Annotated[str | None, BeforeValidator(as_text)]
"""Shown to people only, so any value is accepted."""
Text = Annotated[str, BeforeValidator(lambda value: as_text(value) or "")]


def explain(error: ValidationError) -> str:
    """The validation errors on one line, without the given values (they may be secret): the first
    `_MOST_ISSUES`, in at most `_LONGEST_TEXT` characters, all of them printable. Names of fields
    are the sender's.
    """
    issues = error.errors(include_input=False, include_url=False, include_context=False)
    told = [
        f"{'.'.join(map(str, issue['loc'][:_DEEPEST])) or 'value'}: "
        f"{issue['msg'].removeprefix('Value error, ')}"
        for issue in issues[:_MOST_ISSUES]
    ]
    if more := len(issues) - len(told):
        told.append(f"and {more} more")
    return one_line("; ".join(told)[:_LONGEST_TEXT])
