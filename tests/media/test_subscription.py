"""Whether somebody hears what is said now, through interruptions of the connection."""

from __future__ import annotations

import asyncio

from livekit_plugins_runway.media.subscription import MAX_ABSENCE, TrackSubscription
from tests.support.virtual_clock import timers_only


@timers_only
async def test_before_anybody_listens_nothing_is_waited_for() -> None:
    track = TrackSubscription()
    assert not track.subscribed
    assert track.reachable
    track.on_subscribed()
    assert track.subscribed
    assert track.reachable


@timers_only
async def test_from_an_interruption_on_speech_waits_until_the_connection_is_back() -> None:
    track = TrackSubscription()
    track.on_subscribed()
    track.on_away()
    await asyncio.sleep(MAX_ABSENCE - 1.0)
    assert not track.reachable
    track.on_back()
    assert track.reachable
    assert track.subscribed


@timers_only
async def test_a_connection_that_is_back_counts_only_once_somebody_listens() -> None:
    track = TrackSubscription()
    track.on_subscribed()
    track.on_lost()
    assert not track.subscribed
    assert not track.reachable
    track.on_back()
    assert not track.reachable
    track.on_subscribed()
    assert track.reachable


@timers_only
async def test_a_track_that_was_published_anew_is_waited_for_until_it_is_subscribed() -> None:
    track = TrackSubscription()
    track.on_republished()
    assert track.reachable  # nobody had listened to the old one
    track.on_subscribed()
    track.on_republished()
    assert not track.subscribed
    assert not track.reachable
    track.on_subscribed()
    assert track.reachable


@timers_only
async def test_the_agent_does_not_wait_for_ever_and_one_absence_is_counted_from_its_start() -> None:
    track = TrackSubscription()
    track.on_subscribed()
    track.on_away()
    await asyncio.sleep(MAX_ABSENCE / 2)
    track.on_lost()  # the same absence, told again
    await asyncio.sleep(MAX_ABSENCE / 2)
    assert not track.reachable
    await asyncio.sleep(0.01)
    assert track.reachable


@timers_only
async def test_a_second_absence_has_its_full_time_again() -> None:
    track = TrackSubscription()
    track.on_subscribed()
    track.on_away()
    await asyncio.sleep(MAX_ABSENCE - 1.0)
    track.on_back()
    track.on_away()
    await asyncio.sleep(MAX_ABSENCE - 1.0)
    assert not track.reachable


@timers_only
async def test_a_connection_that_is_over_for_good_is_not_waited_for() -> None:
    track = TrackSubscription()
    track.on_subscribed()
    track.on_away()
    track.on_over()
    assert track.reachable
