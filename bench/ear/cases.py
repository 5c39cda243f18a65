"""The matrix of cases: who says what, how the avatar says it, and what happens meanwhile.

Case N is always the same: what it is made of is drawn by its number alone, and so does not depend
on the voices of a machine (`playable()` leaves out those that it does not have). Each dimension
goes through all its values in an order of its own, so that any few hundred cases in a row have
them all.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from bench.ear.sentences import AGENT, LONG, OWN_WORDS, SHORT, proof, tuning
from bench.ear.treatments import PITCH_SHIFTED, TREATMENTS
from bench.ear.voices import VOICES, Voice, why_missing

Kind = Literal["sentence", "okay", "last word", "click", "long", "music", "ring tone", "silence"]
Event = Literal["end", "barge-in", "stale", "foreign", "foreign later", "freeze"]
Pace = Literal[
    "burst", "real time", "1.5x slow in 20 ms", "1.5x slow in 100 ms", "2x slow in 40 ms",
    "pauses", "late end",
]  # fmt: skip

MATRIX = 3240
"""Cases in all."""
SAMPLE = 300
"""Cases that CI runs, with shorter texts and waits."""

KINDS: tuple[Kind, ...] = (
    *("sentence",) * 7, *("okay",) * 2, *("last word",) * 2, "click", "long", "music",
    "ring tone", "silence",
)  # fmt: skip
"""As often as they are listed. `last word`: a sentence, a pause of 0.7 s, and one word more."""
EVENTS: tuple[Event, ...] = (
    *("end",) * 5, *("barge-in",) * 2, "stale", "foreign", "foreign later",
)  # fmt: skip
"""`stale`: a barge-in after which the avatar says some more of the old words. `foreign`: it says
words of its own, from the begin or from somewhere in the middle (`later`). `freeze`, of cases of
their own: it comes to a standstill, and the receiver of its voice makes up what is missing."""
PACES: tuple[Pace, ...] = (
    *("burst",) * 3, *("real time",) * 2, "1.5x slow in 20 ms", "1.5x slow in 100 ms",
    "2x slow in 40 ms", *("pauses",) * 3, *("late end",) * 2,
)  # fmt: skip
_WORDS = ("sentence", "long", "last word")
_TUNING = tuple(voice for voice in VOICES if not voice.held_out)
_HELD_OUT = tuple(voice for voice in VOICES if voice.held_out)

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """One reply of the agent, perhaps with one before and one after it."""

    number: int
    short: bool
    """Of the sample: its texts and waits are shorter."""
    shifted: bool
    """Its treatment shifts the pitch."""
    voice: Voice
    kind: Kind
    text: str
    """What is said in the reply, a pause at each end of line; empty where it is no speech."""
    treatment: str
    pace: Pace
    """At which the agent's TTS gives it."""
    pauses: tuple[tuple[float, float], ...]
    """Of the TTS: after which part of the reply, 0 to 1, and for how many seconds."""
    late_s: float
    """Seconds from the last speech of the TTS to the end of the segment."""
    event: Event
    place: float
    """Part of the reply at which it happens, 0 to 1."""
    gap_s: float
    """Seconds from a barge-in to the next reply."""
    residue_s: float
    """Seconds of old words that the avatar says after it has confirmed that it stops."""
    other: str
    """The next reply, or the avatar's own words."""
    other_voice: Voice
    latency_s: float
    first_latency_s: float | None
    """Seconds; another short reply is said before, with this latency. None: there is none."""
    jump: tuple[float, float] | None
    """After which part of the reply the latency grows, and by how many seconds."""
    frozen: bool = False
    """Of those in which the avatar freezes."""

    @property
    def id(self) -> str:
        return f"{'s' * self.short}{'p' * self.shifted}{'f' * self.frozen}{self.number}"

    @property
    def held_out(self) -> bool:
        """Nothing was tuned on this voice, nor on the sentences that it says."""
        return self.voice.held_out

    @property
    def truth(self) -> str:
        """Whose words the avatar says: own, foreign, or, at times, stale; or that it freezes."""
        kept = self.event in ("stale", "foreign", "foreign later", "freeze")
        return self.event.split()[0] if kept else "own"

    @property
    def name(self) -> str:
        parts = [self.voice.name, self.kind, self.treatment, self.pace, self.event]
        parts.append(f"latency {self.latency_s:.2f} s")
        if self.jump is not None:
            parts.append(f"jumps by {self.jump[1]:.1f} s")
        return f"{self.id}: " + ", ".join(parts)


KEEPING_PITCH = tuple(one for one in TREATMENTS if one not in PITCH_SHIFTED)


def cases(
    n: int = MATRIX, *, held_out: bool | None = None, short: bool = False, shifted: bool = False
) -> list[Case]:
    """The first `n` of the matrix; None: of tuning and of held-out voices, by turns."""
    numbers = range(2 * n if held_out is not None else n)
    wanted = (case(number, short=short, shifted=shifted) for number in numbers)
    return [one for one in wanted if held_out in (None, one.held_out)]


def frozen_cases(n: int = MATRIX) -> list[Case]:
    """The first `n` in which the avatar freezes."""
    return [frozen_case(number) for number in range(n)]


def sample() -> list[Case]:
    """Those that CI runs."""
    return cases(SAMPLE, short=True)


def by_id(name: str) -> Case:
    """`17` of the matrix, `s17` of its sample, `p17` of those whose pitch is shifted, `f17` of
    those in which the avatar freezes. Raises ValueError."""
    if name.startswith("f"):
        return frozen_case(int(name[1:]))
    return case(int(name.lstrip("sp")), short=name.startswith("s"), shifted="p" in name)


def playable(wanted: Sequence[Case]) -> list[Case]:
    """Without those whose voices cannot speak on this machine."""
    missing = {voice for voice in VOICES if why_missing(voice) is not None}
    return [one for one in wanted if not {one.voice, one.other_voice} & missing]


def case(number: int, *, short: bool = False, shifted: bool = False) -> Case:
    """The case of that number."""
    draw = random.Random(f"case {number}")
    voice = _turn("voice", _HELD_OUT if number % 2 else _TUNING, number // 2)
    kind = _turn("kind", KINDS, number)
    event = _suited(kind, _turn("event", EVENTS, number))
    pace = _turn("pace", PACES, number)
    place = draw.uniform(0.15, 0.85)
    stays = draw.random() < 2 / 3
    side = _HELD_OUT if voice.held_out else _TUNING
    alike = [one for one in side if one.language == voice.language]
    other_voice = voice if stays or not event.startswith("foreign") else draw.choice(alike)
    text = _text(draw, kind, voice, short=short)
    latency = _latency(draw)
    jump = _jump(draw, latency)
    return Case(
        number,
        short,
        shifted,
        voice,
        kind,
        text,
        _turn("treatment", PITCH_SHIFTED if shifted else KEEPING_PITCH, number).name,
        pace,
        _pauses(draw, pace, short=short and number % 8 > 0),
        draw.uniform(0.3, 1.5 if short and number % 8 else 4.0) if pace == "late end" else 0.0,
        event,
        place,
        draw.uniform(0.0, 0.5),
        draw.uniform(0.1, 0.8) if event == "stale" else 0.0,
        _other(draw, event, other_voice, text, short=short),
        other_voice,
        latency,
        _first_latency(draw, latency, jump, one_of=5 if short else 3),
        jump,
    )


def frozen_case(number: int) -> Case:
    """The case of that number, said to its end, but for the avatar, which freezes before."""
    base, draw = case(number), random.Random(f"freeze {number}")
    kind = base.kind if base.kind in (*_WORDS, "okay") else "sentence"
    return dataclasses.replace(
        base,
        frozen=True,
        kind=kind,
        text=base.text or _text(draw, kind, base.voice, short=False),
        event="freeze",
        place=draw.uniform(0.03, 0.97),
        residue_s=0.0,
        jump=None,
    )


def _turn(dimension: str, values: Sequence[T], number: int) -> T:
    """All values by turns, in an order that changes from one round to the next."""
    return values[_order(dimension, len(values), number // len(values))[number % len(values)]]


@functools.lru_cache(maxsize=64)
def _order(dimension: str, count: int, turn: int) -> tuple[int, ...]:
    return tuple(random.Random(f"{dimension} {turn}").sample(range(count), count))


def _suited(kind: Kind, event: Event) -> Event:
    """What is not speech, or is over at once, is said to its end."""
    if kind in _WORDS or event == "end":
        return event
    if kind == "okay":
        return "foreign" if event.startswith("foreign") else "end"
    return event if event in ("barge-in", "stale") and kind in ("music", "ring tone") else "end"


def _latency(draw: random.Random) -> float:
    """0.05 to 3 s, most often below one second."""
    low, high = draw.choices([(0.05, 1.0), (1.0, 2.0), (2.0, 3.0)], [6, 3, 1])[0]
    return math.exp(draw.uniform(math.log(low), math.log(high)))


def _jump(draw: random.Random, latency: float) -> tuple[float, float] | None:
    """By no more than an avatar may take that is not given up (`stall_timeout`, 1.5 s)."""
    jump = draw.uniform(0.1, 0.9), draw.uniform(0.1, min(1.0, 3.5 - latency))
    return jump if draw.random() < 0.25 else None


def _first_latency(
    draw: random.Random, latency: float, jump: tuple[float, float] | None, *, one_of: int
) -> float | None:
    """Of a reply before; less than that of the reply, at the most by one second, or more."""
    other = max(_latency(draw), latency - 1.0)
    stays, is_said = draw.random() < 0.7 or jump is not None, draw.random() < 1 / one_of
    return (latency if stays else other) if is_said else None


def _pauses(draw: random.Random, pace: Pace, *, short: bool) -> tuple[tuple[float, float], ...]:
    if pace != "pauses":
        return ()
    longest, most = (2.0, 1) if short else (6.0, 2)
    drawn = [(draw.uniform(0.05, 0.95), draw.uniform(0.5, longest)) for _ in range(2)]
    return tuple(sorted(drawn[: draw.choice([1, 1, most])]))


def _text(draw: random.Random, kind: Kind, voice: Voice, *, short: bool) -> str:
    sentences = _side(AGENT[voice.language], voice)
    chosen = draw.random()
    if kind == "okay":
        return _pick(_side(SHORT, voice), chosen)
    if kind in ("sentence", "last word"):
        return _pick(_shortest(sentences) if short else sentences, chosen)
    if kind != "long":
        return ""
    if short:
        return "\n".join(_shortest(sentences))
    if voice.language == "en":
        return _pick(_side(LONG, voice), chosen)
    return "\n".join(sentences + _side(OWN_WORDS[voice.language], voice)[1:])


def _other(draw: random.Random, event: Event, voice: Voice, said: str, *, short: bool) -> str:
    """Words that are not said in the reply."""
    own = _side(OWN_WORDS[voice.language], voice)
    sentences = own if event.startswith("foreign") else _side(AGENT[voice.language], voice) + own
    others = [one for one in sentences if one not in said]
    return _pick(_shortest(others) if short else others, draw.random())


def _pick(values: Sequence[str], chosen: float) -> str:
    return values[int(chosen * len(values))]


def _side(sentences: Sequence[str], voice: Voice) -> tuple[str, ...]:
    return proof(sentences) if voice.held_out else tuning(sentences)


def _shortest(sentences: Sequence[str]) -> tuple[str, ...]:
    """Three of them, so that a synthesizer has little to do."""
    return tuple(sorted(sentences, key=len)[:3])
