"""The plain voice in the agent's own room, where the room does not answer or refuses."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.rtc.participant import PublishTrackError

from livekit_plugins_runway.errors import UnavailableError
from livekit_plugins_runway.media.connect import SUBSCRIBING
from livekit_plugins_runway.media.fallback_track import FallbackTrack
from livekit_plugins_runway.playout.audio import SILENCE
from tests.support.scripted_room import ScriptedRoom
from tests.support.virtual_clock import timers_only


class Source:
    """In place of `rtc.AudioSource`. It fails, or hangs, in its first piece of sound."""

    error: Exception | None = None
    hangs = False

    def __init__(self, *_: object, **__: object) -> None:
        self.captured = 0
        self.closed = False

    async def capture_frame(self, _frame: object) -> None:
        self.captured += 1
        if self.captured == 1 and self.hangs:
            await asyncio.Event().wait()
        if self.captured == 1 and self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        self.closed = True


class Room(ScriptedRoom):
    """`publish` and `unpublish`: what they do instead of answering; "never" for no answer."""

    def __init__(self, publish: object = None, unpublish: object = None) -> None:
        super().__init__()
        self.publish_does, self.unpublish_does = publish, unpublish
        self.asked: list[str] = []
        here: Any = self.local_participant
        here.publish_track, here.unpublish_track = self._publish, self._unpublish

    async def _answer(self, what: object) -> None:
        if what == "never":
            await asyncio.Event().wait()
        elif isinstance(what, Exception):
            raise what

    async def _publish(self, _track: object, _options: object) -> Any:
        self.asked.append("publish")
        await self._answer(self.publish_does)
        return SimpleNamespace(sid="TR_1")

    async def _unpublish(self, _sid: str) -> None:
        self.asked.append("unpublish")
        await self._answer(self.unpublish_does)


@pytest.fixture(autouse=True)
def _without_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc, "AudioSource", Source)
    monkeypatch.setattr(
        rtc.LocalAudioTrack, "create_audio_track", lambda *_: SimpleNamespace(sid="TR_1")
    )


def source_of(track: FallbackTrack) -> Source:
    return cast(Source, track._source)


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize("does", ["never", PublishTrackError("refused")])
@timers_only
async def test_a_voice_that_is_not_published_is_told_in_time_and_leaves_nothing(
    does: object,
) -> None:
    room = Room(publish=does)
    track = FallbackTrack(room.as_room)
    async with asyncio.timeout(11.0):
        with pytest.raises(UnavailableError, match="voice"):
            await track.publish()
    await track.aclose()
    assert source_of(track).closed
    assert room.listeners == 0
    assert not others()


@pytest.mark.parametrize("does", ["never", RuntimeError("no room")])
@timers_only
async def test_a_track_that_cannot_be_taken_off_is_closed_in_time(does: object) -> None:
    room = Room(unpublish=does)
    track = FallbackTrack(room.as_room)
    await track.publish()
    async with asyncio.timeout(3.0):
        await track.aclose()
        await track.aclose()
    assert room.asked == ["publish", "unpublish"]
    assert source_of(track).closed
    assert not others()


@timers_only
async def test_a_track_is_taken_off_when_the_others_have_subscribed() -> None:
    room = Room()
    track = FallbackTrack(room.as_room)
    await track.publish()
    await asyncio.sleep(5.0)
    room.join("user")
    closing = asyncio.create_task(track.aclose())
    await asyncio.sleep(SUBSCRIBING - 0.01)
    assert room.asked == ["publish"]
    await asyncio.sleep(0.02)
    assert room.asked == ["publish", "unpublish"]
    await closing


@pytest.mark.parametrize("fault", ["error", "hangs"])
@timers_only
async def test_sound_that_is_not_taken_does_not_stop_what_follows(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Source, fault, RuntimeError("no room for it") if fault == "error" else True)
    track = FallbackTrack(Room().as_room)
    await track.publish()
    async with asyncio.timeout(2.0):
        await track.push_audio(SILENCE)
        await track.push_audio(SILENCE)
    assert source_of(track).captured == 2
    await track.aclose()
    await track.push_audio(SILENCE)
    assert source_of(track).captured == 2
