"""The avatar dies, in every way and at every moment: the agent is never mute, no word is lost."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from livekit_plugins_runway import AvatarState
from livekit_plugins_runway.errors import AvatarLostError
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from livekit_plugins_runway.testing.tones import (
    HeardTone,
    ToneScript,
    foreign,
)
from tests.support.call import Call, calling, now

UTTERANCE = ToneScript(11)
OTHER = ToneScript(4, offset=40)
SAMPLE = [("crash", "datastream"), ("freeze", "track")]
"""A way to be lost with each delivery. What the sink makes of a loss depends on neither, and is
tried in virtual time (`tests/playout/test_output.py`)."""
REASONS = {
    "crash": {"worker_left", "tracks_unpublished"},
    "kill": {"video_stalled", "speech_stalled"},
    "freeze": {"video_stalled", "speech_stalled"},
    "stall_video": {"video_stalled"},
    "stall_audio": {"speech_stalled"},
    "unpublish": {"tracks_unpublished"},
    "hit_cap": {"worker_left", "tracks_unpublished", "room_lost", "speech_failed"},
    "cancel": {"worker_left", "tracks_unpublished", "room_lost", "speech_failed"},
}


async def strike(call: Call, how: str) -> None:
    result: Any = getattr(call.runway, how)()
    if asyncio.iscoroutine(result):
        await result


def repeated(tones: list[HeardTone]) -> float:
    """Seconds said again, in the time of the speech: what sounds once more after later tones.

    Not the length of tones: a receiver short of packets stretches them.
    """
    total, furthest, before = 0.0, -1, 0.0
    for tone in tones:
        again = tone.index < furthest or (tone.index == furthest and tone.start_s - before > 0.1)
        total += min(tone.duration_s, UTTERANCE.slot_s) if again else 0.0
        furthest, before = max(furthest, tone.index), tone.end_s
    return total


def ascending_but_for_repeats(tones: list[HeardTone]) -> bool:
    """The voice may begin at most 300 ms before the point where the avatar was lost."""
    return all(b.index >= a.index - 2 for a, b in itertools.pairwise(tones))


async def said_whole(call: Call, script: ToneScript, began: float) -> None:
    tones = await call.hears(script, since=began)
    heard = [tone for tone in tones if tone.index in script.indices]
    assert ascending_but_for_repeats(heard)
    assert repeated(heard) <= 0.35, [
        (t.index, round(t.start_s, 2), round(t.end_s, 2)) for t in heard
    ]


@pytest.mark.parametrize(
    ("how", "speech", "transport"),
    [
        *((how, "datastream", "auto") for how in REASONS),
        ("kill", "track", "auto"),  # its first words are held until they are known
        ("kill", "track", "bridge"),
        ("unpublish", "track", "auto"),
    ],
)
async def test_lost_in_mid_utterance_the_voice_says_the_rest_in_the_same_segment(
    livekit_server: LiveKitServer, how: str, speech: str, transport: str
) -> None:
    options: dict[str, Any] = {"transport": transport, "stall_timeout": 1.0}
    async with calling(livekit_server, simulated={"speech": speech}, **options) as call:
        await call.start()
        await call.user.wait_for_video(10.0)
        began = now()
        handle = call.say(UTTERANCE)
        await call.until_heard(4)
        await strike(call, how)
        await handle
        await said_whole(call, UTTERANCE, began)
        assert not handle.interrupted
        assert call.history() == [(UTTERANCE.text, False)]
        (error,) = call.errors
        assert isinstance(error, AvatarLostError)
        assert error.reason in REASONS[how]
        assert call.avatar.state is AvatarState.VOICE_ONLY
        after = now()
        await call.say(OTHER)
        await said_whole(call, OTHER, after)
        # All of it on the track that the user has been listening to.
        microphones = [t for t in call.user.tracks if t.source == "microphone"]
        assert {t.identity for t in microphones} == {"runway-avatar-agent"}
        assert len(microphones) == 1
        await call.avatar.aclose()
        await call.simulator.wait_until(lambda: not call.simulator.leaked(), 10.0)


@pytest.mark.parametrize(("how", "speech"), SAMPLE)
async def test_lost_between_segments_the_next_one_is_whole(
    livekit_server: LiveKitServer, how: str, speech: str
) -> None:
    async with calling(livekit_server, simulated={"speech": speech}, stall_timeout=1.0) as call:
        await call.start()
        await call.say(OTHER)
        await strike(call, how)
        began = now()
        await call.say(UTTERANCE)
        await said_whole(call, UTTERANCE, began)
        assert [whole for _, whole in call.history()] == [False, False]


@pytest.mark.parametrize(("how", "speech"), SAMPLE)
async def test_lost_before_the_first_word_was_heard_nothing_is_missing(
    livekit_server: LiveKitServer, how: str, speech: str
) -> None:
    async with calling(
        livekit_server, simulated={"speech": speech, "render_latency": 1.0}, stall_timeout=1.0
    ) as call:
        await call.start()
        began = now()
        handle = call.say(UTTERANCE)
        await call.until(AvatarState.LIVE)
        await strike(call, how)
        await handle
        await said_whole(call, UTTERANCE, began)
        assert call.history() == [(UTTERANCE.text, False)]


@pytest.mark.parametrize(("how", "speech"), SAMPLE)
async def test_lost_during_a_barge_in_the_old_words_stay_unsaid_and_the_new_are_whole(
    livekit_server: LiveKitServer, how: str, speech: str
) -> None:
    async with calling(livekit_server, simulated={"speech": speech}, stall_timeout=1.0) as call:
        await call.start()
        handle = call.say(UTTERANCE)
        await call.until_heard(4)
        handle.interrupt()
        await strike(call, how)
        await handle
        await call.user.wait_for_silence(0.5, 5.0)
        began = now()
        await call.say(OTHER)
        await said_whole(call, OTHER, began)
        assert foreign(OTHER, call.heard(began)) == []
        (said, interrupted), whole = call.history()
        assert interrupted
        assert UTTERANCE.text.startswith(said)
        assert whole == (OTHER.text, False)


async def test_a_thawed_worker_says_nothing_stale_over_the_voice(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, stall_timeout=1.0) as call:
        await call.start()
        began = now()
        handle = call.say(UTTERANCE)
        await call.until_heard(4)
        call.runway.freeze()
        await call.until(AvatarState.VOICE_ONLY)
        call.runway.thaw()
        await handle
        await said_whole(call, UTTERANCE, began)


async def test_without_frames_the_camera_is_muted_rather_than_frozen(
    livekit_server: LiveKitServer,
) -> None:
    async with calling(livekit_server, stall_timeout=1.5) as call:
        muted = asyncio.Event()
        call.user.room.on("track_muted", lambda *_: muted.set())
        await call.start()
        await call.until(AvatarState.LIVE)
        call.runway.stall_video()
        async with asyncio.timeout(10.0):
            await muted.wait()


@pytest.mark.parametrize("after", [0.0, 1.5])
async def test_hung_up_while_a_lost_session_is_being_ended_it_is_ended_all_the_same(
    livekit_server: LiveKitServer, after: float
) -> None:
    """The frozen worker hears no END_CALL; that we leave its room does not mean that it left."""
    async with calling(livekit_server, stall_timeout=1.0) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        call.runway.freeze()
        await call.until(AvatarState.VOICE_ONLY)
        await asyncio.sleep(after)
        await call.avatar.aclose()
        assert [end.how for end in call.ends] == ["deleted"]
        assert call.simulator.leaked() == []
