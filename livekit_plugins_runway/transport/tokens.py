"""Tokens of the agent's LiveKit server for avatar participants, and its API to remove them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
from livekit import api
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF
from pydantic import ValidationError

from .._common.http import new_session
from ..errors import ConfigurationError, UnavailableError
from ..log import logger
from ..runway.models import LiveKitIntegration
from ..runway.wire import explain
from .identity import ATTRIBUTE_GAVE_WAY
from .participant_options import ParticipantOptions, TokenRequest, TokenSource

PARTICIPANT_TTL = datetime.timedelta(hours=1)
ATTRIBUTE_INVITATION = "runway.invitation"
"""Tells two workers of the same identity apart."""
_API_TIMEOUT = 2.0
"""Seconds for a call of the room service."""
_SERVER_ERRORS = (api.TwirpError, aiohttp.ClientError, TimeoutError)
_TOKEN_TIMEOUT = 10.0
"""Seconds that `ParticipantOptions.token` may take."""


@dataclass(frozen=True)
class RoomCredentials:
    """The agent's room, and the credentials of its server.

    Attributes:
        room: its name.
        agent_identity: of the participant on whose behalf the avatar publishes.
        api_key, api_secret: may be "" if `ParticipantOptions.token` makes the bridge's token.
        participant: attributes of the avatar participant, and who makes its token.
    """

    url: str
    api_key: str
    api_secret: str = field(repr=False)
    room: str
    agent_identity: str
    participant: ParticipantOptions = field(default_factory=ParticipantOptions)

    async def participant_token(self, identity: str, name: str, gave_way: str = "") -> str:
        """A token for the avatar participant of the bridge: it may publish a camera and a
        microphone.

        Args:
            gave_way: see `ATTRIBUTE_GAVE_WAY`.

        Raises:
            UnavailableError: `ParticipantOptions.token` did not make one.
        """
        more = {ATTRIBUTE_GAVE_WAY: gave_way} if gave_way else {}
        if self.participant.token is not None:
            return await self._token_of(self.participant.token, identity, name, more)
        return self._token(identity, name, PARTICIPANT_TTL, data=False, more=more)

    async def _token_of(
        self, source: TokenSource, identity: str, name: str, more: dict[str, str]
    ) -> str:
        attributes, metadata = self._attributes(more), self.participant.metadata
        request = TokenRequest(self.url, self.room, identity, name, attributes, metadata)
        try:
            async with asyncio.timeout(_TOKEN_TIMEOUT):
                token: object = await source(request)
        except Exception as error:
            raise UnavailableError(
                "The avatar participant got no token: ParticipantOptions.token has raised "
                f"{type(error).__name__}, or took longer than {_TOKEN_TIMEOUT:g} s."
            ) from error
        if not isinstance(token, str) or not token:
            raise UnavailableError(
                "The avatar participant got no token: ParticipantOptions.token has returned "
                f"{type(token).__name__}, not a token."
            )
        return token

    def _attributes(self, more: dict[str, str]) -> dict[str, str]:
        spoken_for = {ATTRIBUTE_PUBLISH_ON_BEHALF: self.agent_identity}
        return {**self.participant.attributes, **spoken_for, **more}

    def worker_integration(
        self, identity: str, name: str, ttl: datetime.timedelta, invitation: str = ""
    ) -> LiveKitIntegration:
        """The invitation for Runway's worker: the URL and a token to join this room and to speak
        for this agent.

        Args:
            invitation: becomes an attribute of the participant, if given.

        Raises:
            ConfigurationError: something is longer than Runway accepts.
        """
        more = {ATTRIBUTE_INVITATION: invitation} if invitation else {}
        try:
            return LiveKitIntegration.model_validate(
                {
                    "url": self.url,
                    "token": self._token(identity, name, ttl, data=True, more=more),
                    "room_name": self.room,
                    "agent_identity": self.agent_identity,
                }
            )
        except ValidationError as error:
            raise ConfigurationError(
                f"Runway's worker cannot be invited to this room: {explain(error)}. Use a shorter "
                "room name, agent identity, avatar_participant_identity, avatar_participant_name, "
                "or attributes."
            ) from None

    def _token(
        self,
        identity: str,
        name: str,
        ttl: datetime.timedelta,
        *,
        data: bool,
        more: dict[str, str],
    ) -> str:
        # Kind and attribute are in the token, so that no client ever sees the participant without
        # them. Front ends, and the agent itself, recognise the avatar by them. Byte streams, RPC
        # and data reach a participant that may not subscribe (livekit-server 1.11.0).
        grants = api.VideoGrants(
            room_join=True,
            room=self.room,
            can_publish=True,
            can_publish_sources=["camera", "microphone"],
            can_publish_data=data,
            can_subscribe=False,
        )
        return (
            api.AccessToken(api_key=self.api_key, api_secret=self.api_secret)
            .with_kind("agent")
            .with_identity(identity)
            .with_name(name)
            .with_grants(grants)
            .with_attributes(self._attributes(more))
            .with_metadata(self.participant.metadata)
            .with_ttl(ttl)
            .to_jwt()
        )

    async def remove(self, identity: str) -> None:
        """Remove a participant from the room. Takes 2 s at most, and does not raise."""
        try:
            async with self._api() as livekit:
                await livekit.room.remove_participant(self._participant(identity))
        except _SERVER_ERRORS as error:
            if not _is_not_found(error):
                logger.warning(
                    "an avatar worker could not be removed from the room",
                    extra={"lk.pii.identity": identity, "error": type(error).__name__},
                )

    async def retire(self, identity: str) -> None:
        """Have front ends show this participant no more: from now on it speaks for itself, and for
        no agent. Without the attribute, they would take it for an agent. Takes 2 s at most, and
        does not raise.
        """
        request = api.UpdateParticipantRequest(
            room=self.room, identity=identity, attributes={ATTRIBUTE_PUBLISH_ON_BEHALF: identity}
        )
        try:
            async with self._api() as livekit:
                await livekit.room.update_participant(request)
        except _SERVER_ERRORS as error:
            if not _is_not_found(error):
                told = {"lk.pii.identity": identity, "error": type(error).__name__}
                logger.debug("an avatar worker is shown until it has left", extra=told)

    async def is_taken(self, identity: str) -> bool:
        """True if another agent's avatar, or any other participant, is in the room with this
        identity. Asks the server; takes 2 s at most, and does not raise. False if the server does
        not answer.
        """
        if not self.api_secret:
            return False
        try:
            async with self._api() as livekit:
                there = await livekit.room.get_participant(self._participant(identity))
        except _SERVER_ERRORS as error:
            if not _is_not_found(error):
                told = {"error": type(error).__name__}
                logger.debug("the LiveKit server did not answer who is in the room", extra=told)
            return False
        return there.attributes.get(ATTRIBUTE_PUBLISH_ON_BEHALF) != self.agent_identity

    @contextlib.asynccontextmanager
    async def _api(self) -> AsyncIterator[api.LiveKitAPI]:
        async with (
            asyncio.timeout(_API_TIMEOUT),
            new_session() as http,
            api.LiveKitAPI(self.url, self.api_key, self.api_secret, session=http) as livekit,
        ):
            yield livekit

    def _participant(self, identity: str) -> api.RoomParticipantIdentity:
        return api.RoomParticipantIdentity(room=self.room, identity=identity)


def _is_not_found(error: Exception) -> bool:
    return isinstance(error, api.TwirpError) and error.code == "not_found"
