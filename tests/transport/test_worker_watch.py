"""The avatar worker is found among others, its tracks are asked for, and its loss is told once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from livekit import rtc

from livekit_plugins_runway.errors import AvatarJoinError, LossReason
from livekit_plugins_runway.transport.worker_watch import WorkerWatch
from tests.support.scripted_room import AGENT, AUDIO, VIDEO, ScriptedParticipant, ScriptedRoom
from tests.support.virtual_clock import timers_only

WORKER = "avatar-1"


class Setup:
    def __init__(self, *, opened: bool = True) -> None:
        self.room = ScriptedRoom()
        self.lost: list[LossReason] = []
        self.watch = WorkerWatch(
            self.room.as_room,
            is_worker=lambda identity: identity == WORKER,
            on_lost=self.lost.append,
        )
        if opened:
            self.watch.open()

    def worker_comes(self, *, told: bool = True) -> ScriptedParticipant:
        return self.room.join(WORKER, VIDEO, AUDIO, kind=AGENT, told=told)

    async def worker_is_here(self) -> ScriptedParticipant:
        """With both tracks, and watched."""
        worker = self.worker_comes()
        self.room.deliver(worker, VIDEO)
        self.room.deliver(worker, AUDIO)
        await self.watch.wait_for_media("id", 1.0)
        return worker


def asked(participant: ScriptedParticipant) -> dict[rtc.TrackKind.ValueType, list[bool]]:
    return {p.kind: p.asked for p in participant.publications.values()}


def now() -> float:
    return asyncio.get_running_loop().time()


async def missing(waiting: Awaitable[object]) -> str | None:
    with pytest.raises(AvatarJoinError) as failure:
        await waiting
    return failure.value.missing


# -- finding it --


@pytest.mark.parametrize("when", ["before", "after", "in a reconnect"])
@timers_only
async def test_the_worker_is_found_and_its_tracks_are_asked_for(when: str) -> None:
    setup = Setup(opened=False)
    if when == "before":
        worker = setup.worker_comes()
    setup.watch.open()
    if when == "after":
        worker = setup.worker_comes()
    elif when == "in a reconnect":
        worker = setup.worker_comes(told=False)
        assert not setup.watch.present
        setup.room.emit("reconnected")
    await setup.watch.wait_for_worker("id", 1.0)
    assert setup.watch.identity == WORKER
    assert setup.watch.present
    assert {kind: calls[:1] for kind, calls in asked(worker).items()} == {
        VIDEO: [True],
        AUDIO: [True],
    }
    setup.watch.close()


@timers_only
async def test_others_are_left_alone() -> None:
    setup = Setup()
    other = setup.room.join("user", VIDEO, AUDIO)
    setup.room.deliver(other, VIDEO)
    assert asked(other) == {VIDEO: [], AUDIO: []}
    began = now()
    assert await missing(setup.watch.wait_for_worker("id", 3.0)) == "participant"
    assert now() - began == pytest.approx(3.0)
    setup.room.leave(other)
    assert not setup.watch.gone.is_set()


@timers_only
async def test_a_track_that_is_here_is_not_asked_for_again() -> None:
    setup = Setup()
    worker = setup.worker_comes()
    setup.room.deliver(worker, VIDEO)
    before = {kind: len(calls) for kind, calls in asked(worker).items()}
    setup.room.emit("reconnected")
    after = {kind: len(calls) for kind, calls in asked(worker).items()}
    assert after == {VIDEO: before[VIDEO], AUDIO: before[AUDIO] + 1}


@timers_only
async def test_the_media_are_the_workers_own_tracks() -> None:
    setup = Setup()
    user = setup.room.join("user", VIDEO, AUDIO)
    worker = setup.worker_comes()
    for participant in (worker, user):
        for kind in (VIDEO, AUDIO):
            setup.room.deliver(participant, kind)
    media = await setup.watch.wait_for_media("id", 1.0)
    tracks = {p.kind: p.track for p in worker.publications.values()}
    assert media == (tracks[AUDIO], tracks[VIDEO])


@pytest.mark.parametrize(("comes", "lacks"), [(VIDEO, "audio"), (AUDIO, "video")])
@timers_only
async def test_a_track_that_does_not_come_is_named(
    comes: rtc.TrackKind.ValueType, lacks: str
) -> None:
    setup = Setup()
    setup.room.deliver(setup.worker_comes(), comes)
    assert await missing(setup.watch.wait_for_media("id", 3.0)) == lacks
    assert now() == pytest.approx(3.0)


@pytest.mark.parametrize("how", ["leaves", "room lost"])
@timers_only
async def test_nobody_waits_for_the_tracks_of_a_worker_that_cannot_bring_them(how: str) -> None:
    setup = Setup()
    worker = setup.worker_comes()
    waiting = asyncio.create_task(setup.watch.wait_for_media("id", 30.0))
    await asyncio.sleep(1.0)
    if how == "leaves":
        setup.room.leave(worker)
    else:
        setup.room.lose_connection()
    assert await missing(waiting) == "video"
    assert now() == pytest.approx(1.0)
    assert setup.lost == []  # it was not the face yet


# -- waiting for the others' subscriptions --


async def others_have_it(setup: Setup, *, video_took: float, audio_comes: bool) -> float:
    """Seconds from the worker's first track here until the others are taken to have both."""
    worker = setup.worker_comes()
    waiting = asyncio.create_task(setup.watch.wait_for_others("id", 5.0))
    await asyncio.sleep(video_took)
    setup.room.deliver(worker, VIDEO)
    began = now()
    if audio_comes:
        setup.room.deliver(worker, AUDIO)
    await waiting
    return now() - began


@timers_only
async def test_others_get_as_much_time_as_the_first_track_took_here_less_an_answers() -> None:
    waited = await others_have_it(Setup(), video_took=0.5, audio_comes=False)
    assert waited == pytest.approx(0.4)


@timers_only
async def test_where_the_first_track_was_quick_the_others_are_not_waited_for() -> None:
    waited = await others_have_it(Setup(), video_took=0.05, audio_comes=False)
    assert waited == pytest.approx(0.0)


@timers_only
async def test_where_both_tracks_are_here_the_others_are_taken_to_have_them() -> None:
    waited = await others_have_it(Setup(), video_took=0.5, audio_comes=True)
    assert waited == pytest.approx(0.0)


@timers_only
async def test_a_voice_that_is_never_published_is_told() -> None:
    setup = Setup()
    worker = setup.room.join(WORKER, VIDEO, kind=AGENT)
    setup.room.deliver(worker, VIDEO)
    assert await missing(setup.watch.wait_for_others("id", 2.0)) == "audio"


# -- losing it --


@timers_only
async def test_a_worker_that_leaves_is_lost_and_gone() -> None:
    setup = Setup()
    worker = await setup.worker_is_here()
    setup.room.leave(worker)
    assert setup.lost == [LossReason.WORKER_LEFT]
    assert setup.watch.gone.is_set()
    assert not setup.watch.present


@timers_only
async def test_a_worker_that_was_put_out_is_lost_but_may_still_bill() -> None:
    setup = Setup()
    worker = await setup.worker_is_here()
    setup.room.leave(worker, rtc.DisconnectReason.PARTICIPANT_REMOVED)
    assert setup.lost == [LossReason.WORKER_LEFT]
    assert not setup.watch.gone.is_set()
    assert not setup.watch.present


@timers_only
async def test_a_worker_that_is_out_of_sight_in_a_reconnect_is_lost_but_has_not_left() -> None:
    setup = Setup()
    worker = await setup.worker_is_here()
    setup.room.leave(worker, None)
    assert setup.lost == [LossReason.WORKER_LEFT]
    assert not setup.watch.gone.is_set()
    assert setup.watch.present  # it may be told that the call is over


@timers_only
async def test_a_worker_that_is_out_of_sight_before_its_media_came_is_waited_for() -> None:
    setup = Setup()
    worker = setup.worker_comes()
    setup.room.leave(worker, None)
    waiting = asyncio.create_task(setup.watch.wait_for_media("id", 5.0))
    await asyncio.sleep(1.0)
    back = setup.worker_comes()
    for kind in (VIDEO, AUDIO):
        setup.room.deliver(back, kind)
    await waiting
    setup.room.leave(back)
    assert setup.watch.gone.is_set()


@timers_only
async def test_a_worker_that_left_unseen_in_a_reconnect_is_lost() -> None:
    setup = Setup()
    worker = await setup.worker_is_here()
    setup.room.leave(worker, told=False)
    setup.room.emit("reconnected")
    assert setup.lost == [LossReason.WORKER_LEFT]
    assert not setup.watch.gone.is_set()  # nobody saw why


@timers_only
async def test_when_this_end_loses_the_room_nothing_is_known_of_the_worker() -> None:
    setup = Setup()
    await setup.worker_is_here()
    setup.room.lose_connection()
    assert setup.lost == [LossReason.ROOM_LOST]
    assert not setup.watch.gone.is_set()


@pytest.mark.parametrize("kind", [VIDEO, AUDIO])
@pytest.mark.parametrize("how", ["unpublish", "unsubscribe"])
@timers_only
async def test_a_track_that_goes_away_is_a_loss(how: str, kind: rtc.TrackKind.ValueType) -> None:
    setup = Setup()
    worker = await setup.worker_is_here()
    user = setup.room.join("user", kind)
    setup.room.deliver(user, kind)
    getattr(setup.room, how)(user, kind)
    assert setup.lost == []
    getattr(setup.room, how)(worker, kind)
    assert setup.lost == [LossReason.TRACKS_UNPUBLISHED]
    assert not setup.watch.gone.is_set()


@timers_only
async def test_a_picture_that_is_given_up_here_is_no_loss_and_its_unpublishing_is() -> None:
    setup = Setup()
    worker = await setup.worker_is_here()
    setup.watch.unsubscribe_video()
    assert {kind: calls[-1] for kind, calls in asked(worker).items()} == {
        VIDEO: False,
        AUDIO: True,
    }
    setup.room.unsubscribe(worker, VIDEO)
    assert setup.lost == []
    setup.room.emit("reconnected")
    assert asked(worker)[VIDEO][-1] is False
    setup.room.unpublish(worker, VIDEO)
    assert setup.lost == [LossReason.TRACKS_UNPUBLISHED]


@timers_only
async def test_a_loss_is_told_once_whatever_follows_it() -> None:
    setup = Setup()
    worker = await setup.worker_is_here()
    setup.room.unpublish(worker, VIDEO)
    setup.room.unpublish(worker, AUDIO)
    setup.room.leave(worker)
    setup.room.lose_connection()
    assert setup.lost == [LossReason.TRACKS_UNPUBLISHED]


@timers_only
async def test_closed_it_tells_nothing_and_leaves_nothing_in_the_room() -> None:
    setup = Setup()
    worker = await setup.worker_is_here()
    setup.watch.close()
    setup.watch.close()
    assert setup.room.listeners == 0
    setup.room.leave(worker)
    setup.room.lose_connection()
    assert setup.lost == []
