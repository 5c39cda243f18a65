"""What the agent's server grants to an avatar participant, and which addresses are public."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from typing import Any

import jwt
import pytest
from aiohttp import web
from livekit import api

from livekit_plugins_runway.errors import ConfigurationError, UnavailableError
from livekit_plugins_runway.transport.factory import check_transport
from livekit_plugins_runway.transport.livekit_url import check_public
from livekit_plugins_runway.transport.participant_options import ParticipantOptions, TokenRequest
from livekit_plugins_runway.transport.tokens import RoomCredentials
from tests.support.virtual_clock import virtual_clock

SECRET = "s" * 32


def credentials(url: str = "wss://agents.example.com", **participant: Any) -> RoomCredentials:
    """
    Args:
        participant: `ParticipantOptions`.
    """
    return RoomCredentials(
        url=url,
        api_key="key",
        api_secret=SECRET,
        room="a room",
        agent_identity="agent-1",
        participant=ParticipantOptions(**participant),
    )


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"])
    return found


# -- tokens --


async def test_the_avatar_participant_may_publish_its_face_and_voice_and_nothing_else() -> None:
    told = claims(await credentials().participant_token("face", "Face"))
    assert told["video"] == {
        "roomJoin": True,
        "room": "a room",
        "canPublish": True,
        "canPublishSources": ["camera", "microphone"],
        "canPublishData": False,
        "canSubscribe": False,
    }
    assert (told["sub"], told["name"], told["iss"]) == ("face", "Face", "key")
    assert told["kind"] == "agent"
    assert told["attributes"] == {"lk.publish_on_behalf": "agent-1"}


async def test_the_avatar_participant_may_come_within_an_hour() -> None:
    told = claims(await credentials().participant_token("face", "Face"))
    assert told["exp"] - time.time() == pytest.approx(3600, abs=10)


@pytest.mark.parametrize("seconds", [60, 150])
def test_the_worker_may_come_as_long_as_it_is_told_and_may_send_data(seconds: int) -> None:
    ttl = datetime.timedelta(seconds=seconds)
    integration = credentials().worker_integration("face", "Face", ttl)
    told = claims(integration.token.get_secret_value())
    assert told["exp"] - time.time() == pytest.approx(seconds, abs=10)
    assert told["video"]["canPublishData"] is True
    assert told["video"]["canSubscribe"] is False
    assert (integration.url, integration.room_name) == ("wss://agents.example.com", "a room")


async def test_a_token_of_another_secret_is_worth_nothing() -> None:
    token = await credentials().participant_token("face", "Face")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, "x" * 32, algorithms=["HS256"])


async def test_an_avatar_participant_says_of_itself_what_it_was_given() -> None:
    own = credentials(attributes={"persona": "nurse"}, metadata="ward 3")
    ttl = datetime.timedelta(seconds=60)
    worker = own.worker_integration("face", "Face", ttl).token.get_secret_value()
    for token in (await own.participant_token("face", "Face"), worker):
        told = claims(token)
        assert told["attributes"] == {"lk.publish_on_behalf": "agent-1", "persona": "nurse"}
        assert told["metadata"] == "ward 3"


# -- tokens that are made elsewhere --


async def test_a_token_that_is_made_elsewhere_is_asked_for_with_all_that_it_has_to_say() -> None:
    asked: list[TokenRequest] = []

    async def source(request: TokenRequest) -> str:
        asked.append(request)
        return "theirs"

    own = credentials(token=source, attributes={"persona": "nurse"}, metadata="ward 3")
    assert await own.participant_token("face", "Face") == "theirs"
    attributes = {"lk.publish_on_behalf": "agent-1", "persona": "nurse"}
    url = "wss://agents.example.com"
    assert asked == [TokenRequest(url, "a room", "face", "Face", attributes, "ward 3")]
    assert asked[0].kind == "agent"


async def _raises(_: TokenRequest) -> str:
    raise KeyError("no such room")


async def _never_answers(_: TokenRequest) -> str:
    await asyncio.Event().wait()
    return ""


async def _returns_nothing(_: TokenRequest) -> Any:
    return None


def _is_plain(_: TokenRequest) -> Any:
    return "a token, and not awaitable"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (_raises, "raised KeyError"),
        (_never_answers, "longer than 10 s"),
        (_returns_nothing, "returned NoneType"),
        (_is_plain, "raised TypeError"),
    ],
)
@virtual_clock
async def test_where_no_token_comes_the_server_cannot_be_reached(source: Any, why: str) -> None:
    with pytest.raises(UnavailableError, match=why):
        await credentials(token=source).participant_token("face", "Face")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"attributes": {"lk.publish_on_behalf": "me"}}, "lk.publish_on_behalf"),
        ({"attributes": {"runway.invitation": "me"}}, "runway.invitation"),
        ({"attributes": {"age": 4}}, "'age': 4"),
        ({"audience": "alice"}, "'alice'"),
        ({"audience": []}, "empty"),
    ],
)
def test_what_a_participant_cannot_be_is_refused_by_name(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        ParticipantOptions(**options)


@pytest.mark.parametrize("name", ["audience", "token"])
def test_what_a_worker_cannot_be_told_is_refused_with_direct(name: str) -> None:
    given: dict[str, Any] = {"audience": ["alice"], "token": _raises}
    options = ParticipantOptions(**{name: given[name]})
    with pytest.raises(ConfigurationError, match=name):
        check_transport("direct", "auto", participant=options)
    check_transport("bridge", "auto", participant=options)
    check_transport("direct", "auto", participant=ParticipantOptions(metadata="ward 3"))


# -- removal --


class RoomService:
    """A LiveKit server that answers to the removal of a participant as it is told."""

    def __init__(self, code: str = "", delay: float = 0.0) -> None:
        self._code = code
        self._delay = delay
        self.removed: list[tuple[str, str]] = []

    async def _answer(self, request: web.Request) -> web.Response:
        assert request.path.endswith("/RemoveParticipant")
        body = api.RoomParticipantIdentity.FromString(await request.read())
        self.removed.append((body.room, body.identity))
        await asyncio.sleep(self._delay)
        if self._code:
            return web.json_response({"code": self._code, "msg": "no"}, status=404)
        return web.Response(content_type="application/protobuf")

    async def remove(self, identity: str) -> float:
        """By credentials for this server; the seconds that it took."""
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await credentials(f"http://{host}:{port}").remove(identity)
            return loop.time() - began
        finally:
            await runner.cleanup()


@pytest.mark.parametrize(
    ("code", "warns"), [("", False), ("not_found", False), ("permission_denied", True)]
)
@virtual_clock
async def test_who_is_not_there_any_more_is_removed_and_what_fails_is_logged(
    code: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    service = RoomService(code)
    await service.remove("worker")
    assert service.removed == [("a room", "worker")]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == warns


@virtual_clock
async def test_a_server_that_does_not_answer_is_waited_for_two_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await RoomService(delay=30.0).remove("worker") == pytest.approx(2.0, abs=0.1)
    assert "could not be removed" in caplog.text


# -- addresses; more of them in test_direct.py --


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("wss://box.lan", "private host"),
        ("wss://box.home.arpa.", "private host"),
        ("wss://a.localhost", "private host"),
        ("wss://0x7f000001", "private host"),
        ("wss://[::ffff:127.0.0.1]", "private host"),
        ("ws://agents.example.com", "not ws://"),
        ("WS://box.lan", "not ws://"),
        ("/room", "not an address with a host"),
        ("wss:///room", "not an address with a host"),
    ],
)
def test_an_address_is_refused_for_what_is_wrong_with_it(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        check_public(url)


@pytest.mark.parametrize(
    "url",
    [
        "wss://lan.example.com",
        "wss://xlocal.example.com",
        "wss://134744072",  # 8.8.8.8
        "wss://[2606:4700::1111]:7880",
        "wss://[::ffff:8.8.8.8]",
    ],
)
def test_what_only_looks_like_a_private_host_is_taken(url: str) -> None:
    check_public(url)
