"""What the official plugin sends to create a session, seen by a server that refuses as Runway has.

Needs livekit-plugins-runway; no LiveKit server and no key.
"""

import asyncio
from unittest import mock

import aiohttp
from aiohttp import web
from livekit import rtc
from livekit.agents import APIStatusError
from livekit.plugins import runway

KNOWN = {
    *("model", "avatar", "maxDuration", "personality", "startScript", "tools", "integration"),
}
"""Top-level keys of Runway's create call (schema 2024-11-06) that are not deprecated."""


async def create(request: web.Request) -> web.Response:
    body = await request.json()
    print("sent:", sorted(body), "livekit:", sorted(body.get("livekit", {})))
    if unknown := [key for key in body if key not in KNOWN]:
        issues = [{"code": "unrecognized_keys", "keys": unknown, "path": []}]
        return web.json_response(
            {"error": f'Unrecognized key: "{unknown[0]}"', "issues": issues}, status=400
        )
    return web.json_response({"id": "9d0e7a3c-0000-4000-8000-000000000000"})


async def main() -> None:
    app = web.Application()
    app.add_routes([web.post("/v1/realtime_sessions", create)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    room = mock.MagicMock(spec=rtc.Room)
    room.name, room.remote_participants = "call", {}
    job = mock.Mock(local_participant_identity="agent")
    keys = {"livekit_api_key": "key", "livekit_api_secret": "s" * 32}
    async with aiohttp.ClientSession() as http:
        places = "livekit.plugins.runway.avatar."
        with (
            mock.patch(places + "get_job_context", return_value=job),
            mock.patch(places + "utils.http_context.http_session", return_value=http),
        ):
            avatar = runway.AvatarSession(preset_id="influencer", api_url=url, api_key="key_x")
            try:
                await avatar.start(mock.Mock(), room, livekit_url="wss://a.example", **keys)
            except APIStatusError as error:
                print("refused:", error.status_code, error.body)
    await runner.cleanup()


asyncio.run(main())
