"""What `transport="auto"` decides before and between sessions; no room is joined here."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from livekit import rtc

from livekit_plugins_runway import LearnedTransports, ParticipantOptions, VideoOptions
from livekit_plugins_runway._common.tasks import BackgroundTasks
from livekit_plugins_runway.errors import AvatarLostError, LossReason
from livekit_plugins_runway.events import TransportChanged
from livekit_plugins_runway.transport.auto.learned import AccountMemory, Learned
from livekit_plugins_runway.transport.auto.transport import AutoTransport
from livekit_plugins_runway.transport.bridge import Bridge
from livekit_plugins_runway.transport.direct import Direct
from livekit_plugins_runway.transport.factory import TransportOptions
from livekit_plugins_runway.transport.tokens import RoomCredentials
from livekit_plugins_runway.transport.worker_protocol import DeliveryOption


class Listener:
    """Whom nobody tells anything here."""

    def relayed(self, _pcm: bytes) -> None: ...

    def worker_started(self) -> None: ...

    def worker_finished(self, *, interrupted: bool) -> None: ...


SILENT = AvatarLostError(reason=LossReason.SPEECH_STALLED)
FOREIGN = AvatarLostError(reason=LossReason.SPEECH_FOREIGN)
PUBLIC, PRIVATE = "wss://mine.livekit.cloud", "ws://127.0.0.1:7880"


def options(url: str = PRIVATE, **more: Any) -> TransportOptions:
    participant = more.pop("participant", ParticipantOptions())
    return TransportOptions(
        rtc.Room(),
        RoomCredentials(url, "key", "s" * 32, "room", "agent", participant),
        identity="face",
        name="Face",
        stall_timeout=1.5,
        token_ttl=datetime.timedelta(minutes=2),
        allow_private=False,
        background=BackgroundTasks(),
        **more,
    )


class Calls:
    """Transports of calls that follow one another, closed at the end."""

    def __init__(self) -> None:
        self.made: list[AutoTransport] = []
        self.changes: list[TransportChanged] = []
        self.memory = AccountMemory(LearnedTransports(), "an account")

    def next(
        self,
        made_of: TransportOptions | None = None,
        *,
        delivery: DeliveryOption = "auto",
        check: bool = True,
    ) -> AutoTransport:
        transport = AutoTransport(
            made_of or options(),
            self.memory,
            delivery=delivery,
            check_first_words=check,
            on_changed=self.changes.append,
            background=BackgroundTasks(),
        )
        self.made.append(transport)
        return transport


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    calls = Calls()
    yield calls
    for transport in calls.made:
        await transport.aclose()


def bridge_of(transport: AutoTransport) -> Bridge:
    assert isinstance(transport._current, Bridge)
    return transport._current


async def test_a_worker_that_is_silent_to_a_data_stream_is_given_a_track_first(
    calls: Calls,
) -> None:
    auto = calls.next()
    bridge_of(auto).last_delivery = "datastream"
    assert await auto.go_over(SILENT) is None
    assert bridge_of(auto).delivery == "track"
    bridge_of(auto).last_delivery = "track"
    assert await auto.go_over(SILENT) is SILENT
    assert calls.changes == []


@pytest.mark.parametrize(("error", "delivery"), [(FOREIGN, "auto"), (SILENT, "datastream")])
async def test_no_other_track_is_tried_for_words_of_its_own_or_against_the_users_choice(
    calls: Calls, error: AvatarLostError, delivery: DeliveryOption
) -> None:
    auto = calls.next(delivery=delivery)
    bridge_of(auto).last_delivery = "datastream"
    assert await auto.go_over(error) is error
    assert bridge_of(auto).delivery is None


async def test_a_transport_that_has_worked_in_the_call_is_not_left(calls: Calls) -> None:
    auto = calls.next(options(PUBLIC))
    bridge_of(auto).last_delivery = "datastream"
    auto.note_repeats()
    for error in (SILENT, FOREIGN):
        assert await auto.go_over(error) is error
    assert calls.memory.recall() == Learned("bridge", "datastream")


async def test_what_was_learned_is_taken_for_known_and_taken_back_when_it_fails(
    calls: Calls,
) -> None:
    calls.memory.note(Learned("bridge", "track"))
    auto = calls.next()
    assert bridge_of(auto).delivery == "track"
    auto.connection(Listener())
    assert not bridge_of(auto).doubts_first_words
    await auto.go_over(FOREIGN)
    assert calls.memory.recall() is None
    auto.connection(Listener())
    assert bridge_of(auto).doubts_first_words


@pytest.mark.parametrize("check", [True, False])
async def test_first_words_are_doubted_until_an_avatar_has_said_the_agents(
    calls: Calls, check: bool
) -> None:
    auto = calls.next(check=check)
    assert auto.connection(Listener()).doubts_first_words is check
    bridge_of(auto).last_delivery = "track"
    auto.note_repeats()
    assert not auto.connection(Listener()).doubts_first_words


async def test_direct_that_was_learned_is_begun_with_where_it_is_still_possible(
    calls: Calls,
) -> None:
    calls.memory.note(Learned("direct", "datastream"))
    assert isinstance(calls.next(options(PUBLIC))._current, Direct)
    auto = calls.next(options(PRIVATE))
    assert auto.kind == "bridge"
    auto.connection(Listener())
    assert bridge_of(auto).doubts_first_words


async def test_what_rules_direct_out_is_said(calls: Calls) -> None:
    assert options(PUBLIC).why_not_direct() == ""
    assert "LIVEKIT_URL" in options(PRIVATE).why_not_direct()
    assert replace(options(PRIVATE), allow_private=True).why_not_direct() == ""
    assert "video" in options(PUBLIC, video=VideoOptions(max_fps=10)).why_not_direct()
    own = options(PUBLIC, room_options=rtc.RoomOptions())
    assert "room_options" in own.why_not_direct()
    some = options(PUBLIC, participant=ParticipantOptions(audience=["user"]))
    assert "audience" in some.why_not_direct()
