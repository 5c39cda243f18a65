"""Which messages are tool calls, who may make them, and what becomes of those nobody can answer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from livekit import rtc

from livekit_plugins_runway import AvatarSession
from livekit_plugins_runway.errors import ConfigurationError, NotFoundError, RunwayException
from livekit_plugins_runway.events import ToolCall
from livekit_plugins_runway.lifecycle.tools import SessionTools, ToolDispatcher, arguments_of
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import (
    BackendRpcTool,
    ClientEventTool,
    ObjectParameter,
    StringParameter,
)
from livekit_plugins_runway.testing import RunwaySimulator

CARD = ClientEventTool(name="card", description="A card.")
LOOKUP = BackendRpcTool(
    name="lookup",
    description="Looks up.",
    parameters=(StringParameter(name="id", description="An id."),),
)
WORKER, USER = "worker:1", "user:1"


async def echo(args: dict[str, Any]) -> dict[str, Any]:
    return args


class Desk:
    """A tool desk that remembers, and a room whose data packets a test makes up."""

    def __init__(self, client: RunwayClient, **handlers: Any) -> None:
        self.room = rtc.EventEmitter[Any]()
        self.called: list[ToolCall] = []
        self.errors: list[RunwayException] = []
        self.desk = ToolDispatcher(client, handlers, self.called.append, self.errors.append)

    def open(self, *tools: Any) -> SessionTools:
        room: Any = self.room
        return self.desk.open("1", tools, room, lambda identity: identity == WORKER)

    def hear(self, message: object, sender: str | None = WORKER, topic: str = "") -> None:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        participant = None if sender is None else SimpleNamespace(identity=sender)
        packet = SimpleNamespace(data=data, topic=topic, participant=participant)
        self.room.emit("data_received", packet)


@pytest.fixture
def desk() -> Desk:
    return Desk(RunwayClient("key_1"))


async def test_a_client_event_is_told_once_until_the_end(desk: Desk) -> None:
    tools = desk.open(CARD)
    event = {"type": "client_event", "tool": "card", "args": {"title": "Hi"}}
    desk.hear(event)
    desk.hear(event | {"args": {"status": "event_sent"}})  # only confirms the first
    assert desk.called == [ToolCall("client_event", "card", {"title": "Hi"}, "1")]
    await tools.aclose()
    desk.hear(event)
    assert len(desk.called) == 1


@pytest.mark.parametrize(
    ("message", "sender", "topic"),
    [
        ({"type": "client_event", "tool": "card", "args": {}}, USER, ""),
        ({"type": "client_event", "tool": "card", "args": {}}, None, ""),
        ({"type": "client_event", "tool": "card", "args": {}}, WORKER, "chat"),
        ({"type": "client_event", "tool": 1, "args": {}}, WORKER, ""),
        ({"type": "client_event", "tool": "card", "args": "text"}, WORKER, ""),
        ({"type": "client_event"}, WORKER, ""),
        ({"type": "transcription", "role": "user", "text": "card"}, WORKER, ""),
        ([], WORKER, ""),
        (b"\xff{", WORKER, ""),
    ],
)
async def test_what_is_no_client_event_of_the_avatar_is_not_told(
    desk: Desk, message: object, sender: str | None, topic: str
) -> None:
    tools = desk.open(CARD)
    desk.hear(message, sender, topic)
    assert desk.called == []
    await tools.aclose()


async def test_only_the_avatar_may_call_the_back_end(desk: Desk) -> None:
    tools = SessionTools(
        ToolDispatcher(
            RunwayClient("key_1"), {"lookup": echo}, desk.called.append, desk.errors.append
        ),
        "1", (), desk.room, lambda identity: identity == WORKER,  # type: ignore[arg-type]
    )  # fmt: skip
    answer = tools._answer(LOOKUP)
    call = rtc.RpcInvocationData("r", WORKER, '{"args": {"id": "7"}}', 4.0, method="lookup")
    assert await answer(call) == '{"id": "7"}'
    with pytest.raises(rtc.RpcError, match="not the avatar"):
        await answer(rtc.RpcInvocationData("r", USER, "{}", 4.0, method="lookup"))
    assert [call.kind for call in desk.called] == ["backend_rpc"]


async def test_the_call_goes_on_where_the_back_end_may_not_join() -> None:
    async with RunwaySimulator() as runway:
        client = RunwayClient(runway.api_secret, base_url=runway.url)
        desk = Desk(client, lookup=echo)
        tools = desk.open(LOOKUP)  # of a session that Runway does not know
        assert tools._joining is not None
        await tools._joining
        assert [type(error) for error in desk.errors] == [NotFoundError]
        await tools.aclose()
        await client.aclose()


def test_arguments_come_wrapped_or_bare() -> None:
    assert arguments_of('{"args": {"id": "1"}}', LOOKUP) == {"id": "1"}
    assert arguments_of('{"id": "1"}', LOOKUP) == {"id": "1"}
    assert arguments_of("", LOOKUP) == {}
    takes_args = LOOKUP.model_copy(
        update={"parameters": (ObjectParameter(name="args", description="x", properties=()),)}
    )
    assert arguments_of('{"args": {"id": "1"}}', takes_args) == {"args": {"id": "1"}}
    for payload in ("[1]", "no JSON", '"text"'):
        with pytest.raises(rtc.RpcError, match="not an object"):
            arguments_of(payload, LOOKUP)


@pytest.mark.parametrize("tools", [None, [CARD], [CARD.model_copy(update={"name": "lookup"})]])
def test_a_handler_that_would_never_be_called_is_refused_by_name(tools: list[Any] | None) -> None:
    with pytest.raises(ConfigurationError, match="tool_handlers names 'lookup'"):
        AvatarSession(
            preset_id="influencer",
            api_key="key_1",
            tools=tools,
            tool_handlers={"lookup": echo},
        )
