"""Each session is answered for from its creation on, ended once, and accounted for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from livekit_plugins_runway import AvatarReplaced, CallUsage, SessionEnd
from livekit_plugins_runway._common.tasks import BackgroundTasks
from livekit_plugins_runway.errors import AvatarClosedError
from livekit_plugins_runway.events import CallEvents
from livekit_plugins_runway.lifecycle.ending import Endings
from livekit_plugins_runway.lifecycle.instance import AvatarInstance
from livekit_plugins_runway.runway.session import END_BUDGET
from tests.support.memory_runway import now
from tests.support.scripted_room import settle
from tests.support.virtual_clock import timers_only


class Instance:
    """A session that takes `seconds` to end."""

    def __init__(self, seconds: float = 1.0, how: Any = "deleted", status: Any = None) -> None:
        self.seconds, self.how, self.status = seconds, how, status
        self.retired = self.hidden = False
        self.age = 70.0
        self.billed = 10.0
        self.budgets: list[float] = []
        self.session = SimpleNamespace(id="s", times=SimpleNamespace(consumed=1.0))

    @property
    def it(self) -> AvatarInstance:
        return cast(AvatarInstance, self)

    def hide(self) -> None:
        self.hidden = True

    async def close(self, *, budget: float) -> SessionEnd:
        self.budgets.append(budget)
        await asyncio.sleep(self.seconds)
        return SessionEnd(
            session_id="s",
            status=self.status,
            how=self.how,
            confirmed=True,
            created_at=None,
            ready_at=None,
            started_at=None,
            ended_at=0.0,
            billed_seconds=10.0,
            estimated=False,
        )


class Ledger:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.own_ends: list[float] = []
        events = CallEvents(lambda name, _payload: self.told.append(name))
        self.endings = Endings(events, BackgroundTasks(), self.own_ends.append)


@timers_only
async def test_a_session_is_ended_once_and_accounted_for() -> None:
    ledger, instance = Ledger(), Instance()
    ledger.endings.hold(instance.it)
    assert ledger.endings.billed == 10.0
    ledger.endings.retire(instance.it)
    ledger.endings.retire(instance.it)
    ledger.endings.retire(None)
    assert instance.hidden
    await asyncio.sleep(0.5)
    assert repr(ledger.endings) == "Endings(held=1, ending=1)"
    await asyncio.sleep(1.0)
    assert instance.budgets == [END_BUDGET]
    assert ledger.endings.usage == CallUsage(sessions=1, billed_seconds=10.0, credits=6)
    assert ledger.endings.billed == 10.0
    assert ledger.told == ["session_ended", "usage_updated"]
    assert ledger.own_ends == []


@timers_only
async def test_closing_ends_all_that_is_held_in_the_time_that_is_left() -> None:
    ledger, one, two = Ledger(), Instance(), Instance(2.0)
    ledger.endings.hold(one.it)
    ledger.endings.hold(two.it)
    await asyncio.sleep(1.0)
    ledger.endings.close(8.0)
    ledger.endings.close(100.0)
    await ledger.endings.ended()
    assert now() == 3.0
    assert one.budgets == two.budgets == [7.0]
    assert ledger.endings.usage.sessions == 2


@timers_only
async def test_what_is_created_after_the_close_is_ended_at_once() -> None:
    ledger, late = Ledger(), Instance()
    ledger.endings.close(8.0)
    with pytest.raises(AvatarClosedError):
        ledger.endings.hold(late.it)
    await settle()
    assert late.retired
    await ledger.endings.ended()
    assert ledger.endings.usage.sessions == 1


@timers_only
async def test_after_the_deadline_an_end_has_half_a_second() -> None:
    ledger, late = Ledger(), Instance()
    ledger.endings.close(1.0)
    await asyncio.sleep(5.0)
    with pytest.raises(AvatarClosedError):
        ledger.endings.hold(late.it)
    await ledger.endings.ended()
    assert late.budgets == [0.5]


@pytest.mark.parametrize(
    ("how", "status", "learned"),
    [
        ("already ended", "COMPLETED", [70.0]),
        ("already ended", "FAILED", []),
        ("end call", "COMPLETED", []),
    ],
)
@timers_only
async def test_only_an_end_in_good_order_that_nobody_asked_for_tells_of_a_cap(
    how: str, status: str, learned: list[float]
) -> None:
    ledger, instance = Ledger(), Instance(how=how, status=status)
    ledger.endings.hold(instance.it)
    ledger.endings.retire(instance.it)
    await asyncio.sleep(2.0)
    assert ledger.own_ends == learned


@pytest.mark.parametrize("cause", ["restart", "renewal", "swap", "resume"])
@timers_only
async def test_each_change_is_counted_by_its_cause(cause: Any) -> None:
    ledger = Ledger()
    ledger.endings.count(AvatarReplaced(cause, "s", None, 1.5, by_voice=False))
    usage = ledger.endings.usage
    counted = {
        name: getattr(usage, f"{name}s") for name in ("restart", "renewal", "swap", "resume")
    }
    assert counted == {name: int(name == cause) for name in counted}
    assert usage.overlap_seconds == 1.5
    assert ledger.told == ["replaced"]
