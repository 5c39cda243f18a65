"""The user hears the agent as loud as it speaks, from the first word on and after a silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from livekit import rtc

from bench.ear.dsp import Pcm
from bench.ear.sounds import chord, music
from livekit_plugins_runway.media.microphone import LiveMicrophone
from livekit_plugins_runway.testing.levels import compare
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import ToneScript
from tests.support.call import DIRECT, HOLES, RATE, TRANSPORTS, Call, calling, now

_FRAME = RATE // 50
SHORT = ToneScript(4)


async def frames(pcm: Pcm) -> AsyncIterator[rtc.AudioFrame]:
    for start in range(0, len(pcm), _FRAME):
        piece = pcm[start : start + _FRAME]
        yield rtc.AudioFrame(piece.tobytes(), RATE, 1, len(piece))


async def heard_as_said(call: Call, said: Pcm) -> None:
    began = now()
    await call.session.say("a sound", audio=frames(said))
    await call.user.wait_for_silence(0.4, 5.0)
    heard = call.user.heard(began)
    found = compare(said, heard, RATE)
    assert found.match(**HOLES), found


@TRANSPORTS
async def test_steady_sounds_are_as_loud_as_said_from_the_first_one_on(
    livekit_server: LiveKitServer, options: dict[str, Any]
) -> None:
    async with calling(livekit_server, **options) as call:
        await call.start()
        await heard_as_said(call, chord(1.5))
        await asyncio.sleep(1.0)
        await heard_as_said(call, music(1.5))


async def sent_while_silent(call: Call, identity: str) -> int:
    """Packets of a participant's voice that reach the user within half a second or so, while
    nothing is said; from a track that pauses in silence it is one or two."""
    track = await published_voice(call, identity)
    before = await packets(track)
    await asyncio.sleep(0.5)
    return await packets(track) - before


async def published_voice(call: Call, identity: str) -> rtc.RemoteTrack:
    found: list[rtc.RemoteTrack] = []

    def look() -> bool:
        participant = call.user.room.remote_participants.get(identity)
        publications = participant.track_publications.values() if participant else ()
        found[:] = [p.track for p in publications if p.kind == rtc.TrackKind.KIND_AUDIO and p.track]
        return bool(found)

    await call.user.wait_until(look, 10.0)
    return found[0]


async def packets(track: rtc.RemoteTrack) -> int:
    for stat in await track.get_stats():
        if stat.WhichOneof("stats") == "inbound_rtp":
            return int(stat.inbound_rtp.received.packets_received)
    return 0


@pytest.mark.parametrize(
    ("options", "identity"),
    [({}, "runway-avatar-agent"), (DIRECT, "agent")],
    ids=["the avatar's microphone", "the plain voice beside a worker"],
)
async def test_silence_is_sent_so_that_no_word_begins_on_a_track_that_sends_nothing(
    livekit_server: LiveKitServer, options: dict[str, Any], identity: str
) -> None:
    async with calling(livekit_server, **options) as call:
        await call.start()
        await call.user.wait_for_video(10.0)
        assert await sent_while_silent(call, identity) > 10


async def test_a_voice_that_is_too_loud_on_its_way_is_found(
    livekit_server: LiveKitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the check that ends each call of these tests."""
    write = LiveMicrophone.write

    def write_louder(self: LiveMicrophone, pcm: bytes) -> None:
        write(self, twice_as_loud(pcm))

    monkeypatch.setattr(LiveMicrophone, "write", write_louder)
    with pytest.raises(AssertionError, match=r"100 ms at|clipped"):
        await a_call_in_which_something_is_said(livekit_server)


async def a_call_in_which_something_is_said(server: LiveKitServer) -> None:
    async with calling(server) as call:
        await call.start()
        await call.say(SHORT)
        await call.user.wait_for_silence(0.4, 5.0)


def twice_as_loud(pcm: bytes) -> bytes:
    samples = 2 * np.frombuffer(pcm, np.int16).astype(np.int32)
    return np.clip(samples, -32768, 32767).astype(np.int16).tobytes()
