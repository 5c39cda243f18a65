"""The simulated avatar worker, as a participant in its room sees and hears it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest
from livekit import api, rtc

from livekit_plugins_runway.testing import Faults, RunwaySimulator, SimulatedSession
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.options import SimulatorOptions
from livekit_plugins_runway.testing.tones import ToneScript, first_sound, foreign, hear, missing

pytestmark = pytest.mark.server

AVATAR = {"type": "runway-preset", "presetId": "influencer"}
RATE = 48_000
LATENCY = 0.15


class User:
    """The other participant of the worker's room: listens, looks, and speaks when told to."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.room = rtc.Room()
        self.sizes: list[tuple[int, int]] = []
        self.voice = bytearray()
        self.finished: list[dict[str, Any]] = []
        self.started = 0
        self.publications: dict[int, rtc.RemoteTrackPublication] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self.room.on("track_subscribed", self._on_track)
        self.room.on("participant_disconnected", lambda _: self._changed.set())
        self.room.on("disconnected", lambda _: self._changed.set())
        self.room.on("track_unpublished", self._on_unpublished)

    async def join(self, url: str, token: str) -> None:
        await self.room.connect(url, token)
        me = self.room.local_participant
        me.register_rpc_method("lk.playback_finished", self._on_finished)
        me.register_rpc_method("lk.playback_started", self._on_started)

    async def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()
                # Listening to a recording costs CPU, and this loop also feeds the worker's tracks.
                await asyncio.sleep(0.1)

    async def until_seen(self) -> None:
        await self.until(lambda: bool(self.sizes) and len(self.voice) > RATE // 5)

    @property
    def is_alone(self) -> bool:
        return self.worker not in self.room.remote_participants

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return len(self.voice) / 2 / RATE

    def heard(self, since: float = 0.0) -> np.ndarray[Any, np.dtype[np.int16]]:
        return np.frombuffer(bytes(self.voice), np.int16)[int(since * RATE) :]

    async def say(self, script: ToneScript, *, rate: int = 16_000, end: bool = True) -> None:
        writer = await self.room.local_participant.stream_bytes(
            "speech",
            topic="lk.audio_stream",
            destination_identities=[self.worker],
            attributes={"sample_rate": str(rate), "num_channels": "1"},
        )
        pcm = script.pcm(rate).tobytes()
        for start in range(0, len(pcm), 3201):
            await writer.write(pcm[start : start + 3201])
        if end:
            await writer.aclose()

    async def clear(self, timeout: float = 5.0) -> str:
        return await self.room.local_participant.perform_rpc(
            destination_identity=self.worker,
            method="lk.clear_buffer",
            payload="",
            response_timeout=timeout,
        )

    async def speak_aloud(self, script: ToneScript) -> None:
        """On a microphone track, in real time."""
        source = rtc.AudioSource(RATE, 1, queue_size_ms=200)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        microphone = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        publication = await self.room.local_participant.publish_track(track, microphone)
        await publication.wait_for_subscription()
        silence = rtc.AudioFrame(bytes(960), RATE, 1, 480)
        for _ in range(20):
            await source.capture_frame(silence)
        for frame in script.frames(RATE, 10):
            await source.capture_frame(frame)
        for _ in range(40):
            await source.capture_frame(silence)
        await source.wait_for_playout()
        await source.aclose()

    async def end_call(self) -> None:
        await self.room.local_participant.publish_data('{"type":"END_CALL"}', reliable=True)

    async def leave(self) -> None:
        await self.room.disconnect()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_track(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, _: rtc.RemoteParticipant
    ) -> None:
        self.publications[track.kind] = publication
        video = track.kind == rtc.TrackKind.KIND_VIDEO
        work = self._watch(track) if video else self._listen(track)
        self._tasks.append(asyncio.create_task(work))

    def _on_unpublished(self, publication: rtc.RemoteTrackPublication, _: object) -> None:
        self.publications.pop(publication.kind, None)
        self._changed.set()

    async def _watch(self, track: rtc.Track) -> None:
        stream = rtc.VideoStream(track, capacity=2)
        async with contextlib.aclosing(stream):
            async for event in stream:
                self.sizes.append((event.frame.width, event.frame.height))
                self._changed.set()

    async def _listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, frame_size_ms=10)
        async with contextlib.aclosing(stream):
            async for event in stream:
                self.voice += event.frame.data
                self._changed.set()

    def _on_finished(self, call: rtc.RpcInvocationData) -> str:
        assert call.caller_identity == self.worker
        self.finished.append(json.loads(call.payload))
        self._changed.set()
        return "ok"

    def _on_started(self, _: rtc.RpcInvocationData) -> str:
        self.started += 1
        self._changed.set()
        return "ok"


Stage = tuple[RunwaySimulator, SimulatedSession, User]


@contextlib.asynccontextmanager
async def simulator(server: LiveKitServer, **options: Any) -> AsyncIterator[RunwaySimulator]:
    options = {"worker_join_delay": 0.05, "provisioning_delay": 0.05, "queue_delay": 0} | options
    async with RunwaySimulator(
        livekit_url=server.url,
        livekit_api_key=server.api_key,
        livekit_api_secret=server.api_secret,
        options=SimulatorOptions(**options),
    ) as sim:
        yield sim


async def create(sim: RunwaySimulator, http: aiohttp.ClientSession, **extra: Any) -> str:
    headers = {"Authorization": f"Bearer {sim.api_secret}", "X-Runway-Version": "2024-11-06"}
    body = {"model": "gwm1_avatars", "avatar": AVATAR, **extra}
    url = sim.url + "/v1/realtime_sessions"
    async with http.post(url, json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        return str((await response.json())["id"])


async def consume(
    sim: RunwaySimulator, http: aiohttp.ClientSession, session: SimulatedSession
) -> dict[str, str]:
    await sim.wait_for(session, "READY")
    headers = {"Authorization": f"Bearer {session.session_key}"}
    url = f"{sim.url}/v1/realtime_sessions/{session.id}/consume"
    async with http.post(url, json={}, headers=headers) as response:
        assert response.status == 200
        return dict(await response.json())


@contextlib.asynccontextmanager
async def joined(
    server: LiveKitServer, faults: Faults | None = None, **options: Any
) -> AsyncIterator[Stage]:
    """A session whose user is in the room and sees the avatar."""
    async with simulator(server, **options) as sim, aiohttp.ClientSession() as http:
        if faults is not None:
            sim.faults.for_next_session(faults)
        session = sim.sessions[await create(sim, http)]
        credentials = await consume(sim, http, session)
        user = User(f"worker:{session.id}")
        try:
            await user.join(credentials["url"], credentials["token"])
            await user.until_seen()
            yield sim, session, user
        finally:
            await user.leave()


async def room_names(server: LiveKitServer) -> set[str]:
    async with api.LiveKitAPI(server.url, server.api_key, server.api_secret) as service:
        answer = await service.room.list_rooms(api.ListRoomsRequest())
    return {room.name for room in answer.rooms}


async def test_worker_joins_after_the_user_and_shows_its_face(
    livekit_server: LiveKitServer,
) -> None:
    async with joined(livekit_server, upscale_after=0.5) as (sim, session, user):
        assert user.room.local_participant.identity == f"user:{session.id}"
        assert user.room.name == session.id
        await sim.wait_for(session, "RUNNING")
        assert session.user_joined_at is not None
        assert session.worker_joined_at is not None
        assert session.worker_joined_at > session.user_joined_at
        await user.until(lambda: (1088, 704) in user.sizes)
        assert user.sizes[0] == (556, 360)
        camera = user.publications[rtc.TrackKind.KIND_VIDEO]
        microphone = user.publications[rtc.TrackKind.KIND_AUDIO]
        assert camera.source == rtc.TrackSource.SOURCE_CAMERA
        assert camera.mime_type.lower() == "video/h264"
        assert not camera.simulcasted
        assert microphone.source == rtc.TrackSource.SOURCE_MICROPHONE
        assert first_sound(user.heard(), RATE) is None


async def test_byte_streams_are_spoken_whole_and_in_order(livekit_server: LiveKitServer) -> None:
    first, second = ToneScript(slots=6), ToneScript(slots=4, offset=40)
    async with joined(livekit_server) as (_, session, user):
        await user.say(first)
        await user.say(second, rate=48_000)
        await user.until(lambda: len(user.finished) == 2)
        await user.until(lambda: not missing(second, hear(user.heard(), RATE)))
        heard = hear(user.heard(), RATE)
        assert not missing(first, heard)
        assert [tone.index for tone in heard] == [*first.indices, *second.indices]
        assert [report["interrupted"] for report in user.finished] == [False, False]
        assert user.finished[0]["playback_position"] == pytest.approx(1.5, abs=0.03)
        assert session.speech_received == pytest.approx([1.5, 1.0], abs=0.03)
        assert user.started == 0


async def test_playback_started_is_sent_on_request(livekit_server: LiveKitServer) -> None:
    async with joined(livekit_server, playback_started=True) as (_, _, user):
        await user.say(ToneScript(slots=2))
        await user.until(lambda: len(user.finished) == 1)
        assert user.started == 1


async def test_clear_buffer_drops_all_that_was_not_heard(livekit_server: LiveKitServer) -> None:
    first, second = ToneScript(slots=40), ToneScript(slots=3, offset=60)
    async with joined(livekit_server) as (_, session, user):
        await user.say(first, end=False)
        await user.until(lambda: len(hear(user.heard(), RATE)) >= 2)
        assert await user.clear() == "ok"
        await user.until(lambda: len(user.finished) == 1)
        assert user.finished[0]["interrupted"] is True
        assert 0.2 < user.finished[0]["playback_position"] < 8
        cleared_at = user.seconds + 0.4
        await user.until(lambda: user.seconds > cleared_at)
        await user.say(second)
        await user.until(lambda: len(user.finished) == 2)
        await user.until(lambda: not missing(second, hear(user.heard(cleared_at), RATE)))
        assert not foreign(second, hear(user.heard(cleared_at), RATE))
        assert session.performance.clears == 1


async def test_microphone_is_spoken_in_track_mode_without_rpc(
    livekit_server: LiveKitServer,
) -> None:
    script = ToneScript(slots=6)
    async with joined(livekit_server, speech="track") as (_, session, user):
        with pytest.raises(rtc.RpcError) as refusal:
            await user.clear()
        assert refusal.value.code == rtc.RpcError.ErrorCode.UNSUPPORTED_METHOD
        await user.speak_aloud(script)
        await user.until(lambda: not missing(script, hear(user.heard(), RATE)))
        assert not foreign(script, hear(user.heard(), RATE))
        assert sum(session.speech_received) == pytest.approx(1.5, abs=0.4)


async def test_conversation_answers_in_its_own_words(livekit_server: LiveKitServer) -> None:
    script = ToneScript(slots=4, offset=60)
    options: dict[str, Any] = {"speech": "conversation", "answer_after_silence": 0.2}
    async with joined(livekit_server, **options) as (_, _, user):
        await user.speak_aloud(script)
        await user.until(lambda: first_sound(user.heard(), RATE) is not None)
        end = user.seconds + 1.0
        await user.until(lambda: user.seconds > end)
        assert foreign(script, hear(user.heard(), RATE))
        assert len(missing(script, hear(user.heard(), RATE))) == script.slots


async def test_end_call_completes_the_session_and_closes_the_room(
    livekit_server: LiveKitServer,
) -> None:
    async with joined(livekit_server, end_call_settle=0.2) as (sim, session, user):
        await user.end_call()
        await user.until(lambda: user.is_alone)
        assert session.status == "RUNNING"
        await sim.wait_for(session, "COMPLETED")
        assert session.end_calls == 1
        assert session.worker_left_at is not None
        assert session.credits >= 4
        billed = session.billed_seconds
        await user.until(lambda: not user.room.isconnected())
        assert session.billed_seconds == billed
        assert sim.leaked() == []
        assert session.id not in await room_names(livekit_server)


async def test_delete_of_a_running_session_takes_the_worker_out(
    livekit_server: LiveKitServer,
) -> None:
    async with joined(livekit_server, close_room=False) as (sim, session, user):
        session.cancel()
        await user.until(lambda: user.is_alone)
        assert session.status == "CANCELLED"
        assert sim.leaked() == []


async def test_session_goes_on_billing_after_the_user_has_gone(
    livekit_server: LiveKitServer,
) -> None:
    async with joined(livekit_server, time_scale=0.05, hidden_cap=100) as (sim, session, user):
        await user.leave()
        await sim.wait_until(lambda: session.performance.speaker_left_at is not None)
        assert session.status == "RUNNING"
        await sim.wait_for(session, "COMPLETED")
        assert session.billed_seconds == pytest.approx(100, abs=25)


async def test_session_ends_after_the_user_has_gone_on_request(
    livekit_server: LiveKitServer,
) -> None:
    async with joined(livekit_server, user_left_ends_after=0.1) as (sim, session, user):
        await user.leave()
        await sim.wait_for(session, "COMPLETED")


async def test_crash_takes_the_worker_out_and_fails_the_session(
    livekit_server: LiveKitServer,
) -> None:
    async with joined(livekit_server, crash_settle=0.1) as (sim, session, user):
        session.crash()
        await user.until(lambda: user.is_alone)
        await sim.wait_for(session, "FAILED")
        assert session.failure_code == "INTERNAL"
        with pytest.raises(RuntimeError):
            session.crash()


async def test_frozen_worker_hears_of_the_end_only_when_it_thaws(
    livekit_server: LiveKitServer,
) -> None:
    script = ToneScript(slots=8)
    async with joined(livekit_server) as (_, session, user):
        await user.say(script)
        await user.until(lambda: len(hear(user.heard(), RATE)) >= 2)
        session.freeze()
        pictures = session.performance.video_frames
        await user.end_call()
        with pytest.raises(rtc.RpcError) as refusal:
            await user.clear(timeout=1.0)
        assert refusal.value.code == rtc.RpcError.ErrorCode.RESPONSE_TIMEOUT
        assert session.performance.video_frames <= pictures + 1
        assert not user.is_alone
        assert not user.finished
        session.thaw()
        assert session.end_calls == 1
        await user.until(lambda: user.is_alone)


async def test_thawed_worker_says_what_it_had_queued(livekit_server: LiveKitServer) -> None:
    script = ToneScript(slots=8)
    async with joined(livekit_server) as (_, session, user):
        await user.say(script)
        await user.until(lambda: len(hear(user.heard(), RATE)) >= 2)
        session.freeze()
        pictures = session.performance.video_frames
        with pytest.raises(TimeoutError):
            await user.until(lambda: bool(user.finished), timeout=2.5)
        assert session.performance.video_frames <= pictures + 1
        session.thaw()
        await user.until(lambda: not missing(script, hear(user.heard(), RATE)))
        await user.until(lambda: len(user.finished) == 1)


async def test_killed_worker_leaves_only_after_a_while(livekit_server: LiveKitServer) -> None:
    options: dict[str, Any] = {"killed_worker_leaves_after": 1.0, "crash_settle": 0.0}
    async with joined(livekit_server, **options) as (sim, session, user):
        session.kill()
        with pytest.raises(RuntimeError):
            session.thaw()
        assert not user.is_alone
        await user.until(lambda: user.is_alone)
        await sim.wait_for(session, "FAILED")
        assert session.billed_seconds >= 1.0


async def test_stalled_picture_leaves_the_voice_alone(livekit_server: LiveKitServer) -> None:
    script = ToneScript(slots=4)
    async with joined(livekit_server) as (_, session, user):
        session.stall_video()
        pictures = session.performance.video_frames
        await user.say(script)
        await user.until(lambda: not missing(script, hear(user.heard(), RATE)))
        assert session.performance.video_frames <= pictures + 1
        session.stall_video(False)
        await user.until(lambda: session.performance.video_frames > pictures + 3)


async def test_stalled_voice_leaves_the_picture_alone(livekit_server: LiveKitServer) -> None:
    async with joined(livekit_server) as (_, session, user):
        session.stall_audio()
        await user.say(ToneScript(slots=2))
        pictures = len(user.sizes)
        await user.until(lambda: len(user.sizes) > pictures + 20)
        assert not user.finished
        session.stall_audio(False)
        await user.until(lambda: len(user.finished) == 1)


async def test_unpublished_tracks_go_and_the_worker_stays(livekit_server: LiveKitServer) -> None:
    async with joined(livekit_server) as (_, session, user):
        await session.unpublish()
        await user.until(lambda: not user.publications)
        assert not user.is_alone


@pytest.mark.parametrize("how", ["cap", "request"])
async def test_session_completes_at_its_cap(livekit_server: LiveKitServer, how: str) -> None:
    cap = 3.0 if how == "cap" else 300.0
    async with joined(livekit_server, hidden_cap=cap) as (sim, session, user):
        if how == "request":
            session.hit_cap()
        await user.until(lambda: user.is_alone)
        await sim.wait_for(session, "COMPLETED")
        assert session.end_calls == 0


async def test_rpc_faults(livekit_server: LiveKitServer) -> None:
    faults = Faults(rpc_ignore=True, lost_playback_finished=1, duplicate_playback_finished=1)
    async with joined(livekit_server, faults) as (_, session, user):
        with pytest.raises(rtc.RpcError):
            await user.clear(timeout=1.0)
        for _ in range(2):
            await user.say(ToneScript(slots=1))
        await user.until(lambda: len(user.finished) == 2)
        assert len(session.performance.finished) == 2
        session.faults = Faults(rpc_delay=0.6)
        loop = asyncio.get_running_loop()
        asked = loop.time()
        assert await user.clear() == "ok"
        assert loop.time() - asked >= 0.6


async def test_worker_that_never_comes(livekit_server: LiveKitServer) -> None:
    async with simulator(livekit_server) as sim, aiohttp.ClientSession() as http:
        sim.faults.for_next_session(Faults(worker_never_joins=True))
        session = sim.sessions[await create(sim, http)]
        credentials = await consume(sim, http, session)
        user = User(f"worker:{session.id}")
        await user.join(credentials["url"], credentials["token"])
        await sim.wait_for(session, "RUNNING")
        assert user.is_alone
        assert session.credits == 2
        await user.leave()


async def test_user_token_can_forbid_what_speech_needs(livekit_server: LiveKitServer) -> None:
    options: dict[str, Any] = {"user_can_publish": False, "user_can_publish_data": False}
    async with joined(livekit_server, **options) as (_, _, user):
        permissions = user.room.local_participant.permissions
        assert permissions is not None
        assert not permissions.can_publish
        assert not permissions.can_publish_data


@pytest.mark.parametrize("named", [True, False])
async def test_worker_joins_the_agents_own_room_at_once(
    livekit_server: LiveKitServer, named: bool
) -> None:
    room = f"agent-room-{named}"

    def token(identity: str) -> str:
        grants = api.VideoGrants(room_join=True, room=room)
        keys = livekit_server.api_key, livekit_server.api_secret
        agent = api.AccessToken(*keys).with_identity(identity).with_kind("agent")
        return agent.with_grants(grants).to_jwt()

    script = ToneScript(slots=3)
    async with (
        simulator(livekit_server, end_call_settle=0) as sim,
        aiohttp.ClientSession() as http,
    ):
        agent = User("runway-avatar-agent")
        await agent.join(livekit_server.url, token("agent-1"))
        integration = {
            "type": "livekit",
            "url": livekit_server.url,
            "token": token("runway-avatar-agent"),
            "roomName": room,
            **({"agentIdentity": "agent-1"} if named else {}),
        }
        session = sim.sessions[await create(sim, http, integration=integration)]
        await sim.wait_for(session, "RUNNING")
        await agent.until_seen()
        await agent.say(script)
        await agent.until(lambda: len(agent.finished) == 1)
        await agent.until(lambda: not missing(script, hear(agent.heard(), RATE)))
        await agent.end_call()
        await sim.wait_for(session, "COMPLETED")
        assert session.consumed_at is None
        assert session.credits >= 4
        assert room in await room_names(livekit_server)
        await agent.leave()


async def test_a_stranger_who_has_just_come_is_not_obeyed(livekit_server: LiveKitServer) -> None:
    """The worker's SDK does not know yet who sends the first packets of somebody who joins."""
    async with joined(livekit_server) as (_, session, user):
        stranger = User(user.worker)
        await stranger.join(livekit_server.url, livekit_server.token(session.id, "stranger"))
        await stranger.end_call()
        assert await stranger.clear() == "reject"  # answered, so what was sent before it has come
        assert session.end_calls == 0
        assert session.performance.clears == 0
        await stranger.leave()


async def test_unreachable_room_fails_the_session(livekit_server: LiveKitServer) -> None:
    async with simulator(livekit_server) as sim, aiohttp.ClientSession() as http:
        integration = {
            "type": "livekit",
            "url": livekit_server.url,
            "token": "not-a-token",
            "roomName": "nowhere",
        }
        session = sim.sessions[await create(sim, http, integration=integration)]
        await sim.wait_for(session, "FAILED", timeout=30)
        assert session.failure == "Failed to establish LiveKit streaming connection"
        assert session.credits == 0


async def test_closing_takes_workers_and_rooms_away(livekit_server: LiveKitServer) -> None:
    async with simulator(livekit_server) as sim, aiohttp.ClientSession() as http:
        session = sim.sessions[await create(sim, http)]
        credentials = await consume(sim, http, session)
        user = User(f"worker:{session.id}")
        await user.join(credentials["url"], credentials["token"])
        await user.until_seen()
        await sim.aclose()
        await user.until(lambda: not user.room.isconnected())
        assert session.id not in await room_names(livekit_server)
        await user.leave()
