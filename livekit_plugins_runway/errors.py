"""Every error that this package raises on purpose.

```
RunwayException
├── ConfigurationError        (ValueError)          bad argument, missing environment variable
├── RequestError              (APIStatusError)      an HTTP answer that is not a success
│   ├── RequestRejectedError      400 and every other 4xx
│   │   └── CreditsError          400 that says there are not enough credits
│   ├── AuthenticationError       401
│   ├── ForbiddenError            403
│   ├── NotFoundError             404
│   ├── QuotaError                429 that says the daily limit is reached
│   ├── RateLimitedError          any other 429
│   └── ServerError               5xx
├── UnavailableError          (APIConnectionError)  no connection, or it was cut
│   └── RunwayRoomError           to the room that Runway hosts
├── TimedOutError             (APITimeoutError)     no answer in time
├── LostAnswerError           (APIConnectionError)  sent, answer lost, must not be repeated blindly
├── ProtocolError             (APIError)            an answer that does not make sense
├── SessionFailedError        (APIError)            ended, or taken, while waiting for READY
├── SessionNotReadyError      (APITimeoutError)     READY did not come in time
├── ProcessingFailedError     (APIError)            an avatar, voice or task that became FAILED
├── StillProcessingError      (APITimeoutError)     it was not done in time
├── AvatarJoinError           (APIConnectionError)  the avatar worker never joined the room
├── AvatarLostError           (APIConnectionError)  the avatar was there, and is gone
├── AvatarEvictedError        (APIConnectionError)  its participant was removed from the room
├── RoomTokenError                                  a room token forbids what is needed
└── TransportsFailedError     (APIConnectionError)  neither transport gives a face
```

The names in brackets are base classes too (`livekit.agents` ones, or the builtin), so handlers that
were written for the framework's errors work. `str()` of each is a sentence with what Runway said
and what to do. No error holds a secret; session ids are in fields, not in texts. All can be
pickled.
"""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Literal

_FRAMEWORK = "livekit.agents"
_FRAMEWORK_ERRORS = "livekit.agents._exceptions"
_BASES = ("APIConnectionError", "APIError", "APIStatusError", "APITimeoutError")


class _SharedErrors(MetaPathFinder, Loader):
    """If the framework is imported later, it gets the module of errors that is loaded already."""

    def __init__(self, module: ModuleType) -> None:
        self.livekit_agents_errors = module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _FRAMEWORK_ERRORS:
            return None
        return spec_from_loader(fullname, self, origin=self.livekit_agents_errors.__file__)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.livekit_agents_errors

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to execute: the module was executed when it was loaded alone."""


def _framework_bases() -> tuple[type[Exception], ...]:
    """The framework's error classes, without the framework where that is possible.

    They are in a file of its own that imports nothing, while `import livekit.agents` takes seconds:
    too long for a command line or a server that makes no media. So that file is loaded alone, and
    given to the framework if it is imported later: there is only one `APIError` in a process, in
    either order. If anything is not as expected, the whole framework is imported, which is slow but
    correct.
    """
    module = None if _FRAMEWORK in sys.modules else _errors_alone()
    if module is None:
        module = import_module(_FRAMEWORK)
    return tuple(getattr(module, name) for name in _BASES)


def _errors_alone() -> ModuleType | None:
    for finder in sys.meta_path:
        # Left by an earlier import of this module.
        if isinstance(known := getattr(finder, "livekit_agents_errors", None), ModuleType):
            return known
    try:
        module = _load_errors()
    except Exception:  # noqa: BLE001  another version of the framework may raise anything
        return None
    # Its imports may have loaded the whole framework, with its own module of errors.
    if module is None or _FRAMEWORK in sys.modules:
        return None
    sys.meta_path.insert(0, _SharedErrors(module))
    return module


def _load_errors() -> ModuleType | None:
    """None, or an exception of any kind, if the framework is not as it was in 1.8.9."""
    livekit = find_spec("livekit")  # a namespace: finding it runs nothing
    assert livekit is not None
    agents = PathFinder.find_spec(_FRAMEWORK, livekit.submodule_search_locations)
    assert agents is not None
    assert agents.origin is not None
    errors = PathFinder.find_spec(_FRAMEWORK_ERRORS, agents.submodule_search_locations)
    assert errors is not None
    assert errors.loader is not None
    text = Path(agents.origin).read_text()
    taken = re.search(r"^from \._exceptions import \(([^)]*)\)", text, re.M)
    if taken is None or not set(_BASES) <= set(re.findall(r"\w+", taken[1])):
        return None
    module = module_from_spec(errors)
    errors.loader.exec_module(module)
    return module if all(issubclass(getattr(module, name), Exception) for name in _BASES) else None


if TYPE_CHECKING:
    from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError
else:
    APIConnectionError, APIError, APIStatusError, APITimeoutError = _framework_bases()

Operation = Literal["create", "get", "delete", "consume", "request", "upload"]
"""The four calls of Runway's realtime sessions that this package makes, any other call, and the
upload of a file, which goes to another host."""


class LossReason(enum.StrEnum):
    """Why a live avatar was lost."""

    WORKER_LEFT = "worker_left"
    ROOM_LOST = "room_lost"
    TRACKS_UNPUBLISHED = "tracks_unpublished"
    SESSION_ENDED = "session_ended"
    MEDIA_FAILED = "media_failed"
    VIDEO_STALLED = "video_stalled"
    SPEECH_STALLED = "speech_stalled"
    SPEECH_FOREIGN = "speech_foreign"
    SPEECH_FAILED = "speech_failed"


class RunwayException(Exception):
    """Root of all errors of this package; the name is the official plugin's.

    Attributes:
        message: the whole text, as `str()` gives it.
    """

    message: str

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"


class ConfigurationError(RunwayException, ValueError):
    """A bad argument, a combination that cannot work, or a missing environment variable."""


class AvatarClosedError(RunwayException):
    """The avatar was closed before the requested step was done: the call is over."""

    def __init__(self, message: str = "The avatar was closed before it had started.") -> None:
        super().__init__(message)


class CallLimitError(RunwayException):
    """The call has reached a limit: no more Runway sessions are made in it.

    Attributes:
        limit: the option that says so: "max_sessions", "max_billed_seconds", or "max_duration",
            where that is less than `session_cap`.
        allowed: its value.
        used: how many sessions were made, or seconds billed.
    """

    def __init__(
        self,
        message: str = "",
        *,
        limit: Literal["max_sessions", "max_billed_seconds", "max_duration"] = "max_sessions",
        allowed: float = 0,
        used: float = 0,
    ) -> None:
        unit = "Runway sessions" if limit == "max_sessions" else "billed seconds"
        super().__init__(
            message
            or f"The call has used {used:.0f} of the {allowed:g} {unit} that {limit} allows it; "
            "no more are made."
        )
        self.limit = limit
        self.allowed = allowed
        self.used = used


@dataclass(frozen=True, slots=True)
class Issue:
    """One entry of Runway's `issues` list: a place in the request body, and what is wrong there."""

    path: tuple[str | int, ...]
    message: str
    code: str | None = None

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path)) or 'body'}: {self.message}"


class RequestError(RunwayException, APIStatusError):
    """Runway answered, but not with success. Base of the kinds by status.

    Attributes:
        status_code: HTTP status.
        retryable: whether the same call may succeed later.
        operation: the call that was refused.
        runway_message: Runway's own text, "" if it gave none.
        issues: Runway's list of what is wrong with the body.
        doc_url: the page that Runway names.
        retry_after: seconds that Runway asked to wait, if it did.
        hint: what to do.
        body: the fields above as Runway named them, nothing else of its answer.
    """

    summary: ClassVar[str] = "Runway refused the request"
    default_hint: ClassVar[str] = ""
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        status_code: int = -1,
        operation: Operation | None = None,
        runway_message: str = "",
        issues: Iterable[Issue] = (),
        doc_url: str | None = None,
        retry_after: float | None = None,
        hint: str | None = None,
        request_id: str | None = None,
        body: object | None = None,
    ) -> None:
        self.operation = operation
        self.runway_message = runway_message
        self.issues = tuple(issues)
        self.doc_url = doc_url
        self.retry_after = retry_after
        self.hint = self.default_hint if hint is None else hint
        APIStatusError.__init__(
            self,
            message or self._compose(status_code),
            status_code=status_code,
            request_id=request_id,
            body=body,
            retryable=self.default_retryable,
        )

    def _compose(self, status: int) -> str:
        text = f"{self.summary} (HTTP {status})"
        if self.runway_message:
            text += f": {self.runway_message.rstrip('.')}"
        if self.issues:
            text += f" [{'; '.join(map(str, self.issues))}]"
        text += "."
        if self.hint:
            text += f" {self.hint}"
        if self.doc_url:
            text += f" See {self.doc_url}"
        return text


class RequestRejectedError(RequestError):
    """400, or another 4xx without a kind of its own: the request itself is wrong. Not retried."""

    summary = "Runway rejected the request"
    default_hint = "Correct what Runway names; repeating the same request will not help."


class CreditsError(RequestRejectedError):
    """The organization has too few credits. Runway says this with a 400, not with a 402."""

    summary = "The Runway organization is out of credits"
    default_hint = "Buy credits in the developer portal of the organization that owns this key."


class AuthenticationError(RequestError):
    """401: the key is missing, wrong, or belongs to another host."""

    summary = "Runway did not accept the key"
    default_hint = (
        "Check RUNWAYML_API_SECRET, and that it was made for the host in RUNWAYML_BASE_URL: "
        "production and staging keys are not interchangeable."
    )


class ForbiddenError(RequestError):
    """403: the key is good, but may not do this."""

    summary = "Runway does not allow this to the key's organization"
    default_hint = "Check in the developer portal that the organization has access to the model."


class NotFoundError(RequestError):
    """404: an avatar or a session that the key's project does not have."""

    summary = "Runway does not know the requested resource"
    default_hint = "An avatar is visible only to keys of the project that owns it: check both."


class QuotaError(RequestError):
    """429 that says the daily limit is reached. Waiting seconds does not help: not retried."""

    summary = "The daily limit of the Runway organization is reached"
    default_hint = "Wait for the next day, or move the organization to a higher tier."


class RateLimitedError(RequestError):
    """Any other 429: too many requests just now."""

    summary = "Runway received too many requests"
    default_hint = "Try again later."
    default_retryable = True


class ServerError(RequestError):
    """5xx: Runway's fault. The client has already repeated 502, 503 and 504 as allowed."""

    summary = "Runway failed to answer the request"
    default_hint = "Try again later; if it lasts, look at Runway's status page."
    default_retryable = True


class UnavailableError(RunwayException, APIConnectionError):
    """Runway could not be reached, or the connection was cut before the answer was complete."""

    def __init__(self, message: str = "Runway could not be reached.") -> None:
        APIConnectionError.__init__(self, message)


class RunwayRoomError(UnavailableError):
    """The room that Runway hosts for a session could not be joined."""

    def __init__(
        self,
        message: str = "The room that Runway hosts for this session could not be joined. Check "
        "that this machine may reach *.livekit.cloud over WebRTC.",
    ) -> None:
        super().__init__(message)


class TimedOutError(RunwayException, APITimeoutError):
    """Runway did not answer in time."""

    def __init__(self, message: str = "Runway did not answer in time.") -> None:
        APITimeoutError.__init__(self, message)


class LostAnswerError(RunwayException, APIConnectionError):
    """A request that must not be repeated blindly was sent, and its response was lost.

    `create`: a session may exist whose id is not known. If it must be consumed, it expires by
        itself, unbilled, about 21 seconds after READY, so a new create is safe. If its worker joins
        a room by itself (`integration: livekit`), it bills until its maximum duration.
    `consume`: the one-time credentials may be spent; end this session and make a new one.
    `request`: Runway may have done what was requested.

    Attributes:
        operation: "create", "consume" or "request".
        session_id: known for "consume" only.
        answered: an answer came but could not be understood; a repeat will hardly help.
    """

    def __init__(
        self,
        message: str = "Runway's response was lost.",
        *,
        operation: Operation = "create",
        session_id: str | None = None,
        answered: bool = False,
    ) -> None:
        APIConnectionError.__init__(self, message, retryable=False)
        self.operation = operation
        self.session_id = session_id
        self.answered = answered


class ProtocolError(RunwayException, APIError):
    """Runway's answer is not what its schema says: not JSON, fields missing, unknown status."""

    def __init__(self, message: str = "Runway's response could not be understood.") -> None:
        APIError.__init__(self, message, retryable=False)


class SessionFailedError(RunwayException, APIError):
    """The session can no longer become READY for us.

    Attributes:
        session_id: the Runway session.
        status: FAILED, CANCELLED, COMPLETED, or RUNNING (its credentials were used elsewhere).
        failure: Runway's text, "" unless FAILED.
        failure_code: Runway's stable code, e.g. "TALKING_AVATAR.NO_PARTICIPANT", "" unless FAILED.
        retryable: True for FAILED, except where Runway refused the content (SAFETY...).
    """

    def __init__(
        self,
        message: str = "",
        *,
        session_id: str = "",
        status: str = "FAILED",
        failure: str = "",
        failure_code: str = "",
    ) -> None:
        if not message:
            said = [failure_code or "no failure code", failure.rstrip(".")]
            detail = f" ({': '.join(filter(None, said))})"
            message = f"The Runway session became {status} before its avatar was there"
            message += f"{detail if status == 'FAILED' else ''}."
        retryable = status == "FAILED" and not failure_code.startswith("SAFETY")
        APIError.__init__(self, message, retryable=retryable)
        self.session_id = session_id
        self.status = status
        self.failure = failure
        self.failure_code = failure_code


class SessionNotReadyError(RunwayException, APITimeoutError):
    """READY did not come in time. The session still exists: delete it.

    Attributes:
        session_id: the Runway session.
        queued: True if Runway last said that it waits for capacity, False if it was provisioning.
        waited: seconds.
    """

    def __init__(
        self, message: str = "", *, session_id: str = "", queued: bool = False, waited: float = 0.0
    ) -> None:
        if not message:
            why = (
                "it is queued for capacity: end another session, or raise the concurrency limit "
                "(tier) of the organization"
                if queued
                else "it is still being provisioned: try again, or wait longer"
            )
            message = f"The Runway session was not READY after {waited:g} s; {why}."
        APITimeoutError.__init__(self, message)
        self.session_id = session_id
        self.queued = queued
        self.waited = waited


class QueueTimeoutError(SessionNotReadyError):
    """The account had no place for the session within `queue_timeout`. The call makes no other one
    by itself, which would wait behind all others.
    """


ProcessedKind = Literal["avatar", "voice", "task"]
"""A resource that Runway processes for a while before it can be used."""


class ProcessingFailedError(RunwayException, APIError):
    """Runway could not make the avatar, the voice, or the result of the task.

    Attributes:
        kind: "avatar", "voice" or "task".
        id: its id. A failed avatar or voice stays until it is deleted.
        status: FAILED, or CANCELLED (a task).
        failure: Runway's text, "" if it gave none.
        failure_code: Runway's stable code; only tasks have one.
        retryable: True for a task that failed by Runway's own fault (INTERNAL...).
    """

    def __init__(
        self,
        message: str = "",
        *,
        kind: ProcessedKind = "avatar",
        id: str = "",
        status: str = "FAILED",
        failure: str = "",
        failure_code: str = "",
    ) -> None:
        if not message:
            said = ": ".join(filter(None, (failure_code, failure.rstrip(".")))) or "no reason given"
            detail = f" ({said})" if status == "FAILED" else ""
            message = f"The Runway {kind} became {status}{detail}."
            if kind != "task":
                message += f" Delete it, and make one of another {_MADE_OF[kind]}."
        APIError.__init__(self, message, retryable=failure_code.startswith("INTERNAL"))
        self.kind = kind
        self.id = id
        self.status = status
        self.failure = failure
        self.failure_code = failure_code


_MADE_OF = {"avatar": "picture", "voice": "description or sample"}


class StillProcessingError(RunwayException, APITimeoutError):
    """Runway was not done with the avatar, the voice or the task in time. It goes on.

    Attributes:
        kind: "avatar", "voice" or "task".
        id: its id.
        status: what Runway last said.
        waited: seconds.
    """

    def __init__(
        self,
        message: str = "",
        *,
        kind: ProcessedKind = "avatar",
        id: str = "",
        status: str = "PROCESSING",
        waited: float = 0.0,
    ) -> None:
        APITimeoutError.__init__(
            self,
            message
            or f"The Runway {kind} was still {status} after {waited:g} s; Runway goes on with it: "
            "wait longer.",
        )
        self.kind = kind
        self.id = id
        self.status = status
        self.waited = waited


class AvatarJoinError(RunwayException, APIConnectionError):
    """The avatar worker did not join its room, or joined and never sent media.

    Attributes:
        session_id: the Runway session.
        missing: what did not come: "participant", "video" or "audio".
        waited: seconds for which it was really waited for.
        reason: what ended the wait: "timed_out", "worker_left", or "room_lost": the connection to
            the room, which says nothing of the worker.
    """

    def __init__(
        self,
        message: str = "",
        *,
        session_id: str = "",
        missing: Literal["participant", "video", "audio"] = "participant",
        waited: float = 0.0,
        reason: Literal["timed_out", "worker_left", "room_lost"] = "timed_out",
    ) -> None:
        APIConnectionError.__init__(self, message or _not_joined(missing, waited, reason))
        self.session_id = session_id
        self.missing = missing
        self.waited = waited
        self.reason = reason


def _not_joined(missing: str, waited: float, reason: str) -> str:
    seconds = f"{round(waited, 1):g} s"
    came = missing != "participant"
    if reason == "timed_out":
        what = f"sent no {missing}" if came else "did not join the room"
        return f"The Runway avatar worker {what} within {seconds}."
    had_not = f"had sent no {missing}" if came else "had not joined"
    if reason == "worker_left":
        return f"The Runway avatar worker left after {seconds}, and {had_not}."
    return (
        f"The connection to the room was lost after {seconds}; the Runway avatar worker {had_not}."
    )


class AvatarLostError(RunwayException, APIConnectionError):
    """The avatar was live and is lost; the agent goes on by voice.

    Attributes:
        reason: how the loss was noticed: "worker_left", "room_lost", "tracks_unpublished",
            "session_ended" (Runway says so), "media_failed" (its picture or voice could not be
            relayed), "video_stalled", "speech_stalled", "speech_foreign" (it says words of its own)
            or "speech_failed".
        way_out: what to change so that it does not happen again; "" if nothing is known.
    """

    def __init__(
        self, message: str = "", *, reason: str = "worker_left", way_out: str = ""
    ) -> None:
        lost = f"The avatar was lost ({reason}); the agent goes on by voice."
        APIConnectionError.__init__(self, message or f"{lost} {way_out}".rstrip())
        self.way_out = way_out
        self.reason = reason


class AvatarEvictedError(RunwayException, APIConnectionError):
    """The avatar participant was removed from the agent's room. Speech that was sent through it and
    may not have arrived does not count as heard.

    Attributes:
        reason: "replaced": another participant joined with its identity. It joins again with
            another identity, and the avatar goes on. "removed": by a moderator, or the server's
            API. The avatar ends, and the agent goes on by a track of its own participant. (If the
            room is deleted, the avatar closes without an error.)
        identity: the one that it had.
    """

    def __init__(
        self,
        message: str = "",
        *,
        reason: Literal["replaced", "removed"] = "removed",
        identity: str = "",
    ) -> None:
        APIConnectionError.__init__(self, message or _evicted(reason, identity))
        self.reason = reason
        self.identity = identity


def _evicted(reason: str, identity: str) -> str:
    if reason == "replaced":
        return (
            f"Another participant has joined the agent's room as {identity!r}, which removes the "
            "avatar; it joins again with another identity. Is the agent dispatched twice?"
        )
    return (
        f"The avatar participant {identity!r} was removed from the agent's room; the agent goes on "
        "by voice."
    )


class RoomTokenError(RunwayException):
    """A room token does not allow what the chosen way of delivery needs.

    Attributes:
        missing: names of the grants that are missing, as LiveKit names them ("canPublishData").
        needed_for: what needs them, e.g. "delivery 'datastream'".
    """

    def __init__(
        self, message: str = "", *, missing: Iterable[str] = (), needed_for: str = ""
    ) -> None:
        self.missing = tuple(missing)
        self.needed_for = needed_for
        super().__init__(
            message
            or f"The room token lacks {', '.join(self.missing)}, needed for {needed_for}. "
            "Choose another delivery, or a token that grants it."
        )


class TransportsFailedError(RunwayException, APIConnectionError):
    """Neither transport gives an avatar (`transport="auto"`); the agent goes on by voice.

    Attributes:
        bridge: why the bridge did not.
        direct: why Runway's worker in the agent's room did not.
    """

    def __init__(
        self,
        message: str = "",
        *,
        bridge: RunwayException | None = None,
        direct: RunwayException | None = None,
    ) -> None:
        said = f"Neither transport gives an avatar. Bridge: {bridge} Direct: {direct}"
        APIConnectionError.__init__(self, message or said, retryable=False)
        self.bridge = bridge
        self.direct = direct
