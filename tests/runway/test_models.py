"""The models against the published schema, both ways, and what they promise beyond it."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from livekit_plugins_runway.errors import ProtocolError
from livekit_plugins_runway.runway.models import (
    BackendRpcTool,
    Cancelled,
    ClientEventTool,
    Completed,
    CreatedSession,
    CreateRealtimeSession,
    CustomAvatar,
    ElevenLabsIntegration,
    Failed,
    LiveKitIntegration,
    NotReady,
    ObjectParameter,
    PresetAvatar,
    Ready,
    Running,
    StringParameter,
    Unknown,
    parse_session,
)
from livekit_plugins_runway.runway.wire import explain
from tests.support.published import REALTIME, REQUEST, VALIDATOR, strict
from tests.support.schema_bodies import values_of

AVATAR = PresetAvatar(preset_id="influencer")
TOKEN = "eyJ-very-secret-token"


URLS = st.sampled_from(["wss://livekit.example.com", "https://h.example/a?b=c", "wss://h:7880"])
FORMATS = {"uri": URLS}
SLOW_TO_DRAW = settings(
    max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def utf16_fits(value: Any) -> bool:
    """Whether no text has a character that counts as one in the schema and as two on the wire."""
    return all(ord(character) <= 0xFFFF for character in json.dumps(value, ensure_ascii=False))


def expressible(body: dict[str, Any]) -> bool:
    names = [tool["name"] for tool in body.get("tools", [])]
    return len(names) == len(set(names)) and utf16_fits(body)


BODIES = values_of(REQUEST, FORMATS).filter(expressible)


@pytest.mark.slow
@SLOW_TO_DRAW
@given(BODIES)
def test_every_schema_valid_body_is_expressible_and_goes_out_unchanged(
    body: dict[str, Any],
) -> None:
    assert CreateRealtimeSession.model_validate(body).wire() == body


LENGTHS = (0, 1, 64, 65, 256, 257, 1024, 1025, 2000, 2001, 2048, 2049, 10_000, 10_001)
EDGES: list[Any] = [
    *("x" * length for length in LENGTHS),
    *("\N{GRINNING FACE}" * (length // 2 + 1) for length in LENGTHS),
    *(-1, 0, 1, 8, 8.5, 9, 10, 10.5, 300, 1800, 1801, True, None, "300", "a-b", "name\n"),
    *([], {}, ["a"] * 20, ["a"] * 21, "wss://h", "ftp://h", "custom", "influencer"),
    "3f2b8a34-0c1d-4e5f-8a9b-0123456789ab",
    "3f2b8a34-0c1d-1e5f-8a9b-0123456789ab\n",
]


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A valid body in which one value is replaced, removed, or added."""
    body: dict[str, Any] = json.loads(json.dumps(draw(BODIES)))
    spot: Any = body
    while True:
        keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        if isinstance(spot, dict):
            keys += ["livekit", "maxDuration", "personality", "startScript", "unknown"]
        if not keys:
            return body
        key = draw(st.sampled_from(keys))
        inner = spot[key] if isinstance(spot, list) or key in spot else None
        if isinstance(inner, dict | list) and inner and draw(st.booleans()):
            spot = inner
            continue
        if draw(st.integers(0, 9)) == 0:
            spot.pop(key, None) if isinstance(spot, dict) else spot.pop(key)
        else:
            spot[key] = draw(st.sampled_from(EDGES))
        return body


@pytest.mark.slow
@settings(SLOW_TO_DRAW, max_examples=100)
@given(damaged())
def test_what_the_model_accepts_the_schema_accepts(body: dict[str, Any]) -> None:
    try:
        wire = CreateRealtimeSession.model_validate(body).wire()
    except ValidationError:
        return
    VALIDATOR.validate(json.loads(json.dumps(wire)))


def tools(count: int) -> list[dict[str, Any]]:
    return [{"type": "client_event", "name": f"t{i}", "description": "d"} for i in range(count)]


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("max_duration", (10, 1800), (9, 1801)),
        ("personality", ("x", "x" * 10_000), ("", "x" * 10_001)),
        ("start_script", ("x", "x" * 2_000), ("", "x" * 2_001)),
        ("start_script", ("\U0001f600" * 1_000,), ("\U0001f600" * 1_001,)),
        ("tools", (tools(0), tools(20)), (tools(21),)),
        ("avatar", ({"type": "runway-preset", "presetId": "cat-character"},), ({"type": "none"},)),
    ],
)
def test_limits_hold_at_their_edges(field: str, good: tuple[Any], bad: tuple[Any]) -> None:
    for value in good:
        wire = CreateRealtimeSession(**{"avatar": AVATAR, field: value}).wire()
        VALIDATOR.validate(wire)
    for value in bad:
        with pytest.raises(ValidationError):
            CreateRealtimeSession(**{"avatar": AVATAR, field: value})


def test_only_what_was_set_goes_out() -> None:
    assert CreateRealtimeSession(avatar=AVATAR).wire() == {
        "model": "gwm1_avatars",
        "avatar": {"type": "runway-preset", "presetId": "influencer"},
    }


def test_the_deprecated_livekit_key_cannot_be_sent() -> None:
    livekit = {"url": "wss://h", "token": "t", "roomName": "r"}
    with pytest.raises(ValidationError, match="livekit"):
        CreateRealtimeSession.model_validate({"avatar": AVATAR, "livekit": livekit})


@pytest.mark.parametrize("avatar_id", ["", "x", "3f2b8a34-0c1d-1e5f-8a9b-0123456789ab"])
def test_a_custom_avatar_needs_a_version_4_uuid(avatar_id: str) -> None:
    with pytest.raises(ValidationError):
        CustomAvatar(avatar_id=avatar_id)


def test_tools_with_the_same_name_are_refused_by_name() -> None:
    tools = (
        ClientEventTool(name="wave", description="d"),
        BackendRpcTool(name="wave", description="d"),
    )
    with pytest.raises(ValidationError, match="wave"):
        CreateRealtimeSession(avatar=AVATAR, tools=tools)


def test_parameters_nest() -> None:
    inner = StringParameter(name="street", description="d", enum=("a", "b"))
    address = ObjectParameter(name="address", description="d", properties=(inner, {"any": None}))
    tool = BackendRpcTool(name="go", description="d", parameters=(address,), timeout_seconds=8)
    wire = CreateRealtimeSession(avatar=AVATAR, tools=(tool,)).wire()
    VALIDATOR.validate(wire)
    properties = wire["tools"][0]["parameters"][0]["properties"]
    assert properties == [
        {"type": "string", "name": "street", "description": "d", "enum": ["a", "b"]},
        {"any": None},
    ]
    again = CreateRealtimeSession.model_validate(wire)
    assert again.tools is not None
    parameters = again.tools[0].parameters
    assert parameters is not None
    assert parameters[0] == address


LIVEKIT = LiveKitIntegration(url="wss://h", token=TOKEN, room_name="r", agent_identity="a")  # type: ignore[arg-type]
ELEVENLABS = ElevenLabsIntegration(signed_url=f"wss://h/?signature={TOKEN}")  # type: ignore[arg-type]


@pytest.mark.parametrize("integration", [LIVEKIT, ELEVENLABS])
def test_secrets_are_on_the_wire_and_nowhere_else(
    integration: LiveKitIntegration | ElevenLabsIntegration,
) -> None:
    request = CreateRealtimeSession(avatar=AVATAR, integration=integration)
    assert TOKEN in json.dumps(request.wire())
    assert any(TOKEN in secret for secret in request.secrets())
    for text in (repr(request), str(request), request.model_dump_json(), repr(vars(request))):
        assert TOKEN not in text


def test_a_validation_error_does_not_tell_the_secret() -> None:
    body = {"type": "livekit", "url": "http:/nowhere", "token": TOKEN * 200, "roomName": ""}
    with pytest.raises(ValidationError) as caught:
        LiveKitIntegration.model_validate(body)
    for text in (str(caught.value), repr(caught.value), explain(caught.value)):
        assert TOKEN not in text
    assert "roomName" in explain(caught.value)


def test_models_are_immutable_values() -> None:
    request = CreateRealtimeSession(avatar=AVATAR, integration=LIVEKIT)
    with pytest.raises(ValidationError):
        request.max_duration = 20
    assert pickle.loads(pickle.dumps(request)) == request


STATES = values_of(strict(REALTIME["get_response"]), {})


@pytest.mark.slow
@SLOW_TO_DRAW
@given(STATES, st.dictionaries(st.text(min_size=20, max_size=30), st.none() | st.text()))
def test_every_published_state_is_understood_with_unknown_fields_too(
    payload: dict[str, Any], unknown: dict[str, Any]
) -> None:
    state = parse_session({**unknown, **payload})
    assert (state.status, state.id) == (payload["status"], payload["id"])
    match state:
        case NotReady(queued=queued):
            assert queued == payload.get("queued", False)
        case Ready(session_key=key, expires_at=expires_at):
            assert key.get_secret_value() == payload["sessionKey"]
            assert expires_at == payload["expiresAt"]
        case Completed(duration=duration):
            told = payload["duration"]
            assert duration == (told if told >= 0 else None)
        case Failed(failure=failure, failure_code=code):
            assert (failure, code) == (payload["failure"], payload["failureCode"])


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "READY",
        {},
        {"id": "i", "createdAt": "t", "status": ["READY"]},
        {"id": "i", "createdAt": "t", "sessionKey": TOKEN},
        {"data": {"id": "i", "status": "READY", "sessionKey": TOKEN}},
    ],
)
def test_a_state_without_a_status_is_a_protocol_error(payload: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_session(payload)
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_status_that_is_not_known_is_kept_as_it_came() -> None:
    state = parse_session({"id": "i", "createdAt": "t", "status": "Paused"})
    assert isinstance(state, Unknown)
    assert state.status == "Paused"


@pytest.mark.parametrize("status", ["ready", " Ready ", "READY"])
def test_a_status_counts_in_any_case(status: str) -> None:
    state = parse_session({"status": status, "sessionKey": "stk_1"})
    assert isinstance(state, Ready)
    assert (state.status, state.session_key.get_secret_value()) == ("READY", "stk_1")


ODD: list[Any] = [None, 1, 1.5, True, [], {}, [TOKEN], "", "\ud800"]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("NOT_READY", NotReady),
        ("READY", Ready),
        ("RUNNING", Running),
        ("COMPLETED", Completed),
        ("FAILED", Failed),
        ("CANCELLED", Cancelled),
        ("PAUSED", Unknown),
    ],
)
def test_whatever_else_is_in_a_state_its_status_is_believed(
    status: str, kind: type[object], odd: object
) -> None:
    others = ("id", "createdAt", "expiresAt", "queued", "duration", "failure", "failureCode")
    for payload in ({}, dict.fromkeys(others, odd), {"sessionKey": odd}):
        state = parse_session({**payload, "status": status})
        assert isinstance(state, kind)
        assert TOKEN not in repr(state)
        repr(state).encode()  # nothing in it that cannot be printed


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (315, 315),
        (315.4, 315.4),
        ("315", 315.0),
        (0, 0),
        (None, None),
        (-1, None),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
        ("soon", None),
        ([315], None),
        (10**400, None),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_not_known(
    told: object, seconds: float | None
) -> None:
    state = parse_session({"status": "COMPLETED", "duration": told})
    assert isinstance(state, Completed)
    assert state.duration == seconds


@pytest.mark.parametrize(
    ("told", "queued"), [("true", True), (True, True), (None, False), (1, False)]
)
def test_only_what_says_so_is_queued(told: object, queued: bool) -> None:
    state = parse_session({"status": "NOT_READY", "queued": told})
    assert isinstance(state, NotReady)
    assert state.queued is queued


@pytest.mark.parametrize(("told", "known"), [("a", "a"), (123, "123")])
def test_an_id_may_be_a_number(told: object, known: str) -> None:
    assert CreatedSession.model_validate({"id": told}).id == known


@pytest.mark.parametrize("told", ["", None, True, 1.5, [1]])
def test_what_cannot_be_an_id_is_none(told: object) -> None:
    with pytest.raises(ValidationError):
        CreatedSession.model_validate({"id": told})
