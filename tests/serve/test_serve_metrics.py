"""What `runway-avatar serve` counts for Prometheus, and who can see it."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from livekit_plugins_runway.errors import ConfigurationError
from livekit_plugins_runway.serve.options import ServeOptions
from livekit_plugins_runway.testing import CallFault, Faults
from tests.support.serving import FRONT_END, SESSIONS, TOKEN, Served, served

BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def text_of(server: Served) -> str:
    async with server.http.get(server.metrics) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        return await answer.text()


async def figures(server: Served, name: str) -> dict[tuple[str, ...], float]:
    """By the values of the labels, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(await text_of(server))
        for sample in family.samples
        if sample.name == f"runway_avatar_serve_{name}"
    }


async def test_sessions_answers_refusals_and_connections_are_counted() -> None:
    refusal = Faults(create=[CallFault(status=429, error="Your daily task limit is reached.")])
    async with served(metrics="0", faults=refusal, token=TOKEN, max_sessions=2) as server:
        body = {"avatarId": "influencer"}
        assert (await server.post(FRONT_END, body, headers=BEARER)).status == 429
        made = [await server.post(FRONT_END, body, headers=BEARER) for _ in range(2)]
        assert await figures(server, "sessions_alive") == {(): 2}
        assert await figures(server, "sessions_most") == {(): 2}
        for path, extra in ((FRONT_END, BEARER), (FRONT_END, {}), ("/nothing", BEARER)):
            await server.post(path, body, headers=extra)
        await server.post(FRONT_END, {"x": 1}, headers=BEARER)
        one = f"{SESSIONS}/{made[0].body['sessionId']}"
        assert (await server.call("DELETE", one, headers=BEARER)).status == 204
        assert await figures(server, "sessions_ended_total") == {("cancelled",): 1}
        assert await figures(server, "sessions_alive") == {(): 1}
        assert await figures(server, "refusals_total") == {
            ("runway", "rest"): 1,
            ("no_room", "rest"): 1,
            ("token", "rest"): 1,
            ("not_found", "rest"): 1,
            ("body", "rest"): 1,
        }
        answers = await figures(server, "requests_total")
        assert answers["rest", "200"] == 2
        assert answers["rest", "204"] == answers["rest", "401"] == answers["rest", "503"] == 1
        assert (await figures(server, "connections_open"))["rest",] >= 1
        text = await text_of(server)
        for private in (TOKEN, "influencer", "127.0.0.1", *server.runway.sessions):
            assert private not in text


async def test_mcp_calls_are_counted_too() -> None:
    pytest.importorskip("mcp")
    async with served(metrics="0", mcp=True, token=TOKEN) as server:
        async with server.http.post(server.mcp, json={}) as answer:
            assert answer.status == 401
        assert (await figures(server, "requests_total")) == {("mcp", "401"): 1}
        assert (await figures(server, "refusals_total")) == {("token", "mcp"): 1}
        assert set(await figures(server, "connections_open")) == {("rest",), ("mcp",)}


async def test_they_are_on_no_port_that_callers_use() -> None:
    pytest.importorskip("mcp")
    async with served(metrics="0", mcp=True) as server:
        for url in (server.rest, server.mcp.removesuffix("/mcp")):
            async with server.http.get(f"{url}/metrics") as answer:
                assert answer.status == 404
        assert server.metrics.startswith("http://127.0.0.1:")


async def test_without_the_option_they_are_nowhere() -> None:
    async with served() as server:
        assert server.metrics == ""
        assert (await server.call("GET", "/metrics")).status == 404


@pytest.mark.parametrize("given", ["", "x", ":9464", "127.0.0.1:", "70000", "8080", "h:9090"])
def test_an_address_that_cannot_be_meant_is_refused_by_name(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^metrics"):
        ServeOptions(metrics=given)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("[::1]:1", ("::1", 1)),
    ],
)
def test_it_is_a_port_of_this_machine_or_an_address(given: str, address: Any) -> None:
    assert ServeOptions(metrics=given).metrics_address == address
