"""What the REST server takes and answers, as an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any, get_args

from .. import __version__
from ..runway.models import CreateRealtimeSession, PresetId
from .options import Response, ServeOptions

_REF = "#/components/schemas/{model}"
_ID = {"type": "string", "format": "uuid"}
_REFUSALS = {
    400: "The body is wrong, or not what this server allows; `error` names the field.",
    401: "No token, or a wrong one.",
    403: "A page, or a host name, that is not allowed.",
    404: "This server has not made that session.",
    408: "The body did not come in time.",
    413: "The body is too long.",
    415: "The body is not sent as JSON.",
    429: "This client has used up its rate: see Retry-After.",
    500: "The session ended before it was READY.",
    502: "Runway could not be reached, or its answer made no sense.",
    503: "No more sessions now: see Retry-After.",
    504: "Not READY in time; the session is ended.",
}
_MAKES = (400, 401, 403, 408, 413, 415, 429, 500, 502, 503, 504)
_LOOKS = (401, 403, 404, 429, 502, 504)


def document(options: ServeOptions) -> dict[str, Any]:
    """Of a server with these options: what it refuses for them is in no schema."""
    schemas = _schemas(options)
    front_end = {
        "post": {
            "operationId": "makeSession",
            "summary": "Make a session, and wait until it can be joined.",
            "parameters": [
                {
                    "name": "response",
                    "in": "query",
                    "schema": {"type": "string", "enum": list(get_args(Response))},
                }
            ],
            "requestBody": _body("FrontEndSession"),
            "responses": _responses(_ok("JoinableSession"), _MAKES),
        }
    }
    connect = {"post": {**front_end["post"], "operationId": "connect"}}
    one = {"name": "id", "in": "path", "required": True, "schema": _ID}
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "runway-avatar serve",
            "version": __version__,
            "description": "Runway Characters sessions for front ends, without Runway's key.",
        },
        "paths": {
            "/api/avatar/session": front_end,
            "/api/avatar/connect": connect,
            "/v1/realtime-sessions": {
                "post": {
                    "operationId": "createSession",
                    "summary": "Runway's create call.",
                    "requestBody": _body("CreateRealtimeSession"),
                    "responses": _responses(_ok("CreatedSession"), _MAKES),
                }
            },
            "/v1/realtime-sessions/{id}": {
                "parameters": [one],
                "get": {
                    "operationId": "getSession",
                    "summary": "What Runway says of a session that this server made.",
                    "responses": _responses(_ok("Session"), _LOOKS),
                },
                "delete": {
                    "operationId": "endSession",
                    "summary": "End a session that this server made.",
                    "responses": _responses({"204": {"description": "Ended."}}, _LOOKS),
                },
            },
        },
        "components": {"schemas": schemas},
    }
    if options.token is not None:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
    return described


def _schemas(options: ServeOptions) -> dict[str, Any]:
    create = _without_null(CreateRealtimeSession.model_json_schema(ref_template=_REF))
    shared = create.pop("$defs")
    fields = create["properties"]
    fields["maxDuration"]["maximum"] = options.max_duration
    presets = [name for name in options.avatars if name in get_args(PresetId)]
    own = [name for name in options.avatars if name not in presets]
    if options.avatars:
        shared["PresetAvatar"]["properties"]["presetId"]["enum"] = presets
        shared["CustomAvatar"]["properties"]["avatarId"]["enum"] = own
        avatar: dict[str, Any] = {"type": "string", "enum": [*presets, *own]}
    else:
        avatar = {
            "anyOf": [
                {"type": "string", "enum": list(get_args(PresetId))},
                shared["CustomAvatar"]["properties"]["avatarId"],
            ]
        }
    front_end = {name: fields[name] for name in ("maxDuration", "personality", "startScript")}
    text = {"type": "string"}
    return {
        **shared,
        "CreateRealtimeSession": create,
        "FrontEndSession": {
            "type": "object",
            "additionalProperties": False,
            "required": [] if options.avatars else ["avatarId"],
            "properties": {
                "avatarId": avatar,
                **front_end,
                "tools": fields["tools"],
            },
        },
        "JoinableSession": {
            "description": f"By `response`; {options.response} if it is left out.",
            "oneOf": [{"$ref": _REF.format(model=name)} for name in ("SessionKey", "Credentials")],
        },
        "SessionKey": {
            **_object({"sessionId": _ID, "sessionKey": text}, baseUrl=text),
            "description": "`session-key`: consume the session with it, once, at `baseUrl` if that "
            "is there, else at Runway's production host.",
        },
        "Credentials": {
            **_object({"sessionId": _ID, "serverUrl": text, "token": text, "roomName": text}),
            "description": "`credentials`: the session is consumed; join its LiveKit room.",
        },
        "CreatedSession": {"type": "object", "required": ["id"], "properties": {"id": _ID}},
        "Session": {
            "type": "object",
            "required": ["id", "status"],
            "properties": {"id": _ID, "status": text},
        },
        "Refusal": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {**text, "description": "What was wrong, and what to do."},
                "source": {"const": "runway"},
            },
        },
    }


def _without_null(schema: Any) -> Any:
    """Fields may be left out, and not be null: Runway's schema has no null."""
    if isinstance(schema, list):
        return [_without_null(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kinds = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    rest = {
        name: _by_name(value) if name in ("properties", "$defs") else _without_null(value)
        for name, value in schema.items()
        if name not in ("anyOf", "default")
    }
    if "type" in rest.get("properties", {}):  # it says which kind of a thing this is
        rest["required"] = sorted({*rest.get("required", []), "type"})
    if "anyOf" not in schema:
        return rest
    if len(kinds) == 1:
        return {**rest, **_without_null(kinds[0])}
    return {**rest, "anyOf": _without_null(kinds)}


def _by_name(schemas: dict[str, Any]) -> dict[str, Any]:
    """Not a schema, though it may have names of one's keywords."""
    return {name: _without_null(schema) for name, schema in schemas.items()}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
        "additionalProperties": False,
    }


def _body(schema: str) -> dict[str, Any]:
    return {"required": True, "content": _json(schema)}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=schema)}}}


def _ok(schema: str) -> dict[str, Any]:
    return {"200": {"description": "Done.", "content": _json(schema)}}


def _responses(done: dict[str, Any], refusals: tuple[int, ...]) -> dict[str, Any]:
    told = {
        str(status): {"description": _REFUSALS[status], "content": _json("Refusal")}
        for status in refusals
    }
    return {**done, **told}
