"""Bodies of the calls that change an account (Runway API schema 2024-11-06, as of August 2026).

They know the published limits. None means: not sent, so Runway's default applies, or what there is
stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from ...errors import ConfigurationError
from ..models import Avatar
from ..wire import UUID4, WireRequest, at_most, explain

PresetVoice = Literal[
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
]
"""The live preset voices that Runway publishes: ids, which are also their names. Runway has no call
that lists them, and publishes no address at which one can be heard: its developer portal plays
them."""

VoiceModel = Literal["eleven_ttv_v3", "eleven_multilingual_ttv_v2"]
"""What makes a voice of a description; Runway recommends the first."""

ImageProcessing = Literal["optimize", "none"]

LONGEST_DATA_URI = {"image": 5_242_880, "audio": 16_777_216}
"""Characters, base64 included."""


class AccountRequest(WireRequest):
    """A body. `checked` makes one of what a user gave."""

    what: ClassVar[str]

    @classmethod
    def checked(cls, **given: object) -> Self:
        """With what is not None of `given`.

        Raises:
            ConfigurationError: outside of the published limits. Says what is wrong, and not the
                value.
        """
        present = {name: value for name, value in given.items() if value is not None}
        try:
            return cls.model_validate(present)
        except ValidationError as error:
            raise ConfigurationError(f"Not a valid {cls.what}: {explain(error)}") from None

    def wire(self) -> dict[str, Any]:
        """JSON-ready, under Runway's names; None left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _reference(kind: Literal["image", "audio"]) -> AfterValidator:
    limits = {"https://": 2048, "runway://": 5000, f"data:{kind}/": LONGEST_DATA_URI[kind]}

    def check(text: str) -> str:
        for prefix, longest in limits.items():
            if text.startswith(prefix):
                if 13 <= len(text) <= longest:
                    return text
                raise ValueError(f"{prefix}... has 13 to {longest} characters, this {len(text)}")
        raise ValueError(f"must begin with {', '.join(limits)}; for a file pass a pathlib.Path")

    return AfterValidator(check)


Image = Annotated[str, _reference("image")]
Audio = Annotated[str, _reference("audio")]
Id = Annotated[str, Field(pattern=UUID4)]
_Ids = Annotated[tuple[Id, ...], Field(max_length=50)]
_AvatarName = Annotated[str, Field(min_length=1), at_most(50)]
_Personality = Annotated[str, Field(min_length=1), at_most(10_000)]
_StartScript = Annotated[str, at_most(2_000)]
_DocumentName = Annotated[str, Field(min_length=1), at_most(255)]
_Content = Annotated[str, Field(min_length=1), at_most(200_000)]
_VoiceName = Annotated[str, Field(min_length=1), at_most(100)]
_Prompt = Annotated[str, Field(min_length=20), at_most(1_000)]


class LivePresetVoice(WireRequest):
    """One of Runway's voices, for an avatar."""

    type: Literal["runway-live-preset"] = "runway-live-preset"
    preset_id: PresetVoice


class SpokenPresetVoice(WireRequest):
    """The same, for an avatar video: there the type has another name."""

    type: Literal["preset"] = "preset"
    preset_id: PresetVoice


class CustomVoice(WireRequest):
    """A voice of the key's own project."""

    type: Literal["custom"] = "custom"
    id: Id


def _named_voice(preset_type: str) -> BeforeValidator:
    """A voice by its one name: a preset's id, or the id of a custom voice."""

    def check(voice: object) -> object:
        if not isinstance(voice, str):
            return voice
        if voice in get_args(PresetVoice):
            return {"type": preset_type, "presetId": voice}
        if re.fullmatch(UUID4.strip("^$"), voice):
            return {"type": "custom", "id": voice}
        names = ", ".join(get_args(PresetVoice))
        raise ValueError(f"is neither the id of a custom voice (a UUID) nor one of {names}")

    return BeforeValidator(check)


AvatarVoice = Annotated[
    Annotated[LivePresetVoice | CustomVoice, Field(discriminator="type")],
    _named_voice("runway-live-preset"),
]
SpokenVoice = Annotated[
    Annotated[SpokenPresetVoice | CustomVoice, Field(discriminator="type")],
    _named_voice("preset"),
]


class CreateAvatar(AccountRequest):
    """Body of `POST /v1/avatars`."""

    what: ClassVar[str] = "avatar"

    name: _AvatarName
    reference_image: Annotated[Image, Field(repr=False)]
    personality: Annotated[_Personality, Field(repr=False)]
    voice: AvatarVoice
    start_script: Annotated[_StartScript | None, Field(repr=False)] = None
    document_ids: _Ids | None = None
    image_processing: ImageProcessing | None = None


class _Changes(AccountRequest):
    """At least one field is sent."""

    @model_validator(mode="before")
    @classmethod
    def _says_something(cls, given: object) -> object:
        if isinstance(given, Mapping) and not given:
            raise ValueError("at least one change is needed")
        return given

    def wire(self) -> dict[str, Any]:
        """The same. A text that is to be taken away is "" here, and null there."""
        return {name: None if value == "" else value for name, value in super().wire().items()}


class UpdateAvatar(_Changes):
    """Body of `PATCH /v1/avatars/{id}`. `start_script=""`: none any more."""

    what: ClassVar[str] = "change of an avatar"

    name: _AvatarName | None = None
    reference_image: Annotated[Image | None, Field(repr=False)] = None
    personality: Annotated[_Personality | None, Field(repr=False)] = None
    voice: AvatarVoice | None = None
    start_script: Annotated[_StartScript | None, Field(repr=False)] = None
    document_ids: _Ids | None = None
    image_processing: ImageProcessing | None = None


class CreateDocument(AccountRequest):
    """Body of `POST /v1/documents`."""

    what: ClassVar[str] = "document"

    name: _DocumentName
    content: Annotated[_Content, Field(repr=False)]


class UpdateDocument(_Changes):
    """Body of `PATCH /v1/documents/{id}`."""

    what: ClassVar[str] = "change of a document"

    name: _DocumentName | None = None
    content: Annotated[_Content | None, Field(repr=False)] = None


class VoiceOfPrompt(WireRequest):
    """A voice that is designed after a description of it, 20 to 1 000 characters."""

    type: Literal["text"] = "text"
    prompt: _Prompt
    model: VoiceModel


class VoiceOfAudio(WireRequest):
    """A voice that is cloned from a sample of 10 s to 5 min."""

    type: Literal["audio"] = "audio"
    audio: Annotated[Audio, Field(repr=False)]


class CreateVoice(AccountRequest):
    """Body of `POST /v1/voices`."""

    what: ClassVar[str] = "voice"

    name: _VoiceName
    source: Annotated[VoiceOfPrompt | VoiceOfAudio, Field(discriminator="type", alias="from")]
    description: Annotated[str, Field(min_length=1), at_most(1024)] | None = None


class UpdateVoice(_Changes):
    """Body of `PATCH /v1/voices/{id}`. `description=""`: none any more."""

    what: ClassVar[str] = "change of a voice"

    name: _VoiceName | None = None
    description: Annotated[str, at_most(1024)] | None = None


class PreviewVoice(AccountRequest):
    """Body of `POST /v1/voices/preview`."""

    what: ClassVar[str] = "description of a voice"

    prompt: _Prompt
    model: VoiceModel


class SpeechOfText(WireRequest):
    """1 to 5 000 characters that are spoken; without a voice, with the avatar's."""

    type: Literal["text"] = "text"
    text: Annotated[str, Field(min_length=1, repr=False), at_most(5_000)]
    voice: SpokenVoice | None = None


class SpeechOfAudio(WireRequest):
    """Speech that exists already."""

    type: Literal["audio"] = "audio"
    audio: Annotated[Audio, Field(repr=False)]


class CreateAvatarVideo(AccountRequest):
    """Body of `POST /v1/avatar_videos`."""

    what: ClassVar[str] = "avatar video"

    model: Literal["gwm1_avatars"] = "gwm1_avatars"
    avatar: Avatar
    speech: Annotated[SpeechOfText | SpeechOfAudio, Field(discriminator="type")]


class CreateUpload(AccountRequest):
    """Body of `POST /v1/uploads`."""

    what: ClassVar[str] = "upload"

    filename: Annotated[str, Field(min_length=3), at_most(255)]
    type: Literal["ephemeral"] = "ephemeral"


_DAY = r"^\d{4}-\d{2}-\d{2}$"


class QueryCredits(AccountRequest):
    """Body of `POST /v1/organization/usage`: days in UTC, the last one not included."""

    what: ClassVar[str] = "range of days"

    start_date: Annotated[str, Field(pattern=_DAY)] | None = None
    before_date: Annotated[str, Field(pattern=_DAY)] | None = None
