"""What the demo measured: checks, the printed report and `report.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from livekit.agents import tokenize
from offline_speech import SAMPLE_RATE as VOICE_RATE
from offline_speech import synthesize
from rich.console import Console
from rich.table import Table

from demo.runway import RunwaySession
from livekit_plugins_runway.testing.recording import SAMPLE_RATE
from livekit_plugins_runway.testing.tones import SILENCE, Pcm, envelope, voiced_seconds

ALIKE = 0.7
"""Correlation of loudness over time from which on a sentence counts as heard.

Measured: 0.92 and more for sentences that were heard, 0.74 on a machine that is out of breath,
0.57 and less for others.
"""

_STEP = 0.005  # seconds per value of an envelope
_SLACK = 60  # values: how far a piece may be off its place
_SMOOTH = 20  # values: a jitter buffer that stretches speech moves it less than that
_PIECE = 0.7  # seconds that are held against each other at one go


@dataclass(frozen=True)
class Sentence:
    """A sentence that the agent meant to say, and whether the user heard it."""

    text: str
    likeness: float
    """Correlation with the synthesized speech in its least alike piece, at most 1."""
    at: float
    """Where it begins in what was heard, in seconds."""

    @property
    def heard(self) -> bool:
        return self.likeness >= ALIKE


@dataclass(frozen=True)
class Utterance:
    """One thing that the agent said, as it was meant, kept in its history, and heard. Seconds."""

    said: str
    history: str
    interrupted: bool
    expected_seconds: float
    heard_seconds: float
    sentences: list[Sentence]

    @property
    def missing(self) -> list[str]:
        """Sentences that should have been heard and were not: all, or those before a barge-in."""
        due = self.sentences
        if self.interrupted:  # the last sentence that was begun may be incomplete
            due = due[: max(0, _sentences_in(self.history) - 1)]
        return [sentence.text for sentence in due if not sentence.heard]

    @property
    def has_holes(self) -> bool:
        """Whether less of it sounded than was said; an interrupted one is not judged."""
        least = 0.9 * self.expected_seconds - 0.1
        return not self.interrupted and self.heard_seconds < least


@dataclass
class Report:
    """Everything that `report.json` holds. Seconds count from the dispatch of the agent."""

    delivery: str | None = None
    first_frame: float | None = None
    first_word: float | None = None
    fps: float = 0.0
    picture: str = ""
    barge_in_silence: float | None = None
    avatar_tracks: int = 0
    """How many tracks the avatar participant ever published: camera and microphone."""
    captions: list[str] = field(default_factory=list)
    """The agent's words as the user could read them."""
    stages: dict[str, float | None] = field(default_factory=dict)
    """Seconds since `AvatarSession.start()`."""
    utterances: list[Utterance] = field(default_factory=list)
    sessions: list[RunwaySession] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What must not be; the demo fails when there is any."""

    @property
    def leaked(self) -> int:
        """Runway sessions that were still running after the call."""
        return sum(not session.ended for session in self.sessions)

    def judge(self) -> None:
        """Add to `failures` what the numbers show."""
        if self.first_frame is None:
            self.failures.append("the avatar was never seen")
        if self.avatar_tracks != 2:
            self.failures.append(f"the avatar published {self.avatar_tracks} tracks instead of 2")
        if self.barge_in_silence is None:
            self.failures.append("no silence after the barge-in")
        for utterance in self.utterances:
            for text in utterance.missing:
                self.failures.append(f"not heard: {text!r}")
            if utterance.has_holes:
                seconds = f"{utterance.heard_seconds} of {utterance.expected_seconds} s"
                self.failures.append(f"holes: {seconds} of {utterance.said!r}")
        if not any(utterance.interrupted for utterance in self.utterances):
            self.failures.append("the barge-in did not interrupt the agent")
        if self.leaked:
            self.failures.append(f"{self.leaked} Runway session(s) still running")
        for session in self.sessions:
            if session.ended and session.status != "COMPLETED":
                self.failures.append(f"a Runway session ended as {session.status}")

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self) | {"ok": not self.failures}, indent=2) + "\n")

    def print(self, console: Console) -> None:
        console.rule("report")
        stages = Table("stage", "seconds after start()", title="The avatar's start")
        for name, seconds in self.stages.items():
            stages.add_row(name.replace("_", " "), _number(seconds, "s"))
        console.print(stages)
        said = Table("said", "history", "seconds said", "heard", "sentences", title="Speech")
        for utterance in self.utterances:
            whole = sum(sentence.heard for sentence in utterance.sentences)
            said.add_row(
                _short(utterance.said),
                _short(utterance.history) + (" (interrupted)" if utterance.interrupted else ""),
                f"{utterance.expected_seconds:.1f}",
                f"{utterance.heard_seconds:.1f}",
                f"{whole} of {len(utterance.sentences)}",
            )
        console.print(said)
        figures = Table(show_header=False, title="The call, as the user had it")
        figures.add_row("speech delivered by", self.delivery or "-")
        figures.add_row("first frame after dispatch", _number(self.first_frame, "s"))
        figures.add_row("first word after dispatch", _number(self.first_word, "s"))
        figures.add_row("picture", f"{self.picture}, {self.fps:.1f} frames a second")
        figures.add_row("barge-in to silence", _number(self.barge_in_silence, "s"))
        for session in self.sessions:
            bill = f"{session.billed_seconds:.1f} s billed, {session.credits} credits"
            figures.add_row("Runway session", f"{session.status}, {bill}")
        figures.add_row("sessions left running", str(self.leaked))
        console.print(figures)
        for failure in self.failures:
            console.print(f"FAILED: {failure}", style="bold red", markup=False)
        if not self.failures:
            console.print("Everything was heard, and nothing was left running.", style="green")


def compare(said: str, history: str, interrupted: bool, heard: Pcm) -> Utterance:
    """Hold what was heard (48 kHz) against the speech that `said` makes, sentence by sentence."""
    loudness = _smooth(envelope(heard, SAMPLE_RATE))
    expected, sentences, position = 0.0, [], 0
    for text in _tokenize(said):
        voice = np.frombuffer(synthesize(text), np.int16)
        expected += voiced_seconds(voice, VOICE_RATE)
        wanted = _smooth(_trimmed(envelope(voice, VOICE_RATE)))
        likeness, at = _likeness(wanted, loudness, position)
        sentences.append(Sentence(text.strip(), round(likeness, 3), round(at * _STEP, 3)))
        if likeness >= ALIKE:
            position = at
    return Utterance(
        said=said,
        history=history,
        interrupted=interrupted,
        expected_seconds=round(expected, 2),
        heard_seconds=round(voiced_seconds(heard, SAMPLE_RATE), 2),
        sentences=sentences,
    )


def last_sound_before(heard: Pcm, seconds: float) -> float:
    """When the last sound before `seconds` ended, in seconds; 0.0 if there was none."""
    steps = max(0, int(seconds / _STEP))
    loud = np.flatnonzero(envelope(heard, SAMPLE_RATE)[:steps] >= SILENCE)
    return float(loud[-1] + 1) * _STEP if len(loud) else 0.0


def _likeness(wanted: np.ndarray, loudness: np.ndarray, position: int) -> tuple[float, int]:
    """How much of `wanted` is in `loudness` after `position`, and where it begins.

    Judged by its least alike piece. Each piece may lie a little off its place, because a jitter
    buffer stretches speech when a call begins.
    """
    _, begin = _find(wanted, loudness[position:])
    begin += position
    worst, done = 1.0, 0
    for piece in np.array_split(wanted, max(1, round(len(wanted) * _STEP / _PIECE))):
        low = max(0, begin + done - _SLACK)
        done += len(piece)
        likeness, _ = _find(piece, loudness[low : low + len(piece) + 2 * _SLACK])
        worst = min(worst, likeness)
    return worst, begin


def _find(wanted: np.ndarray, where: np.ndarray) -> tuple[float, int]:
    """Where `wanted` is most alike to a part of `where`: the correlation and the position."""
    if len(where) < len(wanted):
        return 0.0, 0
    windows = np.lib.stride_tricks.sliding_window_view(where, len(wanted))
    centred = wanted - wanted.mean()
    products = windows @ centred
    spread = windows.std(axis=1) * len(wanted) * wanted.std()
    likeness = np.divide(products, spread, out=np.zeros(len(products)), where=spread > 1e-9)
    best = int(likeness.argmax())
    return float(likeness[best]), best


def _smooth(values: np.ndarray) -> np.ndarray:
    return np.convolve(values, np.ones(_SMOOTH) / _SMOOTH, mode="same")


def _trimmed(values: np.ndarray) -> np.ndarray:
    """Without the silence before and after."""
    loud = np.flatnonzero(values > 0.005)
    return values[loud[0] : loud[-1] + 1] if len(loud) else values


def _tokenize(text: str) -> list[str]:
    """Sentences as the framework hands them to the voice."""
    return tokenize.blingfire.SentenceTokenizer(retain_format=True).tokenize(text)


def _sentences_in(text: str) -> int:
    return len(_tokenize(text)) if text.strip() else 0


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.2f} {unit}"


def _short(text: str, width: int = 48) -> str:
    return text if len(text) <= width else text[: width - 1] + "\u2026"
