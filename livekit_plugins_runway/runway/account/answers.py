"""What Runway says of an account (Runway API schema 2024-11-06, as of August 2026).

Of an answer only its id, and a status where there is one, are demanded. What may hold personal data
or opens to whoever has it (texts of an avatar, signed addresses) is not in a `repr`. `wire()` gives
the whole answer, with what this version does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from ...errors import ProtocolError
from ..wire import Shown, Text, WireResponse, as_id, as_text, explain

_Answer = TypeVar("_Answer", bound="AccountAnswer")


def _as_status(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _as_list(value: object) -> object:
    return value if isinstance(value, list | tuple) else ()


def _as_texts(value: object) -> object:
    texts = map(as_text, value) if isinstance(value, list | tuple) else ()
    return tuple(text for text in texts if text is not None)


def _as_object(value: object) -> object:
    """What is none counts as not there."""
    return value if isinstance(value, dict | WireResponse) else None


def _as_number(value: object) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


Id = Annotated[str, Field(min_length=1), BeforeValidator(as_id)]
Status = Annotated[str, Field(min_length=1), BeforeValidator(_as_status)]
Secret = Annotated[Shown, Field(repr=False)]
"""A text that is not for a log."""
Number = Annotated[float, BeforeValidator(_as_number)]


class AccountAnswer(WireResponse):
    """Attributes of each: see the published schema; times are ISO 8601, as Runway wrote them."""

    model_config = ConfigDict(extra="allow")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        known = type(self).model_fields
        return [(name, value) for name, value in super().__repr_args__() if name in known]

    def wire(self) -> dict[str, Any]:
        """JSON-ready, under Runway's names."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


def parse(kind: type[_Answer], payload: object) -> _Answer:
    """Raises `ProtocolError` if it is none."""
    try:
        return kind.model_validate(payload)
    except ValidationError as error:
        reason = explain(error)
    raise ProtocolError(f"Runway's answer has unexpected fields: {reason}.")


class Created(AccountAnswer):
    """Answer to what makes a voice or a task."""

    id: Id


class VoiceOfAvatar(AccountAnswer):
    """Which voice an avatar has. A custom one that is `deleted` has no name any more."""

    type: Text = ""
    preset_id: Shown = None
    id: Shown = None
    name: Shown = None
    description: Shown = None
    deleted: Annotated[bool, BeforeValidator(lambda value: value is True)] = False


class AvatarInfo(AccountAnswer):
    """A custom avatar.

    Attributes:
        id: for `AvatarSession(avatar_id=...)`.
        status: PROCESSING, READY or FAILED. Only a READY one can be shown.
        failure_reason: why it is FAILED.
        reference_image_uri: a small picture of what was given.
        processed_image_uri: a small picture of what was made of it.
        document_ids: of its knowledge.
    """

    id: Id
    status: Status
    name: Text = ""
    failure_reason: Shown = None
    personality: Annotated[Text, Field(repr=False)] = ""
    start_script: Secret = None
    voice: Annotated[VoiceOfAvatar | None, BeforeValidator(_as_object)] = None
    document_ids: Annotated[tuple[str, ...], BeforeValidator(_as_texts)] = ()
    reference_image_uri: Secret = None
    processed_image_uri: Secret = None
    created_at: Shown = None
    updated_at: Shown = None


class AvatarOfDocument(AccountAnswer):
    """An avatar that knows a document."""

    id: Text = ""
    name: Shown = None
    image_url: Secret = None


class DocumentInfo(AccountAnswer):
    """A text of an avatar's knowledge.

    Attributes:
        type: "text" or "file".
        used_by: the avatars that know it.
        content: the text; None in a list.
    """

    id: Id
    name: Text = ""
    type: Text = ""
    used_by: Annotated[tuple[AvatarOfDocument, ...], BeforeValidator(_as_list)] = ()
    content: Secret = None
    created_at: Shown = None
    updated_at: Shown = None


class VoiceInfo(AccountAnswer):
    """A custom voice.

    Attributes:
        status: PROCESSING, READY or FAILED.
        preview_url: where it can be heard, if it is READY.
        failure_reason: why it is FAILED.
    """

    id: Id
    status: Status
    name: Text = ""
    description: Shown = None
    preview_url: Secret = None
    failure_reason: Shown = None
    created_at: Shown = None


class VoicePreview(AccountAnswer):
    """How a description of a voice sounds.

    Attributes:
        url: where it can be heard, for 24 hours.
        duration_secs: seconds.
    """

    url: Annotated[str, Field(min_length=1, repr=False)]
    duration_secs: Number = 0


class Cost(AccountAnswer):
    """In credits."""

    credits: Number = 0


class TaskInfo(AccountAnswer):
    """Something that Runway works on.

    Attributes:
        status: PENDING, THROTTLED, RUNNING, or at its end SUCCEEDED, FAILED or CANCELLED.
        progress: 0 to 1 while it is RUNNING.
        output: addresses of what was made, once it has SUCCEEDED; they expire.
        failure: a text that may change.
        failure_code: stable.
        cost: at its end.
        estimated_cost: before.
    """

    id: Id
    status: Status
    progress: Annotated[float | None, BeforeValidator(_as_number)] = None
    output: Annotated[tuple[str, ...], BeforeValidator(_as_texts), Field(repr=False)] = ()
    failure: Shown = None
    failure_code: Shown = None
    cost: Annotated[Cost | None, BeforeValidator(_as_object)] = None
    estimated_cost: Annotated[Cost | None, BeforeValidator(_as_object)] = None
    created_at: Shown = None


class ModelCredits(AccountAnswer):
    """What one model has used; less than 0 where more was refunded."""

    model: Text = ""
    amount: Number = 0


class DayCredits(AccountAnswer):
    """What was used on one day, in UTC."""

    date: Text = ""
    used_credits: Annotated[tuple[ModelCredits, ...], BeforeValidator(_as_list)] = ()

    @property
    def total(self) -> float:
        """Of all models."""
        return sum(used.amount for used in self.used_credits)


class CreditUsage(AccountAnswer):
    """Credits by day and model."""

    results: tuple[DayCredits, ...]
    models: Annotated[tuple[str, ...], BeforeValidator(_as_texts)] = ()


class UploadPlace(AccountAnswer):
    """Where a file is to be sent, with which fields. Whoever has them may send one."""

    upload_url: Annotated[str, Field(min_length=1, repr=False)]
    fields: Annotated[dict[str, str], Field(repr=False)]
    runway_uri: Annotated[str, Field(pattern=r"^runway://")]
