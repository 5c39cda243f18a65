"""What the sink needs of its surroundings, and what it tells them.

Audio is int16 mono PCM at 48 kHz throughout, in pieces of 10 ms where frames are meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..errors import LossReason
from ..events import PlayoutForced


class Microphone(Protocol):
    """The avatar participant's microphone track: 10 ms frames, int16 mono PCM at 48 kHz."""

    async def push_audio(self, pcm: bytes) -> None: ...

    def keep_alive(self) -> None:
        """Nobody else writes for now: be silent, so that no receiver loses the first words. To be
        called again at least once a second."""

    @property
    def subscribed(self) -> bool:
        """Somebody listens, or was waited for as long as is sensible."""

    @property
    def reachable(self) -> bool:
        """False for a while: what is sent now is lost on the way."""


class SpeechDelivery(Protocol):
    """Carries speech to the avatar worker; int16 mono PCM at 48 kHz."""

    @property
    def lead(self) -> float:
        """Seconds by which speech may be sent ahead of real time."""

    @property
    def batch(self) -> int:
        """Samples that go out at a time, once speech is as far ahead as it may be."""

    @property
    def room(self) -> int:
        """Samples that `send()` takes now; 0 while what was sent before is still on its way."""

    def send(self, pcm: bytes) -> None:
        """Take no more than `room`."""

    def finish(self) -> None:
        """The segment that was being sent is complete."""

    async def clear(self) -> bool:
        """Drop all that was sent and not yet spoken. True if the worker confirmed; bounded."""


class Avatar(Protocol):
    """One that speaks, or stands ready to."""

    @property
    def delivery(self) -> SpeechDelivery:
        """The way of speech to it."""

    def show(self) -> None:
        """From now on the user sees and hears it, as far as the sink lets its voice through."""

    def hide(self) -> None:
        """From now on the user sees and hears nothing of it."""

    @property
    def doubts_first_words(self) -> bool:
        """It may say words of its own, and the user hears it only through the sink: so its first
        sounds are held back until they are known to be the agent's words."""

    def report_loss(self, reason: LossReason) -> None:
        """It is given up; the voice has taken over already."""


class WorkerReports(Protocol):
    """Who is told what the avatar worker says of its playing. From the event loop."""

    def worker_started(self) -> None:
        """The worker reports that it has begun to play a segment."""

    def worker_finished(self, *, interrupted: bool) -> None:
        """The worker reports that it has played a segment."""


class AvatarListener(WorkerReports, Protocol):
    """Who is told what comes back from the avatar: the sink, as media and transports see it."""

    def relayed(self, pcm: bytes) -> bytes | None:
        """Tell of the avatar's voice that has arrived, a whole number of 10 ms of it, and learn
        what the user is to hear in its place, as much; None: nothing, for somebody else writes to
        the microphone. From any one thread."""


@dataclass(frozen=True)
class FirstSpeechHeard:
    """The avatar was heard for the first time in a segment."""

    latency: float | None
    """Seconds from the turn of the first spoken sample to its sound; None if the avatar had no face
    yet when it was sent, and so had to wait."""


@dataclass(frozen=True)
class OwnWordsHeard:
    """An avatar was found to say the agent's words, by its voice; told once of each avatar."""


PlayoutReport = FirstSpeechHeard | OwnWordsHeard | PlayoutForced


@dataclass
class PlayoutStats:
    """What became of all speech so far; audio is counted in samples at 48 kHz."""

    pushed: int = 0
    """Taken from the agent."""
    sent: int = 0
    """Sent to avatars; more than once where it was sent again after a pause."""
    heard: int = 0
    """Put on the user's track."""
    dropped: int = 0
    """Never to be heard: interrupted, or given up."""
    segments: int = 0
    """Finished segments, and how many of them..."""
    interrupted: int = 0
    forced: int = 0
    """...ended at their deadline,"""
    carried_on: int = 0
    """...were begun by an avatar and carried on by the voice."""
