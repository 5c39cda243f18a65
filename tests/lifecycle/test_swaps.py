"""A request for another avatar is answered once, and nobody acts on one that was withdrawn."""

from __future__ import annotations

import asyncio

import pytest

from livekit_plugins_runway.errors import AvatarClosedError, NotFoundError
from livekit_plugins_runway.lifecycle.swaps import SwapRequests
from livekit_plugins_runway.runway.requests import realtime_request
from tests.support.scripted_room import settle
from tests.support.virtual_clock import timers_only

REQUEST = realtime_request(None, "influencer", None, None, None, None)


async def asked(swaps: SwapRequests) -> asyncio.Task[None]:
    asking = asyncio.create_task(swaps.ask(REQUEST))
    await asyncio.sleep(0)
    return asking


@timers_only
async def test_it_is_taken_once_and_its_success_is_told() -> None:
    swaps = SwapRequests()
    asking = await asked(swaps)
    await swaps.wait()
    swap = swaps.take()
    assert swap is not None
    assert swaps.take() is None
    with swap.answered():
        pass
    await asking


@timers_only
async def test_a_refusal_reaches_whoever_has_asked_and_goes_on() -> None:
    swaps = SwapRequests()
    asking = await asked(swaps)
    swap = swaps.take()
    assert swap is not None
    with pytest.raises(NotFoundError), swap.answered():
        raise NotFoundError
    with pytest.raises(NotFoundError):
        await asking


@timers_only
async def test_one_that_is_broken_off_is_answered_all_the_same() -> None:
    swaps = SwapRequests()
    asking = await asked(swaps)
    swap = swaps.take()
    assert swap is not None
    with pytest.raises(ZeroDivisionError), swap.answered():
        raise ZeroDivisionError
    with pytest.raises(AvatarClosedError):
        await asking


@timers_only
async def test_one_that_was_withdrawn_wakes_nobody_up() -> None:
    swaps = SwapRequests()
    waiting = asyncio.create_task(swaps.wait())
    await settle()
    asking = asyncio.create_task(swaps.ask(REQUEST))
    asking.add_done_callback(lambda _: None)
    await asyncio.sleep(0)
    swaps.take()  # in the step in which the waiting one was to wake up
    await settle()
    assert not waiting.done()
    asking.cancel()
    waiting.cancel()
    await asyncio.wait({asking, waiting})


@timers_only
async def test_cancelled_it_is_not_there_any_more() -> None:
    swaps = SwapRequests()
    asking = await asked(swaps)
    asking.cancel()
    await asyncio.wait({asking})
    assert swaps.take() is None


@timers_only
async def test_closed_it_turns_down_what_waits_and_what_comes() -> None:
    swaps = SwapRequests()
    asking = await asked(swaps)
    swaps.close()
    swaps.close()
    with pytest.raises(AvatarClosedError):
        await asking
    with pytest.raises(AvatarClosedError):
        await swaps.ask(REQUEST)
