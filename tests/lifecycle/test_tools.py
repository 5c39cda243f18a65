"""Which messages are tool calls, who may make them, and what becomes of those nobody can answer."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from livekit import rtc

from livekit_plugins_runway import AvatarSession
from livekit_plugins_runway.errors import (
    ConfigurationError,
    NotFoundError,
    RunwayException,
    ServerError,
    UnavailableError,
)
from livekit_plugins_runway.events import ToolCall
from livekit_plugins_runway.lifecycle.tools import (
    LONGEST_ANSWER,
    SessionTools,
    ToolDispatcher,
    arguments_of,
)
from livekit_plugins_runway.runway.client import RunwayClient
from livekit_plugins_runway.runway.models import (
    BackendRpcTool,
    ClientEventTool,
    ObjectParameter,
    StringParameter,
)
from livekit_plugins_runway.testing import RunwaySimulator
from tests.support.scripted_runway import Reply, ScriptedRunway
from tests.support.virtual_clock import virtual_clock

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
        (b"[" * 15_000, WORKER, ""),
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
        assert tools._answering is not None
        await tools._answering
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
    for payload in ("[1]", "no JSON", '"text"', "[" * 15_000):
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


@pytest.mark.parametrize("handler", [5, "echo", None, {}])
def test_a_handler_that_cannot_be_called_is_refused(handler: Any) -> None:
    with pytest.raises(ConfigurationError, match="tool_handlers\\['lookup'\\] must be a function"):
        AvatarSession(
            preset_id="influencer",
            api_key="key_1",
            tools=[LOOKUP],
            tool_handlers={"lookup": handler},
        )


# -- answers --


async def ask(desk: Desk, handler: Any) -> str:
    """The avatar calls the tool `lookup`, which `handler` answers."""
    asked = Desk(desk.desk.client, lookup=handler).open()
    call = rtc.RpcInvocationData("r", WORKER, '{"args": {"id": "7"}}', 4.0, method="lookup")
    return await asked._answer(LOOKUP)(call)


class Counter:
    """An object to be called, as a handler."""

    async def __call__(self, args: dict[str, Any]) -> dict[str, Any]:
        return args


async def one_argument_more(_: str, args: dict[str, Any]) -> dict[str, Any]:
    return args


@pytest.mark.parametrize(
    "handler",
    [
        echo,
        lambda args: args,
        lambda args: echo(args),
        lambda args: asyncio.ensure_future(echo(args)),
        dict,
        Counter(),
        partial(one_argument_more, "x"),
    ],
)
async def test_whatever_can_be_called_answers(desk: Desk, handler: Any) -> None:
    assert await ask(desk, handler) == '{"id": "7"}'


@pytest.mark.parametrize("text", ["\u5317\u4eac" * 2_500, "\u00fc" * 7_600, "x" * 15_300])
async def test_an_answer_may_be_as_long_as_livekit_sends_in_any_language(
    desk: Desk, text: str
) -> None:
    answer = await ask(desk, lambda _: text)
    assert json.loads(answer) == text
    assert len(answer.encode()) <= LONGEST_ANSWER


async def test_an_answer_that_is_too_long_is_told_to_the_avatar_and_in_the_log(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(rtc.RpcError, match="has run, but its answer is too long") as caught:
        await ask(desk, lambda _: "\u5317" * 5_200)
    assert caught.value.code == rtc.RpcError.ErrorCode.RESPONSE_PAYLOAD_TOO_LARGE
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "15602 bytes, and 15360 can be sent" in record.getMessage()
    assert vars(record)["tool"] == "lookup"


def in_itself() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "result",
    [
        {"price": float("nan")},
        [float("inf")],
        datetime.date(2026, 1, 1),
        {(1, 2): 3},
        "\ud800",
        in_itself(),
        b"bytes",
    ],
)
async def test_what_json_cannot_hold_is_told_to_the_avatar_and_in_the_log(
    desk: Desk, result: object, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(rtc.RpcError, match="has run, but its answer is nothing that JSON") as told:
        await ask(desk, lambda _: result)
    assert len(told.value.message.encode()) <= 256  # LiveKit cuts the rest off
    assert any("cannot be sent" in record.getMessage() for record in caplog.records)


async def test_a_plain_function_that_raises_has_failed_and_is_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def book(args: dict[str, Any]) -> None:
        raise LookupError(args["id"])

    with pytest.raises(rtc.RpcError, match="The tool lookup failed"):
        await ask(desk, book)
    assert "the handler of a tool failed" in caplog.messages


# -- the room of the back end --

CREDENTIALS = {"url": "wss://r.test", "token": "backend-token", "roomName": "r"}
LOST = rtc.DisconnectReason.PARTICIPANT_REMOVED


class BackendRoom(rtc.EventEmitter[Any]):
    """What the tools know of a room of the SDK's, without a server."""

    made: ClassVar[list[BackendRoom]]

    def __init__(self) -> None:
        super().__init__()
        self.made.append(self)
        self.methods: list[str] = []
        self.joined = self.left = False
        self.local_participant = SimpleNamespace(
            register_rpc_method=lambda name, _: self.methods.append(name)
        )

    async def connect(self, *_: object) -> None:
        self.joined = True

    async def disconnect(self) -> None:
        self.left = True

    def lose(self, reason: rtc.DisconnectReason.ValueType) -> None:
        self.emit("disconnected", reason)


class Runway(ScriptedRunway):
    def __init__(self, *backend: Reply) -> None:
        super().__init__()
        self.script += backend

    @property
    def asked_for_the_room(self) -> int:
        return len([seen for seen in self.seen if seen.path.endswith("/connect_backend")])


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> list[BackendRoom]:
    BackendRoom.made = []
    monkeypatch.setattr(rtc, "Room", BackendRoom)
    return BackendRoom.made


@asynccontextmanager
async def answering(*replies: Reply) -> AsyncIterator[tuple[Desk, SessionTools, Runway]]:
    runway = Runway(*replies)
    async with runway.running():
        client = RunwayClient("key_1", base_url=runway.url)
        desk = Desk(client, lookup=echo)
        tools = desk.open(LOOKUP)
        await asyncio.sleep(5.0)
        try:
            yield desk, tools, runway
        finally:
            await tools.aclose()
            await client.aclose()


GRANTED = Reply(payload=CREDENTIALS)


@virtual_clock
async def test_a_lost_back_end_joins_again_once(rooms: list[BackendRoom]) -> None:
    async with answering(GRANTED, GRANTED) as (desk, _, runway):
        (first,) = rooms
        assert first.methods == ["lookup"]
        first.lose(LOST)
        await asyncio.sleep(10.0)
        assert first.left
        assert [room.methods for room in rooms] == [["lookup"], ["lookup"]]
        assert desk.errors == []
        rooms[1].lose(LOST)
        await asyncio.sleep(10.0)
        assert runway.asked_for_the_room == 2
        assert [type(error) for error in desk.errors] == [UnavailableError]
        assert "PARTICIPANT_REMOVED" in str(desk.errors[0])
    assert [room.left for room in rooms] == [True, True]


@virtual_clock
async def test_a_back_end_that_may_not_join_again_is_told_once(rooms: list[BackendRoom]) -> None:
    async with answering(GRANTED, Reply(500, {"error": "no"})) as (desk, _, _runway):
        rooms[0].lose(rtc.DisconnectReason.SIGNAL_CLOSE)
        await asyncio.sleep(10.0)
        assert [type(error) for error in desk.errors] == [ServerError]
        assert len(rooms) == 1


@virtual_clock
async def test_another_one_that_answers_the_tools_is_not_put_out(rooms: list[BackendRoom]) -> None:
    async with answering(GRANTED) as (desk, _, runway):
        rooms[0].lose(rtc.DisconnectReason.DUPLICATE_IDENTITY)
        await asyncio.sleep(10.0)
        assert runway.asked_for_the_room == 1
        assert [type(error) for error in desk.errors] == [UnavailableError]


@pytest.mark.parametrize(
    "reason", [rtc.DisconnectReason.ROOM_DELETED, rtc.DisconnectReason.ROOM_CLOSED]
)
@virtual_clock
async def test_a_back_end_goes_with_its_session_without_a_word(
    rooms: list[BackendRoom], reason: rtc.DisconnectReason.ValueType
) -> None:
    async with answering(GRANTED) as (desk, _, runway):
        rooms[0].lose(reason)
        await asyncio.sleep(10.0)
        assert (runway.asked_for_the_room, desk.errors) == (1, [])


@pytest.mark.parametrize("after", [0.0, 0.5, 3.0])
@virtual_clock
async def test_tools_that_are_closed_leave_their_room_and_join_no_other(
    rooms: list[BackendRoom], after: float
) -> None:
    async with answering(GRANTED, GRANTED) as (desk, tools, runway):
        if after:
            rooms[0].lose(LOST)
            await asyncio.sleep(after)
        await tools.aclose()
        await tools.aclose()
        asked = runway.asked_for_the_room
        await asyncio.sleep(10.0)
        assert runway.asked_for_the_room == asked == len(rooms)
        assert all(room.left for room in rooms)
        assert desk.errors == []
