"""What a simulated user promises, on a real LiveKit server with an agent-like peer."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest
from livekit import api, rtc

from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.tones import ToneScript, gaps, hear, missing
from livekit_plugins_runway.testing.user import SimulatedUser

pytestmark = pytest.mark.server


class Peer:
    """A participant of agent kind with a microphone and a camera."""

    def __init__(self, room: rtc.Room) -> None:
        self.room = room
        self.voice = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=200)
        self.face = rtc.VideoSource(320, 240)

    async def publish(self) -> None:
        local = self.room.local_participant
        voice = rtc.LocalAudioTrack.create_audio_track("voice", self.voice)
        face = rtc.LocalVideoTrack.create_video_track("face", self.face)
        microphone = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        camera = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, simulcast=False)
        published = await local.publish_track(voice, microphone)
        await local.publish_track(face, camera)
        await published.wait_for_subscription()

    async def speak(self, pcm: np.ndarray) -> None:
        for start in range(0, len(pcm), 480):
            piece = pcm[start : start + 480]
            await self.voice.capture_frame(rtc.AudioFrame(piece.tobytes(), SAMPLE_RATE, 1, 480))
        await self.voice.wait_for_playout()

    async def show(self, seconds: float) -> None:
        data = bytearray([120]) * (320 * 240 * 3 // 2)
        start = time.monotonic()
        for i in range(int(seconds * 25)):
            self.face.capture_frame(rtc.VideoFrame(320, 240, rtc.VideoBufferType.I420, data))
            await asyncio.sleep(start + (i + 1) / 25 - time.monotonic())


def room_name() -> str:
    return f"user-{uuid.uuid4().hex[:8]}"


def user(server: LiveKitServer, room: str, **options: object) -> SimulatedUser:
    keys = {"api_key": server.api_key, "api_secret": server.api_secret}
    return SimulatedUser(server.url, room, **keys, **options)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def peer(
    server: LiveKitServer, room: str, identity: str = "agent", on_behalf: str | None = None
) -> AsyncIterator[Peer]:
    token = (
        api.AccessToken(server.api_key, server.api_secret)
        .with_identity(identity)
        .with_kind("agent")
        .with_grants(api.VideoGrants(room_join=True, room=room, can_update_own_metadata=True))
    )
    if on_behalf:
        token = token.with_attributes({"lk.publish_on_behalf": on_behalf})
    connection = rtc.Room()
    await connection.connect(server.url, token.to_jwt())
    try:
        yield Peer(connection)
    finally:
        await connection.disconnect()


async def test_what_the_agent_says_is_heard_whole_and_the_pause_keeps_its_length(
    livekit_server: LiveKitServer,
) -> None:
    room, first, second = room_name(), ToneScript(slots=8), ToneScript(slots=8, offset=8)
    async with user(livekit_server, room) as listener, peer(livekit_server, room) as agent:
        await agent.publish()
        began = time.monotonic()
        await agent.speak(first.pcm(SAMPLE_RATE))
        assert await listener.wait_for_audio(5, since=began) > began
        quiet_since = await listener.wait_for_silence(0.5, 10)
        await agent.speak(second.pcm(SAMPLE_RATE))
        await listener.wait_for_silence(0.5, 10)
        record = listener.heard(began)
        heard = hear(record, SAMPLE_RATE)
        assert missing(first, heard) == []
        assert missing(second, heard) == []
        starts = {tone.index: tone.start_s for tone in heard}
        pause = next(gap for gap in gaps(record, SAMPLE_RATE, min_s=0.4) if gap.start_s > starts[7])
        assert pause.start_s == pytest.approx(quiet_since - began, abs=0.1)
        assert pause.end_s == pytest.approx(starts[8], abs=0.05)
        assert listener.level(began + starts[3] + 0.15) > 0.1
        assert listener.level(quiet_since + 0.3) < 0.01
    assert missing(first, hear(listener.heard(began), SAMPLE_RATE)) == []  # kept after leaving


async def test_the_avatar_is_preferred_to_the_agent_it_speaks_for(
    livekit_server: LiveKitServer,
) -> None:
    room = room_name()
    own, avatars = ToneScript(slots=4), ToneScript(slots=4, offset=40)
    async with (
        user(livekit_server, room) as listener,
        user(livekit_server, room, identity="second", listen_to="agent") as other,
        peer(livekit_server, room) as agent,
        peer(livekit_server, room, "avatar", on_behalf="agent") as avatar,
    ):
        await asyncio.gather(agent.publish(), avatar.publish())
        # One listener has subscribed to each, the other may not have, or may not hear yet.
        silence = np.zeros(SAMPLE_RATE // 2, np.int16)
        await asyncio.gather(agent.speak(silence), avatar.speak(silence))
        await asyncio.gather(
            listener.wait_for_audio(10), other.wait_for_audio(10),
            agent.speak(own.pcm(SAMPLE_RATE)), avatar.speak(avatars.pcm(SAMPLE_RATE)),
        )  # fmt: skip
        await listener.wait_for_silence(0.5, 10)
        await other.wait_for_silence(0.5, 10)
        assert missing(avatars, hear(listener.heard(), SAMPLE_RATE)) == []
        assert missing(own, hear(other.heard(), SAMPLE_RATE)) == []
        sources = {(t.identity, t.kind, t.source) for t in listener.tracks}
        assert ("avatar", "video", "camera") in sources
        assert ("avatar", "audio", "microphone") in sources
        seen = {p.identity: p for p in listener.participants}
        assert seen["avatar"].is_agent
        assert seen["avatar"].attributes["lk.publish_on_behalf"] == "agent"
        assert not seen["second"].is_agent


async def test_a_participant_and_tracks_that_go_are_entered_with_their_times(
    livekit_server: LiveKitServer,
) -> None:
    room = room_name()
    async with user(livekit_server, room) as listener:
        async with peer(livekit_server, room) as agent:
            await agent.publish()
            await agent.room.local_participant.set_attributes({"mood": "good"})
            await listener.wait_until(lambda: len(listener.attribute_changes) == 1, 10)
        await listener.wait_until(lambda: all(p.left_at for p in listener.participants), 10)
        (seen,) = listener.participants
        assert seen.left_at is not None
        assert seen.joined_at < seen.left_at
        assert seen.attributes.get("mood") == "good"
        (change,) = listener.attribute_changes
        assert (change.identity, change.name, change.value) == ("agent", "mood", "good")
        assert len({track.sid for track in listener.tracks}) == 2
        assert all(track.unpublished_at is not None for track in listener.tracks)


async def test_words_go_to_the_chat_and_captions_come_back(livekit_server: LiveKitServer) -> None:
    room = room_name()
    got: asyncio.Queue[str] = asyncio.Queue()
    async with user(livekit_server, room) as listener, peer(livekit_server, room) as agent:

        def on_chat(reader: rtc.TextStreamReader, _identity: str) -> None:
            task = asyncio.ensure_future(reader.read_all())
            task.add_done_callback(lambda done: got.put_nowait(done.result()))

        agent.room.register_text_stream_handler("lk.chat", on_chat)
        await listener.say("hello there")
        assert await asyncio.wait_for(got.get(), 5) == "hello there"
        writer = await agent.room.local_participant.stream_text(
            topic="lk.transcription",
            attributes={"lk.segment_id": "SG_1", "lk.transcription_final": "false"},
        )
        for part in ("good ", "morning"):
            await writer.write(part)
        await listener.wait_until(
            lambda: [c.text for c in listener.captions] == ["good morning"], 5
        )
        assert not listener.captions[0].final
        await writer.aclose(attributes={"lk.transcription_final": "true"})
        await listener.wait_until(lambda: listener.captions[0].final, 5)
        assert [c.text for c in listener.captions] == ["good morning"]


async def test_the_microphone_carries_what_the_user_speaks(livekit_server: LiveKitServer) -> None:
    room, script = room_name(), ToneScript(slots=8)
    async with (
        user(livekit_server, room, identity="speaker") as speaker,
        user(livekit_server, room, identity="ear", listen_to="speaker") as ear,
    ):
        await ear.wait_until(lambda: bool(ear._ears), 10)
        await speaker.speak(script.pcm(16_000), 16_000)
        await ear.wait_for_silence(0.5, 10)
        assert len(missing(script, hear(ear.heard(), SAMPLE_RATE))) <= 1


async def test_the_film_shows_and_sounds_as_the_call_did(
    livekit_server: LiveKitServer, tmp_path: Path
) -> None:
    room, script = room_name(), ToneScript(slots=8)
    async with (
        user(livekit_server, room, record_video=True, video_size=(320, 240)) as listener,
        peer(livekit_server, room) as agent,
    ):
        await agent.publish()
        _, _, first = await asyncio.gather(
            agent.show(3.0), agent.speak(script.pcm(SAMPLE_RATE)), listener.wait_for_video(10)
        )
        await listener.wait_for_silence(0.5, 10)
    await listener.write_mp4(tmp_path / "film.mp4")
    length = len(listener.heard()) / SAMPLE_RATE
    frames = listener.frames
    assert frames[0].at == first
    assert len(frames) >= 25  # of 75, less what was shown before the user had subscribed
    assert {(f.width, f.height) for f in frames} == {(320, 240)}
    assert listener.fps(frames[0].at, frames[-1].at) > 10
    with av.open(str(tmp_path / "film.mp4")) as film:
        pictures = list(film.decode(video=0))
    with av.open(str(tmp_path / "film.mp4")) as film:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])
    assert len(pictures) == len(frames) + 1  # and the black one that it begins with
    assert len(sound) / SAMPLE_RATE == pytest.approx(length, abs=0.1)
    assert pictures[1].time == pytest.approx(first - listener.joined_at, abs=0.05)
    assert missing(script, hear((sound * 32767).astype(np.int16), SAMPLE_RATE)) == []


async def test_waiting_in_vain_ends_in_time(livekit_server: LiveKitServer) -> None:
    async with user(livekit_server, room_name()) as listener:
        for wait in (listener.wait_for_audio, listener.wait_for_video):
            with pytest.raises(TimeoutError):
                await wait(0.2)
        await listener.wait_for_silence(0.1, 1)
        assert not listener.heard().any()
        with pytest.raises(RuntimeError, match="record_video"):
            await listener.write_mp4(Path("never.mp4"))


@pytest.mark.shows_secrets  # the SDK logs a token that was refused
async def test_leaving_twice_or_after_a_failed_join_is_fine(livekit_server: LiveKitServer) -> None:
    async with user(livekit_server, room_name()) as listener:
        await listener.aclose()
    stranger = SimulatedUser(
        livekit_server.url, "x", api_key=livekit_server.api_key, api_secret="wrong" * 8
    )
    assert "wrong" not in repr(stranger)
    with pytest.raises(rtc.ConnectError):
        await stranger.__aenter__()
    await stranger.aclose()
