"""What a record promises: sound stays where it was on the clock, and the film plays."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit import rtc

from livekit_plugins_runway.testing.recording import (
    SAMPLE_RATE,
    AudioTimeline,
    VideoRecorder,
    write_mp4,
)
from livekit_plugins_runway.testing.tones import ToneScript, gaps, hear, missing

FRAME = SAMPLE_RATE // 100
START = 1000.0  # an arbitrary time.monotonic()


def played(timeline: AudioTimeline, since: float, seconds: float) -> np.ndarray:
    out = np.zeros(round(seconds * SAMPLE_RATE), np.int32)
    timeline.mix_into(out, since)
    return out.astype(np.int16)


def frames_of(pcm: np.ndarray) -> list[bytes]:
    return [pcm[i : i + FRAME].tobytes() for i in range(0, len(pcm), FRAME)]


@given(jitter=st.lists(st.floats(0, 0.015), min_size=200, max_size=200))
@settings(max_examples=30, deadline=None)
def test_jitter_of_arrival_tears_no_hole(jitter: list[float]) -> None:
    pcm = ToneScript(slots=8, gap_s=0.0).pcm(SAMPLE_RATE)
    timeline = AudioTimeline(60)
    last = 0.0
    for i, (samples, late) in enumerate(zip(frames_of(pcm), jitter, strict=True)):
        last = max(last, START + (i + 1) * 0.01 + late)
        timeline.add(last, samples)
    assert gaps(played(timeline, START, 2.02)[960:-1920], SAMPLE_RATE, min_s=0.01) == []


def test_a_reader_that_stalls_and_catches_up_tears_no_hole() -> None:
    pcm = ToneScript(slots=8, gap_s=0.0).pcm(SAMPLE_RATE)
    timeline = AudioTimeline(60)
    for i, samples in enumerate(frames_of(pcm)):
        due = START + (i + 1) * 0.01
        timeline.add(max(due, START + 1.5) if i > 50 else due, samples)
    assert np.array_equal(played(timeline, START, 2.0), pcm)


@given(hole=st.integers(50, 3000), after=st.integers(1, 199))
@settings(max_examples=30, deadline=None)
def test_a_stream_that_stood_still_leaves_a_hole_of_its_length(hole: int, after: int) -> None:
    pcm = np.full(200 * FRAME, 5000, np.int16)
    timeline = AudioTimeline(60)
    for i, samples in enumerate(frames_of(pcm)):
        timeline.add(START + (i + 1) * 0.01 + (hole / 1000 if i >= after else 0), samples)
    record = played(timeline, START, 3.0 + hole / 1000)
    steps = np.flatnonzero(np.diff(record.astype(int), prepend=0))
    expected = np.array([0, after * 10, after * 10 + hole, 2000 + hole]) / 1000 * SAMPLE_RATE
    assert steps == pytest.approx(expected, abs=2)


@given(since=st.floats(-1, 2.5), seconds=st.floats(0.01, 3))
@settings(max_examples=50, deadline=None)
def test_any_part_of_the_record_can_be_asked_for(since: float, seconds: float) -> None:
    pcm = ToneScript(slots=8).pcm(SAMPLE_RATE)
    timeline = AudioTimeline(60)
    for i, samples in enumerate(frames_of(pcm)):
        timeline.add(START + (i + 1) * 0.01, samples)
    whole = np.concatenate([np.zeros(2 * SAMPLE_RATE), pcm, np.zeros(4 * SAMPLE_RATE)])
    low = 2 * SAMPLE_RATE + round(since * SAMPLE_RATE)
    part = played(timeline, START + since, seconds)
    best = min(int(np.abs(part - whole[low + s : low + s + len(part)]).max()) for s in (-1, 0, 1))
    assert best == 0


def test_the_record_is_bounded() -> None:
    timeline = AudioTimeline(0.5)
    pcm = ToneScript(slots=8).pcm(SAMPLE_RATE)
    for i, samples in enumerate(frames_of(pcm)):
        timeline.add(START + (i + 1) * 0.01, samples)
    record = played(timeline, START, 2.0)
    assert not record[: round(1.5 * SAMPLE_RATE)].any()
    assert [tone.index for tone in hear(record, SAMPLE_RATE)] == [6, 7]


def picture(width: int, height: int, luma: int) -> rtc.VideoFrame:
    data = bytearray([luma]) * (width * height) + bytearray([128]) * (width * height // 2)
    return rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, data)


async def test_the_mp4_plays_with_picture_and_sound_on_one_clock(tmp_path: Path) -> None:
    recorder = VideoRecorder(origin=START, size=(544, 352), max_seconds=60)
    running = asyncio.create_task(recorder.run())
    for i in range(50):
        size = (556, 360) if i < 10 else (1088, 704)
        recorder.offer(START + 1 + i / 25, picture(*size, luma=200))
        while recorder._queue.qsize() > 8:  # noqa: ASYNC110 -- keeps pace with the encoder
            await asyncio.sleep(0.01)
    recorder.offer(START + 61, picture(556, 360, luma=200))  # past the limit
    recorder.finish()
    recorder.offer(START + 4, picture(556, 360, luma=200))  # past the end
    await running

    script = ToneScript(slots=8)
    sound = np.concatenate([np.zeros(SAMPLE_RATE, np.int16), script.pcm(SAMPLE_RATE)])
    path = tmp_path / "film.mp4"
    await asyncio.to_thread(write_mp4, path, recorder.packed(), sound)

    with av.open(str(path)) as film:
        pictures = list(film.decode(video=0))
        assert film.streams.video[0].codec_context.name == "h264"
        assert film.streams.audio[0].codec_context.name == "aac"
    assert recorder.dropped == 0
    assert len(pictures) == 51
    assert {(p.width, p.height) for p in pictures} == {(544, 352)}
    assert pictures[0].time == pytest.approx(0)
    assert pictures[0].to_ndarray()[:352].mean() < 20  # black until the face comes
    assert pictures[1].time == pytest.approx(1.0, abs=0.01)
    assert pictures[1].to_ndarray()[:352].mean() > 190
    assert pictures[-1].time == pytest.approx(1 + 49 / 25, abs=0.01)

    with av.open(str(path)) as film:
        decoded = list(film.decode(audio=0))
    assert decoded[0].time == pytest.approx(0, abs=0.03)
    samples = np.concatenate([frame.to_ndarray()[0] for frame in decoded])
    heard = hear((samples * 32767).astype(np.int16), SAMPLE_RATE)
    assert missing(script, heard) == []
    assert heard[0].start_s == pytest.approx(1.0, abs=0.05)


async def test_a_slow_encoder_drops_pictures_and_says_so() -> None:
    recorder = VideoRecorder(origin=START, size=(64, 48), max_seconds=60)
    for i in range(30):
        recorder.offer(START + i / 25, picture(64, 48, luma=100))
    recorder.finish()
    await recorder.run()
    assert recorder.dropped > 0
    with av.open(io.BytesIO(recorder.packed()), "r") as film:
        assert len(list(film.decode(video=0))) == 31 - recorder.dropped
