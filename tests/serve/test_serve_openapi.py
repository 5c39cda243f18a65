"""The OpenAPI document says what `serve` takes and answers, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from livekit_plugins_runway.serve.openapi import document
from livekit_plugins_runway.serve.options import ServeOptions
from tests.support.serving import FRONT_END, SESSIONS, TOKEN, quick, served

UUID = "0f7a6a1e-93c1-4b43-9d2b-0d1b6b2f6a11"
PRESET = {"type": "runway-preset", "presetId": "influencer"}
ROOM = {"type": "livekit", "url": "wss://example.com", "token": "t", "roomName": "r"}
TOOL = {"type": "client_event", "name": "t", "description": "d"}


async def described() -> dict[str, Any]:
    async with served() as server:
        answer = await server.call("GET", "/openapi.json")
        assert answer.status == 200
        found: dict[str, Any] = answer.body
        return found


def schema_of(told: dict[str, Any], path: str) -> dict[str, Any]:
    body = told["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return {**body, "components": told["components"]}


def refs(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(refs, value.values())) if value else own
    return set().union(*map(refs, value)) if isinstance(value, list) and value else set()


async def test_each_schema_that_it_names_is_in_it_and_each_route_too() -> None:
    told = await described()
    assert told["openapi"] == "3.1.0"
    named = {ref.removeprefix("#/components/schemas/") for ref in refs(told)}
    assert named <= set(told["components"]["schemas"])
    assert set(told["paths"]) == {
        "/api/avatar/session",
        "/api/avatar/connect",
        SESSIONS,
        f"{SESSIONS}/{{id}}",
    }
    for schema in told["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ({"avatarId": "influencer"}, True),
        ({"avatarId": UUID, "maxDuration": 30, "tools": [TOOL]}, True),
        ({}, False),
        ({"avatarId": "nobody"}, False),
        ({"avatarId": None}, False),
        ({"avatarId": "influencer", "maxDuration": 1000}, False),
        ({"avatarId": "influencer", "avatar": PRESET}, False),
        ({"avatarId": "influencer", "tools": [{**TOOL, "parameters": None}]}, False),
        ({"avatarId": "influencer", "tools": [{"name": "t", "description": "d"}]}, False),
    ],
)
async def test_what_a_front_end_may_send_is_what_is_taken(
    body: dict[str, Any], right: bool
) -> None:
    async with served(quick(custom_avatars=(UUID,))) as server:
        told = (await server.call("GET", "/openapi.json")).body
        valid = jsonschema.Draft202012Validator(schema_of(told, FRONT_END)).is_valid(body)
        answer = await server.post(FRONT_END, body)
        assert (valid, answer.status) == (right, 200 if right else 400), answer.body


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ({"model": "gwm1_avatars", "avatar": PRESET}, True),
        ({"avatar": {"type": "custom", "avatarId": UUID}, "personality": "kind"}, True),
        ({"avatar": {"presetId": "influencer"}}, False),
        ({"avatar": PRESET, "personality": ""}, False),
        ({"avatar": PRESET, "startScript": None}, False),
        ({"avatar": PRESET, "surprise": 1}, False),
        ({"avatar": PRESET, "integration": ROOM}, True),
        ({"avatar": PRESET, "integration": {**ROOM, "agentIdentity": None}}, False),
        ({"avatar": PRESET, "integration": {**ROOM, "token": ""}}, False),
        ({"avatar": PRESET, "integration": {**ROOM, "token": "t" * 2049}}, False),
        ({"avatar": PRESET, "integration": {**ROOM, "roomName": "r" * 257}}, False),
        ({"avatar": PRESET, "personality": "p" * 10_001}, False),
    ],
)
async def test_what_runways_own_call_may_send_is_what_is_taken(
    body: dict[str, Any], right: bool
) -> None:
    async with served(quick(custom_avatars=(UUID,))) as server:
        told = (await server.call("GET", "/openapi.json")).body
        valid = jsonschema.Draft202012Validator(schema_of(told, SESSIONS)).is_valid(body)
        answer = await server.post(SESSIONS, body)
        assert (valid, answer.status) == (right, 200 if right else 400), answer.body


def test_it_names_what_this_server_allows_and_whether_it_wants_a_token() -> None:
    told = document(ServeOptions(avatars=("influencer", UUID), max_duration=60, token=TOKEN))
    front_end = told["components"]["schemas"]["FrontEndSession"]["properties"]
    assert front_end["avatarId"]["enum"] == ["influencer", UUID]
    assert front_end["maxDuration"]["maximum"] == 60
    assert told["security"] == [{"token": []}]
    assert TOKEN not in json.dumps(told)
    assert "security" not in document(ServeOptions())


async def test_it_is_for_those_who_may_call() -> None:
    async with served(token=TOKEN) as server:
        assert (await server.call("GET", "/openapi.json")).status == 401
