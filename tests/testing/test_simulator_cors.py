"""A page may consume at the simulator, as at Runway, and read why if it may not."""

from __future__ import annotations

import aiohttp
import pytest

from livekit_plugins_runway.testing import CallFault, Faults, RunwaySimulator, SimulatorOptions

PAGE = {"Origin": "http://localhost:3000"}
PATH = "/v1/realtime_sessions"
ALLOWED = "Access-Control-Allow-Origin"


async def test_a_browser_is_told_that_a_page_may_consume() -> None:
    async with RunwaySimulator() as runway, aiohttp.ClientSession() as http:
        asks = {
            **PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        async with http.options(f"{runway.url}{PATH}/x/consume", headers=asks) as answer:
            assert answer.status == 204
            assert answer.headers[ALLOWED] == "*"
            assert answer.headers["Access-Control-Allow-Methods"] == "POST"
            named = answer.headers["Access-Control-Allow-Headers"].lower()
            assert {"authorization", "content-type"} <= set(named.split(", "))
        async with http.options(runway.url + PATH, headers=asks) as answer:
            assert answer.status == 405  # what needs the API key is for no page
            assert ALLOWED not in answer.headers


@pytest.mark.parametrize("fault", [None, CallFault(status=503), CallFault(malformed=True)])
async def test_a_page_reads_what_consume_answers(fault: CallFault | None) -> None:
    options = SimulatorOptions(queue_delay=0, provisioning_delay=0)
    async with RunwaySimulator(options=options) as runway, aiohttp.ClientSession() as http:
        runway.faults.for_next_session(Faults(consume=[] if fault is None else [fault]))
        body = {
            "model": "gwm1_avatars",
            "avatar": {"type": "runway-preset", "presetId": "influencer"},
        }
        key = {"Authorization": f"Bearer {runway.api_secret}", "X-Runway-Version": "2024-11-06"}
        async with http.post(runway.url + PATH, json=body, headers=key) as answer:
            session = runway.sessions[(await answer.json())["id"]]
            assert ALLOWED not in answer.headers
        await runway.wait_for(session, "READY")
        url = f"{runway.url}{PATH}/{session.id}/consume"
        for bearer, status in (("wrong", 404), (session.session_key, None), ("wrong", 404)):
            headers = {**PAGE, "Authorization": f"Bearer {bearer}"}
            async with http.post(url, json={}, headers=headers) as answer:
                assert answer.headers[ALLOWED] == "*"
                assert answer.status == (status or (fault and fault.status) or 200)
        async with http.get(url, headers=PAGE) as answer:
            assert (answer.status, answer.headers[ALLOWED]) == (405, "*")
