"""What a room token denies, as far as it can be read; and that the room is left."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any
from unittest import mock

import jwt
import pytest
from livekit import api, rtc

from livekit_plugins_runway.transport.runway_room import RunwayRoom, _missing_grants
from tests.support.scripted_room import ScriptedRoom, settle

SECRET = "a-secret-of-32-bytes-or-more-0123"
NEEDED = ["canPublish", "canPublishData", "canSubscribe"]


def token(**grants: Any) -> str:
    made = api.AccessToken("key", SECRET).with_identity("me")
    return made.with_grants(api.VideoGrants(room_join=True, room="r", **grants)).to_jwt()


def test_what_a_token_denies_outright_is_missing() -> None:
    assert _missing_grants(token(can_publish_data=False), NEEDED) == ["canPublishData"]
    assert _missing_grants(token(can_publish=False, can_subscribe=False), ["canPublish"]) == [
        "canPublish"
    ]


def test_what_a_token_does_not_mention_is_granted() -> None:
    bare = jwt.encode({"video": {"roomJoin": True}}, SECRET)
    assert _missing_grants(bare, NEEDED) == []


def test_an_expired_token_is_read_all_the_same() -> None:
    old = jwt.encode({"exp": 1, "video": {"canPublish": False}}, SECRET)
    assert _missing_grants(old, NEEDED) == ["canPublish"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no token",
        "a.b.c",
        "eyJhbGciOiJIUzI1NiJ9.bm90IGpzb24.c2ln",  # its claims are no JSON
        jwt.encode({}, SECRET),
        jwt.encode({"video": ["canPublish"]}, SECRET),
    ],
)
def test_of_what_is_no_room_token_nothing_is_known_to_be_missing(text: str) -> None:
    assert _missing_grants(text, NEEDED) == []


# -- leaving ---------------------------------------------------------------------------------------


class Left(ScriptedRoom):
    def __init__(self) -> None:
        super().__init__()
        self.left = 0

    async def disconnect(self) -> None:
        self.left += 1


class Part:
    """A delivery that cannot be closed in order."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def aclose(self) -> None:
        if self._error is None:
            await asyncio.Event().wait()
        else:
            raise self._error

    withdraw = aclose


def runway_room(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Left]:
    room = Left()
    monkeypatch.setattr(rtc, "Room", lambda: room)
    return RunwayRoom("s", on_lost=lambda _: None, reports=None), room


@pytest.mark.parametrize("part", ["_stream", "_speech_track", "_withdrawing"])
@pytest.mark.parametrize("error", [RuntimeError("gone"), TimeoutError()])
async def test_the_room_is_left_whatever_is_raised_before(
    part: str, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runway, room = runway_room(monkeypatch)
    broken = Part(error)
    setattr(runway, part, asyncio.create_task(broken.withdraw()) if "with" in part else broken)
    await runway.aclose()
    assert room.left == 1
    assert type(error).__name__ in [vars(record).get("error") for record in caplog.records]


async def test_the_room_is_left_by_who_is_cancelled_while_it_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runway, room = runway_room(monkeypatch)
    runway._withdrawing = asyncio.create_task(Part(None).withdraw())
    closing = asyncio.create_task(runway.aclose())
    await settle()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert room.left == 1


@pytest.mark.parametrize("error", [None, RuntimeError("gone")])
async def test_rpc_methods_are_unregistered_before_the_room_is_left_or_it_stays_in_memory(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    runway, room = runway_room(monkeypatch)
    told: list[tuple[str, int]] = []

    class Me:
        def unregister_rpc_method(self, method: str) -> None:
            told.append((method, room.left))
            if error is not None:
                raise error

    runway._me = Me()
    with nullcontext() if error is None else pytest.raises(RuntimeError):
        await runway.aclose()
    assert room.left == 1
    if error is None:
        assert told == [("lk.playback_finished", 0), ("lk.playback_started", 0)]


@pytest.mark.parametrize(("first", "asked"), [(True, 1), (None, 1), (False, 2)])
async def test_a_worker_is_asked_again_only_if_it_refused_before_its_first_picture(
    first: bool | None, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runway, _ = runway_room(monkeypatch)
    answers = mock.AsyncMock(side_effect=[first, True])
    monkeypatch.setattr(
        "livekit_plugins_runway.transport.runway_room.answer_to_clear_buffer", answers
    )
    monkeypatch.setattr(runway, "wait_for_media", mock.AsyncMock())
    runway._watch.identity = "worker:s"
    runway._speech_track = mock.AsyncMock()
    assert await runway.takes_streams(1.0) is (first is True)
    kind, _ = await runway.open_delivery("auto")
    assert kind == ("track" if first is None else "datastream")
    assert answers.await_count == asked
    await runway.aclose()
