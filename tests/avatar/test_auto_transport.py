"""`transport="auto"` finds a way to a face in the same call, and the user loses no word.

`WAYS=all` tries every case of every kind (four minutes); without it those that differ most.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bench.agent import sound
from bench.ear.dsp import Pcm
from bench.ear.sentences import OWN_WORDS
from bench.ear.voices import speech, voices
from bench.unheard import compare
from livekit_plugins_runway import (
    AvatarState,
    LearnedTransports,
    RecoveryOptions,
    TransportChanged,
)
from livekit_plugins_runway.errors import (
    AvatarJoinError,
    AvatarLostError,
    RequestRejectedError,
    SessionFailedError,
    TransportsFailedError,
)
from livekit_plugins_runway.testing import CallFault, Faults, Speech, WorkerManners
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.transport.auto.learned import AccountMemory, Learned
from tests.support.call import Call, calling, now

AVATAR = "runway-avatar-agent"
HEARD = ["agent", AVATAR, *(f"{AVATAR}-{which}" for which in ("direct", "direct-2", "bridge"))]
AUTO: dict[str, Any] = {
    "allow_private_livekit_url": True,
    "recovery": RecoveryOptions(session_cap=None),
    "user": {"listen_to": HEARD},
}
REPEATED, STRETCHED = 0.3, 0.1
"""Seconds that a change of speakers may repeat, and that receivers may hurry in all, in pieces of
some 10 ms."""
ALL = os.environ.get("WAYS") == "all"
SAID = "Your parcel has left our store. It will reach you on Monday, in the afternoon."


@functools.cache
def spoken(text: str, speaker: int = 0) -> Pcm:
    return speech(text, voices(synthesizer="espeak", language="en")[speaker])


def own_words(index: int, seconds: float = 10.0) -> bytes:
    """What an avatar says of its own accord, in a voice of its own."""
    words = spoken(OWN_WORDS["en"][index], 1)
    return words[: int(seconds * 48_000)].tobytes()


@asynccontextmanager
async def auto_call(
    server: LiveKitServer, *, avatar: dict[str, Any] | None = None, **simulated: Any
) -> AsyncIterator[tuple[Call, list[TransportChanged]]]:
    async with calling(server, simulated=simulated, **{**AUTO, **(avatar or {})}) as call:
        changes: list[TransportChanged] = []
        call.avatar.on("transport_changed", changes.append)
        yield call, changes


async def says_whole(call: Call, text: str = SAID) -> None:
    """The agent says it, and the user hears all of it once, and nothing else."""
    said, began = spoken(text), now()
    await call.session.say(text, audio=sound(said, []))
    await call.user.wait_for_silence(0.4, 8.0)
    found = await asyncio.to_thread(compare, said, call.user.heard(began))
    assert found.found > 0.5, found
    assert (found.missing < STRETCHED, found.extra < REPEATED) == (True, True), found


async def comes_to_its_face(call: Call, changes: list[TransportChanged], new: str) -> None:
    await call.until_told("transport_changed", lambda: bool(changes), 20.0)
    await call.until(AvatarState.LIVE, 20.0)
    assert call.avatar.transport == new
    assert [change.new for change in changes] == [new]


def converses(**more: Any) -> WorkerManners:
    return WorkerManners(speech=Speech.CONVERSATION, **{"answer": own_words(0), **more})


CONVERSES = {
    "slow": converses(answer_after_silence=1.5),
    "fast": converses(answer_after_silence=0.15),
    "one word": converses(answer=own_words(1, 0.5), answer_after_silence=0.3),
    "a long silence first": converses(answer_after_silence=5.0),
    "greets": converses(greeting=own_words(2, 2.0)),
    "in tones": converses(answer=None),
}


@pytest.mark.parametrize("manner", CONVERSES if ALL else ["slow", "one word", "greets"])
async def test_a_worker_that_converses_is_invited_to_the_agents_room_instead(
    livekit_server: LiveKitServer, manner: str
) -> None:
    async with auto_call(livekit_server, hosted=CONVERSES[manner]) as (call, changes):
        await call.start()
        await call.user.wait_for_video(10.0)
        began = now()
        await says_whole(call)
        await comes_to_its_face(call, changes, "direct")
        assert now() - began < 12.0
        assert len(call.simulator.sessions) == 2
        assert call.gave_up == []
        received = sum(call.runway.speech_received)
        await says_whole(call)
        assert sum(call.runway.speech_received) > received + 3.0


BRIDGE_IS_CLOSED: dict[str, dict[str, Any]] = {
    "says nothing": {"hosted": WorkerManners(speech=Speech.SILENT)},
    "has no voice": {"hosted": WorkerManners(publish_audio=False)},
    "repeats in another voice": {"hosted": WorkerManners(pace=1.15)},
    "consume is refused": {"faults": Faults(consume=[400])},
    "the room is not reached": {
        "faults": Faults(consume=[CallFault(changes={"url": "ws://127.0.0.1:9"})])
    },
    "the room's token forbids it": {"user_can_publish": False, "user_can_publish_data": False},
}


@pytest.mark.parametrize(
    "why", BRIDGE_IS_CLOSED if ALL else ["says nothing", "has no voice", "consume is refused"]
)
async def test_what_closes_the_bridge_brings_the_face_by_direct(
    livekit_server: LiveKitServer, why: str
) -> None:
    patience = {"join_timeout": 3.0, "wait_for_avatar": 2.0}
    async with auto_call(livekit_server, avatar=patience, **BRIDGE_IS_CLOSED[why]) as told:
        call, changes = told
        await call.start()
        if "hosted" in BRIDGE_IS_CLOSED[why] and why != "has no voice":
            await call.user.wait_for_video(10.0)
        await says_whole(call)
        await comes_to_its_face(call, changes, "direct")
        assert len(call.simulator.sessions) == 2
        await says_whole(call)


@pytest.mark.parametrize("speech_by", ["datastream", "track"])
async def test_a_worker_that_repeats_keeps_the_bridge_and_is_remembered(
    livekit_server: LiveKitServer, speech_by: str
) -> None:
    learned = LearnedTransports()
    async with auto_call(livekit_server, avatar={"learned": learned}, speech=speech_by) as told:
        call, changes = told
        await call.start()
        await call.user.wait_for_video(10.0)
        await says_whole(call)
        assert (call.avatar.transport, call.avatar.delivery) == ("bridge", speech_by)
        instance = call.avatar._instance
        assert instance is not None
        # One that answers `lk.clear_buffer` says what it is sent: its first words do not wait.
        assert instance.doubts_first_words is (speech_by == "track")
        assert (changes, call.errors) == ([], [])
        memory = AccountMemory(
            learned, call.simulator.api_secret, call.simulator.url, livekit_server.url
        )
        assert memory.recall() == Learned("bridge", speech_by)  # type: ignore[arg-type]


class DirectIsLearned(LearnedTransports):
    """By an earlier call, of any account."""

    def recall(self, account: str) -> Learned | None:
        return super().recall(account) or Learned("direct", "datastream")


async def test_what_was_learned_is_begun_with(livekit_server: LiveKitServer) -> None:
    avatar = {"learned": DirectIsLearned()}
    async with auto_call(livekit_server, avatar=avatar, hosted=CONVERSES["fast"]) as told:
        call, changes = told
        await call.start()
        await call.user.wait_for_video(10.0)
        await says_whole(call)
        assert (call.avatar.transport, call.avatar.avatar_identity) == ("direct", AVATAR)
        assert (changes, len(call.simulator.sessions)) == ([], 1)


DIRECT_IS_CLOSED: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "the create is refused": ({"faults": Faults(create=[400])}, RequestRejectedError),
    "the worker stays away": ({"invited": WorkerManners(stays_away=True)}, AvatarJoinError),
    "the worker is refused": ({"invited": WorkerManners(refused=True)}, SessionFailedError),
    "the worker converses": ({"invited": CONVERSES["fast"]}, AvatarLostError),
}


@pytest.mark.parametrize(
    "why", DIRECT_IS_CLOSED if ALL else ["the create is refused", "the worker stays away"]
)
async def test_what_closes_direct_brings_the_face_by_the_bridge(
    livekit_server: LiveKitServer, why: str
) -> None:
    simulated, error = DIRECT_IS_CLOSED[why]
    avatar = {"learned": DirectIsLearned(), "join_timeout": 2.0, "wait_for_avatar": 1.0}
    async with auto_call(livekit_server, avatar=avatar, **simulated) as (call, changes):
        await call.start()
        await call.session.say(SAID, audio=sound(spoken(SAID), []))
        await comes_to_its_face(call, changes, "bridge")
        assert isinstance(changes[0].error, error)
        await call.user.wait_for_video(10.0)
        await says_whole(call)


async def test_where_neither_gives_a_face_one_error_says_why(
    livekit_server: LiveKitServer,
) -> None:
    manners = {"hosted": CONVERSES["fast"], "invited": WorkerManners(refused=True)}
    async with auto_call(livekit_server, avatar={}, **manners) as (call, _):
        await call.start()
        await call.user.wait_for_video(10.0)
        await says_whole(call)
        await call.until_told("gave_up", lambda: bool(call.gave_up))
        (error,) = call.gave_up
        assert isinstance(error, TransportsFailedError)
        assert isinstance(error.bridge, AvatarLostError)
        assert isinstance(error.direct, SessionFailedError)
        assert str(error.bridge) in str(error)
        assert len(call.simulator.sessions) == 2
        await says_whole(call)


async def test_a_server_that_runway_cannot_reach_stays_with_the_bridge(
    livekit_server: LiveKitServer,
) -> None:
    avatar = {"allow_private_livekit_url": False}
    async with auto_call(livekit_server, avatar=avatar, hosted=CONVERSES["fast"]) as told:
        call, changes = told
        await call.start()
        await call.user.wait_for_video(10.0)
        await says_whole(call)
        await call.until_told("gave_up", lambda: bool(call.gave_up))
        (error,) = call.gave_up
        assert isinstance(error, AvatarLostError)
        assert "LIVEKIT_URL" in error.way_out
        assert (changes, len(call.simulator.sessions)) == ([], 1)


async def test_a_late_worker_under_another_identity_has_a_face(
    livekit_server: LiveKitServer,
) -> None:
    manners = WorkerManners(identity="somebody", join_delay=1.0)
    async with auto_call(livekit_server, hosted=manners) as told:
        call, changes = told
        await call.start()
        await call.user.wait_for_video(10.0)
        await says_whole(call)
        assert (changes, call.errors) == ([], [])
