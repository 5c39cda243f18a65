"""One avatar: that its media fails is a loss, and that nothing of it is read once it is lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from livekit_plugins_runway.errors import LossReason
from livekit_plugins_runway.lifecycle.instance import AvatarInstance, InstanceOptions
from tests.support.scripted_room import settle
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

    async def may_speak_unseen(self, _timeout: float) -> bool:
        return False

    async def open_media(self, _timeout: float, *, on_first_frame: Any) -> Media:
        self.media.on_first_frame = on_first_frame
        return self.media

    async def open_delivery(self, _option: str) -> tuple[str, object]:
        return "track", object()

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
    assert not media.reading
    assert not instance.lost.done()
