"""Runway's realtime-session requests and responses (Runway API schema 2024-11-06).

Requests know the published limits and refuse unknown fields, because Runway refuses them too.
Responses tolerate fields they do not know, and of those that they know they demand only what the
package cannot do without. All are immutable. Secrets are `SecretStr`: hidden in
`repr()`, in `model_dump()` and in the text of validation errors, present only in `wire()`.

What they have in common is in `wire`; `wire()` gives a body under Runway's names.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    JsonValue,
    SecretStr,
    StrictBool,
    Tag,
    ValidationError,
    WithJsonSchema,
    field_validator,
)

from ..errors import ProtocolError
from .wire import (
    UUID4,
    Shown,
    Text,
    WireRequest,
    WireResponse,
    as_id,
    as_text,
    at_most,
    explain,
    utf16_length,
)


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("wss", "https", "ws", "http") or not parts.hostname:
        raise ValueError("must be a wss:// or https:// address with a host")
    return url


_AN_ADDRESS = WithJsonSchema(
    {"type": "string", "pattern": r"^(wss|https|ws|http)://[A-Za-z0-9._-]+(:[0-9]+)?([/?#]|$)"}
)
_LONGEST_TOKEN = 2048
_A_TOKEN = Field(json_schema_extra={"minLength": 1, "maxLength": _LONGEST_TOKEN})


def _check_token(token: SecretStr) -> SecretStr:
    if not 1 <= utf16_length(token.get_secret_value()) <= _LONGEST_TOKEN:
        raise ValueError(
            f"1 to {_LONGEST_TOKEN} characters: keep the token's attributes and metadata small"
        )
    return token


def _check_signed_url(url: SecretStr) -> SecretStr:
    _check_url(url.get_secret_value())
    return url


PresetId = Literal[
    "game-character",
    "music-superstar",
    "game-character-man",
    "cat-character",
    "influencer",
    "tennis-coach",
    "human-resource",
    "fashion-designer",
    "cooking-teacher",
]
"""The preset avatars that Runway publishes."""


class PresetAvatar(WireRequest):
    """An avatar that Runway provides."""

    type: Literal["runway-preset"] = "runway-preset"
    preset_id: PresetId


class CustomAvatar(WireRequest):
    """An avatar of the key's own project, by its id (a version 4 UUID)."""

    type: Literal["custom"] = "custom"
    avatar_id: Annotated[str, Field(pattern=UUID4)]


Avatar = Annotated[PresetAvatar | CustomAvatar, Field(discriminator="type")]

_Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]
_Description = Annotated[str, Field(min_length=1), at_most(1024)]


class _Parameter(WireRequest):
    name: _Name
    description: _Description
    required: StrictBool | None = None
    """Runway takes None (not sent) as True."""


class StringParameter(_Parameter):
    """A text argument; `enum` limits it to at most 20 values of at most 64 characters."""

    type: Literal["string"] = "string"
    enum: Annotated[tuple[Annotated[str, at_most(64)], ...], Field(max_length=20)] | None = None


class IntegerParameter(_Parameter):
    """A whole-number argument."""

    type: Literal["integer"] = "integer"


class NumberParameter(_Parameter):
    """A number argument."""

    type: Literal["number"] = "number"


class BooleanParameter(_Parameter):
    """A true-or-false argument."""

    type: Literal["boolean"] = "boolean"


class ArrayItems(WireRequest):
    """What an array argument consists of: scalars only."""

    type: Literal["string", "integer", "number", "boolean"]


class ArrayParameter(_Parameter):
    """A list of scalars."""

    type: Literal["array"] = "array"
    items: ArrayItems


_PARAMETER_TYPES = ("string", "integer", "number", "boolean", "array", "object")


def _is_parameter(value: object) -> Literal["parameter", "json"]:
    """By its `type` alone, so that what is wrong is looked at once, and not as either: nested, that
    took 2 to the power of the depth (measured: seconds for 12 KB)."""
    if isinstance(value, _Parameter):
        return "parameter"
    known = isinstance(value, dict) and value.get("type") in _PARAMETER_TYPES
    return "parameter" if known else "json"


class ObjectParameter(_Parameter):
    """An object with at most 20 properties.

    The published schema does not say what a property looks like. What has the `type` of a parameter
    is one, and must be right; any other JSON is kept as it is, for Runway to judge.
    """

    type: Literal["object"] = "object"
    properties: Annotated[
        tuple[
            Annotated[
                Annotated[ToolParameter, Tag("parameter")] | Annotated[JsonValue, Tag("json")],
                Discriminator(_is_parameter),
            ],
            ...,
        ],
        Field(max_length=20),
    ]


ToolParameter = Annotated[
    StringParameter
    | IntegerParameter
    | NumberParameter
    | BooleanParameter
    | ArrayParameter
    | ObjectParameter,
    Field(discriminator="type"),
]


class _Tool(WireRequest):
    name: _Name
    description: _Description
    parameters: Annotated[tuple[ToolParameter, ...], Field(max_length=20)] | None = None


class ClientEventTool(_Tool):
    """A tool whose call reaches the room as a data message and expects no result."""

    type: Literal["client_event"] = "client_event"


class BackendRpcTool(_Tool):
    """A tool whose call is an RPC that must be answered within `timeout_seconds` (1 to 8)."""

    type: Literal["backend_rpc"] = "backend_rpc"
    timeout_seconds: Annotated[float, Field(ge=1, le=8, allow_inf_nan=False)] | None = None


Tool = Annotated[ClientEventTool | BackendRpcTool, Field(discriminator="type")]


class LiveKitIntegration(WireRequest):
    """Runway's worker joins this room by itself and takes its speech from an agent there.

    Runway demands a wss:// or https:// address that resolves to a public host. That is not checked
    here, so that a server on a private address can be used with a private Runway stand-in.
    """

    type: Literal["livekit"] = "livekit"
    url: Annotated[str, AfterValidator(_check_url), _AN_ADDRESS]
    token: Annotated[SecretStr, AfterValidator(_check_token), _A_TOKEN]
    room_name: Annotated[str, Field(min_length=1), at_most(256)]
    agent_identity: Annotated[str, Field(min_length=1), at_most(256)] | None = None


class ElevenLabsIntegration(WireRequest):
    """An ElevenLabs agent holds the conversation; `signed_url` is as good as a password."""

    type: Literal["elevenlabs"] = "elevenlabs"
    signed_url: Annotated[SecretStr, AfterValidator(_check_signed_url), _AN_ADDRESS]


Integration = Annotated[LiveKitIntegration | ElevenLabsIntegration, Field(discriminator="type")]


class CreateRealtimeSession(WireRequest):
    """Body of `POST /v1/realtime_sessions`. None means: not sent, Runway's default applies.

    Attributes:
        avatar: whose face.
        max_duration: seconds, 10 to 1800; Runway's default is 300.
        personality: 1 to 10 000 characters, instead of the avatar's own.
        start_script: 1 to 2 000 characters that are spoken first.
        tools: at most 20, with unique names.
        integration: who holds the conversation, where Runway does not.

    Raises:
        pydantic.ValidationError: outside the published limits; see `explain`.
    """

    model: Literal["gwm1_avatars"] = "gwm1_avatars"
    avatar: Avatar
    max_duration: Annotated[int, Field(ge=10, le=1800)] | None = None
    personality: Annotated[str, Field(min_length=1), at_most(10_000)] | None = None
    start_script: Annotated[str, Field(min_length=1), at_most(2_000)] | None = None
    tools: Annotated[tuple[Tool, ...], Field(max_length=20)] | None = None
    integration: Integration | None = None

    @field_validator("tools")
    @classmethod
    def _names_are_unique(cls, tools: tuple[Tool, ...] | None) -> tuple[Tool, ...] | None:
        names = [tool.name for tool in tools or ()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"tool names must be unique, given twice: {', '.join(twice)}")
        return tools

    def wire(self) -> dict[str, Any]:
        """The body as JSON-ready values under Runway's names, secrets included, None left out."""
        body = self.model_dump(by_alias=True, exclude_none=True)
        return {name: _plain(value) for name, value in body.items()}

    def secrets(self) -> tuple[str, ...]:
        """The secret values of the body, for those who must keep them out of a text."""
        match self.integration:
            case LiveKitIntegration(token=secret) | ElevenLabsIntegration(signed_url=secret):
                return (secret.get_secret_value(),)
            case _:
                return ()


def _plain(value: Any) -> Any:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _:
            return value


def _as_key(value: object) -> object:
    return value if isinstance(value, SecretStr) else as_text(value) or ""


def _as_seconds(value: object) -> float | None:
    """A number, or a text that is one; None for what cannot be a duration."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    if not 0 <= seconds < math.inf:
        return None
    return value if isinstance(value, int) else seconds


_Key = Annotated[SecretStr, BeforeValidator(_as_key)]
_Flag = Annotated[bool, BeforeValidator(lambda value: str(value).lower() == "true")]


class CreatedSession(WireResponse):
    """Answer to a create. The id is a UUID today; any non-empty text or whole number is taken, so
    that a session with an id of a new kind can still be ended."""

    id: Annotated[str, Field(min_length=1), BeforeValidator(as_id)]


class ConsumedCredentials(WireResponse):
    """Answer to consume: how to join the Runway room, usable once."""

    url: Annotated[str, AfterValidator(_check_url), _AN_ADDRESS]
    token: SecretStr
    room_name: Text = ""
    """To be shown: the token says which room it is for."""


class _Session(WireResponse):
    id: Shown = None
    created_at: Shown = None
    """ISO 8601, as Runway wrote it."""


class NotReady(_Session):
    """Not usable yet. `queued`: waits for capacity; otherwise it is being provisioned."""

    status: Literal["NOT_READY"]
    queued: _Flag = False


class Ready(_Session):
    """Can be consumed now, with `session_key`, once; dies in about 21 seconds if it is not.

    `expires_at` (ISO 8601) is about the key, not about that window: do not plan with it.
    `session_key` is "" where Runway gave none, which only a session that nobody consumes can do
    without.
    """

    status: Literal["READY"]
    expires_at: Shown = None
    session_key: _Key = SecretStr("")


class Running(_Session):
    """Its credentials were taken; it bills."""

    status: Literal["RUNNING"]


class Completed(_Session):
    """Ended in good order after `duration` seconds; None if Runway does not say after how many."""

    status: Literal["COMPLETED"]
    duration: Annotated[int | float | None, BeforeValidator(_as_seconds)] = None


class Failed(_Session):
    """Ended by an error. `failure` is a text that may change, `failure_code` is stable; both are ""
    where Runway gave none."""

    status: Literal["FAILED"]
    failure: Text = ""
    failure_code: Text = ""


class Cancelled(_Session):
    """Ended by a DELETE, or by Runway before it ran."""

    status: Literal["CANCELLED"]


class Unknown(_Session):
    """In a status that the published schema does not have: no end, and nothing to go by."""

    status: str


RealtimeSessionState = NotReady | Ready | Running | Completed | Failed | Cancelled | Unknown
"""What `GET /v1/realtime_sessions/{id}` may say."""

TERMINAL_STATES = (Completed, Failed, Cancelled)
"""Classes of the states that never change again and no longer bill: for `isinstance`."""

_BY_STATUS: dict[str, type[RealtimeSessionState]] = {
    "NOT_READY": NotReady,
    "READY": Ready,
    "RUNNING": Running,
    "COMPLETED": Completed,
    "FAILED": Failed,
    "CANCELLED": Cancelled,
}


def parse_session(payload: object) -> RealtimeSessionState:
    """The state of a session from the decoded JSON of a GET; a status counts in any case.

    Raises:
        ProtocolError: not an object with a status that is text.
    """
    status = payload.get("status") if isinstance(payload, dict) else None
    if not isinstance(payload, dict) or not isinstance(status, str):
        raise ProtocolError("Runway described the session without saying its status.")
    known = status.strip().upper()
    kind = _BY_STATUS.get(known, Unknown)
    try:
        return kind.model_validate({**payload, "status": known if kind is not Unknown else status})
    except ValidationError as error:
        reason = explain(error)
    raise ProtocolError(f"Runway described the session in a way that its schema does not: {reason}")
