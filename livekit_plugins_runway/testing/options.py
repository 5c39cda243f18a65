"""Options of a simulated Runway: limits, timers, and faults.

Every default has a source, named in brackets:

* *documented*: Runway's documentation or published API schema 2024-11-06;
* *measured*: published by third parties who measured the live service; not reproduced here;
* *inferred*: nothing is known, this is the most plausible reading;
* *local*: belongs to the simulator alone.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, get_args

Stage = Literal["before_effect", "after_effect"]
"""When a REST call fails: before its effect, or after it, when only the answer is lost."""

CallName = Literal["create", "get", "delete", "consume", "connect_backend"]
Picture = Literal["drawn", "camera"]
"""What the avatar worker shows: a drawn face, which costs encoders next to nothing, or the same
face in a room full of detail and with the noise of a camera."""
STRICT = {"extra": "forbid"}
"""For pydantic, which makes them of what was ordered in JSON: a misspelled name is refused."""


class Speech(enum.StrEnum):
    """How the avatar worker takes speech. Which of them Runway's own rooms use is not known."""

    DATASTREAM = "datastream"
    """Byte streams on `lk.audio_stream`, RPC `lk.clear_buffer` and `lk.playback_finished`."""
    TRACK = "track"
    """Speaks what it hears on the microphone track; has no RPC methods."""
    CONVERSATION = "conversation"
    """Does not speak what it hears: when the user pauses it answers with words of its own."""
    SILENT = "silent"
    """Shows video, and says nothing."""


@dataclass(frozen=True, kw_only=True)
class CallFault:
    """What goes wrong with one REST call. Delays are in seconds of wall clock, never scaled."""

    __pydantic_config__: ClassVar[Mapping[str, str]] = STRICT

    status: int | None = None
    """Answer this HTTP status and do nothing else."""
    error: str = "The service is temporarily unavailable."
    """The text that goes with `status`."""
    retry_after: str | None = None
    """A `Retry-After` header that goes with `status`."""
    delay: float = 0.0
    """Wait this long before doing what was asked."""
    answer_delay: float = 0.0
    """Wait this long after doing it, before answering."""
    cut: Stage | None = None
    """Close the connection without an answer."""
    hang: Stage | None = None
    """Never answer; the connection stays open until the client or the simulator closes it."""
    malformed: bool = False
    """Do it, then answer 200 with a body that is not JSON."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Do it, then answer with these fields other than usual (`{"status": "PAUSED"}`)."""
    without: Sequence[str] = ()
    """Do it, then answer without these fields."""
    body: str | None = None
    """Answer with this text for a body: instead of the usual one, or with `status`."""
    endless: bool = False
    """Answer with a body that does not end: instead of the usual one, or with `status`."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong with one session. The REST sequences are used up call by call, in order;
    a bare number means a `CallFault` with that status. `create` counts from the first create call
    until one succeeds, so a retried create meets the second entry."""

    __pydantic_config__: ClassVar[Mapping[str, str]] = STRICT

    create: Sequence[int | CallFault] = ()
    get: Sequence[int | CallFault] = ()
    delete: Sequence[int | CallFault] = ()
    consume: Sequence[int | CallFault] = ()
    connect_backend: Sequence[int | CallFault] = ()
    fail_while_provisioning: str | None = None
    """Becomes FAILED with this `failureCode` where it would have become READY."""
    worker_never_joins: bool = False
    """READY and consumed as usual, but no avatar worker comes."""
    rpc_delay: float = 0.0
    """The worker answers RPC, and sends its own, this many seconds late."""
    rpc_ignore: bool = False
    """`lk.clear_buffer` is registered, but ignored and never answered."""
    lost_playback_finished: int = 0
    """How many of the next `lk.playback_finished` are not sent."""
    duplicate_playback_finished: int = 0
    """How many of the next `lk.playback_finished` are sent twice."""


@dataclass(frozen=True, kw_only=True)
class WorkerManners:
    """How the avatar worker behaves in one kind of room, where Runway's own is not documented. The
    defaults are those for which there is evidence. Seconds of wall clock.
    """

    __pydantic_config__: ClassVar[Mapping[str, str]] = STRICT

    speech: Speech | None = None
    """`None`: as `SimulatorOptions.speech`."""
    answer: bytes | None = field(default=None, repr=False)
    """What it says in `conversation`: int16 mono PCM at 48 kHz. `None`: four tones, 1.2 s."""
    answer_after_silence: float | None = None
    """`None`: as `SimulatorOptions.answer_after_silence`."""
    greeting: bytes | None = field(default=None, repr=False)
    """What it says by itself with its first picture, in the same format."""
    pace: float = 1.0
    """It repeats the words faster by this factor, with a voice that is higher by the same
    factor.
    """
    keeps_back: float = 0.0
    """Seconds of a segment that it keeps until more comes, or the segment is complete."""
    deaf_until_seen: bool = False
    """It takes data streams, and drops what comes before its first picture."""
    publish_audio: bool = True
    identity: str | None = None
    """In the room that Runway hosts. `None`: `worker:<session id>`."""
    join_delay: float = 0.0
    """Seconds by which it is later than usual."""
    refused: bool = False
    """It says that it cannot join: the session becomes FAILED."""
    stays_away: bool = False
    """READY as usual, but it does not come."""
    leaves_after: float | None = None
    """It crashes so long after it has joined."""
    rpc_error: bool = False
    """It answers each RPC with an error."""

    def __post_init__(self) -> None:
        if self.speech is not None:
            object.__setattr__(self, "speech", Speech(self.speech))
        if self.pace <= 0:
            raise ValueError("pace must be above 0")


@dataclass(frozen=True, kw_only=True)
class SimulatorOptions:
    """Behaviour of a `RunwaySimulator`.

    Lifecycle timers are in seconds of the service and are multiplied by `time_scale` to get wall
    clock, `maxDuration` of a request too; billed seconds are divided by it. With 0.1 a five minute
    session is over in 30 seconds and is billed as 300. What concerns media is never scaled:
    `render_latency`, `first_frame_delay`, `upscale_after`, `fps`.

    The defaults make a quick service. `as_measured()` gives the pace of the real one.

    Raises:
        ValueError: a number is out of range.
    """

    time_scale: float = 1.0

    # The account.
    concurrency: int = 2
    """Sessions that may exist at once; more are queued (documented: 1-2 on tier 1, measured: 1)."""
    daily_quota: int = 50
    """Creates before a 429; each counts, used or not (measured)."""
    requests_per_minute: int | None = None
    """Calls of any kind before a 429, in each minute since the first one (no such limit is
    documented, and none was measured)."""
    tells_retry_after: bool = True
    """That 429 has a `Retry-After` (a captured 429, of the daily limit, had none)."""
    credits: int = 600
    """Balance at the start (documented for a new account). Under 2: create is a 400 (measured)."""
    accept_deprecated_livekit: bool = False
    """Accept the top-level `livekit` key, deprecated in the schema. Some accounts refused it as an
    unrecognized key (measured)."""
    allow_private_livekit_url: bool = True
    """Accept `ws://` and private hosts in `integration.url`, which the real service refuses
    (documented: wss or https, and a public host). Local: the worker must reach a local server."""
    custom_avatars: frozenset[str] | None = frozenset()
    """Ids of avatars that are in `RunwaySimulator.account` from the start, READY. What is not in
    the account is a 404 (measured), what is not READY a 400 (inferred). `None`: an id that is not
    there is taken for one that is READY (local)."""
    avatar_processing_delay: float = 0.5
    """From the creation of an avatar, or a new picture, to READY (one project measured some 30)."""
    voice_processing_delay: float = 0.5
    """From the creation of a voice to READY (local)."""
    task_delay: float = 1.0
    """From the creation of an avatar video to its end (local)."""
    avatar_video_credits: int = 2
    """What an avatar video costs (local: the price goes by its length)."""

    # From create to READY.
    create_delay: float = 0.0
    """Before the create call answers (measured: 2.3-6.5)."""
    queue_delay: float = 0.2
    """How long `queued` is true although there is room (measured: about 1)."""
    provisioning_delay: float = 0.8
    """From there to READY (measured: READY 0.7-2 after create has returned)."""
    cancelled_slot_hold: float = 2.0
    """A session cancelled before READY keeps its place this long (measured, no duration known)."""
    credential_ttl: float = 300.0
    """What `expiresAt` promises (measured); `unconsumed_ttl` strikes much earlier."""

    # From READY to a face.
    unconsumed_ttl: float = 21.0
    """READY and not consumed: FAILED `TALKING_AVATAR.NO_PARTICIPANT`, no credits (measured)."""
    second_consume_status: Literal[404, 410] = 410
    """A second consume (unverified: one note says 410)."""
    consumed_running_delay: float = 3.0
    """From consume to RUNNING, though nobody joined (measured); earlier once the worker joins."""
    no_participant_ttl: float = 20.0
    """Consumed, but the user does not join: FAILED, 2 credits (measured: 18-20)."""
    worker_join_delay: float = 0.5
    """From the user's join to the worker's (measured: 5-8 until the first frame)."""
    first_frame_delay: float = 0.3
    """From the worker's join to its first frame, in wall clock (local)."""

    # The end.
    hidden_cap: float = 300.0
    """Cut here with COMPLETED, whatever `maxDuration` says (measured in LiveKit mode: 301-317)."""
    end_call_settle: float = 1.0
    """From END_CALL to COMPLETED (measured: 7-12)."""
    crash_settle: float = 1.0
    """From a worker's crash to FAILED (inferred)."""
    crash_failure_code: str = "INTERNAL"
    """`failureCode` after a crash (inferred from the families documented for tasks)."""
    killed_worker_leaves_after: float = 21.5
    """When the server notices that a killed worker is gone (measured)."""
    user_left_ends_after: float | None = None
    """The session ends as COMPLETED this long after the user left. `None`: it goes on, and bills,
    until the cap (measured for a killed user)."""
    close_room: bool = True
    """Delete the room of a session that has ended (inferred)."""

    # The avatar worker.
    speech: Speech = Speech.DATASTREAM
    playback_started: bool = False
    """Also send `lk.playback_started` (no evidence that Runway does)."""
    render_latency: float = 0.15
    """From speech arriving to speech and picture coming out (local)."""
    start_size: tuple[int, int] = (556, 360)
    """The first picture's size (measured)."""
    full_size: tuple[int, int] = (1088, 704)
    """The size after `upscale_after` (measured)."""
    upscale_after: float = 1.0
    """From the first frame to the full size (measured that it happens, not when)."""
    fps: float = 25.0
    """Frames per second (documented: 24, measured: about 26)."""
    picture: Picture = "drawn"
    """What a session shows (local)."""
    barcode: bool = False
    """Number the pictures (`testing.barcode`), and keep in `Performance` when each of them, and
    each sound after a pause, was captured (local)."""
    answer_after_silence: float = 0.7
    """In `conversation`: how long the user must pause before the avatar answers (inferred)."""
    user_can_publish: bool = True
    user_can_publish_data: bool = True
    """What the consumed token allows the user (inferred: everything)."""

    hosted: WorkerManners = field(default_factory=WorkerManners)
    """Of the worker in the room that Runway hosts."""
    invited: WorkerManners = field(default_factory=WorkerManners)
    """Of the worker in the room of an `integration`."""

    faults: Faults = field(default_factory=Faults)
    """For each session that got none of its own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "speech", Speech(self.speech))
        if self.time_scale <= 0:
            raise ValueError("time_scale must be above 0")
        if self.concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        if self.requests_per_minute is not None and self.requests_per_minute < 1:
            raise ValueError("requests_per_minute must be at least 1")
        if not 1 <= self.fps <= 60:
            raise ValueError("fps must be from 1 to 60")
        for size in (self.start_size, self.full_size):
            if any(side < 16 or side % 2 for side in size):
                raise ValueError("picture sizes must be even and at least 16")
        if self.picture not in get_args(Picture):
            raise ValueError(f"picture must be one of {get_args(Picture)}, not {self.picture!r}")
        for name in ("render_latency", "first_frame_delay", "upscale_after"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")

    @classmethod
    def as_measured(cls, *, time_scale: float = 1.0) -> Self:
        """The pace and limits of the live service on a tier 1 account, as far as measured."""
        return cls(
            time_scale=time_scale,
            concurrency=1,
            create_delay=3.0,
            queue_delay=1.0,
            provisioning_delay=1.0,
            cancelled_slot_hold=5.0,
            worker_join_delay=5.0,
            first_frame_delay=2.5 * time_scale,
            end_call_settle=9.0,
            avatar_processing_delay=30.0,
        )

    def scaled(self, seconds: float) -> float:
        """Seconds of the service as seconds of wall clock."""
        return seconds * self.time_scale
