"""A program that speaks one text and ends, for synthesizers whose state is that of a process.

What eSpeak NG and Pico said before changes the samples of what they say next, so that only a new
process says the same text in the same samples. Asked in JSON on standard input; answers with int16
samples, or phonemes in JSON, on standard output. Imports nothing of this project.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

# Names and values of eSpeak NG 1.52, espeak-ng/speak_lib.h
_SYNCHRONOUS, _DONT_EXIT, _UTF8, _BY_CHARACTER, _RATE, _IPA = 2, 0x8000, 1, 1, 1, 2
_ESPEAK_HZ = 22_050
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def _espeak(speaker: str) -> ctypes.CDLL:
    loader = importlib.import_module("espeakng_loader")
    library = ctypes.CDLL(loader.get_library_path())
    data = loader.get_data_path().encode()
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT)
    if rate != _ESPEAK_HZ:
        raise RuntimeError(f"eSpeak NG did not start: espeak_Initialize returned {rate}")
    if library.espeak_SetVoiceByName(speaker.encode()):
        raise RuntimeError(f"eSpeak NG has no voice {speaker}")
    return library


def espeak(text: str, speaker: str, pace: float) -> bytes:
    """Samples at 22,050 Hz; 165 words a minute at pace 1."""
    library, samples = _espeak(speaker), bytearray()

    def collect(piece: ctypes._Pointer[ctypes.c_short], count: int, _: int) -> int:
        if count > 0:
            samples.extend(ctypes.string_at(piece, count * 2))
        return 0

    callback = _Callback(collect)
    library.espeak_SetSynthCallback(callback)
    library.espeak_SetParameter(_RATE, round(165 * pace), 0)
    data = text.encode() + b"\0"
    length = ctypes.c_size_t(len(data))
    failed = library.espeak_Synth(data, length, 0, _BY_CHARACTER, 0, _UTF8, None, None)
    if failed:
        raise RuntimeError(f"eSpeak NG refused the text: error {failed}")
    return bytes(samples)


def phonemes(clauses: list[str], speaker: str) -> bytes:
    """A JSON list with the IPA of each clause."""
    library = _espeak(speaker)
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    return json.dumps([_ipa(library, clause) for clause in clauses]).encode()


def _ipa(library: ctypes.CDLL, text: str) -> str:
    data = ctypes.create_string_buffer(text.encode())
    rest = ctypes.c_void_p(ctypes.addressof(data))
    found = []
    while rest.value:  # it says one clause a call
        said: bytes | None = library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA)
        found.append((said or b"").decode())
    return " ".join(found)


def pico(text: str, speaker: str, pace: float) -> bytes:
    """Samples at 16 kHz, at half of full level: at its own it clips."""
    synthesizer = importlib.import_module("py_nanotts").NanoTTS()
    samples: bytes = synthesizer.speak(text, voice=speaker, speed=pace, volume=0.5)
    return samples


def main() -> None:
    programs: dict[str, Callable[..., bytes]] = {
        "espeak": espeak,
        "phonemes": phonemes,
        "pico": pico,
    }
    asked: dict[str, Any] = json.load(sys.stdin)
    sys.stdout.buffer.write(programs[asked.pop("program")](**asked))


if __name__ == "__main__":
    main()
