"""The rooms that Runway hosts, on a LiveKit server of one's own."""

from __future__ import annotations

import asyncio
from typing import Self

import aiohttp
from livekit import api

_POLL_INTERVAL = 0.1
"""Seconds. The server's API has no way to wait for a participant."""


class Rooms:
    """Names, tokens and the service API of the server that hosts Runway's rooms.

    A room's name is its session's id; its participants are `user:<id>` and `worker:<id>`."""

    def __init__(self, url: str, api_key: str, api_secret: str) -> None:
        self.url = url
        self._api_key = api_key
        self._api_secret = api_secret
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        self._service = api.LiveKitAPI(
            self.url, self._api_key, self._api_secret, session=self._http
        ).room
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    @staticmethod
    def user_identity(session_id: str) -> str:
        return f"user:{session_id}"

    def user_token(self, session_id: str, *, publish: bool, publish_data: bool) -> str:
        return self._token(session_id, self.user_identity(session_id), publish, publish_data)

    def worker_token(self, session_id: str, identity: str | None = None) -> str:
        return self._token(session_id, identity or f"worker:{session_id}", True, True)

    @staticmethod
    def backend_identity(session_id: str) -> str:
        return f"rpc-handler:{session_id}"

    def backend_token(self, session_id: str) -> str:
        identity = self.backend_identity(session_id)
        return self._token(session_id, identity, False, True, hidden=True)

    def _token(
        self, room: str, identity: str, publish: bool, publish_data: bool, *, hidden: bool = False
    ) -> str:
        grants = api.VideoGrants(
            room_join=True,
            room=room,
            can_publish=publish,
            can_subscribe=True,
            can_publish_data=publish_data,
            hidden=hidden,
        )
        token = api.AccessToken(self._api_key, self._api_secret)
        return token.with_identity(identity).with_grants(grants).to_jwt()

    async def wait_for_user(self, session_id: str) -> None:
        """Return once the user is in the room; waits for ever."""
        identity = self.user_identity(session_id)
        while True:
            if identity in await self._participants(session_id):
                return
            await asyncio.sleep(_POLL_INTERVAL)

    async def _participants(self, room: str) -> list[str]:
        """Those who are connected; none where there is no such room or no server."""
        try:
            answer = await self._service.list_participants(api.ListParticipantsRequest(room=room))
        except (api.TwirpError, aiohttp.ClientError, TimeoutError):
            return []
        return [
            participant.identity
            for participant in answer.participants
            if participant.state == api.ParticipantInfo.State.ACTIVE
        ]

    async def delete(self, session_id: str) -> None:
        """Close the room, if there is one."""
        try:
            await self._service.delete_room(api.DeleteRoomRequest(room=session_id))
        except (api.TwirpError, aiohttp.ClientError, TimeoutError):
            return
