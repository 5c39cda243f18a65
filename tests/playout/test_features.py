"""Short-time spectra: levels in dBFS, energy where it belongs, and shapes that ignore loudness."""

from __future__ import annotations

import numpy as np
import pytest

from livekit_plugins_runway.playout.hearing.features import Hops, hop_bands, hop_levels, shape_of
from livekit_plugins_runway.testing.tones import Pcm

HOP = 480
EDGES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22, 25, 28, 31, 35, 39, 44, 50, 57]
"""Lower edges of the bands, in steps of 100 Hz."""


def sine(hertz: float, amplitude: float = 0.5, hops: int = 1) -> Pcm:
    time = np.arange(hops * HOP) / 48_000
    return np.round(np.sin(2 * np.pi * hertz * time) * amplitude * 32_767).astype(np.int16)


@pytest.mark.parametrize(("amplitude", "level"), [(1.0, -3.0), (0.1, -23.0), (0.01, -43.0)])
def test_the_level_of_a_sine_is_that_of_its_power(amplitude: float, level: float) -> None:
    levels = hop_levels(sine(400, amplitude, hops=3))
    assert levels.shape == (3,)
    assert levels == pytest.approx([level] * 3, abs=0.1)


def test_digital_silence_has_the_lowest_level_and_the_lowest_bands() -> None:
    silence = np.zeros(2 * HOP, np.int16)
    assert hop_levels(silence) == pytest.approx([-100.0] * 2)
    bands = hop_bands(silence)
    assert bands.shape == (2, len(EDGES))
    assert np.all(bands == -60.0)


@pytest.mark.parametrize("bin_", [1, 5, 9, 10, 16, 31, 44, 57, 69, 70])
def test_a_sound_is_strongest_in_the_band_that_its_pitch_belongs_to(bin_: int) -> None:
    (bands,) = hop_bands(sine(100 * bin_))
    band = max(index for index, edge in enumerate(EDGES) if edge <= bin_)
    loudest = float(bands.max())
    assert float(bands[band]) == loudest
    # Hann spreads a sine over three bins: its energy within the band is that of the sine, or half.
    assert -13.0 < loudest < -8.0


@pytest.mark.parametrize("hertz", [7400, 9000, 15_000])
def test_what_does_not_survive_a_data_stream_does_not_count(hertz: float) -> None:
    assert np.all(hop_bands(sine(hertz)) < -35.0)


def test_shapes_are_the_same_however_loud_and_end_thirty_decibels_down() -> None:
    bands = hop_bands(sine(900) + sine(2000, 0.1))
    shape = shape_of(bands)
    np.testing.assert_allclose(shape_of(bands - 12.0), shape, atol=1e-4)
    assert float(shape.max()) == pytest.approx(30.0)
    assert float(shape.min()) == 0.0
    band_of_2000 = EDGES.index(20)
    assert float(shape[0, band_of_2000]) == pytest.approx(16.0, abs=1.5)
    np.testing.assert_array_equal(shape_of(bands[0]), shape[0])


def test_a_long_record_keeps_every_hop_where_it_was() -> None:
    rng = np.random.default_rng(2)
    pcm = rng.normal(0, 2000, 1000 * HOP).astype(np.int16)
    levels, bands = hop_levels(pcm), hop_bands(pcm)
    hops = Hops()
    first = 0
    for count in (1, 255, 1, 300, 443):
        hops.append(levels[first : first + count], bands[first : first + count])
        first += count
        assert hops.count == first
    np.testing.assert_array_equal(hops.levels, levels)
    np.testing.assert_array_equal(hops.bands, bands)
    np.testing.assert_array_equal(hops.shapes, shape_of(bands))


def test_a_record_goes_on_where_it_was_after_its_start_was_forgotten() -> None:
    rng = np.random.default_rng(2)
    pcm = rng.normal(0, 2000, 90 * HOP).astype(np.int16)
    levels, bands = hop_levels(pcm), hop_bands(pcm)
    hops = Hops()
    hops.append(levels[:60], bands[:60])
    hops.forget(25)
    assert hops.count == 35
    hops.append(levels[60:], bands[60:])
    np.testing.assert_array_equal(hops.levels, levels[25:])
    np.testing.assert_array_equal(hops.bands, bands[25:])
    np.testing.assert_array_equal(hops.shapes, shape_of(bands[25:]))


def test_hops_that_nobody_looked_at_are_silent() -> None:
    hops = Hops()
    hops.append_silence(300)
    assert hops.count == 300
    assert np.all(hops.levels == -100.0)
    assert np.all(hops.bands == -60.0)
