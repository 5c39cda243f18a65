"""The material of bench/ear: voices that speak, treatments that do what their names say, sounds."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from bench.ear import sounds
from bench.ear import voices as ear_voices
from bench.ear.dsp import (
    RATE,
    Pcm,
    Signal,
    band_passed,
    frame_levels,
    gain,
    resampled,
    rms_db,
    speech_level_db,
    to_pcm,
    to_signal,
)
from bench.ear.sentences import AGENT, LONG, OWN_WORDS, SHORT, proof, tuning
from bench.ear.treatments import COMBINED, SINGLE, TREATMENTS, Treatment, chain, treatment
from bench.ear.voices import VOICES, SynthesizerMissing, Voice, speech, voices, why_missing
from livekit_plugins_runway.testing.tones import ToneScript, hear

pytestmark = pytest.mark.slow

WORDS = {
    "en": "Good morning, my friend.",
    "de": "Guten Morgen, mein Freund.",
    "fr": "Bonjour, mon ami.",
    "es": "Buenos días, amigo.",
    "it": "Buongiorno, amico mio.",
    "pl": "Dzień dobry, przyjacielu.",
    "cmn": "早上好,我的朋友。",
    "ja": "おはようございます。",
}
ESPEAK = VOICES[0]
SYNTHESIZERS = ("espeak", "pico", "hibari", "piper", "flite")


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing was said before; the cache folder is the one returned."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ear_voices._speech.cache_clear()
    return tmp_path


FIRST = [next(voice for voice in VOICES if voice.synthesizer == name) for name in SYNTHESIZERS]


def _need(voice: Voice) -> None:
    reason = why_missing(voice)
    if reason:
        pytest.skip(reason)


# -- voices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.name)
def test_each_voice_says_as_much_again_at_the_level_that_is_asked(
    voice: Voice, forget: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need(voice)
    said = speech(WORDS[voice.language], voice, level_db=-26.0)
    assert said.dtype == np.int16
    assert 0.8 < len(said) / RATE < 4.0
    assert speech_level_db(to_signal(said)) == pytest.approx(-26.0, abs=0.2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(forget / "another"))
    ear_voices._speech.cache_clear()
    again = speech(WORDS[voice.language], voice, level_db=-26.0)
    # Not to the sample: eSpeak was seen to differ from itself.
    assert len(again) == pytest.approx(len(said), rel=0.02)
    assert speech_level_db(to_signal(again)) == pytest.approx(-26.0, abs=0.2)


@pytest.mark.parametrize("voice", FIRST, ids=lambda voice: voice.name)
def test_a_voice_that_is_asked_to_be_faster_takes_less_time(voice: Voice, forget: Path) -> None:
    _need(voice)
    usual = speech(WORDS["en"], voice)
    assert 0.7 < len(speech(WORDS["en"], voice, pace=1.25)) / len(usual) < 0.95


def test_what_was_said_once_is_not_synthesized_again(
    forget: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _need(ESPEAK)
    said = speech(WORDS["en"], ESPEAK)
    ear_voices._speech.cache_clear()
    monkeypatch.delattr(ear_voices.Espeak, "speak")
    monkeypatch.setattr(ear_voices.Espeak, "__abstractmethods__", frozenset())
    assert np.array_equal(said, speech(WORDS["en"], ESPEAK))


def test_a_damaged_file_in_the_cache_is_written_anew(forget: Path) -> None:
    _need(ESPEAK)
    said = speech(WORDS["en"], ESPEAK)
    [kept] = forget.rglob("*.npy")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    ear_voices._speech.cache_clear()
    assert np.array_equal(said, speech(WORDS["en"], ESPEAK))
    assert kept.read_bytes() == whole


def test_a_synthesizer_that_is_not_installed_is_said_and_left_out(
    forget: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(forget))
    flite = next(voice for voice in VOICES if voice.synthesizer == "flite")
    assert "apt-get install flite" in str(why_missing(flite))
    assert flite not in voices()
    with pytest.raises(SynthesizerMissing, match="flite"):
        speech(WORDS["en"], flite)


def test_voices_are_of_different_kinds_and_some_are_held_out() -> None:
    assert {voice.kind for voice in VOICES} == {"formant", "statistical", "recorded", "neural"}
    held = {voice.synthesizer for voice in VOICES if voice.held_out}
    assert held - {voice.synthesizer for voice in VOICES if not voice.held_out} == {
        "piper",
        "flite",
    }
    assert len({voice.name for voice in VOICES}) == len(VOICES)


# -- sentences ------------------------------------------------------------------------------------


def test_each_language_has_sentences_for_both_sides() -> None:
    for language in {voice.language for voice in VOICES}:
        assert len(AGENT[language]) >= 4
        assert len(OWN_WORDS[language]) >= 4
    assert len(AGENT["en"]) >= 40
    assert len(OWN_WORDS["en"]) >= 30
    assert (len(SHORT), len(LONG)) == (6, 3)


def test_every_sentence_is_on_one_side_and_no_sentence_is_said_twice() -> None:
    lists = [*AGENT.values(), *OWN_WORDS.values(), SHORT, LONG]
    for sentences in lists:
        assert not set(tuning(sentences)) & set(proof(sentences))
        assert set(tuning(sentences)) | set(proof(sentences)) == set(sentences)
    everything = [sentence for sentences in lists for sentence in sentences]
    assert len(set(everything)) == len(everything)


# -- treatments -----------------------------------------------------------------------------------


def _voice_like() -> Pcm:
    """Syllables of a buzz of 120 Hz at -22 dBFS, with a pause of 0.4 s after 1 s and 0.2 s of
    silence at either end: 2.8 s."""
    time = np.arange(RATE) / RATE
    buzz = sum(np.cos(2 * np.pi * 120 * n * time) / n for n in range(1, 60))
    syllables = buzz * (0.15 + np.sin(np.pi * 5 * time) ** 2)
    quiet, pause = np.zeros(RATE // 5), np.zeros(RATE * 2 // 5)
    whole = np.concatenate([quiet, syllables, pause, syllables, quiet])
    return to_pcm(whole * gain(-22.0 - speech_level_db(whole)))


VOICE = _voice_like()


@functools.cache
def _treated(one: Treatment) -> Pcm:
    return one(VOICE)


def _level_change(name: str, low_hz: float = 0.0, high_hz: float = float("inf")) -> float:
    """Decibels by which a treatment changes what lies between two frequencies."""
    before, after = to_signal(VOICE), to_signal(_treated(treatment(name)))
    return rms_db(band_passed(after, low_hz, high_hz)) - rms_db(
        band_passed(before, low_hz, high_hz)
    )


def _during(signal: Signal, start_s: float, end_s: float) -> float:
    """dBFS between two times."""
    return rms_db(signal[round(start_s * RATE) : round(end_s * RATE)])


@pytest.mark.parametrize("one", TREATMENTS, ids=lambda one: one.name)
def test_each_treatment_gives_the_same_again_and_is_as_long_as_it_says(one: Treatment) -> None:
    given = VOICE.copy()
    treated = one(given)
    assert treated.dtype == np.int16
    assert np.array_equal(treated, _treated(one))
    assert np.array_equal(given, VOICE)
    longer = 0.2 if "stretched" in one.name else 0.0
    expected = len(VOICE) / RATE / one.pace + one.lead_s + longer
    assert len(treated) / RATE == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("one", TREATMENTS, ids=lambda one: one.name)
def test_the_words_begin_and_end_where_a_treatment_says(one: Treatment) -> None:
    treated = to_signal(_treated(one))
    loud = np.flatnonzero(frame_levels(treated) > gain(speech_level_db(treated) - 12.0)) * 0.02
    longer = 0.2 if "stretched" in one.name else 0.0
    edges = [0.2 / one.pace + one.lead_s, 2.6 / one.pace + one.lead_s + longer]
    # A reverberation, a faded end and an automatic gain move the edges of what is loud.
    assert [loud[0], loud[-1] + 0.02] == pytest.approx(edges, abs=0.16)


def test_silence_is_treated_without_error() -> None:
    for one in TREATMENTS:
        assert len(one(sounds.silence(0.5)))


@pytest.mark.parametrize("one", SINGLE[1:], ids=lambda one: one.name)
def test_no_treatment_leaves_the_voice_as_it_is(one: Treatment) -> None:
    treated = _treated(one)
    assert len(treated) != len(VOICE) or not np.array_equal(treated, VOICE)


def test_gains_are_as_large_as_they_say() -> None:
    assert _level_change("-12 dB") == pytest.approx(-12.0, abs=0.1)
    assert _level_change("-6 dB") == pytest.approx(-6.0, abs=0.1)
    quiet = treatment("-12 dB")(VOICE)
    raised = to_signal(treatment("+12 dB")(quiet))
    assert rms_db(raised) == pytest.approx(rms_db(to_signal(VOICE)), abs=0.1)


def test_a_limiter_keeps_peaks_below_full_scale_and_cuts_none_flat() -> None:
    loud = np.abs(to_signal(treatment("+12 dB")(VOICE)))
    assert loud.max() <= gain(-0.3) + 1e-4
    assert np.count_nonzero(loud > 0.96) < len(loud) / 200


def test_a_compressor_brings_loud_and_low_nearer_to_each_other() -> None:
    uneven = VOICE.copy()
    uneven[round(1.2 * RATE) :] //= 2
    before, after = to_signal(uneven), to_signal(treatment("compressor 4:1")(uneven))

    def steps(signal: Signal) -> float:
        return _during(signal, 0.3, 1.1) - _during(signal, 1.7, 2.5)

    assert steps(before) == pytest.approx(6.0, abs=0.2)
    assert 1.0 < steps(after) < 3.5
    assert speech_level_db(after) == pytest.approx(speech_level_db(before), abs=0.3)


def test_an_automatic_gain_comes_up_within_seconds() -> None:
    long = np.tile(VOICE, 3)
    change = [
        _during(to_signal(treatment("gain ride")(long)), at, at + 1.0)
        - _during(to_signal(long), at, at + 1.0)
        for at in (0.2, 5.8)
    ]
    assert change[0] < -3.0
    assert change[1] > change[0] + 4.0


@pytest.mark.parametrize(
    ("name", "kept", "lost"),
    [
        ("300-3400 Hz", (400, 3000), (4000, 20000)),
        ("300-3400 Hz", (400, 3000), (20, 250)),
        ("16 kHz path", (300, 6500), (8500, 20000)),
        ("below 1.5 kHz", (100, 1300), (1800, 20000)),
        ("above 1 kHz", (1200, 6000), (20, 850)),
    ],
)
def test_a_band_keeps_what_it_names_and_nothing_else(
    name: str, kept: tuple[float, float], lost: tuple[float, float]
) -> None:
    assert _level_change(name, *kept) == pytest.approx(0.0, abs=0.5)
    assert _level_change(name, *lost) < -30.0


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000])
def test_resampling_keeps_what_both_rates_can_hold(rate: int) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 7000 * np.arange(RATE) / RATE)
    low = resampled(tone, RATE, rate)
    assert len(low) == rate
    again = resampled(low, rate, RATE)
    assert again[1000:-1000] == pytest.approx(tone[1000:-1000], abs=0.01)


@pytest.mark.parametrize("decay", [0.2, 0.4])
def test_a_room_goes_on_after_the_voice_for_as_long_as_it_says(decay: float) -> None:
    knock = np.zeros(RATE, dtype=np.int16)
    knock[4800] = 32767
    room = to_signal(treatment(f"reverb {decay} s")(knock))[4800 + 960 :]
    fall = _during(room, 0.0, 0.02) - _during(room, decay / 2, decay / 2 + 0.02)
    assert fall == pytest.approx(30.0, abs=4.0)


@pytest.mark.parametrize("kbit", [12, 16, 24, 32])
def test_opus_keeps_time_and_level(kbit: int) -> None:
    treated = to_signal(treatment(f"Opus {kbit} kbit/s")(VOICE))
    assert speech_level_db(treated) == pytest.approx(-22.0, abs=1.5)
    low = [band_passed(one, 0.0, 1000.0) for one in (to_signal(VOICE), treated)]
    likeness = [float(np.dot(low[0], np.roll(low[1], shift))) for shift in range(-96, 97, 8)]
    assert abs(range(-96, 97, 8)[int(np.argmax(likeness))]) <= 24


@pytest.mark.parametrize("color", ["white", "pink"])
@pytest.mark.parametrize("level", [-60, -50, -45])
def test_noise_is_as_loud_as_it_says(color: str, level: int) -> None:
    treated = to_signal(treatment(f"{color} noise {level} dBFS")(VOICE))
    assert rms_db(treated - to_signal(VOICE)) == pytest.approx(level, abs=0.3)


def test_a_breath_is_heard_before_the_words() -> None:
    treated = treatment("breath before")(VOICE)
    assert np.array_equal(treated[round(0.4 * RATE) :], VOICE)
    assert _during(to_signal(treated), 0.0, 0.4) == pytest.approx(-38.0, abs=0.2)


def test_breaths_are_heard_in_the_pauses_alone() -> None:
    added = to_signal(treatment("breaths in pauses")(VOICE)) - to_signal(VOICE)
    heard = np.flatnonzero(added) / RATE
    assert 1.2 < heard[0] < heard[-1] < 1.6
    assert heard[-1] - heard[0] == pytest.approx(0.25, abs=0.02)
    assert _during(added, heard[0], heard[-1]) == pytest.approx(-38.0, abs=0.5)


def test_faded_edges_are_12_db_down_and_the_rest_is_not() -> None:
    for name, edge, middle in (
        ("faded end", (2.59, 2.6), (0.3, 2.2)),
        ("faded start", (0.2, 0.21), (0.7, 2.5)),
    ):
        treated = to_signal(_treated(treatment(name)))
        assert _during(treated, *edge) - _during(to_signal(VOICE), *edge) == pytest.approx(
            -12.0, abs=1.0
        )
        assert _during(treated, *middle) == pytest.approx(
            _during(to_signal(VOICE), *middle), abs=0.05
        )


@pytest.mark.parametrize("pace", [0.9, 0.95, 1.05, 1.1])
def test_another_pace_keeps_pitch_and_order(pace: float) -> None:
    script = ToneScript(12)
    heard = hear(treatment(f"pace x{pace}")(script.pcm(RATE)), RATE)
    assert tuple(tone.index for tone in heard) == script.indices
    for slot, tone in enumerate(heard):
        assert tone.start_s == pytest.approx(slot * script.slot_s / pace, abs=0.03)


def test_a_wrong_clock_moves_pitch_with_pace() -> None:
    tone = to_pcm(0.3 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE))
    for pace in (0.9, 1.1):
        spectrum = np.abs(np.fft.rfft(to_signal(treatment(f"clock x{pace}")(tone))))
        seconds = 1.0 / pace
        assert float(np.argmax(spectrum)) / seconds == pytest.approx(1000 * pace, abs=3)


def test_a_start_that_is_stretched_delays_the_rest_by_as_much() -> None:
    script = ToneScript(12)
    heard = hear(treatment("start stretched by 0.2 s")(script.pcm(RATE)), RATE)
    assert tuple(tone.index for tone in heard) == script.indices
    assert heard[0].start_s == pytest.approx(0.0, abs=0.02)
    for slot, tone in enumerate(heard[4:], start=4):
        assert tone.start_s == pytest.approx(slot * script.slot_s + 0.2, abs=0.03)


@pytest.mark.parametrize(("lost", "every"), [(20, 0.3), (60, 0.7)])
def test_losses_are_filled_with_the_voice_that_went_before(lost: int, every: float) -> None:
    turns = 2 * np.pi * 150 * np.arange(RATE) / RATE
    steady = to_pcm(0.1 * np.cos(turns) + 0.1 * np.cos(2 * turns))
    treated = to_signal(treatment(f"{lost} ms lost each {every} s")(steady))
    same = treated == to_signal(steady)
    assert same[: round(every * RATE)].all()
    # The period is repeated in step, so only the fade tells it from what was lost.
    filled = treated[round(every * RATE) :][: lost * RATE // 1000]
    original = to_signal(steady)[round(every * RATE) :][: lost * RATE // 1000]
    assert np.corrcoef(filled, original)[0, 1] > 0.95
    assert rms_db(filled) < rms_db(original) - 0.5
    assert np.count_nonzero(~same) < len(same) * 1.6 * lost / 1000 / every


def test_a_click_is_removed_and_a_voice_is_not() -> None:
    clicked = VOICE.copy()
    clicked[RATE // 2 :: RATE // 4] = 20000
    cleaned = to_signal(treatment("clicks removed")(clicked))
    assert np.abs(cleaned - to_signal(VOICE)).max() < 0.1
    assert rms_db(cleaned - to_signal(VOICE)) < -45.0


def test_an_all_pass_changes_the_phase_and_no_level() -> None:
    knock = np.zeros(RATE, dtype=np.int16)
    knock[4800] = 30000
    passed = to_signal(treatment("all-pass phase")(knock))
    spectrum = np.abs(np.fft.rfft(passed)) / np.abs(np.fft.rfft(to_signal(knock)))
    assert spectrum[50:20000] == pytest.approx(1.0, abs=0.02)
    assert np.abs(passed).max() < 0.8
    assert np.abs(passed[:4799]).max() < 0.001


def test_an_equaliser_raises_and_lowers_what_it_says() -> None:
    assert _level_change("equaliser", 480, 540) == pytest.approx(-4.0, abs=1.5)
    assert _level_change("equaliser", 2800, 3200) == pytest.approx(6.0, abs=1.0)


def test_a_chain_does_one_after_the_other_and_says_so() -> None:
    both = chain(treatment("breath before"), treatment("pace x1.1"))
    assert both.name == "breath before + pace x1.1"
    assert both.groups == ("breath", "pace")
    assert both.lead_s == pytest.approx(0.4 / 1.1)
    assert both.pace == pytest.approx(1.1)
    twice = chain(treatment("-6 dB"), treatment("-6 dB"))(VOICE)
    assert rms_db(to_signal(twice)) == pytest.approx(rms_db(to_signal(VOICE)) - 12.0, abs=0.1)
    assert {one.name for one in COMBINED} == {treatment(one.name).name for one in COMBINED}


# -- sounds ---------------------------------------------------------------------------------------


def test_sounds_are_as_long_and_as_loud_as_asked() -> None:
    for make in (sounds.white_noise, sounds.pink_noise, sounds.room_noise, sounds.music):
        made = make(3.0, level_db=-30.0)
        assert (len(made), made.dtype.name) == (3 * RATE, "int16")
        assert rms_db(to_signal(made)) == pytest.approx(-30.0, abs=0.2)
        assert np.array_equal(made, make(3.0, level_db=-30.0))


@pytest.mark.parametrize("milliseconds", [10, 20, 40])
def test_a_click_is_short_and_has_its_peak(milliseconds: int) -> None:
    made = sounds.click(milliseconds, level_db=-12.0)
    assert len(made) == RATE * milliseconds // 1000
    assert np.abs(to_signal(made)).max() == pytest.approx(gain(-12.0), abs=0.001)


def test_a_ring_tone_rings_for_a_second_and_waits_for_two() -> None:
    ring = to_signal(sounds.ring_tone(6.0, level_db=-22.0))
    assert _during(ring, 0.05, 0.95) == pytest.approx(-22.0, abs=0.3)
    assert not np.any(ring[round(1.01 * RATE) : round(2.99 * RATE)])
    assert _during(ring, 3.05, 3.95) == pytest.approx(-22.0, abs=0.3)


def test_pink_noise_falls_by_3_db_an_octave() -> None:
    pink = to_signal(sounds.pink_noise(5.0))
    octaves = [rms_db(band_passed(pink, hz, 2 * hz)) for hz in (200.0, 800.0, 3200.0)]
    assert octaves == pytest.approx([octaves[0]] * 3, abs=0.7)
