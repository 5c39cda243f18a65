"""What an account has beside sessions: avatars, voices, documents, uploads, tasks.

Shapes are those of Runway's published API schema 2024-11-06, as of August 2026; what the schema
leaves open (names, addresses, how long something takes) is local.
"""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from ...options import CallFault

RECORDING = b"\x00\x00\x00\x18ftypmp42 a recording that shows nothing"
_CREATED = "2026-08-01T10:00:00Z"
MadeKind = Literal["avatar", "voice", "task"]
"""What takes a while to be made, and may fail."""


def avatar(name: str, **changes: Any) -> dict[str, Any]:
    """A custom avatar as Runway describes one; for `SimulatedAccount.avatars`."""
    return {
        "id": str(uuid.uuid4()),
        "name": name,
        "personality": "Helpful.",
        "startScript": None,
        "voice": {
            "type": "runway-live-preset",
            "presetId": "clara",
            "name": "Clara",
            "description": "Warm",
        },
        "referenceImageUri": None,
        "processedImageUri": None,
        "documentIds": [],
        "createdAt": _CREATED,
        "updatedAt": _CREATED,
        "status": "READY",
        **changes,
    }


def voice(name: str, **changes: Any) -> dict[str, Any]:
    """A custom voice; for `SimulatedAccount.voices`."""
    return {
        "id": str(uuid.uuid4()),
        "name": name,
        "description": None,
        "createdAt": _CREATED,
        "status": "READY",
        "previewUrl": None,
        **changes,
    }


def document(name: str, **changes: Any) -> dict[str, Any]:
    """A text of an avatar's knowledge; for `SimulatedAccount.documents`."""
    return {
        "id": str(uuid.uuid4()),
        "name": name,
        "type": "text",
        "usedBy": [],
        "content": "Some text.",
        "createdAt": _CREATED,
        "updatedAt": _CREATED,
        **changes,
    }


@dataclass(frozen=True)
class Failure:
    """Why something that was to be made is not."""

    reason: str
    code: str = ""
    """Only a task has one."""


@dataclass(frozen=True)
class StoredFile:
    """What was uploaded."""

    name: str
    content: bytes = field(repr=False)


@dataclass
class SimulatedAccount:
    """What the key's project holds; change it as a test needs it.

    What is put in here stays as it is: an avatar that is PROCESSING does not become READY. What is
    made by a call does.
    """

    avatars: list[dict[str, Any]] = field(default_factory=list)
    """Only those that are READY can be shown in a session."""
    voices: list[dict[str, Any]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    """Avatar videos that were asked for."""
    uploads: dict[str, StoredFile] = field(default_factory=dict)
    """By their `runway://` address."""
    page: int | None = None
    """Entries on a page at most, however many were asked for: None: as many."""
    call_faults: list[int | CallFault] = field(default_factory=list)
    """What goes wrong with the next calls about the account, in order; used up. A bare number is a
    `CallFault` with that status."""
    _failures: dict[MadeKind, deque[Failure]] = field(default_factory=dict, repr=False)

    def add_avatar(self, name: str, **changes: Any) -> dict[str, Any]:
        """A custom avatar, READY unless `status` says otherwise; `changes` under Runway's names."""
        self.avatars.append(entry := avatar(name, **changes))
        return entry

    def add_voice(self, name: str, **changes: Any) -> dict[str, Any]:
        """A custom voice, likewise."""
        self.voices.append(entry := voice(name, **changes))
        return entry

    def add_document(self, name: str, **changes: Any) -> dict[str, Any]:
        """A document; its `content` is some text unless it is given."""
        self.documents.append(entry := document(name, **changes))
        return entry

    def fail_next(self, kind: MadeKind, reason: str, *, code: str = "") -> None:
        """The next avatar, voice or task that is made becomes FAILED where it would have become
        READY; call again for the one after.

        Args:
            reason: `failureReason`, or the `failure` of a task.
            code: `failureCode` of a task.
        """
        self._failures.setdefault(kind, deque()).append(Failure(reason, code))

    def next_failure(self, kind: MadeKind) -> Failure | None:
        """What was ordered for the one that is made now."""
        ordered = self._failures.get(kind)
        return ordered.popleft() if ordered else None

    def next_call_fault(self) -> CallFault:
        fault = self.call_faults.pop(0) if self.call_faults else CallFault()
        return CallFault(status=fault) if isinstance(fault, int) else fault


def entry_of(entries: list[dict[str, Any]], identifier: str) -> dict[str, Any] | None:
    """Ids are the same in upper and lower case."""
    wanted = identifier.lower()
    return next((entry for entry in entries if str(entry["id"]).lower() == wanted), None)
