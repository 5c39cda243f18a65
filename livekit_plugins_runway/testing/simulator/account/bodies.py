"""Bodies of the calls about an account, refused as Runway refuses them.

Limits are those of Runway's published API schema 2024-11-06, as of August 2026. That unknown keys
are refused is known of the create call of sessions, and inferred for these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date

from ..checks import (
    Check,
    Issue,
    Path,
    choice,
    list_of,
    nullable,
    one_of,
    record,
    tagged,
    text,
    uuid4,
    wrong_type,
)
from ..validation import AVATAR

PRESET_VOICES = (
    "victoria",
    "vincent",
    "clara",
    "drew",
    "skye",
    "max",
    "morgan",
    "felix",
    "mia",
    "marcus",
    "summer",
    "ruby",
    "aurora",
    "jasper",
    "leo",
    "adrian",
    "nina",
    "emma",
    "blake",
    "david",
    "maya",
    "nathan",
    "sam",
    "georgia",
    "petra",
    "adam",
    "zach",
    "violet",
    "roman",
    "luna",
)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def _reference(kind: str, longest: int) -> Check:
    return one_of(
        text(13, 2048, re.compile(r"https:\/\/.*")),
        text(13, 5000, re.compile(r"runway:\/\/.*")),
        text(13, longest, re.compile(rf"data:{kind}\/.*")),
    )


def _changes(optional: Mapping[str, Check]) -> Check:
    """At least one field, as published in words."""
    fields = record({}, optional)

    def check(value: object, path: Path) -> Iterator[Issue]:
        yield from fields(value, path)
        if value == {}:
            yield Issue("custom", "At least one field must be provided", path)

    return check


def _day(value: object, path: Path) -> Iterator[Issue]:
    if not isinstance(value, str):
        yield wrong_type("string", value, path)
        return
    try:
        if not _DAY.fullmatch(value):
            raise ValueError
        date.fromisoformat(value)
    except ValueError:
        yield Issue("invalid_format", "Invalid ISO date", path)


_image = _reference("image", 5_242_880)
_audio = _reference("audio", 16_777_216)
_Variant = tuple[Mapping[str, Check], Mapping[str, Check]]
_preset_voice: _Variant = ({"presetId": choice(*PRESET_VOICES)}, {})
_custom_voice: _Variant = ({"id": uuid4}, {})
_avatar_voice = tagged({"runway-live-preset": _preset_voice, "custom": _custom_voice})
_spoken_voice = tagged({"preset": _preset_voice, "custom": _custom_voice})
_prompt = {
    "prompt": text(20, 1000),
    "model": choice("eleven_ttv_v3", "eleven_multilingual_ttv_v2"),
}
_processing = {"imageProcessing": choice("optimize", "none")}
_ids = {"documentIds": list_of(50, uuid4)}
_avatar = {
    "name": text(1, 50),
    "referenceImage": _image,
    "personality": text(1, 10_000),
    "voice": _avatar_voice,
}
_document = {"name": text(1, 255), "content": text(1, 200_000)}
_description = {"description": nullable(text(1, 1024))}

CREATE_AVATAR = record(_avatar, {"startScript": text(0, 2000), **_ids, **_processing})
UPDATE_AVATAR = _changes({**_avatar, "startScript": nullable(text(0, 2000)), **_ids, **_processing})
CREATE_DOCUMENT = record(_document, {})
UPDATE_DOCUMENT = _changes(_document)
CREATE_VOICE = record(
    {
        "name": text(1, 100),
        "from": tagged({"audio": ({"audio": _audio}, {}), "text": (_prompt, {})}),
    },
    _description,
)
UPDATE_VOICE = record({}, {"name": text(1, 100), **_description})
PREVIEW_VOICE = record(_prompt, {})
CREATE_VIDEO = record(
    {
        "model": choice("gwm1_avatars"),
        "avatar": AVATAR,
        "speech": tagged(
            {
                "audio": ({"audio": _audio}, {}),
                "text": ({"text": text(1, 5000)}, {"voice": _spoken_voice}),
            }
        ),
    },
    {},
)
CREATE_UPLOAD = record({"filename": text(3, 255), "type": choice("ephemeral")}, {})
QUERY_CREDITS = record({}, {"startDate": _day, "beforeDate": _day})
