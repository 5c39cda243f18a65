"""The avatar participant when its room does not do what it is asked, or is lost once and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from livekit import rtc
from livekit.rtc.participant import PublishTrackError

from livekit_plugins_runway._common.tasks import BackgroundTasks
from livekit_plugins_runway.errors import UnavailableError
from livekit_plugins_runway.media import participant as participants
from livekit_plugins_runway.media.connect import LEAVE_TIMEOUT, SUBSCRIBING
from livekit_plugins_runway.media.participant import AvatarParticipant, Eviction
from livekit_plugins_runway.media.ways import MediaWay
from tests.support.scripted_room import settle
from tests.support.virtual_clock import timers_only

SIDE = 64
VOICE, CAMERA = "avatar-voice", "avatar-camera"
LIMIT = participants._PUBLISH_TIMEOUT
FIRST = participants._FIRST_REJOIN
NEVER = "never"
"""For an answer that does not come."""

STANDARD, AGENT = (
    rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
    rtc.ParticipantKind.PARTICIPANT_KIND_AGENT,
)
LOST = rtc.DisconnectReason.SIGNAL_CLOSE
PUT_OUT = rtc.DisconnectReason.PARTICIPANT_REMOVED
REPLACED = rtc.DisconnectReason.DUPLICATE_IDENTITY


class Server:
    """Has every room that was made, and what it answers to the next publications."""

    def __init__(self) -> None:
        self.rooms: list[Room] = []
        self.answers: dict[str, list[Any]] = {VOICE: [], CAMERA: []}
        """By the track's name, in order: an exception, `NEVER`, or "ok", which it is without."""
        self.connects: list[Any] = []
        """Of the next attempts to connect: `NEVER`, or "ok", which it is without."""
        self.never_leaves = False

    @property
    def published(self) -> list[list[str]]:
        """What each room has."""
        return [room.published for room in self.rooms]


class Room(rtc.EventEmitter[Any]):
    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.published: list[str] = []
        self.connected = False
        self.remote_participants: dict[str, Any] = {}
        self.admits: list[str] | None = None
        """Who may subscribe; None: all."""
        server.rooms.append(self)

    @property
    def local_participant(self) -> Room:
        return self

    async def connect(self, *_: object) -> None:
        if self.server.connects and self.server.connects.pop(0) is NEVER:
            await asyncio.Event().wait()
        self.connected = True

    def isconnected(self) -> bool:
        return self.connected

    def enter(self, identity: str, kind: Any = STANDARD, **attributes: str) -> None:
        somebody = SimpleNamespace(identity=identity, kind=kind, attributes=attributes)
        self.remote_participants[identity] = somebody
        self.emit("participant_connected", somebody)

    def subscribe(self) -> None:
        self.emit("local_track_subscribed", SimpleNamespace(sid=VOICE))

    def set_track_subscription_permissions(
        self,
        *,
        allow_all_participants: bool,
        participant_permissions: list[rtc.ParticipantTrackPermission],
    ) -> None:
        assert not allow_all_participants
        assert self.published == []
        assert all(one.allow_all for one in participant_permissions)
        self.admits = [one.participant_identity for one in participant_permissions]

    async def publish_track(self, track: Any, _options: object) -> None:
        answers = self.server.answers[track.name]
        answer = answers.pop(0) if answers else "ok"
        if answer is NEVER:
            await asyncio.Event().wait()
        elif isinstance(answer, Exception):
            raise answer
        await asyncio.sleep(0.05)
        self.published.append(track.name)

    async def disconnect(self) -> None:
        if self.server.never_leaves:
            await asyncio.Event().wait()
        self.connected = False

    def lose(self, reason: rtc.DisconnectReason.ValueType = LOST) -> None:
        self.connected = False
        self.emit("disconnected", reason)


class Camera:
    """In place of `rtc.VideoSource`."""

    def __init__(self, *_: object) -> None:
        self.captured: list[int] = []
        self.closed = False

    def capture_frame(self, _frame: object, *, timestamp_us: int) -> None:
        assert not self.closed
        self.captured.append(timestamp_us)

    async def aclose(self) -> None:
        self.closed = True


class Silent:
    """A `ways.Sender` to nobody."""

    def __init__(self, _source: object) -> None: ...

    def send(self, pcm: bytes) -> None: ...

    def clear(self) -> None: ...

    async def aclose(self) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()

    def track(name: str, _source: object) -> Any:
        return SimpleNamespace(name=name, sid=name, muted=False, mute=lambda: None)

    monkeypatch.setattr(rtc, "Room", lambda: Room(server))
    monkeypatch.setattr(rtc, "VideoSource", Camera)
    monkeypatch.setattr(rtc, "AudioSource", lambda *_, **__: Camera())
    monkeypatch.setattr(rtc.LocalAudioTrack, "create_audio_track", track)
    monkeypatch.setattr(rtc.LocalVideoTrack, "create_video_track", track)
    return server


def participant(**options: Any) -> AvatarParticipant:
    no_tap: Any = None
    return AvatarParticipant(None, MediaWay("public", Silent, no_tap, no_tap), **options)


async def a_token() -> str:
    return "token"


async def joined(token: Callable[[], Awaitable[str]] = a_token) -> AvatarParticipant:
    made = participant()
    await made.join("ws://h", token)
    return made


def picture() -> rtc.VideoFrame:
    grey = np.arange(SIDE * SIDE, dtype=np.uint8).tobytes() + bytes(SIDE * SIDE // 2)
    return rtc.VideoFrame(SIDE, SIDE, rtc.VideoBufferType.I420, grey)


def tasks() -> set[str]:
    """Names of what the participant runs."""
    mine = {"runway_rejoin", "runway_publish_camera", "runway_race", "runway_connect"}
    return {task.get_name() for task in asyncio.all_tasks()} & mine


# -- the camera


@pytest.mark.parametrize("answer", [PublishTrackError("timed out"), NEVER])
@timers_only
async def test_a_camera_that_was_refused_is_published_with_the_next_picture(
    server: Server, answer: object
) -> None:
    avatar = await joined()
    server.answers[CAMERA] = [answer]
    async with asyncio.timeout(LIMIT + 1.0):
        with pytest.raises(UnavailableError, match="camera"):
            await avatar.open_camera(picture(), 1)
    assert not avatar.push_video(picture(), 2)
    assert await avatar.open_camera(picture(), 3)
    assert avatar.push_video(picture(), 4)
    assert server.published == [[VOICE, CAMERA]]
    await avatar.aclose()


@pytest.mark.parametrize("cause", ["voice", "camera", "user"])
@timers_only
async def test_it_leaves_when_the_others_have_subscribed(server: Server, cause: str) -> None:
    avatar = await joined()
    (room,) = server.rooms
    if cause != "user":
        room.enter("user")
    if cause != "voice":
        await asyncio.sleep(5.0)
    if cause == "camera":
        await avatar.open_camera(picture(), 1)
    if cause == "user":
        room.enter("user")
    closing = asyncio.create_task(avatar.aclose())
    await asyncio.sleep(SUBSCRIBING - 0.01)
    assert room.connected
    await asyncio.sleep(0.02)
    assert not room.connected
    await closing


@timers_only
async def test_it_leaves_at_once_if_nobody_is_about_to_subscribe(server: Server) -> None:
    for alone in (True, False):
        avatar = await joined()
        room = server.rooms[-1]
        if not alone:
            room.enter("user")
        await asyncio.sleep(0.2 if alone else SUBSCRIBING)
        began = asyncio.get_running_loop().time()
        await avatar.aclose()
        assert asyncio.get_running_loop().time() == began
        assert not room.connected


@timers_only
async def test_a_camera_is_published_once_although_who_asked_for_it_was_cancelled(
    server: Server,
) -> None:
    avatar = await joined()
    asking = asyncio.create_task(avatar.open_camera(picture(), 1))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.wait([asking])
    assert not await avatar.open_camera(picture(), 2)
    assert avatar.push_video(picture(), 3)
    assert server.published == [[VOICE, CAMERA]]
    await avatar.aclose()
    assert not tasks()


@timers_only
async def test_a_room_that_is_lost_while_it_takes_the_camera_gets_it_when_it_is_back(
    server: Server,
) -> None:
    avatar = await joined()
    server.answers[CAMERA] = [NEVER]
    asking = asyncio.create_task(avatar.open_camera(picture(), 1))
    await asyncio.sleep(0.01)
    server.rooms[0].lose()
    assert not await asking  # neither an error nor a picture
    assert not await avatar.open_camera(picture(), 2)
    await asyncio.sleep(FIRST + 1.0)
    assert await avatar.open_camera(picture(), 3)
    assert server.published == [[VOICE], [VOICE, CAMERA]]
    await avatar.aclose()


@timers_only
async def test_closed_while_it_publishes_the_camera_it_leaves_nothing_behind(
    server: Server,
) -> None:
    avatar = await joined()
    server.answers[CAMERA] = [NEVER]
    asking = asyncio.create_task(avatar.open_camera(picture(), 1))
    await asyncio.sleep(0.01)
    await avatar.aclose()
    await asyncio.wait([asking])
    assert not tasks()
    assert not server.rooms[0].connected


# -- joining


@timers_only
async def test_joining_gives_up_on_an_answer_that_does_not_come(server: Server) -> None:
    server.answers[VOICE] = [NEVER]
    async with asyncio.timeout(LIMIT + 1.0):
        with pytest.raises(UnavailableError):
            await joined()


@timers_only
async def test_joining_gives_up_on_a_room_that_is_lost_meanwhile(server: Server) -> None:
    server.answers[VOICE] = [NEVER]
    joining = asyncio.create_task(joined())
    await asyncio.sleep(0.01)
    server.rooms[0].lose()
    async with asyncio.timeout(0.1):
        with pytest.raises(UnavailableError):
            await joining
    await asyncio.sleep(60.0)
    assert len(server.rooms) == 1  # nobody goes on without the caller
    assert not tasks()


# -- joining again


@timers_only
async def test_a_lost_room_is_joined_again_with_all_tracks(server: Server) -> None:
    avatar = await joined()
    assert await avatar.open_camera(picture(), 1)
    server.rooms[0].lose()
    await asyncio.sleep(FIRST + 1.0)
    assert server.published == [[VOICE, CAMERA]] * 2
    assert avatar.push_video(picture(), 2)
    await avatar.aclose()


@pytest.mark.parametrize("track", [VOICE, CAMERA])
@timers_only
async def test_lost_again_while_it_publishes_it_goes_on_in_one_task(
    server: Server, track: str
) -> None:
    avatar = await joined()
    assert await avatar.open_camera(picture(), 1)
    server.answers[track] = [NEVER]
    server.rooms[0].lose()
    await asyncio.sleep(FIRST + 0.1)
    first = avatar._rejoining
    server.rooms[1].lose()
    await settle()
    assert avatar._rejoining is first
    await asyncio.sleep(10 * FIRST)
    assert server.published[2:] == [[VOICE, CAMERA]]
    assert not tasks()
    await avatar.aclose()


@timers_only
async def test_an_answer_that_does_not_come_is_not_waited_for(server: Server) -> None:
    avatar = await joined()
    server.answers[VOICE] = [NEVER, NEVER]
    server.rooms[0].lose()
    await asyncio.sleep(7 * FIRST + 2 * LIMIT + 1.0)  # the third attempt
    assert server.published == [[VOICE], [], [], [VOICE]]
    assert [room.connected for room in server.rooms] == [False, False, False, True]
    await avatar.aclose()


@timers_only
async def test_it_is_lost_again_after_it_was_back(server: Server) -> None:
    avatar = await joined()
    for number in range(3):
        server.rooms[number].lose()
        await asyncio.sleep(2.0)
    assert server.published == [[VOICE]] * 4
    server.rooms[0].lose()  # of a room that was replaced nothing counts
    await asyncio.sleep(2.0)
    assert len(server.rooms) == 4
    await avatar.aclose()


@pytest.mark.parametrize("moment", [0.0, FIRST + 0.1])
@timers_only
async def test_closed_while_it_joins_again_it_leaves_no_task_and_no_room(
    server: Server, moment: float
) -> None:
    avatar = await joined()
    server.answers[VOICE] = [NEVER]
    server.rooms[0].lose()
    await asyncio.sleep(moment)
    await avatar.aclose()
    assert not tasks()
    assert not any(room.connected for room in server.rooms)
    await asyncio.sleep(60.0)
    assert len(server.rooms) == (2 if moment else 1)


@pytest.mark.parametrize("moment", [0.0, FIRST + 0.1])
@timers_only
async def test_put_out_while_it_joins_again_it_stays_away(server: Server, moment: float) -> None:
    avatar = await joined()
    server.answers[VOICE] = [NEVER]
    server.rooms[0].lose()
    await asyncio.sleep(moment)
    server.rooms[-1].lose(PUT_OUT)
    await asyncio.sleep(60.0)
    assert not tasks()
    assert len(server.rooms) == (2 if moment else 1)
    assert not await avatar.open_camera(picture(), 1)
    await avatar.aclose()


@timers_only
async def _evicted(
    server: Server, reason: rtc.DisconnectReason.ValueType, told: Eviction, rooms: int
) -> None:
    avatar, evictions, tokens = participant(), list[Eviction](), list[str]()

    async def make() -> str:
        tokens.append("another" if evictions else "first")
        return tokens[-1]

    await avatar.join("ws://h", make, evictions.append)
    server.rooms[0].enter("user")
    server.rooms[0].subscribe()
    assert (avatar.subscribed, avatar.reachable) == (True, True)
    server.rooms[0].lose(reason)
    assert evictions == [told]
    assert avatar.reachable is (told is Eviction.ROOM_OVER)
    await asyncio.sleep(10.0)
    assert tokens == ["first", "another"][:rooms]
    assert len(server.rooms) == rooms
    await avatar.aclose()


@pytest.mark.parametrize(
    ("reason", "told", "rooms"),
    [
        (REPLACED, Eviction.REPLACED, 2),
        (PUT_OUT, Eviction.REMOVED, 1),
        (rtc.DisconnectReason.USER_REJECTED, Eviction.REMOVED, 1),
        (rtc.DisconnectReason.ROOM_DELETED, Eviction.ROOM_OVER, 1),
        (rtc.DisconnectReason.ROOM_CLOSED, Eviction.ROOM_OVER, 1),
    ],
)
def test_an_eviction_is_told_and_only_who_was_replaced_joins_again(
    server: Server, reason: rtc.DisconnectReason.ValueType, told: Eviction, rooms: int
) -> None:
    _evicted(server, reason, told, rooms)


@timers_only
async def _replaced_at_the_door(server: Server) -> None:
    avatar = participant()
    server.answers[VOICE] = [NEVER, NEVER]
    joining = asyncio.create_task(avatar.join("ws://h", a_token))
    for number in range(2):
        await asyncio.sleep(0.1)
        assert len(server.rooms) == number + 1
        server.rooms[-1].lose(REPLACED)
    await joining
    assert server.published == [[], [], [VOICE]]
    await avatar.aclose()


def test_replaced_while_it_enters_it_enters_again(server: Server) -> None:
    _replaced_at_the_door(server)


@timers_only
async def _gives_way(server: Server) -> None:
    avatar, evictions = participant(background=BackgroundTasks()), list[Eviction]()
    server.connects = [NEVER]
    joining = asyncio.create_task(avatar.join("ws://h", a_token, evictions.append))
    await asyncio.sleep(0.1)
    avatar.give_way()
    async with asyncio.timeout(1.0):
        await joining
    assert server.published == [[], [VOICE]]
    avatar.give_way()  # it is in the room: if it is put out, it is told
    assert evictions == [Eviction.REPLACED]
    assert not avatar._lost.is_set()
    await avatar.aclose()


def test_that_somebody_else_came_first_is_not_waited_for(server: Server) -> None:
    _gives_way(server)


@timers_only
async def _removed_at_the_door(server: Server) -> None:
    avatar = participant()
    server.answers[VOICE] = [NEVER]
    joining = asyncio.create_task(avatar.join("ws://h", a_token))
    await asyncio.sleep(0.1)
    server.rooms[0].lose(PUT_OUT)
    with pytest.raises(UnavailableError):
        await joining
    assert len(server.rooms) == 1
    await avatar.aclose()


def test_removed_while_it_enters_it_does_not(server: Server) -> None:
    _removed_at_the_door(server)


# -- who listens


@timers_only
async def _an_empty_room(server: Server) -> None:
    avatar = await joined()
    room = server.rooms[0]
    room.enter("agent", AGENT)
    room.subscribe()  # the agent, to all there is
    await asyncio.sleep(3600.0)
    assert not avatar.subscribed
    room.enter("user")
    assert not avatar.subscribed
    await asyncio.sleep(1.1)
    assert avatar.subscribed
    await avatar.aclose()


def test_that_the_agent_has_subscribed_is_no_listener(server: Server) -> None:
    _an_empty_room(server)


@timers_only
async def _an_audience(server: Server) -> None:
    avatar = participant(audience={"patient", "doctor"})
    await avatar.join("ws://h", a_token)
    server.rooms[0].enter("visitor")
    server.rooms[0].subscribe()
    await asyncio.sleep(3600.0)
    assert not avatar.subscribed
    server.rooms[0].enter("patient")
    await asyncio.sleep(1.1)
    assert avatar.subscribed
    server.rooms[0].lose()
    await asyncio.sleep(10.0)
    assert [room.admits for room in server.rooms] == [["doctor", "patient"]] * 2
    await avatar.aclose()


def test_only_an_audience_may_subscribe_and_is_waited_for_in_each_room(server: Server) -> None:
    _an_audience(server)


@timers_only
async def _a_token_that_cannot_be_made_once(server: Server) -> None:
    tokens: Iterator[str | Exception] = iter(["first", ValueError("no key"), "second"])

    async def make() -> str:
        token = next(tokens)
        if isinstance(token, Exception):
            raise token
        return token

    avatar = await joined(make)
    server.rooms[0].lose()
    await asyncio.sleep(10.0)
    assert server.published == [[VOICE], [], [VOICE]]
    await avatar.aclose()


def test_what_nobody_expects_is_logged_and_does_not_end_the_attempts(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    _a_token_that_cannot_be_made_once(server)
    assert "ValueError: no key" in caplog.text


@timers_only
async def test_a_room_that_does_not_answer_is_left_all_the_same(server: Server) -> None:
    avatar = await joined()
    server.never_leaves = True
    async with asyncio.timeout(LEAVE_TIMEOUT + 1.0):
        await avatar.aclose()
