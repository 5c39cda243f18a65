"""Whether somebody hears what is said now: who is there, and interruptions of the connection."""

from __future__ import annotations

import asyncio

import pytest

from livekit_plugins_runway.media.listeners import (
    MAX_ABSENCE,
    SUBSCRIBE_TIMEOUT,
    TrackSubscription,
)
from tests.support.virtual_clock import timers_only

A_WEEK = 7 * 86_400.0


def listened_to() -> TrackSubscription:
    track = TrackSubscription()
    track.on_listeners(True)
    track.on_subscribed()
    assert track.subscribed
    return track


# -- who is there ---------------------------------------------------------------------------------


@timers_only
async def test_while_nobody_is_there_speech_waits_without_limit() -> None:
    track = TrackSubscription()
    assert not track.subscribed
    assert track.reachable
    track.on_subscribed()  # by another agent
    await asyncio.sleep(A_WEEK)
    assert not track.subscribed
    assert track.reachable


@timers_only
async def test_a_listener_who_subscribes_is_spoken_to_at_once() -> None:
    track = TrackSubscription()
    track.on_listeners(True)
    await asyncio.sleep(SUBSCRIBE_TIMEOUT - 1.0)
    assert not track.subscribed
    track.on_subscribed()
    assert track.subscribed


@timers_only
async def test_a_listener_who_never_subscribes_is_spoken_to_after_a_while() -> None:
    track = TrackSubscription()
    await asyncio.sleep(A_WEEK)
    track.on_listeners(True)
    await asyncio.sleep(SUBSCRIBE_TIMEOUT - 0.1)
    assert not track.subscribed
    await asyncio.sleep(0.2)
    assert track.subscribed


@timers_only
async def test_a_subscription_of_somebody_else_counts_once_a_listener_had_time_for_one() -> None:
    track = TrackSubscription()
    track.on_subscribed()
    track.on_listeners(True)
    assert not track.subscribed
    await asyncio.sleep(1.1)
    assert track.subscribed


@timers_only
@pytest.mark.parametrize("seconds", [0.5, SUBSCRIBE_TIMEOUT - 0.1])
async def test_who_leaves_before_they_have_listened_was_not_there(seconds: float) -> None:
    track = TrackSubscription()
    track.on_listeners(True)
    await asyncio.sleep(seconds)
    track.on_listeners(False)
    await asyncio.sleep(A_WEEK)
    assert not track.subscribed
    track.on_listeners(True)
    track.on_subscribed()
    assert track.subscribed


@timers_only
async def test_once_somebody_has_listened_nobody_is_waited_for_who_has_left() -> None:
    track = listened_to()
    track.on_listeners(False)
    assert track.subscribed
    track.on_lost()
    track.on_listeners(False)
    assert not track.subscribed
    await asyncio.sleep(SUBSCRIBE_TIMEOUT + 0.1)
    assert track.subscribed


# -- interruptions --------------------------------------------------------------------------------


@timers_only
async def test_from_an_interruption_on_speech_waits_until_the_connection_is_back() -> None:
    track = listened_to()
    track.on_away()
    await asyncio.sleep(MAX_ABSENCE - 1.0)
    assert not track.reachable
    track.on_back()
    assert track.reachable
    assert track.subscribed


@timers_only
async def test_a_connection_that_is_back_counts_only_once_somebody_listens() -> None:
    track = listened_to()
    track.on_lost()
    assert not track.subscribed
    assert not track.reachable
    track.on_back()
    assert not track.reachable
    track.on_subscribed()
    assert track.subscribed
    assert track.reachable


@timers_only
async def test_a_track_that_was_published_anew_is_waited_for_until_it_is_subscribed() -> None:
    track = TrackSubscription()
    track.on_republished()
    assert track.reachable  # nobody had listened to the old one
    track = listened_to()
    track.on_republished()
    assert not track.subscribed
    assert not track.reachable
    track.on_subscribed()
    assert track.subscribed
    assert track.reachable


@timers_only
async def test_the_agent_does_not_wait_for_ever_and_one_absence_is_counted_from_its_start() -> None:
    track = listened_to()
    track.on_away()
    await asyncio.sleep(MAX_ABSENCE / 2)
    track.on_lost()  # the same absence, told again
    await asyncio.sleep(MAX_ABSENCE / 2)
    assert not track.reachable
    await asyncio.sleep(0.01)
    assert track.reachable


@timers_only
async def test_a_second_absence_has_its_full_time_again() -> None:
    track = listened_to()
    track.on_away()
    await asyncio.sleep(MAX_ABSENCE - 1.0)
    track.on_back()
    track.on_away()
    await asyncio.sleep(MAX_ABSENCE - 1.0)
    assert not track.reachable


@timers_only
async def test_a_connection_that_is_over_for_good_is_not_waited_for() -> None:
    track = listened_to()
    track.on_away()
    track.on_over()
    assert track.reachable
