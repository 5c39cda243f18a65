"""What the SDK does with rooms that this package works around, each shown by the SDK alone. A test
that fails on a new version says that its quirk is gone, or has become another: see
docs/sdk-quirks.md.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest
from livekit import rtc

from livekit_plugins_runway.playout.audio import SAMPLE_RATE
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from tests.support.two_rooms import two_rooms

CONNECT_AND_CANCEL = """
import asyncio, sys
from livekit import rtc

async def main():
    url, token, after = sys.argv[1], sys.argv[2], float(sys.argv[3])
    attempt = asyncio.create_task(rtc.Room().connect(url, token))
    await asyncio.sleep(after)
    attempt.cancel()
    await asyncio.gather(attempt, return_exceptions=True)
    await asyncio.sleep(20)

asyncio.run(main())
"""


def microphone() -> rtc.LocalAudioTrack:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=50)
    return rtc.LocalAudioTrack.create_audio_track("voice", source)


@pytest.mark.slow
def test_a_connect_that_is_cancelled_at_the_wrong_moment_ends_the_process(
    livekit_server: LiveKitServer,
) -> None:
    script = [sys.executable, "-c", CONNECT_AND_CANCEL, livekit_server.url]
    attempts = [
        subprocess.Popen(
            [*script, livekit_server.token("cancelled", f"user-{after}"), str(after)],
            stderr=subprocess.PIPE,
        )
        for after in (0.01, 0.02, 0.03, 0.05, 0.07, 0.1)
    ]
    ends = [(attempt.communicate(timeout=50), attempt.returncode) for attempt in attempts]
    panics = [code for (_, said), code in ends if b"FFI Panic" in said]
    assert -signal.SIGTERM in panics


async def test_who_publishes_nothing_is_announced_late(livekit_server: LiveKitServer) -> None:
    took = []
    for publishes in (True, False):
        async with two_rooms(livekit_server) as rooms:
            third = rtc.Room()
            began = time.monotonic()
            await third.connect(livekit_server.url, livekit_server.token(rooms.name, "third"))
            if publishes:
                await third.local_participant.publish_track(microphone())
            await rooms.until(lambda: "third" in rooms.listener.remote_participants)
            took.append(time.monotonic() - began)
            await third.disconnect()
    assert took[1] > took[0] + 1.0


async def test_a_track_that_is_unpublished_in_a_room_that_is_lost_is_never_answered(
    livekit_server: LiveKitServer,
) -> None:
    async with LiveKitServer() as server, two_rooms(server) as rooms:
        local = rooms.speaker.local_participant
        publication = await local.publish_track(microphone())
        lost = asyncio.Event()
        rooms.speaker.on("reconnecting", lambda: lost.set())
        os.kill(server.pid, signal.SIGKILL)
        async with asyncio.timeout(20.0):
            await lost.wait()
        unpublishing = asyncio.create_task(local.unpublish_track(publication.sid))
        answered, _ = await asyncio.wait([unpublishing], timeout=5.0)
        unpublishing.cancel()
        await asyncio.gather(unpublishing, return_exceptions=True)
        assert not answered


async def test_ones_own_disconnect_is_told_as_a_state(livekit_server: LiveKitServer) -> None:
    told: list[str] = []
    async with two_rooms(livekit_server) as rooms:
        rooms.speaker.on(
            "connection_state_changed",
            lambda state: told.append(rtc.ConnectionState.Name(state)),
        )
        await rooms.speaker.disconnect()
    assert told[-1] == "CONN_DISCONNECTED"


async def test_in_a_full_reconnect_everybody_leaves_without_a_reason(
    livekit_server: LiveKitServer,
) -> None:
    async with two_rooms(livekit_server) as rooms:
        await rooms.until(lambda: "speaker" in rooms.listener.remote_participants)
        reasons: list[object] = []
        rooms.listener.on(
            "participant_disconnected", lambda other: reasons.append(other.disconnect_reason)
        )
        await rooms.listener.simulate_scenario(rtc.SimulateScenarioKind.SIMULATE_FULL_RECONNECT)
        await rooms.until(lambda: reasons != [])
        await rooms.until(lambda: "speaker" in rooms.listener.remote_participants)
        assert reasons == [None]
        await rooms.speaker.disconnect()
        await rooms.until(lambda: len(reasons) == 2)
        assert reasons[1] == rtc.DisconnectReason.CLIENT_INITIATED


async def test_what_is_unsubscribed_as_soon_as_it_is_published_takes_a_core(
    livekit_server: LiveKitServer,
) -> None:
    usual = await _cores_of_unsubscribing(livekit_server, "track_subscribed")
    at_once = [await _cores_of_unsubscribing(livekit_server, "track_published") for _ in range(3)]
    # Another one may be kept busy by others. Not each time, for it is a race.
    assert max(at_once) > max(3 * usual, 0.15), at_once


async def _cores_of_unsubscribing(server: LiveKitServer, event: rtc.room.EventTypes) -> float:
    async with two_rooms(server) as rooms:
        rooms.listener.on(event, _unsubscribe)
        await rooms.speaker.local_participant.publish_track(microphone())
        await asyncio.sleep(0.5)
        before = time.process_time()
        await asyncio.sleep(1.0)
        return time.process_time() - before


def _unsubscribe(*arguments: object) -> None:
    (publication,) = [a for a in arguments if isinstance(a, rtc.RemoteTrackPublication)]
    publication.set_subscribed(False)
