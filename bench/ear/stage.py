"""An avatar that says what it is sent after a treatment, and a user's ear that knows the truth.

Of each 10 ms that the user hears it is known which samples of which reply they are, or that they
are words of the avatar's own: nothing has to be recognised. Times are loop times in seconds,
positions are samples at 48 kHz.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.ear import sounds
from bench.ear.dsp import RATE, Pcm, gain, to_signal
from bench.ear.treatments import Treatment
from livekit_plugins_runway.errors import LossReason
from livekit_plugins_runway.playout.output import AvatarAudioOutput

HOP = RATE // 100
_SILENCE = bytes(2 * HOP)
SPOKEN_DB = -42.0
"""dBFS above which 10 ms of what an agent says are words, or a sound, that must be heard."""
_STRETCHED = round(0.8 * RATE)
"""Samples that take longer where a treatment stretches the start."""
_KEPT_HOPS = 6
_FADES_FOR = 0.5
"""Seconds for which a receiver makes up what is missing."""
_NEAR = RATE // 4
"""Samples before a place in which the voice may begin that goes on from there."""


def spoken(pcm: Pcm) -> NDArray[np.bool_]:
    """Which samples are of 10 ms above `SPOKEN_DB`."""
    whole = to_signal(np.pad(pcm, (0, -len(pcm) % HOP))).reshape(-1, HOP)
    loud = np.sqrt(np.mean(whole**2, axis=1)) > gain(SPOKEN_DB)
    return np.repeat(loud, HOP)[: len(pcm)]


class Reply:
    """What the agent says in one segment, and what the avatar makes of it.

    Args:
        pcm: what the agent says.
        treatment: what the avatar does to it; None: nothing.
        foreign: words of the avatar's own, which it says in place of the rest...
        foreign_from: ...from this sample of the reply on.
    """

    def __init__(
        self,
        pcm: Pcm,
        treatment: Treatment | None = None,
        *,
        foreign: Pcm | None = None,
        foreign_from: int = 0,
    ) -> None:
        self.pcm = pcm
        self.raw = pcm.tobytes()
        self.spoken = spoken(pcm)
        treated = pcm if treatment is None else treatment(pcm)
        self._agent, self._avatar = _places(len(pcm), len(treated), treatment)
        self.foreign_at: int | None = None
        """The sample of `sound` at which the avatar's own words begin; None: it has none."""
        self.sound = treated
        if foreign is not None:
            self.foreign_at = min(self.at_avatar(foreign_from), len(treated))
            self.sound = np.concatenate([treated[: self.foreign_at], foreign])
        self.sound_is_spoken = spoken(self.sound)

    def __len__(self) -> int:
        return len(self.pcm)

    def at_avatar(self, sample: int) -> int:
        """Where in `sound` a sample of the reply is said."""
        return _between(sample, self._agent, self._avatar)

    def at_agent(self, sample: int) -> int:
        """Which sample of the reply is said at one of `sound`."""
        return _between(sample, self._avatar, self._agent)


def _between(sample: int, places: list[int], others: list[int]) -> int:
    """Straight from one place to the next; before the first and after the last it stays there."""
    if sample <= places[0]:
        return others[0]
    for start, end, first, last in zip(places, places[1:], others, others[1:], strict=False):
        if sample <= end:
            return first + round((sample - start) * (last - first) / max(1, end - start))
    return others[-1]


def _places(length: int, treated: int, treatment: Treatment | None) -> tuple[list[int], list[int]]:
    """Places in the reply, and those in its treated form that correspond to them."""
    if treatment is None:
        return [0, length], [0, length]
    lead = round(treatment.lead_s * RATE)
    end = lead + round(length / treatment.pace)
    longer = treated - end
    if longer < RATE // 10:
        return [0, length], [lead, end]
    first = min(_STRETCHED, length)
    begun = lead + round(first / treatment.pace) + longer
    return [0, first, length + 1], [lead, begun, end + longer + 1]


def find(reply: Reply, pcm: bytes, sample: int) -> int | None:
    """The sample of a reply where `pcm` begins: `sample` if it can be, else the nearest after a
    little before it, else any. None if it is nowhere, or silent."""
    here = reply.raw[2 * sample : 2 * sample + len(pcm)]
    if here and pcm.startswith(here) and not any(pcm[len(here) :]):
        return sample
    wanted = pcm.rstrip(b"\0")
    wanted += b"\0" * (len(wanted) % 2)
    if not wanted:
        return None
    places = (_find_even(reply.raw, wanted, 2 * since) for since in (max(0, sample - _NEAR), 0))
    at = next((at for at in places if at is not None), None)
    return None if at is None else at // 2


def _find_even(raw: bytes, wanted: bytes, start: int) -> int | None:
    at = raw.find(wanted, start)
    while at >= 0 and at % 2:
        at = raw.find(wanted, at + 1)
    return None if at < 0 else at


@dataclass(frozen=True)
class Moment:
    """10 ms that the user has heard."""

    at: float
    by: str
    """avatar or voice."""
    reply: int
    """Its number; of the one in whose place they were said if they are foreign."""
    start: int
    end: int
    """Samples of the reply."""
    foreign: bool = False
    """Words of the avatar's own."""
    loud: bool = False
    """Above `SPOKEN_DB` as it was heard."""


class Ear:
    """The user's end of the microphone track; the sink's `Microphone`.

    Args:
        replies: what is said, in order.
    """

    subscribed = True
    reachable = True

    def __init__(self, replies: Sequence[Reply]) -> None:
        self.replies = replies
        self.current = 0
        """The reply that is being said, or comes next; counted up by whoever hears that the sink
        has finished one."""
        self.moments: list[Moment] = []
        self._loop = asyncio.get_running_loop()

    def keep_alive(self) -> None:
        pass

    async def push_audio(self, pcm: bytes) -> None:
        """The sink writes for the plain voice alone."""
        number = self.current
        if number >= len(self.replies):
            return
        reply = self.replies[number]
        start = find(reply, pcm, self.position(number))
        if start is None:
            return
        end = min(start + HOP, len(reply))
        loud = bool(reply.spoken[start:end].any())
        self.hear(Moment(self._loop.time(), "voice", number, start, end, loud=loud))

    def hear(self, moment: Moment) -> None:
        self.moments.append(moment)

    def position(self, number: int) -> int:
        """The last sample of a reply that was heard, and all those before it."""
        said = (one.end for one in reversed(self.moments) if _is_of(one, number))
        return next(said, 0)


def _is_of(moment: Moment, number: int) -> bool:
    return moment.reply == number and not moment.foreign


@dataclass
class _Attempt:
    """One delivery of a reply to the avatar."""

    number: int
    reply: Reply
    reached: int
    """The sample of the reply up to which it was sent."""
    at: int
    """The sample of the sound that is said next."""
    there: int
    """The sample of the sound up to which it has arrived."""
    coming: deque[tuple[float, int]] = field(default_factory=deque)
    """When which sample of the sound will have arrived."""
    end: int | None = None
    """The sample of the sound at which it ends; None while that is not known."""

    def arrive(self, now: float) -> None:
        if self.end is not None:
            return
        foreign, whole = self.reply.foreign_at, len(self.reply.sound)
        while self.coming and self.coming[0][0] <= now:
            self.there = max(self.there, self.coming.popleft()[1])
        if foreign is not None and self.there >= max(1, foreign):
            self.there = self.end = whole  # it needs nobody to go on
        elif self.there >= whole:
            self.end = whole

    @property
    def is_over(self) -> bool:
        return self.end is not None and self.at >= self.end

    def piece(self) -> tuple[int, int] | None:
        """The samples of the sound that are said in the next 10 ms; None: it waits for more."""
        until = self.at + HOP
        if self.end is not None:
            return self.at, min(until, self.end)
        return (self.at, until) if until <= self.there else None


@dataclass(frozen=True)
class Manner:
    """How the avatar behaves, beside the treatment."""

    latency: float = 0.25
    jump: tuple[int, int, float] | None = None
    """In this reply, at this sample, it comes to be so many seconds later."""
    clear_delay: float = 0.03
    """Seconds after which it confirms that it was told to stop..."""
    residue: float = 0.0
    """...and seconds of the old words that it says all the same after that."""
    freeze: tuple[int, int] | None = None
    """In this reply, at this sample, it comes to a standstill, for good."""


class Worker:
    """Says what it is sent, `latency` later and in real time; silent while it has nothing.

    The sink's `Avatar` and `SpeechDelivery` in one. It sends what it says to `ear`, which knows
    what is said.
    """

    lead = 2.0
    batch = RATE // 5
    room = 10 * RATE

    def __init__(self, output: AvatarAudioOutput, ear: Ear, manner: Manner) -> None:
        self._output = output
        self._ear = ear
        self.manner = manner
        self._jump = manner.jump
        self._held_until = 0.0
        self._last: deque[bytes] = deque([_SILENCE] * _KEPT_HOPS, maxlen=_KEPT_HOPS)
        """What it has said last, 10 ms each."""
        self._made_up: deque[bytes] | None = None
        """What the receiver of its voice still makes up; None until the avatar freezes."""
        self._attempts: deque[_Attempt] = deque()
        self._open: _Attempt | None = None
        """What is being sent now."""
        self._spoken_by = 0.0
        """When all that was sent could have been said, by an avatar without delay."""
        self.turns: dict[int, list[tuple[int, float]]] = {}
        """By reply: a sample, and when its turn came."""
        self.losses: list[tuple[float, LossReason]] = []
        """When and why it was given up."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._play(), name="bench_worker")

    # -- what the sink asks ---------------------------------------------------------------------

    @property
    def delivery(self) -> Worker:
        return self

    doubts_first_words = False

    def show(self) -> None:
        pass

    def hide(self) -> None:
        pass

    def report_loss(self, reason: LossReason) -> None:
        self.losses.append((self._loop.time(), reason))

    def send(self, pcm: bytes) -> None:
        attempt = self._open or self._begin(pcm)
        now, count = self._loop.time(), len(pcm) // 2
        turn = max(self._spoken_by, now)
        self.turns.setdefault(attempt.number, []).append((attempt.reached, turn))
        self._spoken_by = turn + count / RATE
        attempt.reached += count
        self._expect(attempt, attempt.reply.at_avatar(attempt.reached))

    def _begin(self, pcm: bytes) -> _Attempt:
        number = self._ear.current
        reply = self._ear.replies[number]
        start = find(reply, pcm, 0)
        if start is None:
            raise RuntimeError("the avatar was sent what nobody has said")
        at = 0 if start == 0 else reply.at_avatar(start)
        self._open = _Attempt(number, reply, start, at, at)
        self._attempts.append(self._open)
        self._spoken_by = self._loop.time()
        return self._open

    def _expect(self, attempt: _Attempt, sample: int) -> None:
        attempt.coming.append((self._loop.time() + self.manner.latency, sample))

    def finish(self) -> None:
        if self._open is not None:
            foreign, whole = self._open.reply.foreign_at, len(self._open.reply.sound)
            self._expect(self._open, whole if foreign is None else max(1, foreign))
        self._open = None

    async def clear(self) -> bool:
        await asyncio.sleep(self.manner.clear_delay)
        if self._made_up is not None:
            return False
        for attempt in self._attempts:
            attempt.arrive(self._loop.time())
            said_yet = attempt.at + round(self.manner.residue * RATE)
            attempt.end = min(attempt.there, said_yet)
            attempt.coming.clear()
        self._open = None
        return True

    # -- speaking -------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """It has nothing to say, or nobody listens to it any more."""
        return not self._attempts or bool(self.losses)

    async def _play(self) -> None:
        due = self._loop.time()
        while True:
            now = self._loop.time()
            pcm, moment = self._next(now)
            if self._output.relayed(pcm) is pcm and moment is not None:
                self._ear.hear(moment)
            due += 0.01
            await asyncio.sleep(due - now)

    def _next(self, now: float) -> tuple[bytes, Moment | None]:
        if self._made_up is not None:
            return self._made_up.popleft() if self._made_up else _SILENCE, None
        attempt = self._current(now)
        if attempt is not None and self._freezes(attempt):
            self._made_up = deque(_made_up(b"".join(self._last)))
            return self._next(now)
        pcm, moment = self._speak(attempt, now)
        self._last.append(pcm)
        return pcm, moment

    def _speak(self, attempt: _Attempt | None, now: float) -> tuple[bytes, Moment | None]:
        piece = None if attempt is None or self._is_held(attempt, now) else attempt.piece()
        if attempt is None or piece is None:
            return _SILENCE, None
        start, end = piece
        attempt.at = end
        pcm = attempt.reply.sound[start:end].tobytes().ljust(len(_SILENCE), b"\0")
        return pcm, _moment(attempt, start, end, now)

    def _current(self, now: float) -> _Attempt | None:
        for attempt in self._attempts:
            attempt.arrive(now)
        while self._attempts and self._attempts[0].is_over:
            self._attempts.popleft()
        return self._attempts[0] if self._attempts else None

    def _freezes(self, attempt: _Attempt) -> bool:
        if self.manner.freeze is None:
            return False
        number, sample = self.manner.freeze
        return attempt.number == number and attempt.at >= attempt.reply.at_avatar(sample)

    def _is_held(self, attempt: _Attempt, now: float) -> bool:
        if self._jump is not None:
            number, sample, seconds = self._jump
            if attempt.number == number and attempt.at >= attempt.reply.at_avatar(sample):
                self._jump = None
                self._held_until = now + seconds
        return now < self._held_until

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def _made_up(last: bytes) -> Iterator[bytes]:
    """What a receiver makes of a voice that ends like this; 10 ms each."""
    heard = np.frombuffer(last, np.int16)
    loud = spoken(heard)
    if loud[-1]:
        sound = sounds.held(heard, _FADES_FOR) if loud[0] else sounds.hissed(_FADES_FOR)
        yield from (hop.tobytes() for hop in sound.reshape(-1, HOP))


def _moment(attempt: _Attempt, start: int, end: int, now: float) -> Moment:
    reply = attempt.reply
    foreign = reply.foreign_at is not None and start >= reply.foreign_at
    loud = bool(reply.sound_is_spoken[start:end].any())
    if foreign:
        return Moment(now, "avatar", attempt.number, 0, 0, foreign=True, loud=loud)
    said = (reply.at_agent(start), reply.at_agent(end))
    return Moment(now, "avatar", attempt.number, *said, loud=loud)
