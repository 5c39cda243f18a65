"""What a listener made of tones promises: it names what was played, lost, repeated and when."""

from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livekit_plugins_runway.testing.tones import (
    ALPHABET,
    Pcm,
    ToneScript,
    envelope,
    first_sound,
    foreign,
    frequency,
    gaps,
    hear,
    in_order,
    missing,
    repeated_seconds,
    silence_after,
    voiced_seconds,
    word,
    words_to_tones,
)

pytestmark = pytest.mark.sampled

RATES = st.sampled_from([16_000, 22_050, 24_000, 48_000])
SCRIPTS = st.builds(
    ToneScript,
    slots=st.integers(1, 24),
    offset=st.integers(0, ALPHABET - 1),
    amplitude=st.floats(0.05, 0.9),
)


def slot(script: ToneScript, index: int, rate: int) -> Pcm:
    start, end = (round(i * script.slot_s * rate) for i in (index, index + 1))
    return script.pcm(rate)[start:end]


def through_opus(pcm: Pcm, bit_rate: int, application: str) -> Pcm:
    """The PCM (48 kHz) after an Opus encoder and decoder, with the codec's delay cut off."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "mono", "s16"
    encoder.bit_rate, encoder.options = bit_rate, {"application": application}
    decoder = av.CodecContext.create("opus", "r")
    decoder.sample_rate, decoder.layout = 48_000, "mono"
    decoded: list[np.ndarray] = []
    padded = np.pad(pcm, (0, -len(pcm) % 960 + 960))
    packets = []
    for start in range(0, len(padded), 960):
        frame = av.AudioFrame.from_ndarray(padded[None, start : start + 960], "s16", "mono")
        frame.sample_rate, frame.pts = 48_000, start
        packets += encoder.encode(frame)
    for packet in packets:
        decoded += [f.to_ndarray()[0] for f in decoder.decode(packet)]
    out = np.concatenate(decoded)
    if out.dtype != np.int16:
        out = (np.clip(out, -1, 1) * 32767).astype(np.int16)
    return out[312 : 312 + len(pcm)]


@given(script=SCRIPTS, rate=RATES)
@settings(max_examples=20, deadline=None)
def test_every_slot_is_heard_at_its_time(script: ToneScript, rate: int) -> None:
    heard = hear(script.pcm(rate), rate)
    assert [tone.index for tone in heard] == list(script.indices)
    for position, tone in enumerate(heard):
        assert tone.start_s == pytest.approx(position * script.slot_s, abs=0.012)
        assert tone.duration_s == pytest.approx(script.tone_s, abs=0.015)
        assert tone.level == pytest.approx(script.amplitude, rel=0.1)


@given(script=SCRIPTS, rate=RATES, data=st.data())
@settings(max_examples=20, deadline=None)
def test_any_choice_of_slots_in_any_order_is_heard_as_it_is(
    script: ToneScript, rate: int, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.integers(0, script.slots - 1), max_size=20))
    pcm = np.concatenate([np.zeros(0, np.int16), *(slot(script, i, rate) for i in chosen)])
    heard = hear(pcm, rate)
    assert [tone.index for tone in heard] == [script.indices[i] for i in chosen]
    assert missing(script, heard) == sorted(set(range(script.slots)) - set(chosen))
    assert in_order(script, heard) == (chosen == sorted(chosen))
    extra = len(chosen) - len(set(chosen))
    assert repeated_seconds(script, heard) == pytest.approx(
        extra * script.slot_s, abs=0.02 * (extra + 1)
    )


@given(
    script=SCRIPTS,
    start=st.floats(0, 1),
    end=st.floats(0, 1),
    rate=RATES,
    lead=st.floats(0, 0.5),
)
@settings(max_examples=25, deadline=None)
def test_any_cut_is_heard_as_the_slots_it_holds(
    script: ToneScript, start: float, end: float, rate: int, lead: float
) -> None:
    low, high = sorted((start * script.duration_s, end * script.duration_s))
    cut = script.pcm(rate)[round(low * rate) : round(high * rate)]
    heard = hear(np.concatenate([np.zeros(round(lead * rate), np.int16), cut]), rate)
    found = {tone.index: tone for tone in heard}
    for position, index in enumerate(script.indices):
        begin = position * script.slot_s
        left = min(high, begin + script.tone_s) - max(low, begin)
        if left > 0.08:
            assert index in found
            assert found[index].duration_s == pytest.approx(left, abs=0.02)
            assert found[index].start_s == pytest.approx(max(low, begin) - low + lead, abs=0.02)
        elif left < 0.04:
            assert index not in found
    assert not foreign(script, heard)


@pytest.mark.parametrize(
    ("bit_rate", "application"), [(24_000, "voip"), (32_000, "audio"), (64_000, "audio")]
)
@pytest.mark.parametrize("offset", [0, 48])
def test_opus_keeps_every_tone_apart(bit_rate: int, application: str, offset: int) -> None:
    script = ToneScript(slots=48, offset=offset)
    heard = hear(through_opus(script.pcm(48_000), bit_rate, application), 48_000)
    assert [tone.index for tone in heard] == list(script.indices)
    assert max(abs(t.start_s - i * script.slot_s) for i, t in enumerate(heard)) < 0.03
    assert repeated_seconds(script, heard) == 0.0


def test_a_16_khz_hop_keeps_every_tone() -> None:
    script = ToneScript(slots=ALPHABET)
    narrow = script.pcm(16_000).astype(np.float64)
    wide = np.interp(np.arange(len(narrow) * 3) / 3, np.arange(len(narrow)), narrow)
    heard = hear(wide.astype(np.int16), 48_000)
    assert [tone.index for tone in heard] == list(script.indices)


def test_a_leaked_tail_of_the_last_utterance_is_named() -> None:
    first, second = ToneScript(slots=20), ToneScript(slots=20, offset=20)
    tail = first.pcm(48_000)[-24_000:]
    heard = hear(np.concatenate([tail, second.pcm(48_000)]), 48_000)
    assert [tone.index for tone in foreign(second, heard)] == [18, 19]
    assert missing(second, heard) == []


@pytest.mark.parametrize("seed", range(3))
def test_noise_and_silence_hold_no_tones(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 3000, 96_000).astype(np.int16)
    assert hear(noise, 48_000) == []
    assert hear(np.zeros(48_000, np.int16), 48_000) == []
    assert hear(np.zeros(0, np.int16), 48_000) == []


def test_a_buzz_with_overtones_is_no_tone() -> None:
    time = np.arange(48_000) / 48_000
    buzz = np.sum([np.sin(2 * np.pi * 130 * n * time) for n in range(1, 30)], axis=0)
    assert hear((buzz * 1_000).astype(np.int16), 48_000) == []


def test_tones_are_heard_through_noise() -> None:
    script = ToneScript(slots=40)
    pcm = script.pcm(48_000) + np.random.default_rng(1).normal(0, 800, 480_000).astype(np.int16)
    assert missing(script, hear(pcm, 48_000)) == []


def test_a_replay_after_a_loss_counts_the_part_said_twice() -> None:
    script = ToneScript(slots=12)
    pcm = script.pcm(48_000)
    lost_at, resumed_at = round(1.5 * 48_000), round(1.25 * 48_000)
    heard = hear(np.concatenate([pcm[:lost_at], pcm[resumed_at:]]), 48_000)
    assert missing(script, heard) == []
    assert repeated_seconds(script, heard) == pytest.approx(0.25, abs=0.03)


@given(before=st.floats(0.2, 2), pause=st.floats(0.12, 2), rate=RATES)
@settings(max_examples=30, deadline=None)
def test_a_hole_is_found_with_its_length(before: float, pause: float, rate: int) -> None:
    script = ToneScript(slots=8, gap_s=0.0)
    pcm = script.pcm(rate)
    at = round(before * len(pcm) / 2.5)
    holed = np.concatenate([pcm[:at], np.zeros(round(pause * rate), np.int16), pcm[at:]])
    (gap,) = gaps(holed, rate, min_s=0.1)
    assert gap.start_s == pytest.approx(at / rate, abs=0.012)
    assert gap.duration_s == pytest.approx(pause, abs=0.02)
    assert voiced_seconds(holed, rate) == pytest.approx(2.0, abs=0.03)


def test_silence_after_ignores_the_gaps_between_tones() -> None:
    script = ToneScript(slots=8)
    pcm = np.concatenate([script.pcm(48_000), np.zeros(48_000, np.int16)])
    assert silence_after(pcm, 48_000, 0.5) == pytest.approx(1.45, abs=0.01)
    assert silence_after(pcm, 48_000, 2.2) == 0.0
    assert silence_after(script.pcm(48_000), 48_000, 0.5) is None


@given(script=SCRIPTS, rate=RATES, frame_ms=st.sampled_from([10, 20, 50]))
@settings(max_examples=20, deadline=None)
def test_frames_carry_exactly_the_utterance(script: ToneScript, rate: int, frame_ms: int) -> None:
    frames = list(script.frames(rate, frame_ms))
    joined = np.concatenate([np.frombuffer(f.data, np.int16) for f in frames])
    assert np.array_equal(joined, script.pcm(rate))
    assert all(f.samples_per_channel == rate * frame_ms // 1000 for f in frames[:-1])


def test_each_tone_has_a_pitch_and_a_word_of_its_own() -> None:
    assert len({frequency(i) for i in range(ALPHABET)}) == ALPHABET
    assert max(frequency(i) for i in range(ALPHABET)) < 6_200
    assert len({word(i) for i in range(ALPHABET)}) == ALPHABET
    script = ToneScript(slots=30, offset=80)
    assert words_to_tones(f"so {script.text}.") == list(script.indices)


@pytest.mark.parametrize(
    "wrong",
    [
        {"slots": 0},
        {"slots": ALPHABET + 1},
        {"slots": 1, "gap_s": 0.2},
        {"slots": 1, "amplitude": 2},
    ],
)
def test_a_script_that_cannot_be_heard_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"slots|tone|amplitude"):
        ToneScript(**wrong)  # type: ignore[arg-type]


def test_the_envelope_is_in_parts_of_full_scale() -> None:
    assert envelope(np.full(4800, 16384, np.int16), 48_000) == pytest.approx(np.full(20, 0.5))


def test_the_first_sound_is_found() -> None:
    late = np.concatenate([np.zeros(24_000, np.int16), ToneScript(slots=1).pcm(48_000)])
    assert first_sound(late, 48_000) == pytest.approx(0.5, abs=0.01)
    assert first_sound(late[:24_000], 48_000) is None
    assert first_sound(late[:0], 48_000) is None
