"""`transport="direct"`: Runway's worker joins the agent's own room, and no word is lost by it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from livekit import api, rtc
from livekit.agents import AgentSession, APIConnectOptions
from livekit.agents.voice.io import AudioOutput

from livekit_plugins_runway import AvatarSession, AvatarState, RecoveryOptions, avatar
from livekit_plugins_runway.errors import (
    AvatarJoinError,
    AvatarLostError,
    ConfigurationError,
    CreditsError,
    SessionFailedError,
)
from livekit_plugins_runway.lifecycle import recovery as recovery_module
from livekit_plugins_runway.testing import CallFault, Faults, SessionStatus
from livekit_plugins_runway.testing.levels import loudest, too_loud
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import (
    ToneScript,
    foreign,
    in_order,
    silence_after,
)
from livekit_plugins_runway.transport.factory import worker_token_ttl
from livekit_plugins_runway.transport.livekit_url import check_public
from livekit_plugins_runway.transport.tokens import RoomCredentials
from tests.support.call import DIRECT, RATE, WORKERS, Call, calling, loudness, now
from tests.support.published import REALTIME

UTTERANCE = ToneScript(9)
LONG = ToneScript(13)
OTHER = ToneScript(4, offset=40)
RESTART = RecoveryOptions(session_cap=None, backoff=0.2)
NO_RETRY = APIConnectOptions(max_retry=0, timeout=5.0)
FIRST, SECOND = WORKERS[:2]
ON_BEHALF = "lk.publish_on_behalf"
"""By this attribute front ends find whose picture to show."""
TTL = worker_token_ttl(60.0, 30.0)


async def until_gone(call: Call, identity: str, timeout: float = 5.0) -> None:
    def gone() -> bool:
        return identity not in call.user.room.remote_participants

    await call.user.wait_until(gone, timeout)


async def heard_whole(call: Call, script: ToneScript, began: float) -> None:
    await call.hears(script, since=began)
    assert too_loud(loudest(script.pcm(RATE), RATE), call.user.heard(began), RATE) is None


async def said_whole(call: Call, script: ToneScript) -> None:
    began = now()
    await call.say(script)
    await heard_whole(call, script, began)


def chain(output: AudioOutput | None) -> list[AudioOutput]:
    links = []
    while output is not None:
        links.append(output)
        output = output.next_in_chain
    return links


def sources_of(call: Call, identity: str) -> list[str]:
    """What this participant has published and not taken back."""
    return sorted(
        t.source for t in call.user.tracks if t.identity == identity and not t.unpublished_at
    )


async def test_the_first_word_does_not_wait_for_the_first_picture(
    livekit_server: LiveKitServer,
) -> None:
    """Of which the worker may take its time: longer than one that is seen may be silent."""
    async with calling(livekit_server, simulated={"first_frame_delay": 6.0}, **DIRECT) as call:
        await call.start()
        began = now()
        handle = call.say(OTHER)
        await call.user.wait_until(lambda: len(call.runway.speech_received) > 0, 3.0)
        assert call.avatar.state is AvatarState.STARTING
        await handle
        await heard_whole(call, OTHER, began)
        await call.until(AvatarState.LIVE)
        assert call.errors == []
        await said_whole(call, UTTERANCE)


async def test_a_face_that_is_late_leaves_the_first_words_to_the_voice_and_then_speaks(
    livekit_server: LiveKitServer,
) -> None:
    late = {"first_frame_delay": 4.0}
    async with calling(livekit_server, simulated=late, wait_for_avatar=2.0, **DIRECT) as call:
        await call.start()
        began = now()
        await call.say(OTHER)
        assert call.avatar.state is AvatarState.STARTING
        await heard_whole(call, OTHER, began)
        await call.until(AvatarState.LIVE)
        assert call.errors == []
        said = now()
        await said_whole(call, UTTERANCE)
        assert foreign(UTTERANCE, call.heard(said)) == []


async def test_a_worker_that_leaves_before_its_first_picture_is_not_waited_for(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, simulated={"first_frame_delay": 60.0}, **DIRECT) as call:
        await call.start()
        began = now()
        handle = call.say(UTTERANCE)

        def agent_hears_and_sees_it() -> bool:
            worker = call.room.remote_participants.get(FIRST)
            tracks = worker.track_publications.values() if worker else ()
            return len(tracks) == 2 and all(track.track for track in tracks)

        await call.user.wait_until(agent_hears_and_sees_it, 3.0)
        call.runway.crash()
        await call.until(AvatarState.VOICE_ONLY, 2.0)
        assert [type(error) for error in call.errors] == [AvatarLostError]
        await handle
        await heard_whole(call, UTTERANCE, began)


@pytest.mark.parametrize("avatar_first", [True, False])
async def test_all_of_an_utterance_is_heard_in_order_and_from_the_worker(
    livekit_server: LiveKitServer, avatar_first: bool
) -> None:
    async with calling(livekit_server, **DIRECT) as call:
        await call.start(avatar_first=avatar_first)
        began = now()
        handle = call.say(UTTERANCE)
        await handle
        await heard_whole(call, UTTERANCE, began)
        assert in_order(UTTERANCE, call.heard(began))
        assert not handle.interrupted
        assert call.history() == [(UTTERANCE.text, False)]
        assert call.avatar.state is AvatarState.LIVE
        assert sum(call.runway.speech_received) == pytest.approx(2.25, abs=0.1)
        assert call.avatar.playout.heard == call.avatar.playout.pushed
        stages = {name for name, at in vars(call.avatar.timings).items() if at is not None}
        assert stages == set(vars(call.avatar.timings)) - {"consumed", "connected"}
        call.user._listen_to = {"agent"}
        assert loudness(call.user.heard(began)) < 1.0  # of 32768: the plain voice was silent


async def test_the_wire_the_token_and_what_a_front_end_sees(livekit_server: LiveKitServer) -> None:
    async with calling(livekit_server, personality="Kind.", **DIRECT) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        create = call.simulator.requests[0]
        jsonschema.validate(create.body, REALTIME["create_request"])
        token = create.body["integration"].pop("token")
        assert create.body == {
            "model": "gwm1_avatars",
            "avatar": {"type": "runway-preset", "presetId": "influencer"},
            "personality": "Kind.",
            "integration": {
                "type": "livekit",
                "url": call.server.url,
                "roomName": call.room.name,
                "agentIdentity": "agent",
            },
        }
        assert not [r for r in call.simulator.requests if r.path.endswith("/consume")]
        granted = api.TokenVerifier(call.server.api_key, call.server.api_secret).verify(token)
        assert granted.identity == FIRST
        assert granted.video is not None
        assert granted.video.room == call.room.name

        # A front end looks for who publishes on behalf of the agent. A microphone of the agent's
        # own would come before the avatar's there; decoding the picture would cost us a core.
        await call.user.wait_for_video(5.0)
        assert sources_of(call, FIRST) == ["camera", "microphone"]
        assert sources_of(call, "agent") == ["unknown"]
        (seen,) = [p for p in call.user.participants if p.identity == FIRST]
        assert seen.is_agent
        assert seen.attributes["lk.publish_on_behalf"] == "agent"
        worker = call.room.remote_participants[FIRST]
        kinds = {p.kind for p in worker.track_publications.values() if p.subscribed}
        assert kinds == {rtc.TrackKind.KIND_AUDIO}


async def test_a_barge_in_silences_the_worker_and_the_next_utterance_is_whole(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, **DIRECT) as call:
        await call.start()
        positions: list[float] = []
        output = call.session.output.audio
        assert output is not None
        output.on("playback_finished", lambda end: positions.append(end.playback_position))
        began = now()
        handle = call.say(LONG)
        await call.until_heard(3)
        cut = now()
        handle.interrupt()
        await handle
        await call.user.wait_for_silence(0.6, 5.0)
        first, *_, last = call.heard(began)
        assert positions == [pytest.approx(last.end_s - first.start_s, abs=0.4)]
        assert silence_after(call.user.heard(cut), RATE, 0, hold_s=0.5) is not None
        assert call.runway.performance.clears == 1
        after = now()
        await call.say(OTHER)
        await heard_whole(call, OTHER, after)
        assert foreign(OTHER, call.heard(after)) == []
        (said, interrupted), whole = call.history()
        assert interrupted
        assert LONG.text.startswith(said)  # the framework guesses which words those seconds were
        assert whole == (OTHER.text, False)


async def test_a_worker_whose_speech_stalls_is_put_out_and_the_voice_says_the_rest(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, stall_timeout=0.7, **DIRECT) as call:
        await call.start()
        began = now()
        handle = call.say(LONG)
        await call.until_heard(3)
        call.runway.freeze()
        await call.until(AvatarState.VOICE_ONLY)
        # It must not come back with stale words over those of the voice.
        await until_gone(call, FIRST, 1.0)
        await handle
        await heard_whole(call, LONG, began)
        assert not handle.interrupted
        assert call.history() == [(LONG.text, False)]
        (error,) = call.errors
        assert isinstance(error, AvatarLostError)
        assert error.reason == "speech_stalled"


async def test_after_a_crash_the_voice_says_the_rest_and_the_face_comes_back_as_another(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, recovery=RESTART, **DIRECT) as call:
        await call.start()
        began = now()
        handle = call.say(UTTERANCE)
        await call.until_heard(3)
        assert call.avatar.avatar_identity == FIRST
        call.runway.crash()
        await handle
        await heard_whole(call, UTTERANCE, began)
        assert call.history() == [(UTTERANCE.text, False)]
        await call.until_told("replaced", lambda: bool(call.replaced))
        assert call.avatar.avatar_identity == SECOND
        assert await call.others() == [SECOND, "user"]
        await said_whole(call, OTHER)
        assert call.runway.speech_received
        assert call.replaced[0].freeze is None
        (lost,) = call.errors
        assert isinstance(lost, AvatarLostError)
        assert lost.reason in {"worker_left", "tracks_unpublished"}


@pytest.mark.heavy  # two workers at once
async def test_before_the_cap_the_next_worker_takes_over_between_two_segments(
    livekit_server: LiveKitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_module, "SHORTEST_SESSION", 1.0)
    recovery = RecoveryOptions(session_cap=6.0)
    async with calling(livekit_server, recovery=recovery, **DIRECT) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        began = now()
        scripts: list[ToneScript] = []
        while not call.replaced:
            scripts.append(ToneScript(6, offset=len(scripts) * 6))
            await call.say(scripts[-1])
        for script in scripts:
            await heard_whole(call, script, began)
        assert {(r.cause, r.by_voice) for r in call.replaced} == {("renewal", False)}
        assert call.errors == []
        await until_gone(call, FIRST)
        old = next(iter(call.simulator.sessions.values()))
        await call.simulator.wait_for(old, SessionStatus.COMPLETED)
        assert old.end_calls == 1


async def test_a_swap_shows_the_new_avatar_and_ends_the_old_one(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, **DIRECT) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        await call.avatar.swap_avatar(preset_id="cat-character")
        assert call.runway.create_body["avatar"]["presetId"] == "cat-character"
        assert call.avatar.avatar_identity == SECOND
        await until_gone(call, FIRST)


async def test_front_ends_show_the_new_worker_although_the_old_one_is_slow_to_leave(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, **DIRECT) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        call.runway.freeze()  # it leaves when it is put out, 2 s after END_CALL
        await call.avatar.swap_avatar(preset_id="cat-character")

        def shown() -> list[str]:
            others = call.user.room.remote_participants.values()
            return [p.identity for p in others if p.attributes.get(ON_BEHALF) == "agent"]

        await call.user.wait_until(lambda: shown() == [SECOND], 5.0)
        old = call.user.room.remote_participants[FIRST]
        assert ON_BEHALF in old.attributes  # without it, it would be taken for an agent
        await until_gone(call, FIRST)


async def test_after_close_the_session_is_completed_and_nobody_is_left(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, **DIRECT) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        await asyncio.gather(call.avatar.aclose(), call.avatar.aclose())
        await call.simulator.wait_for(call.runway.id, SessionStatus.COMPLETED, 5.0)
        assert call.runway.end_calls == 1
        assert not [r for r in call.simulator.requests if r.method == "DELETE"]
        assert [end.confirmed for end in call.ends] == [True]
        assert await call.others() == ["user"]
        await call.user.wait_until(lambda: sources_of(call, "agent") == [], 5.0)


async def test_a_worker_that_ignores_the_end_is_put_out(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, **DIRECT) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        call.runway.freeze()
        await call.avatar.aclose()
        assert call.runway.end_calls == 1
        assert not [r for r in call.simulator.requests if r.method == "DELETE"]
        assert [end.confirmed for end in call.ends] == [True]
        assert await call.others() == ["user"]


@pytest.mark.parametrize("stage", ["created", "worker_joined", "first_frame"])
async def test_closed_at_any_stage_of_the_start_nothing_is_left(
    livekit_server: LiveKitServer, stage: str
) -> None:
    async with calling(livekit_server, **DIRECT) as call:
        reached = asyncio.Event()

        def on_stage(name: str) -> None:
            if name == stage:
                reached.set()

        call.avatar.on("stage_reached", on_stage)
        await call.start()
        async with asyncio.timeout(10.0):
            await reached.wait()
        await call.avatar.aclose()
        await call.simulator.wait_until(lambda: not call.simulator.leaked(), 5.0)
        assert await call.others() == ["user"]


async def test_an_avatar_that_does_not_come_leaves_an_agent_that_speaks_by_voice(
    livekit_server: LiveKitServer,
) -> None:
    late = {"faults": Faults(worker_never_joins=True)}
    async with calling(livekit_server, simulated=late, join_timeout=0.5, **DIRECT) as call:
        await call.start()
        await said_whole(call, OTHER)
        assert [type(error) for error in call.errors] == [AvatarJoinError]
        await call.avatar.aclose()
        assert call.simulator.leaked() == []


async def test_a_server_that_runway_does_not_reach_is_told_without_waiting_for_the_worker(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, **DIRECT) as call:
        elsewhere = {**call.livekit, "livekit_url": "ws://127.0.0.1:9"}
        await call.avatar.start(call.session, call.room, **elsewhere)
        await call.until(AvatarState.VOICE_ONLY)
        (error,) = call.errors
        assert isinstance(error, SessionFailedError)
        assert "LiveKit" in str(error)


@pytest.mark.parametrize("avatar_first", [True, False])
async def test_a_refusal_leaves_the_agents_audio_as_it_was(
    livekit_server: LiveKitServer, avatar_first: bool
) -> None:
    broke = {"credits": 0}
    async with calling(livekit_server, simulated=broke, conn_options=NO_RETRY, **DIRECT) as call:
        if not avatar_first:
            await call.start_session()
        before = chain(call.session.output.audio)
        with pytest.raises(CreditsError):
            await call.start_avatar()
        assert chain(call.session.output.audio) == before
        if avatar_first:
            await call.start_session()
        await call.user.wait_until(lambda: sources_of(call, "agent") == ["microphone"], 5.0)
        began = now()
        await call.say(OTHER)
        await call.user.wait_for_audio(5.0, since=began)


@pytest.mark.parametrize(("steps", "asked"), [(1, False), (1, True), (8, True), (55, True)])
async def test_start_cancelled_at_any_step_leaves_nothing(
    livekit_server: LiveKitServer, steps: int, asked: bool
) -> None:
    async with calling(livekit_server, simulated={"create_delay": 0.2}, **DIRECT) as call:
        before = chain(call.session.output.audio)
        task = asyncio.create_task(call.start_avatar())
        if asked:  # the voice is published while Runway takes its time
            await call.simulator.wait_until(lambda: bool(call.simulator.requests), 5.0)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await call.avatar.aclose()
        assert chain(call.session.output.audio) == before
        assert call.simulator.leaked() == []
        assert await call.others() == ["user"]
        assert call.room.local_participant.track_publications == {}


async def test_the_worker_of_a_session_whose_id_was_lost_is_sent_away(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, **DIRECT) as call:
        call.simulator.faults.for_next_session(Faults(create=[CallFault(cut="after_effect")]))
        await call.start()
        await call.until(AvatarState.LIVE)
        orphan, used = call.simulator.sessions.values()
        await call.simulator.wait_for(orphan, SessionStatus.COMPLETED)
        assert orphan.end_calls == 1
        assert call.avatar.session_id == used.id
        await said_whole(call, OTHER)
        assert await call.others() == [SECOND, "user"]


async def test_started_before_the_agents_room_is_connected_it_comes_with_it(
    livekit_server: LiveKitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with calling(livekit_server, **DIRECT) as call:
        name = call.room.name
        await call.room.disconnect()
        call.room = rtc.Room()
        job = SimpleNamespace(
            is_fake_job=lambda: False,
            job=SimpleNamespace(room=SimpleNamespace(name=name)),
            local_participant_identity="agent",
        )
        monkeypatch.setattr(avatar, "get_job_context", lambda required: job)
        await call.start_avatar()
        await call.room.connect(call.server.url, call.server.token(name, "agent", kind="agent"))
        try:
            await call.start_session()
            await call.until(AvatarState.LIVE)
            await said_whole(call, OTHER)
            assert call.runway.speech_received
            assert sources_of(call, "agent") == ["unknown"]
        finally:
            await call.session.aclose()
            await call.avatar.aclose()
            await call.room.disconnect()


async def test_when_the_agents_room_is_lost_nobody_more_is_invited(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, recovery=RESTART, **DIRECT) as call:
        await call.start_avatar()
        await call.until(AvatarState.LIVE)
        await call.room.disconnect()
        await call.until_told("error", lambda: len(call.errors) >= 2)
        assert len(call.simulator.sessions) == 1
        await call.avatar.aclose()
        await call.simulator.wait_until(lambda: not call.simulator.leaked())


# -- without a server ------------------------------------------------------------------------


def access(**other: Any) -> RoomCredentials:
    given: dict[str, Any] = {
        "url": "wss://agents.example.com",
        "api_key": "key",
        "api_secret": "s" * 32,
        "room": "a room",
        "agent_identity": "agent-1",
    }
    return RoomCredentials(**{**given, **other})


def test_the_token_of_the_worker_grants_what_it_needs_and_no_more() -> None:
    integration = access().worker_integration("face", "Face", TTL)
    token = integration.token.get_secret_value()
    granted = api.TokenVerifier("key", "s" * 32).verify(token)
    assert granted.video is not None
    given = {name: value for name, value in vars(granted.video).items() if value}
    assert given == {
        "room_join": True,
        "room": "a room",
        "can_publish": True,
        "can_publish_data": True,
        "can_publish_sources": ["camera", "microphone"],
    }
    assert granted.video.can_subscribe is False
    assert granted.attributes == {"lk.publish_on_behalf": "agent-1"}
    assert (granted.identity, granted.name) == ("face", "Face")
    assert integration.agent_identity == "agent-1"
    assert len(token) < 1000
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["kind"] == "agent"  # livekit-api's verifier passes it over before 1.2.2
    assert claims["exp"] - time.time() == pytest.approx(150.0, abs=5.0)
    assert token not in repr(integration)
    assert "s" * 32 not in repr(access())


@pytest.mark.parametrize("too_long", ["room", "agent_identity"])
def test_what_is_too_long_for_runway_is_refused_by_name(too_long: str) -> None:
    with pytest.raises(ConfigurationError, match="shorter") as refusal:
        access(**{too_long: "x" * 300}).worker_integration("face", "Face", TTL)
    assert re.search(too_long.replace("_", ".?"), str(refusal.value), re.IGNORECASE)
    with pytest.raises(ConfigurationError, match="2048"):
        access().worker_integration("face", "F" * 2048, TTL)


@pytest.mark.parametrize(
    "url",
    [
        "ws://agents.example.com",
        "http://agents.example.com",
        "wss://localhost:7880",
        "wss://LOCALHOST.",
        "wss://livekit",
        "wss://livekit.internal",
        "wss://box.local",
        "wss://127.0.0.1",
        "wss://127.1",
        "wss://2130706433",
        "wss://10.1.2.3:7880",
        "wss://192.168.0.9",
        "wss://172.20.0.1",
        "wss://169.254.1.1",
        "wss://100.64.0.1",
        "wss://[::1]:7880",
        "wss://[fd00::1]",
        "wss://[::ffff:10.0.0.1]",
        "wss://0.0.0.0",
        "wss://",
        "wss://[broken",
        "agents.example.com",
    ],
)
def test_an_address_that_runway_will_refuse_is_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"livekit_url.*bridge.*allow_private_livekit_url"):
        check_public(url)


@pytest.mark.parametrize(
    "url",
    ["wss://a.livekit.cloud", "https://agents.example.com:443/", "wss://8.8.8.8", "WSS://A.B.C"],
)
def test_a_public_address_is_taken(url: str) -> None:
    check_public(url)


async def test_start_refuses_a_private_address_before_anything_is_made() -> None:
    face = AvatarSession(preset_id="influencer", api_key="key_x", transport="direct")
    room = SimpleNamespace(
        isconnected=lambda: True,
        name="r",
        local_participant=SimpleNamespace(identity="agent"),
        remote_participants={},
        e2ee_manager=SimpleNamespace(enabled=False),
    )
    session: AgentSession[Any] = AgentSession()
    with pytest.raises(ConfigurationError, match="private host"):
        await face.start(
            session,
            room,  # type: ignore[arg-type]
            livekit_url="wss://10.0.0.1",
            livekit_api_key="k",
            livekit_api_secret="s" * 32,
        )
    assert session.output.audio is None
    assert face.state is AvatarState.NEW
    await face.aclose()
    await session.aclose()


def test_speech_as_a_track_is_refused_for_the_user_would_hear_it_too() -> None:
    with pytest.raises(ConfigurationError, match="delivery"):
        AvatarSession(preset_id="influencer", api_key="key_x", transport="direct", delivery="track")
