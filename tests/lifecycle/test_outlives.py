"""A call that outlives its Runway sessions: a new face after a loss, before the cap, on demand, and
after the user was away - behind one participant, with nothing left running.

`RENEWALS` is the number of renewals in a row (default 1; 10 for a release).
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.voice.room_io import RoomOptions

from livekit_plugins_runway import AvatarSession, AvatarState, RecoveryOptions, RunwayException
from livekit_plugins_runway.errors import (
    AvatarLostError,
    ConfigurationError,
    CreditsError,
    NotFoundError,
)
from livekit_plugins_runway.lifecycle import recovery as recovery_module
from livekit_plugins_runway.testing import CallFault, Faults, SimulatedSession
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import (
    HeardTone,
    ToneScript,
    gaps,
    in_order,
    repeated_seconds,
)
from livekit_plugins_runway.testing.user import SimulatedUser
from tests.support.call import FEW_PICTURES, ONE_FACE, Call, calling, now, tts

UTTERANCE = ToneScript(16)
OTHER = ToneScript(6, offset=40)
NO_CREDITS = CallFault(status=400, error="You do not have enough credits to run this task.")
RESTART = RecoveryOptions(session_cap=None)
RENEWALS = int(os.environ.get("RENEWALS", "1"))
"""In a row, under continuous speech; 10 for a release."""


def sessions(call: Call) -> list[SimulatedSession]:
    return list(call.simulator.sessions.values())


def one_participant_with_its_tracks(call: Call) -> None:
    avatars = [p for p in call.user.participants if p.identity == "runway-avatar-agent"]
    assert len(avatars) == 1
    tracks = [t for t in call.user.tracks if t.identity == "runway-avatar-agent"]
    assert sorted(t.source for t in tracks) == ["camera", "microphone"]
    assert all(t.unpublished_at is None for t in tracks)


async def spoken_by_the_face(call: Call, script: ToneScript) -> None:
    began = now()
    before = len(call.runway.speech_received)
    await call.say(script)
    await call.hears(script, since=began)
    assert len(call.runway.speech_received) > before


@pytest.mark.parametrize("how", ["crash", "freeze"])
async def test_after_a_loss_the_voice_goes_on_and_the_face_comes_back_on_the_same_tracks(
    livekit_server: LiveKitServer, how: str
) -> None:
    async with calling(livekit_server, recovery=RESTART, stall_timeout=1.0) as call:
        await call.start()
        began = now()
        handle = call.say(UTTERANCE)
        await call.until_heard(5)
        getattr(call.runway, how)()
        await handle
        await call.hears(UTTERANCE, since=began)
        await call.until_told("replaced", lambda: bool(call.replaced))
        await call.user.wait_for_video(5.0, since=now())
        await spoken_by_the_face(call, OTHER)
        one_participant_with_its_tracks(call)
        (lost,) = call.errors
        assert isinstance(lost, AvatarLostError)
        assert [r.cause for r in call.replaced] == ["restart"]
        assert call.avatar.usage.restarts == 1
        assert call.gave_up == []
        states = [change.new for change in call.states]
        assert states == ["starting", "live", "voice_only", "live"]


async def test_within_a_long_segment_the_face_comes_back_and_goes_on_with_it(
    livekit_server: LiveKitServer,
) -> None:
    story = ToneScript(36, slot_s=0.5, gap_s=0.15)  # 18 s
    async with calling(livekit_server, recovery=RESTART) as call:
        await call.start()
        began = now()
        handle = call.say(story)
        await call.until_heard(3)
        call.runway.crash()
        await handle
        heard = await call.hears(story, since=began)
        assert [replaced.cause for replaced in call.replaced] == ["restart"]
        assert len(sessions(call)) == 2
        assert call.runway.speech_received != []  # by the new one, of the same segment
        assert repeated_seconds(story, heard) <= 0.5  # where the voice took over
        assert call.history() == [(story.text, False)]


async def test_out_of_credits_it_is_left_at_the_voice_without_hammering(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, recovery=RESTART) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        call.simulator.faults.for_next_session(Faults(create=[NO_CREDITS] * 9))
        call.runway.crash()
        await call.until_told("gave_up", lambda: bool(call.gave_up))
        assert isinstance(call.gave_up[0], CreditsError)
        creates = [
            r for r in call.simulator.requests if r.method == "POST" and "consume" not in r.path
        ]
        assert len(creates) == 2
        began = now()
        await call.say(OTHER)
        await call.hears(OTHER, since=began)
        assert call.avatar.state is AvatarState.VOICE_ONLY


async def test_after_so_many_failures_in_a_row_it_is_left_at_the_voice(
    livekit_server: LiveKitServer,
) -> None:
    recovery = RecoveryOptions(session_cap=None, max_restarts=2, backoff=0.1)
    failing = Faults(fail_while_provisioning="INTERNAL.BAD_OUTPUT.CODE01")
    async with calling(livekit_server, recovery=recovery, simulated={"faults": failing}) as call:
        call.simulator.faults.for_next_session(Faults())
        await call.start()
        await call.until(AvatarState.LIVE)
        call.runway.crash()
        await call.until_told("gave_up", lambda: bool(call.gave_up))
        assert len(sessions(call)) == 3
        assert len(call.errors) == 3


async def test_on_loss_close_ends_the_avatar(livekit_server: LiveKitServer) -> None:
    async with calling(livekit_server, recovery=RecoveryOptions(on_loss="close")) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        call.runway.crash()
        await call.until(AvatarState.CLOSED)
        assert len(call.gave_up) == 1
        await call.avatar.aclose()
        assert len(sessions(call)) == 1


async def speak_until(call: Call, condition: Callable[[], bool]) -> tuple[list[ToneScript], float]:
    """One utterance after the other, without a pause of the agent's own."""
    scripts: list[ToneScript] = []
    began = now()
    while not condition():
        scripts.append(ToneScript(10, offset=len(scripts) % 9 * 10))
        await call.say(scripts[-1])
    return scripts, began


def in_order_and_whole(tones: list[HeardTone], scripts: list[ToneScript]) -> None:
    said = [index for script in scripts for index in script.indices]
    assert [index for index, _ in itertools.groupby(tone.index for tone in tones)] == said


@pytest.mark.heavy
@pytest.mark.timeout(60 + 15 * RENEWALS)
@pytest.mark.parametrize("concurrency", [2, 1])
async def test_a_session_is_renewed_before_its_cap_and_the_user_hears_no_seam(
    livekit_server: LiveKitServer, concurrency: int
) -> None:
    """Both kinds of account: two sessions at once, or the old one ended before the new begins."""
    recovery = RecoveryOptions(session_cap=12.0, renew_before=6.0)
    simulated = {"hidden_cap": 12.0, "concurrency": concurrency}
    async with calling(livekit_server, recovery=recovery, simulated=simulated) as call:
        live: list[int] = []
        call.avatar.on("state_changed", lambda _: live.append(len(call.simulator.leaked())))
        await call.start()
        await call.until(AvatarState.LIVE)
        scripts, began = await speak_until(call, lambda: len(call.replaced) >= RENEWALS)
        in_order_and_whole(await call.hears(*scripts, since=began), scripts)
        assert {r.cause for r in call.replaced} == {"renewal"}
        assert {r.by_voice for r in call.replaced} == {concurrency == 1}
        assert call.errors == []
        one_participant_with_its_tracks(call)
        if concurrency == 2:
            assert all(r.freeze is not None and r.freeze < 0.5 for r in call.replaced)
        assert max(live) <= 3  # the one, the next, and the former, which is being ended


@pytest.mark.heavy
async def test_in_one_long_segment_it_is_renewed_in_a_gap_between_words(
    livekit_server: LiveKitServer,
) -> None:
    recovery = RecoveryOptions(session_cap=10.0, renew_before=5.0)
    simulated = {"hidden_cap": 12.0}
    async with calling(livekit_server, recovery=recovery, simulated=simulated) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        script = ToneScript(56)  # 14 s
        began = now()
        await call.say(script)
        tones = await call.hears(script, since=began)
        assert in_order(script, tones)
        spoken = call.user.heard(began + tones[0].start_s, began + tones[-1].start_s)
        assert max((g.duration_s for g in gaps(spoken, 48_000)), default=0.0) <= 0.25
        assert {r.cause for r in call.replaced} == {"renewal"}
        assert call.errors == []


async def test_if_the_next_session_does_not_come_the_present_one_stays_until_it_ends(
    livekit_server: LiveKitServer,
) -> None:
    recovery = RecoveryOptions(session_cap=12.0, renew_before=6.0)
    async with calling(livekit_server, recovery=recovery) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        call.simulator.faults.for_next_session(Faults(create=[NO_CREDITS] * 9))
        await call.until_told("error", lambda: bool(call.errors))
        assert isinstance(call.errors[0], CreditsError)
        await call.until(AvatarState.LIVE)
        await spoken_by_the_face(call, OTHER)
        assert len(sessions(call)) == 1


async def test_a_swap_keeps_the_old_face_until_the_new_one_is_there(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        await call.avatar.swap_avatar(preset_id="cat-character", personality="Purrs.")
        old, new = sessions(call)
        assert new.create_body["avatar"]["presetId"] == "cat-character"
        assert new.create_body["personality"] == "Purrs."
        await spoken_by_the_face(call, OTHER)
        assert call.avatar.session_id == new.id
        await call.simulator.wait_until(lambda: old.status.is_terminal)
        assert [r.cause for r in call.replaced] == ["swap"]
        [swapped] = call.replaced
        assert swapped.freeze is not None
        assert swapped.freeze < 0.5
        one_participant_with_its_tracks(call)


async def test_a_swap_that_fails_says_why_and_changes_nothing(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server) as call:
        with pytest.raises(ConfigurationError, match="new"):
            await call.avatar.swap_avatar(preset_id="influencer")
        await call.start()
        await call.until(AvatarState.LIVE)
        call.simulator.faults.for_next_session(Faults(create=[404]))
        with pytest.raises(NotFoundError):
            await call.avatar.swap_avatar(preset_id="cat-character")
        with pytest.raises(ConfigurationError, match="preset_id"):
            await call.avatar.swap_avatar()
        assert call.avatar.state is AvatarState.LIVE
        await spoken_by_the_face(call, OTHER)
        assert len(sessions(call)) == 1


async def test_a_swap_brings_the_face_back_after_it_was_given_up(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        call.runway.crash()
        await call.until_told("gave_up", lambda: bool(call.gave_up))
        await call.avatar.swap_avatar(preset_id="cat-character")
        await spoken_by_the_face(call, OTHER)
        assert call.avatar.state is AvatarState.LIVE


async def test_closing_ends_a_swap_that_is_under_way(livekit_server: LiveKitServer) -> None:
    async with calling(livekit_server) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        swapping = asyncio.create_task(call.avatar.swap_avatar(preset_id="cat-character"))
        await call.until(AvatarState.RENEWING)
        await call.avatar.aclose()
        with pytest.raises(RunwayException):
            await swapping


def user_of(call: Call) -> SimulatedUser:
    server = call.server
    return SimulatedUser(
        server.url, call.room.name, api_key=server.api_key, api_secret=server.api_secret
    )


async def test_nothing_bills_while_the_user_is_away_and_the_face_is_back_with_them(
    livekit_server: LiveKitServer,
) -> None:
    recovery = RecoveryOptions(on_user_left="pause", user_left_grace=0.5)
    async with calling(livekit_server, recovery=recovery) as call:
        call.close_on_disconnect = False
        await call.start()
        await call.user.wait_for_video(5.0)
        await call.until(AvatarState.LIVE)
        await call.user.aclose()
        await call.until(AvatarState.PAUSED)
        await call.simulator.wait_until(lambda: not call.simulator.leaked())
        async with user_of(call) as user:
            await call.until(AvatarState.LIVE)
            await user.wait_for_video(5.0)
            assert len(sessions(call)) == 2
            await call.until_told("replaced", lambda: bool(call.replaced))
            assert call.avatar.usage.resumes == 1


async def test_a_user_who_is_back_soon_was_not_away(livekit_server: LiveKitServer) -> None:
    recovery = RecoveryOptions(on_user_left="pause", user_left_grace=5.0)
    async with calling(livekit_server, recovery=recovery) as call:
        call.close_on_disconnect = False
        await call.start()
        await call.user.wait_for_video(5.0)
        await call.until(AvatarState.LIVE)
        await call.user.aclose()
        async with user_of(call) as user:
            await user.wait_for_video(5.0)
            assert call.avatar.state is AvatarState.LIVE
            assert len(sessions(call)) == 1


async def test_on_user_left_close_ends_the_avatar(livekit_server: LiveKitServer) -> None:
    recovery = RecoveryOptions(on_user_left="close", user_left_grace=0.2)
    async with calling(livekit_server, recovery=recovery) as call:
        call.close_on_disconnect = False
        await call.start()
        await call.user.wait_for_video(5.0)
        await call.until(AvatarState.LIVE)
        await call.user.aclose()
        await call.until(AvatarState.CLOSED)
        await call.simulator.wait_until(lambda: not call.simulator.leaked())


@pytest.mark.heavy
async def test_two_avatars_in_one_room_have_each_a_face_and_a_voice(
    livekit_server: LiveKitServer,
) -> None:
    async with (
        calling(livekit_server, simulated=FEW_PICTURES) as call,
        AsyncExitStack() as stack,
    ):
        room = rtc.Room()
        await room.connect(
            call.server.url, call.server.token(call.room.name, "second-agent", kind="agent")
        )
        stack.push_async_callback(room.disconnect)
        session: AgentSession[Any] = AgentSession(turn_handling={"turn_detection": None}, vad=None)
        stack.push_async_callback(session.aclose)
        second = AvatarSession(
            preset_id="cat-character",
            avatar_participant_identity="second-face",
            api_url=call.simulator.url,
            api_key=call.simulator.api_secret,
            recovery=ONE_FACE,
        )
        stack.push_async_callback(second.aclose)
        await call.start()
        await second.start(session, room, **call.livekit)
        await session.start(
            Agent(instructions=""), room=room, room_options=RoomOptions(audio_input=False)
        )
        for speaker, script in ((call.session, UTTERANCE), (session, OTHER)):
            began = now()
            await speaker.say(script.text, audio=tts(script))
            await call.hears(script, since=began)
        faces = {t.identity for t in call.user.tracks if t.source == "camera"}
        assert faces == {"runway-avatar-agent", "second-face"}
        await second.aclose()
        assert call.avatar.state is AvatarState.LIVE
        began, before = now(), len(sessions(call)[0].speech_received)
        await call.say(OTHER)
        await call.hears(OTHER, since=began)
        assert len(sessions(call)[0].speech_received) > before


async def test_what_a_session_has_cost_is_corrected_when_runway_says_so(
    livekit_server: LiveKitServer,
) -> None:
    usages: list[Any] = []
    simulated = {"end_call_settle": 1.0}
    async with calling(livekit_server, simulated=simulated) as call:
        call.avatar.on("usage_updated", usages.append)
        await call.start()
        await call.until(AvatarState.LIVE)
        await call.avatar.swap_avatar(preset_id="cat-character")
        await call.until_told("usage_updated", lambda: len(usages) == 2)
        first, corrected = usages
        assert first.sessions == corrected.sessions == 1
        assert corrected.billed_seconds == pytest.approx(sessions(call)[0].billed_seconds, abs=1.0)
        assert corrected.billed_seconds == int(corrected.billed_seconds)
        assert corrected.credits >= 2
        assert corrected.swaps == 1


async def test_the_cap_is_learned_from_a_session_that_ended_by_itself(
    livekit_server: LiveKitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_module, "MIN_CAP", 1.0)
    async with calling(livekit_server, recovery=RecoveryOptions()) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        await asyncio.sleep(2.0)
        call.runway.hit_cap()
        await call.until_told("replaced", lambda: bool(call.replaced))
        assert call.avatar._call is not None
        cap = call.avatar._call.supervisor._cap.seconds
        assert cap is not None
        assert 1.5 < cap < 6.0
