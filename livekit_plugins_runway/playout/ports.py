"""The interfaces between the sink and its environment.

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
        """Nothing is written for now: send silence, so that no receiver loses the first words. Must
        be called again at least once a second.
        """

    @property
    def subscribed(self) -> bool:
        """True if somebody listens, or the wait for a listener has ended."""

    @property
    def reachable(self) -> bool:
        """False while the connection is interrupted: sound sent now is lost."""


class SpeechDelivery(Protocol):
    """Carries speech to the avatar worker; int16 mono PCM at 48 kHz."""

    @property
    def lead(self) -> float:
        """Seconds by which speech may be sent ahead of real time."""

    @property
    def batch(self) -> int:
        """Samples sent at a time once speech is as far ahead as allowed."""

    @property
    def room(self) -> int:
        """Samples that `send()` accepts now; 0 while earlier ones are still being sent."""

    def send(self, pcm: bytes) -> None:
        """Send samples; at most `room`."""

    def finish(self) -> None:
        """Mark the segment as complete."""

    async def clear(self) -> bool:
        """Tell the worker to drop unspoken speech. True if it confirmed; bounded."""


class Avatar(Protocol):
    """An avatar that speaks, or is ready to."""

    @property
    def delivery(self) -> SpeechDelivery:
        """The delivery of speech to it."""

    def show(self) -> None:
        """Let the user see it, and hear it as far as the sink passes its voice on."""

    def hide(self) -> None:
        """Let the user see and hear nothing more of it."""

    @property
    def doubts_first_words(self) -> bool:
        """True if it may say words of its own, and the user hears it through the sink only. Then
        its first sound is held back until it is known to be the agent's words.
        """

    def report_loss(self, reason: LossReason) -> None:
        """The sink has given it up; the voice has taken over already."""


class WorkerReports(Protocol):
    """Receives the avatar worker's reports on its playback. From the event loop."""

    def worker_started(self) -> None:
        """The worker reports that it has begun to play a segment."""

    def worker_finished(self, *, interrupted: bool) -> None:
        """The worker reports that it has played a segment."""


class AvatarListener(WorkerReports, Protocol):
    """Receives the avatar's voice: the sink, as media and transports see it."""

    def relayed(self, pcm: bytes) -> bytes | None:
        """Pass on received sound of the avatar, a whole number of 10 ms. Returns what the user must
        hear instead, of the same length; None: nothing, because the agent's own voice is being
        written to the microphone. From any one thread.
        """


@dataclass(frozen=True)
class FirstSpeechHeard:
    """The avatar was heard for the first time in a segment."""

    latency: float | None
    """Latency of the first spoken sample in seconds; None if the avatar had no video yet when it
    was sent, and so had to wait.
    """


@dataclass(frozen=True)
class OwnWordsHeard:
    """An avatar was found to say the agent's words, by its voice; reported once for each avatar."""


PlayoutReport = FirstSpeechHeard | OwnWordsHeard | PlayoutForced


@dataclass
class PlayoutStats:
    """Totals of all speech so far, in samples at 48 kHz."""

    pushed: int = 0
    """Taken from the agent."""
    sent: int = 0
    """Sent to avatars; counted again if it was sent again after a pause."""
    heard: int = 0
    """Put on the user's track."""
    dropped: int = 0
    """Dropped without being heard: interrupted, or given up."""
    segments: int = 0
    """Finished segments, and how many of them..."""
    interrupted: int = 0
    forced: int = 0
    """...ended at their deadline,"""
    carried_on: int = 0
    """...were begun by an avatar and carried on by the voice."""
