"""Sounds that are not speech: music, a ring tone, room noise, clicks, silence.

int16 mono at 48 kHz; the same call gives the same samples. Tones that can be located in a recording
are in livekit_plugins_runway.testing.tones.
"""

from __future__ import annotations

import numpy as np

from bench.ear.dsp import RATE, Pcm, Signal, band_passed, gain, rms_db, to_pcm

_HOP = RATE // 100

CLOSE = (975.0, 1022.0, 1117.0)
"""Hz. Opus predicts such a sound from what was before it, and becomes up to four times too loud
where a packet is missing (docs/relay.md)."""


def silence(seconds: float) -> Pcm:
    return np.zeros(round(seconds * RATE), dtype=np.int16)


def white_noise(seconds: float, *, level_db: float = -40.0, seed: int = 1) -> Pcm:
    """Noise of all frequencies alike; `level_db` is its RMS in dBFS."""
    return _leveled(_random(seconds, seed), level_db)


def pink_noise(seconds: float, *, level_db: float = -40.0, seed: int = 2) -> Pcm:
    """Noise that falls by 3 dB an octave above 20 Hz; `level_db` is its RMS in dBFS."""
    return _leveled(_tilted(_random(seconds, seed), exponent=0.5), level_db)


def room_noise(seconds: float, *, level_db: float = -55.0, seed: int = 3) -> Pcm:
    """Air in a room, falling by 6 dB an octave, with the hum of the mains."""
    air = _tilted(_random(seconds, seed), exponent=1.0)
    time = _time(seconds)
    hum = sum(np.sin(2 * np.pi * 50.0 * n * time) / n for n in (1, 2, 3, 5))
    return _leveled(air / np.std(air) + 0.3 * hum, level_db)


def breath(seconds: float, *, level_db: float = -38.0, seed: int = 4) -> Pcm:
    """An audible breath: it swells and falls; `level_db` is the RMS of all of it in dBFS."""
    noise = band_passed(_random(seconds, seed), 400.0, 5000.0)
    return _leveled(noise * np.sin(np.pi * np.arange(len(noise)) / max(1, len(noise))), level_db)


def held(last: Pcm, seconds: float) -> Pcm:
    """What a receiver makes of a voice that does not go on: its last period again for 0.1 s, then
    fading by 1.5 dB each 10 ms (measured: NetEq of livekit 1.1.21).

    Args:
        last: 0.06 s of the voice, or more.
    """
    heard = last.astype(np.float64)
    end = heard[-_HOP:]
    lags = range(120, _HOP)
    period = max(lags, key=lambda lag: float(np.dot(end, heard[-_HOP - lag : -lag])))
    hops = round(seconds * 100)
    gains = [gain(-1.5 * max(0, hop - 10)) for hop in range(hops)]
    return _in_hops(np.resize(heard[-period:], hops * _HOP), gains)


def hissed(seconds: float) -> Pcm:
    """What it makes of a word that has only begun: noise, fading at once by 1.7 dB each 10 ms."""
    hops = round(seconds * 100)
    noise = np.random.default_rng(1).normal(0, 6000, hops * _HOP)
    return _in_hops(noise, [gain(-1.7 * hop) for hop in range(hops)])


def _in_hops(sound: Signal, gains: list[float]) -> Pcm:
    """With a gain for each 10 ms."""
    faded: Pcm = (sound * np.repeat(gains, _HOP)).astype(np.int16)
    return faded


def click(milliseconds: float, *, level_db: float = -12.0, seed: int = 5) -> Pcm:
    """A knock of that length; `level_db` is its peak in dBFS."""
    time = _time(milliseconds / 1000)
    knock = _random(milliseconds / 1000, seed) * np.exp(-5 * time * 1000 / milliseconds)
    return to_pcm(knock * (gain(level_db) / np.abs(knock).max()))


def ring_tone(seconds: float, *, level_db: float = -22.0) -> Pcm:
    """What a caller hears: 440 and 480 Hz, one second on, two off; RMS while it is on."""
    time = _time(seconds)
    tone = np.sin(2 * np.pi * 440.0 * time) + np.sin(2 * np.pi * 480.0 * time)
    beat = time % 3.0
    edge = np.clip(np.minimum(beat, 1.0 - beat) / 0.01, 0.0, 1.0)
    return to_pcm(tone * edge * gain(level_db))


def chord(seconds: float, *, level_db: float = -15.0, hz: tuple[float, ...] = CLOSE) -> Pcm:
    """Steady tones that begin and end within 10 ms; `level_db` is their RMS in dBFS."""
    time = _time(seconds)
    tones = np.sum([np.sin(2 * np.pi * pitch * time) for pitch in hz], axis=0)
    edge = np.clip(np.minimum(time, time[::-1]) / 0.01, 0.0, 1.0)
    return to_pcm(tones / np.sqrt(len(hz) / 2) * edge * gain(level_db))


def music(seconds: float, *, level_db: float = -22.0, seed: int = 6) -> Pcm:
    """Chords, a bass and a tune that never repeats, at 100 beats a minute; RMS in dBFS."""
    random = np.random.default_rng(seed)
    out = np.zeros(round(seconds * RATE))
    beat_s = 0.6
    for beat in range(int(seconds / beat_s) + 1):
        root = (0, 9, 5, 7)[beat // 4 % 4]
        at = beat * beat_s
        _strike(out, at, -24 + root, 0.5, 0.5)
        if beat % 4 == 0:
            for step in (0, 4 if root in (0, 5, 7) else 3, 7):
                _strike(out, at, root + step - 12, 2.2, 0.3)
        for half in (0.0, beat_s / 2):
            _strike(out, at + half, int(random.choice([0, 2, 4, 7, 9])) + 12, 0.3, 0.4)
    return _leveled(out, level_db)


def _strike(out: Signal, at_s: float, semitone: int, seconds: float, loudness: float) -> None:
    """Adds a plucked note, `semitone` above the C of 261.6 Hz."""
    start = round(at_s * RATE)
    time = _time(seconds)[: max(0, len(out) - start)]
    hz = 261.6 * 2 ** (semitone / 12)
    note = sum(np.sin(2 * np.pi * hz * n * time) / n**1.5 for n in range(1, 7))
    shape = np.minimum(time / 0.004, 1.0) * np.exp(-3.5 * time / seconds)
    out[start : start + len(time)] += loudness * note * shape


def _time(seconds: float) -> Signal:
    return np.arange(round(seconds * RATE)) / RATE


def _random(seconds: float, seed: int) -> Signal:
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def _tilted(noise: Signal, *, exponent: float) -> Signal:
    hz = np.fft.rfftfreq(len(noise), 1 / RATE)
    tilt = np.maximum(hz, 20.0) ** -exponent
    tilt[0] = 0.0
    out: Signal = np.fft.irfft(np.fft.rfft(noise) * tilt, len(noise))
    return out


def _leveled(signal: Signal, level_db: float) -> Pcm:
    return to_pcm(signal * gain(level_db - rms_db(signal)))
