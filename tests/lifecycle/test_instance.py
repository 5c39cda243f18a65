"""One avatar: that its media fails is a loss, and that nothing of it is read once it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar, cast
from unittest import mock

import pytest
from livekit import rtc

from livekit_plugins_runway.errors import AvatarJoinError, AvatarLostError, LossReason
from livekit_plugins_runway.lifecycle.instance import AvatarInstance, InstanceOptions
from livekit_plugins_runway.media.monitor import AvatarMonitor
from livekit_plugins_runway.media.relay import Relay
from livekit_plugins_runway.media.ways import MediaWay, Picture
from livekit_plugins_runway.playout.audio import BYTES_PER_SAMPLE, HOP
from livekit_plugins_runway.transport.worker_watch import WorkerWatch
from tests.support.scripted_room import AUDIO, VIDEO, ScriptedParticipant, ScriptedRoom, settle
from tests.support.virtual_clock import timers_only


@dataclass
class Media:
    """Runs until a test says how it ends."""

    on_first_frame: Any = None
    ends: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    reading: bool = False
    last_frame: float | None = None

    def activate(self) -> None: ...

    def deactivate(self) -> None: ...

    async def wait_until_shown(self) -> None: ...

    async def run(self) -> None:
        self.reading = True
        self.on_first_frame()
        try:
            await self.ends
        finally:
            self.reading = False


class Connection:
    """To a worker that is there at once."""

    def __init__(self, media: Media) -> None:
        self.media = media
        self.worker_gone = asyncio.Event()
        self.closed = False

    async def open(self, *_: object, **__: object) -> float:
        return asyncio.get_running_loop().time()

    async def wait_for_worker(self, _timeout: float) -> None: ...

    async def may_speak_unseen(self, _option: str, _timeout: float) -> bool:
        return False

    async def open_media(self, _timeout: float, *, on_first_frame: Any) -> Media:
        self.media.on_first_frame = on_first_frame
        return self.media

    async def open_delivery(self, _option: str) -> tuple[str, object]:
        return "track", object()

    def way_out(self, _reason: object) -> str:
        return ""

    async def send_end_call(self) -> bool:
        return False

    async def ensure_gone(self, _patience: float) -> None: ...

    async def aclose(self) -> None:
        self.closed = True


class Session:
    id = "s"
    request = SimpleNamespace(tools=None)

    def worker_joined(self) -> None: ...

    async def wait_until_ended(self) -> None:
        await asyncio.Event().wait()

    async def end(self, **_: object) -> str:
        return "ended"


def instance_with(media: Media) -> AvatarInstance:
    session: Any = Session()
    connection: Any = Connection(media)
    return AvatarInstance(session, connection, InstanceOptions(), lambda _: None)


@timers_only
async def _the_media_fails() -> None:
    media = Media()
    instance = instance_with(media)
    await instance.open(standby=False)
    media.ends.set_exception(ExceptionGroup("relay", [ValueError("no camera")]))
    async with asyncio.timeout(1.0):
        assert await asyncio.shield(instance.lost) is LossReason.MEDIA_FAILED
    await instance.close(budget=1.0)


def test_media_that_fails_is_a_loss_and_is_logged_with_its_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _the_media_fails()
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "ValueError: no camera" in caplog.text
    assert record.exc_info


@timers_only
async def test_media_whose_tracks_end_is_no_loss_by_itself() -> None:
    media = Media()
    instance = instance_with(media)
    await instance.open(standby=False)
    media.ends.set_result(None)
    await settle()
    assert not instance.lost.done()
    await instance.close(budget=1.0)
    assert not instance.lost.done()


@pytest.mark.parametrize("standby", [False, True])
@timers_only
async def test_nothing_is_read_of_an_avatar_that_is_lost(
    standby: bool,
) -> None:
    media = Media()
    instance = instance_with(media)
    await instance.open(standby=standby)
    assert media.reading
    instance.report_loss(LossReason.TRACKS_UNPUBLISHED)
    await settle()
    assert not media.reading
    assert instance.lost.result() is LossReason.TRACKS_UNPUBLISHED
    await instance.close(budget=1.0)


@timers_only
async def test_closed_it_reads_no_more_and_has_lost_nothing() -> None:
    media = Media()
    instance = instance_with(media)
    await instance.open(standby=False)
    await instance.close(budget=1.0)
    await settle()
    assert not media.reading
    assert not instance.lost.done()


@timers_only
async def test_before_it_is_open_it_has_no_way_of_speech_and_no_face() -> None:
    instance = instance_with(Media())
    with pytest.raises(RuntimeError, match="delivery"):
        _ = instance.delivery
    with pytest.raises(RuntimeError, match="tracks"):
        instance.show()
    assert instance.last_frame is None
    instance.hide()
    assert instance.startup == instance.lived == instance.age == instance.billed == 0.0
    await instance.open(standby=True)
    assert instance.delivery is not None
    instance.show()
    await instance.close(budget=1.0)
    await settle()


class Faceless(Media):
    """Sends no picture."""

    async def run(self) -> None:
        await self.ends

    async def wait_until_shown(self) -> None:
        await self.ends


@timers_only
async def test_one_that_sends_no_picture_is_given_up() -> None:
    instance = instance_with(Faceless())
    with pytest.raises(AvatarJoinError, match="no video within 30 s"):
        await instance.open(standby=False)
    assert await instance.wait_until_shown(2.0) is None
    await instance.close(budget=1.0)
    await settle()


@timers_only
async def test_one_that_is_lost_before_its_first_picture_has_not_come() -> None:
    instance = instance_with(Faceless())
    opening = asyncio.create_task(instance.open(standby=False))
    await asyncio.sleep(1.0)
    instance.report_loss(LossReason.WORKER_LEFT)
    with pytest.raises(AvatarLostError, match="worker_left"):
        await opening
    await instance.close(budget=1.0)
    await settle()


@timers_only
async def test_that_runway_says_it_has_ended_is_a_loss() -> None:
    media = Media()
    instance = instance_with(media)
    ended = asyncio.Event()
    with mock.patch.object(instance.session, "wait_until_ended", ended.wait):
        await instance.open(standby=False)
        ended.set()
        assert await asyncio.shield(instance.lost) is LossReason.SESSION_ENDED
    await instance.close(budget=1.0)
    await settle()


@timers_only
async def test_the_queue_is_noted_until_it_is_left() -> None:
    instance = instance_with(Media())

    async def open_from_the_queue(*_: object, on_queued: Any, **__: object) -> float:
        on_queued(True)
        assert instance.queued.is_set()
        on_queued(False)
        return 0.0

    with mock.patch.object(instance.connection, "open", open_from_the_queue):
        await instance.open(standby=False)
    assert not instance.queued.is_set()
    await instance.close(budget=1.0)
    await settle()


@timers_only
async def test_the_tools_of_a_session_are_heard_while_it_is_open() -> None:
    tools, dispatcher = mock.AsyncMock(), mock.Mock()
    dispatcher.open.return_value = tools
    session: Any = Session()
    session.request = SimpleNamespace(tools=("card",))
    connection: Any = Connection(Media())
    connection.room, connection.is_worker = object(), object()
    options = InstanceOptions(tools=dispatcher)
    instance = AvatarInstance(session, connection, options, lambda _: None)
    await instance.open(standby=False)
    dispatcher.open.assert_called_once_with("s", ("card",), connection.room, connection.is_worker)
    tools.aclose.side_effect = ValueError("of the tools")
    await instance.close(budget=1.0)
    await settle()
    tools.aclose.assert_awaited_once()
    assert connection.closed


@timers_only
async def test_speech_may_begin_before_the_first_picture() -> None:
    media = Media()
    instance = instance_with(media)
    ready: list[bool] = []
    with mock.patch.object(instance.connection, "may_speak_unseen", return_value=True):
        await instance.open(standby=False, on_ready=ready.append)
    assert ready == [False]
    await instance.close(budget=1.0)
    await settle()


# -- media in a room


class Voice:
    """In place of what listens to a track: of both ways, and of the SDK. It does not end with its
    track, whose place another track may take."""

    made: ClassVar[list[Voice]] = []

    def __init__(self, _track: object, on_sound: Any = None, **_: object) -> None:
        self._on_sound = on_sound
        self._sounds: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = asyncio.Event()
        Voice.made.append(self)

    def comes(self) -> None:
        pcm = bytes(BYTES_PER_SAMPLE * HOP * 5)
        if self._on_sound is not None and not self.closed.is_set():
            self._on_sound(pcm)
        self._sounds.put_nowait(pcm)

    async def wait_until_ended(self) -> None:
        await self.closed.wait()

    def __aiter__(self) -> Voice:
        return self

    async def __anext__(self) -> Any:
        return SimpleNamespace(frame=SimpleNamespace(data=await self._sounds.get()))

    async def aclose(self) -> None:
        self.closed.set()


class Pictures:
    """One, and no more; in place of `ways.PictureTap` and `rtc.VideoStream`."""

    def __init__(self, *_: object, **__: object) -> None:
        self._one = True

    def __aiter__(self) -> Pictures:
        return self

    async def __anext__(self) -> Any:
        if not self._one:
            await asyncio.Event().wait()
        self._one = False
        grey = bytes(range(64)) * 64 + bytes(64 * 32)
        return Picture(rtc.VideoFrame(64, 64, rtc.VideoBufferType.I420, grey), 0)

    async def aclose(self) -> None: ...


class Participant:
    """The relay's: takes all."""

    way = MediaWay("public", cast(Any, None), cast(Any, Voice), cast(Any, Pictures))

    async def open_camera(self, *_: object) -> bool:
        return True

    def mute_camera(self) -> None: ...


class Listener:
    def __init__(self) -> None:
        self.relayed_count = 0

    def relayed(self, _pcm: bytes) -> None:
        self.relayed_count += 1


class InARoom(Connection):
    """To a worker that a `WorkerWatch` sees in a room, over a relay or (`direct`) beside it."""

    def __init__(self, room: ScriptedRoom, *, direct: bool) -> None:
        super().__init__(cast(Any, None))
        self.room = room
        self.direct = direct
        self.listener = Listener()

    async def open(self, *_: object, on_lost: Any = None, **__: object) -> float:
        self.watch = WorkerWatch(
            self.room.as_room, is_worker=lambda identity: identity == "worker", on_lost=on_lost
        )
        self.watch.open()
        return 0.0

    async def open_media(self, timeout: float, *, on_first_frame: Any) -> Any:
        audio, video = await self.watch.wait_for_media("s", timeout)
        told: dict[str, Any] = {"audio": audio, "video": video, "listener": self.listener}
        if self.direct:
            return AvatarMonitor(**told, on_first_frame=on_first_frame, on_active=lambda _: None)
        return Relay(
            **told,
            participant=cast(Any, Participant()),
            on_first_frame=on_first_frame,
            on_stall=lambda _: None,
        )


def _unsubscribes(room: ScriptedRoom, worker: ScriptedParticipant) -> None:
    room.unsubscribe(worker, AUDIO)


def _unpublishes(room: ScriptedRoom, worker: ScriptedParticipant) -> None:
    room.unpublish(worker, AUDIO)


def _leaves(room: ScriptedRoom, worker: ScriptedParticipant) -> None:
    room.leave(worker)


@pytest.mark.parametrize("goes", [_unsubscribes, _unpublishes, _leaves])
@pytest.mark.parametrize("direct", [False, True])
@timers_only
async def test_of_a_track_that_has_gone_nothing_is_heard(
    monkeypatch: pytest.MonkeyPatch,
    direct: bool,
    goes: Callable[[ScriptedRoom, ScriptedParticipant], None],
) -> None:
    monkeypatch.setattr(Voice, "made", [])
    monkeypatch.setattr(rtc, "AudioStream", Voice)
    monkeypatch.setattr(rtc, "VideoStream", Pictures)
    room = ScriptedRoom()
    worker = room.join("worker", AUDIO, VIDEO)
    connection = InARoom(room, direct=direct)
    session: Any = Session()
    as_connection: Any = connection
    instance = AvatarInstance(session, as_connection, InstanceOptions(), lambda _: None)
    opening = asyncio.create_task(instance.open(standby=False))
    await settle()
    room.deliver(worker, VIDEO)
    room.deliver(worker, AUDIO)
    await opening
    (voice,) = Voice.made
    voice.comes()
    await settle()
    assert connection.listener.relayed_count == 1
    goes(room, worker)
    await settle()  # and nobody else does anything about it
    voice.comes()
    await settle()
    assert connection.listener.relayed_count == 1
    assert voice.closed.is_set()
    await instance.close(budget=1.0)
    await settle()
