"""Whole calls on a real LiveKit server, against the simulated Runway."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import jsonschema
import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, APIConnectOptions
from livekit.agents.testing import fake_job_context
from livekit.agents.voice.io import AudioOutput
from livekit.rtc.participant import UnpublishTrackError

from livekit_plugins_runway import AvatarSession, AvatarState, VideoOptions
from livekit_plugins_runway.errors import (
    AuthenticationError,
    AvatarJoinError,
    ConfigurationError,
    CreditsError,
    NotFoundError,
    QuotaError,
    RoomTokenError,
    RunwayException,
    SessionFailedError,
    UnavailableError,
)
from livekit_plugins_runway.testing import (
    CallFault,
    Faults,
    RunwaySimulator,
    SessionStatus,
    WorkerManners,
)
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import (
    ToneScript,
    foreign,
    in_order,
    missing,
    silence_after,
)
from livekit_plugins_runway.transport import delivery
from tests.support.call import HOLES, RATE, REAL_PICTURE, calling, now, tts
from tests.support.published import REALTIME

TEN_SECONDS = ToneScript(40)
SHORT = ToneScript(6)
OTHER = ToneScript(6, offset=40)
NO_RETRY = APIConnectOptions(max_retry=0, timeout=5.0)


@pytest.mark.parametrize(("speech", "avatar_first"), [("datastream", True), ("track", False)])
async def test_all_of_a_ten_second_utterance_is_heard_in_order(
    livekit_server: LiveKitServer, speech: str, avatar_first: bool
) -> None:
    async with calling(livekit_server, simulated={"speech": speech}) as call:
        await call.start(avatar_first=avatar_first)
        began = now()
        handle = call.say(TEN_SECONDS)
        await handle
        heard = await call.hears(TEN_SECONDS, since=began)
        assert in_order(TEN_SECONDS, heard)
        assert call.levels(TEN_SECONDS, began).match(**HOLES)
        assert not handle.interrupted
        assert call.history() == [(TEN_SECONDS.text, False)]
        assert call.avatar.state is AvatarState.LIVE
        assert call.avatar.delivery == speech
        # A worker that hears a track counts only what is audible: 40 tones of 0.2 s.
        assert 8.0 <= sum(call.runway.speech_received) <= 10.1
        stages = vars(call.avatar.timings)
        assert None not in stages.values()
        assert list(stages.values()) == sorted(stages.values())


@pytest.mark.parametrize("refused", [False, True])
async def test_the_first_words_do_not_wait_until_the_unused_microphone_is_withdrawn(
    livekit_server: LiveKitServer, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    unpublish, answer = rtc.LocalParticipant.unpublish_track, asyncio.Event()
    ended = []

    async def unpublish_late(me: rtc.LocalParticipant, sid: str) -> None:
        try:
            await answer.wait()
            if refused:
                raise UnpublishTrackError("refused")
            await unpublish(me, sid)
        finally:
            ended.append(sid)

    monkeypatch.setattr(rtc.LocalParticipant, "unpublish_track", unpublish_late)
    # Given up after 2 s; on a busy machine the first words themselves may take as long.
    monkeypatch.setattr(delivery, "_UNPUBLISH_TIMEOUT", 10.0)
    async with calling(livekit_server, delivery="datastream") as call:
        await call.start()
        handle = call.say(SHORT)
        await call.simulator.wait_until(lambda: call.runway.speech_received != [], 10.0)
        assert ended == []  # nor given up
        answer.set()
        await handle
        assert call.history() == [(SHORT.text, False)]
        await call.avatar.aclose()
        await call.simulator.wait_until(lambda: not call.simulator.leaked(), 5.0)
    assert len(ended) == 1


async def test_a_worker_that_takes_streams_has_the_first_words_before_its_first_picture(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, simulated={"first_frame_delay": 2.0}) as call:
        await call.start()
        began = now()
        await call.say(SHORT)
        await call.hears(SHORT, since=began)
        performance = call.runway.performance
        assert performance.first_frame_at is not None
        assert performance.segments[0].started_at < performance.first_frame_at
        assert call.history() == [(SHORT.text, False)]


async def test_words_that_a_worker_drops_before_its_first_picture_are_heard_all_the_same(
    livekit_server: LiveKitServer,
) -> None:
    deaf = {"first_frame_delay": 2.0, "hosted": WorkerManners(deaf_until_seen=True)}
    async with calling(livekit_server, simulated=deaf) as call:
        await call.start()
        began = now()
        await call.say(SHORT)
        heard = await call.hears(SHORT, since=began)
        assert in_order(SHORT, heard)
        assert call.history() == [(SHORT.text, False)]


async def test_the_wire_is_what_runway_published(livekit_server: LiveKitServer) -> None:
    async with calling(livekit_server, personality="Kind.", max_duration=60) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        create, *_ = call.simulator.requests
        assert (create.method, create.path) == ("POST", "/v1/realtime_sessions")
        assert create.body == {
            "model": "gwm1_avatars",
            "avatar": {"type": "runway-preset", "presetId": "influencer"},
            "personality": "Kind.",
            "maxDuration": 60,
        }
        jsonschema.validate(create.body, REALTIME["create_request"])
        assert create.headers["X-Runway-Version"] == "2024-11-06"
        (consume,) = [r for r in call.simulator.requests if r.path.endswith("/consume")]
        assert consume.body == {}
        assert consume.status == 200


@pytest.mark.parametrize("speech", ["datastream", "track"])
async def test_a_barge_in_is_silent_for_the_user_and_the_next_utterance_is_whole(
    livekit_server: LiveKitServer, speech: str
) -> None:
    async with calling(livekit_server, simulated={"speech": speech}) as call:
        await call.start()
        handle = call.say(TEN_SECONDS)
        await call.until_heard(6)
        cut = now()
        handle.interrupt()
        await handle
        await call.user.wait_for_silence(0.6, 5.0)
        assert silence_after(call.user.heard(cut), RATE, 0, hold_s=0.5) is not None
        after = now()
        await call.say(OTHER)
        await call.hears(OTHER, since=after)
        assert foreign(OTHER, call.heard(after)) == []
        assert call.levels(OTHER, after).match(**HOLES)
        (said, interrupted), whole = call.history()
        assert interrupted
        assert TEN_SECONDS.text.startswith(said)
        assert 4 <= len(said.split()) <= 14
        assert whole == (OTHER.text, False)


async def test_the_user_sees_one_participant_with_a_camera_and_a_microphone(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, simulated=REAL_PICTURE) as call:
        await call.start()
        await call.user.wait_for_video(10.0)
        await call.user.wait_until(lambda: call.user.frames[-1].width == 1088, 10.0)
        (avatar,) = [p for p in call.user.participants if p.identity == "runway-avatar-agent"]
        assert avatar.attributes["lk.publish_on_behalf"] == "agent"
        tracks = [t for t in call.user.tracks if t.identity == avatar.identity]
        assert sorted(t.source for t in tracks) == ["camera", "microphone"]
        assert min(min(f.width, f.height) for f in call.user.frames) >= 16


async def test_a_camera_that_is_published_early_is_muted_until_the_first_picture(
    livekit_server: LiveKitServer,
) -> None:
    early = VideoOptions(publish_early=True)
    async with calling(livekit_server, simulated={"first_frame_delay": 1.0}, video=early) as call:

        def cameras() -> list[rtc.RemoteTrackPublication]:
            avatar = call.user.room.remote_participants.get("runway-avatar-agent")
            there = [] if avatar is None else avatar.track_publications.values()
            return [p for p in there if p.source == rtc.TrackSource.SOURCE_CAMERA]

        await call.start_avatar()
        await call.user.wait_until(lambda: [p.muted for p in cameras()] == [True], 5.0)
        (before,) = cameras()
        await call.start_session()
        await call.until(AvatarState.LIVE)
        await call.user.wait_until(lambda: not before.muted, 10.0)
        await call.user.wait_for_video(10.0)
        assert [p.sid for p in cameras()] == [before.sid]


async def test_the_agent_does_not_receive_what_its_own_avatar_shows_and_says(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server) as call:
        await call.start()
        await call.user.wait_for_video(10.0)
        avatar = call.room.remote_participants["runway-avatar-agent"]
        tracks = avatar.track_publications.values()
        await call.user.wait_until(lambda: not any(track.subscribed for track in tracks), 5.0)
        assert len(tracks) == 2
        seen = len(call.user.frames)
        await call.user.wait_until(lambda: len(call.user.frames) > seen + 5, 5.0)
        (users_voice,) = call.room.remote_participants["user"].track_publications.values()
        assert users_voice.subscribed


async def test_after_close_the_session_is_completed_and_nobody_is_left(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        await asyncio.gather(call.avatar.aclose(), call.avatar.aclose())
        await call.avatar.aclose()
        await call.simulator.wait_for(call.runway.id, SessionStatus.COMPLETED, 5.0)
        assert call.simulator.leaked() == []
        assert call.runway.end_calls == 1
        assert not [r for r in call.simulator.requests if r.method == "DELETE"]
        assert await call.others() == ["user"]
        (end,) = call.ends
        assert end.confirmed
        assert end.billed_seconds == pytest.approx(call.runway.billed_seconds, abs=0.5)


async def test_the_end_of_the_agent_session_ends_the_runway_session(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        await call.session.aclose()
        await call.simulator.wait_for(call.runway.id, SessionStatus.COMPLETED, 5.0)
        await call.avatar.aclose()
        assert call.runway.end_calls == 1


REFUSALS: list[tuple[dict[str, Any], dict[str, Any], type[RunwayException]]] = [
    ({}, {"api_key": "key_" + "0" * 128}, AuthenticationError),
    ({"credits": 0}, {}, CreditsError),
    ({"daily_quota": 0}, {}, QuotaError),
    (
        {"custom_avatars": frozenset()},
        {"preset_id": None, "avatar_id": "0a1b2c3d-0000-4000-8000-00000000abcd"},
        NotFoundError,
    ),
    ({}, {"api_url": "http://127.0.0.1:9"}, UnavailableError),
]


@pytest.mark.parametrize(
    ("simulated", "options", "kind", "avatar_first"),
    [(*refusal, True) for refusal in REFUSALS] + [(*REFUSALS[0], False)],
)
async def test_a_refusal_reaches_the_caller_typed_and_the_agents_output_is_as_before(
    livekit_server: LiveKitServer,
    simulated: dict[str, Any],
    options: dict[str, Any],
    kind: type[RunwayException],
    avatar_first: bool,
) -> None:
    async with calling(
        livekit_server, simulated=simulated, conn_options=NO_RETRY, **options
    ) as call:
        if not avatar_first:
            await call.start_session()
        before = chain(call.session.output.audio)
        with pytest.raises(kind) as refusal:
            await call.start_avatar()
        assert options.get("api_key", "key_") not in str(refusal.value) or "api_key" not in options
        assert chain(call.session.output.audio) == before
        assert call.avatar.state is AvatarState.CLOSED
        assert call.simulator.leaked() == []
        await call.until_alone(2.0)  # the server hears a little later that somebody has left
        if avatar_first:
            await call.start_session()
        # The agent is not mute: its own voice is there, as if no avatar had been asked for.
        began = now()
        await call.say(SHORT)
        await call.user.wait_for_audio(5.0, since=began)


async def test_while_runway_is_not_reached_nobody_joins_the_room(
    livekit_server: LiveKitServer,
) -> None:
    patient = APIConnectOptions(max_retry=2, retry_interval=0.2, timeout=5.0)
    nowhere = "http://127.0.0.1:9"
    async with calling(livekit_server, api_url=nowhere, conn_options=patient) as call:
        with pytest.raises(UnavailableError):
            await call.start_avatar()
        joined = {participant.identity for participant in call.user.participants}
        assert "runway-avatar-agent" not in joined


def chain(output: AudioOutput | None) -> list[AudioOutput]:
    links = []
    while output is not None:
        links.append(output)
        output = output.next_in_chain
    return links


LATE_FAILURES: list[tuple[dict[str, Any], type[RunwayException]]] = [
    ({"faults": Faults(fail_while_provisioning="INTERNAL.BAD_OUTPUT.CODE01")}, SessionFailedError),
    ({"faults": Faults(consume=[404])}, NotFoundError),
]


@pytest.mark.parametrize(("simulated", "kind"), LATE_FAILURES)
async def test_a_start_that_fails_late_leaves_an_agent_that_speaks_by_voice(
    livekit_server: LiveKitServer, simulated: dict[str, Any], kind: type[RunwayException]
) -> None:
    async with calling(livekit_server, simulated=simulated) as call:
        await call.start()
        began = now()
        handle = call.say(SHORT)
        await call.until(AvatarState.VOICE_ONLY)
        await handle
        await call.hears(SHORT, since=began)
        assert [type(error) for error in call.errors] == [kind]
        assert call.history() == [(SHORT.text, False)]
        assert {t.identity for t in call.user.tracks} == {"runway-avatar-agent"}
        await call.avatar.aclose()
        assert call.simulator.leaked() == []


async def test_a_worker_that_never_joins_is_given_up_and_its_session_ended(
    livekit_server: LiveKitServer,
) -> None:
    faults = {"faults": Faults(worker_never_joins=True)}
    async with calling(livekit_server, simulated=faults, join_timeout=1.0) as call:
        await call.start()
        began = now()
        await call.say(SHORT)
        await call.hears(SHORT, since=began)
        assert [type(error) for error in call.errors] == [AvatarJoinError]
        await call.avatar.aclose()
        assert call.simulator.leaked() == []


class Greeter(Agent):
    async def on_enter(self) -> None:
        self.session.say(SHORT.text, audio=tts(SHORT))


@pytest.mark.parametrize("avatar_first", [True, False])
async def test_a_greeting_in_on_enter_is_heard_whole(
    livekit_server: LiveKitServer, avatar_first: bool
) -> None:
    async with calling(livekit_server) as call:
        began = now()
        if avatar_first:
            await call.start_avatar()
            await call.start_session(Greeter(instructions=""))
        else:
            # The framework's own output waits for a subscriber: the greeting is still to be heard.
            await asyncio.gather(call.start_session(Greeter(instructions="")), call.start_avatar())
        await call.user.wait_for_audio(15.0, since=began)
        await call.user.wait_for_silence(0.6, 10.0)
        if avatar_first:
            assert missing(SHORT, call.heard(began)) == []
            assert call.history() == [(SHORT.text, False)]
        after = now()
        await call.say(OTHER)
        await call.hears(OTHER, since=after)
        # Measured by words that did not wait for the first picture.
        assert call.avatar.speech_latency is not None


async def test_an_agent_session_without_audio_output_is_warned_about_once(
    livekit_server: LiveKitServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with calling(livekit_server) as call:
        await call.start_session(audio_output=False)
        await call.start_avatar()
        warnings = [r for r in caplog.records if "without an audio output" in r.getMessage()]
        assert len(warnings) == 1
        assert "before" in warnings[0].getMessage()


async def test_an_avatar_that_is_prewarmed_and_never_started_asks_once_and_can_be_closed() -> None:
    async with RunwaySimulator() as runway:
        avatar = AvatarSession(preset_id="influencer", api_key="key_x", api_url=runway.url)
        avatar.prewarm()
        avatar.prewarm()
        await runway.wait_until(lambda: bool(runway.requests))
        await avatar.aclose()
        assert [request.method for request in runway.requests] == ["HEAD"]
        assert avatar.state is AvatarState.CLOSED


def test_console_mode_does_nothing_says_so_and_costs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def start() -> None:
        avatar = AvatarSession(
            preset_id="influencer", api_key="key_x", api_url="http://127.0.0.1:9"
        )
        session: AgentSession[Any] = AgentSession(turn_handling={"turn_detection": None}, vad=None)
        avatar.prewarm()
        assert "runway_prewarm" not in {task.get_name() for task in asyncio.all_tasks()}
        await avatar.start(session, room=Mock())
        assert session.output.audio is None
        assert avatar.state is AvatarState.NEW
        await avatar.aclose()
        await session.aclose()

    room = Mock()
    room.name = "console"
    with fake_job_context(room=room):
        asyncio.run(start())
    assert len([r for r in caplog.records if "console mode" in r.getMessage()]) == 1


async def test_a_create_whose_answer_was_lost_is_repeated_and_the_orphan_never_consumed(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, simulated={"unconsumed_ttl": 2.0}) as call:
        call.simulator.faults.for_next_session(Faults(create=[CallFault(cut="after_effect")]))
        await call.start()
        await call.until(AvatarState.LIVE)
        orphan, used = call.simulator.sessions.values()
        assert orphan.consumed_at is None
        assert used.consumed_at is not None


async def test_outside_a_job_an_unconnected_room_is_refused(livekit_server: LiveKitServer) -> None:
    async with calling(livekit_server) as call:
        await call.room.disconnect()
        with pytest.raises(ConfigurationError, match="connected"):
            await call.start_avatar()
        assert call.simulator.requests == []


async def test_a_second_start_is_refused_and_harms_nothing(livekit_server: LiveKitServer) -> None:
    async with calling(livekit_server) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        with pytest.raises(ConfigurationError, match="new one"):
            await call.start_avatar()
        assert call.avatar.state is AvatarState.LIVE


async def test_a_token_that_forbids_the_chosen_delivery_is_named(
    livekit_server: LiveKitServer,
) -> None:
    simulated = {"user_can_publish_data": False}
    async with calling(livekit_server, simulated=simulated, delivery="datastream") as call:
        await call.start()
        await call.until(AvatarState.VOICE_ONLY)
        (error,) = call.errors
        assert isinstance(error, RoomTokenError)
        assert error.missing == ("canPublishData",)


STAGES = ["created", "ready", "consumed", "connected", "worker_joined", "first_frame", "live"]


@pytest.mark.parametrize("stage", STAGES)
async def test_closed_at_any_stage_of_the_start_nothing_is_left(
    livekit_server: LiveKitServer, stage: str
) -> None:
    async with calling(livekit_server) as call:
        reached = asyncio.Event()

        def on_stage(name: str) -> None:
            if name == stage:
                reached.set()

        call.avatar.on("stage_reached", on_stage)
        await call.start()
        async with asyncio.timeout(15.0):
            await reached.wait()
        await call.avatar.aclose()
        await call.simulator.wait_until(lambda: not call.simulator.leaked(), 5.0)
        await call.until_alone(5.0)  # an attempt to join is seen to its end in the background


@pytest.mark.parametrize("create_delay", [0.0, 0.3])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13, 21, 34, 55])
async def test_start_cancelled_at_any_step_leaves_no_session_and_the_output_as_before(
    livekit_server: LiveKitServer, steps: int, create_delay: float
) -> None:
    async with calling(livekit_server, simulated={"create_delay": create_delay}) as call:
        before = chain(call.session.output.audio)
        task = asyncio.create_task(call.start_avatar())
        if create_delay:  # the participant joins while Runway takes its time
            await call.simulator.wait_until(lambda: bool(call.simulator.requests), 5.0)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await call.avatar.aclose()
        assert chain(call.session.output.audio) == before
        assert call.simulator.leaked() == []
        assert await call.others() == ["user"]


def test_arguments_are_checked_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "avatar_id or preset_id"),
        ({"preset_id": "influencer", "avatar_id": "x"}, "avatar_id or preset_id"),
        ({"preset_id": "nobody"}, "presetId|preset_id"),
        ({"avatar_id": "not-a-uuid"}, "avatarId|avatar_id"),
        ({"preset_id": "influencer", "max_duration": 9}, "maxDuration|max_duration"),
        ({"preset_id": "influencer", "personality": ""}, "personality"),
        ({"preset_id": "influencer", "delivery": "pigeon"}, "delivery"),
        ({"preset_id": "influencer", "transport": "teleport"}, "transport"),
        ({"preset_id": "influencer", "wait_for_avatar": -1}, "wait_for_avatar"),
        ({"preset_id": "influencer", "stall_timeout": 0}, "stall_timeout"),
        ({"preset_id": "influencer", "join_timeout": 0}, "join_timeout"),
    ]
    for arguments, named in wrong:
        with pytest.raises(ConfigurationError, match=named):
            AvatarSession(api_key="key_x", **arguments)
    monkeypatch.delenv("RUNWAY_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="RUNWAYML_API_SECRET"):
        AvatarSession(preset_id="influencer")
    monkeypatch.setenv("RUNWAY_API_KEY", "key_of_the_second_name")
    AvatarSession(preset_id="influencer")
    monkeypatch.setenv("RUNWAYML_API_SECRET", "key_secret")
    assert "key_secret" not in repr(AvatarSession(preset_id="influencer"))
