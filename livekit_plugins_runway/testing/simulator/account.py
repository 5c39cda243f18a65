"""What else an account has: avatars, voices, documents, conversations, usage.

Shapes are those of Runway's published API schema 2024-11-06. That a session ended by DELETE has
neither transcript nor recording was measured; what the schema leaves open (names, the text of a
transcript, how a cursor looks) is local.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from .rest import Refusal, iso
from .session import SessionStatus, SimulatedSession

RECORDING = b"\x00\x00\x00\x18ftypmp42 a recording that shows nothing"
_MOST = 100
_LONGEST_CURSOR = 1000
_LONGEST_RANGE = timedelta(days=90)
_CREATED = "2026-08-01T10:00:00Z"


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


@dataclass
class SimulatedAccount:
    """What the key's project holds; change it as a test needs it."""

    avatars: list[dict[str, Any]] = field(default_factory=list)
    voices: list[dict[str, Any]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    page: int | None = None
    """Entries on a page at most, however many were asked for: None: as many."""


class AccountApi:
    """The calls about it.

    Args:
        authorize: raises `Refusal` for a call without key or version.
        sessions: by id, in order of creation.
        url: where the simulator is.
    """

    def __init__(
        self,
        account: SimulatedAccount,
        authorize: Callable[[web.Request], None],
        sessions: Mapping[str, SimulatedSession],
        url: Callable[[], str],
    ) -> None:
        self._account = account
        self._authorize = authorize
        self._sessions = sessions
        self._url = url

    def routes(self) -> list[web.RouteDef]:
        found = {
            "/v1/avatars": self._list_avatars,
            "/v1/avatars/{id}": self._get_avatar,
            "/v1/voices": self._list_voices,
            "/v1/documents": self._list_documents,
            "/v1/documents/{id}": self._get_document,
            "/v1/avatar_conversations": self._list_conversations,
            "/v1/avatar_conversations/{id}": self._get_conversation,
            "/v1/avatar_usage": self._usage,
            "/recordings/{id}": self._recording,
        }
        return [web.get(path, handler, allow_head=False) for path, handler in found.items()]

    async def _list_avatars(self, request: web.Request) -> web.Response:
        return self._page(request, self._account.avatars, 50)

    async def _get_avatar(self, request: web.Request) -> web.Response:
        return self._one(request, self._account.avatars, "Avatar")

    async def _list_voices(self, request: web.Request) -> web.Response:
        return self._page(request, self._account.voices, 50)

    async def _list_documents(self, request: web.Request) -> web.Response:
        self._authorize(request)
        key = _choice(request, "sort", "createdAt", "updatedAt")
        order = _choice(request, "order", "desc", "asc")
        found = sorted(self._account.documents, key=lambda d: d[key], reverse=order == "desc")
        listed = [{k: v for k, v in entry.items() if k != "content"} for entry in found]
        return self._page(request, listed, 50)

    async def _get_document(self, request: web.Request) -> web.Response:
        return self._one(request, self._account.documents, "Document")

    async def _list_conversations(self, request: web.Request) -> web.Response:
        self._authorize(request)
        begin, end = _moment(request, "startDate"), _moment(request, "endDate")
        wanted = request.query.get("avatar")
        found = [
            _listed(session)
            for session in reversed(list(self._sessions.values()))
            if session.consumed_at is not None
            and (begin is None or session.created_at >= begin.timestamp())
            and (end is None or session.created_at < end.timestamp())
            and wanted in (None, session.create_body["avatar"].get("avatarId"))
        ]
        return self._page(request, found, 20)

    async def _get_conversation(self, request: web.Request) -> web.Response:
        self._authorize(request)
        session = self._sessions.get(request.match_info["id"])
        if session is None or session.consumed_at is None:
            raise Refusal(404, "Could not find Conversation")
        return web.json_response(_conversation(session, self._url()))

    async def _recording(self, request: web.Request) -> web.Response:
        """Without a key: the address is the secret."""
        session = self._sessions.get(request.match_info["id"])
        if session is None or request.query.get("signature") != _signature(session):
            raise Refusal(403, "Forbidden")
        if "Authorization" in request.headers:
            raise Refusal(400, "Only one auth mechanism allowed")
        return web.Response(body=RECORDING, content_type="video/mp4")

    async def _usage(self, request: web.Request) -> web.Response:
        self._authorize(request)
        begin, end = _moment(request, "startDate"), _moment(request, "endDate")
        if begin is None or end is None or not timedelta(0) <= end - begin <= _LONGEST_RANGE:
            raise _invalid("startDate", "A range of at most 90 days is required")
        days: dict[str, list[int]] = defaultdict(list)
        for session in self._sessions.values():
            if session.billed_seconds and begin.timestamp() <= session.created_at < end.timestamp():
                day = datetime.fromtimestamp(session.created_at, UTC).date().isoformat()
                days[day].append(round(session.billed_seconds))
        lengths = [seconds for day in days.values() for seconds in day]
        return web.json_response(
            {
                "totalSeconds": sum(lengths),
                "totalSessions": len(lengths),
                "avgDurationSeconds": round(sum(lengths) / len(lengths)) if lengths else 0,
                "byDay": [
                    {"date": day, "sessions": len(seconds), "seconds": sum(seconds)}
                    for day, seconds in sorted(days.items())
                ],
            }
        )

    def _one(self, request: web.Request, entries: list[dict[str, Any]], kind: str) -> web.Response:
        self._authorize(request)
        wanted = request.match_info["id"]
        found = next((entry for entry in entries if entry["id"] == wanted), None)
        if found is None:
            raise Refusal(404, f"Could not find {kind}")
        return web.json_response(found)

    def _page(
        self, request: web.Request, entries: list[dict[str, Any]], default: int
    ) -> web.Response:
        self._authorize(request)
        limit = _limit(request, default)
        limit = min(limit, self._account.page or limit)
        start = _position(request)
        end = start + limit
        more = end < len(entries)
        cursor = base64.urlsafe_b64encode(f"after:{end}".encode()).decode() if more else None
        return web.json_response(
            {"data": entries[start:end], "hasMore": more, "nextCursor": cursor}
        )


def _limit(request: web.Request, default: int) -> int:
    given = request.query.get("limit", str(default))
    if not given.isdecimal() or not 1 <= int(given) <= _MOST:
        raise _invalid("limit", f"expected a number from 1 to {_MOST}")
    return int(given)


def _position(request: web.Request) -> int:
    cursor = request.query.get("cursor")
    if cursor is None:
        return 0
    try:
        name, _, number = base64.urlsafe_b64decode(cursor).decode().partition(":")
        if not 1 <= len(cursor) <= _LONGEST_CURSOR or name != "after":
            raise ValueError
        return int(number)
    except (ValueError, binascii.Error):
        raise _invalid("cursor", "Invalid cursor") from None


def _choice(request: web.Request, name: str, default: str, other: str) -> str:
    given = request.query.get(name, default)
    if given not in (default, other):
        raise _invalid(name, f'Invalid option: expected one of "{default}"|"{other}"')
    return given


def _moment(request: web.Request, name: str) -> datetime | None:
    given = request.query.get(name)
    if given is None:
        return None
    try:
        if not given.endswith("Z"):
            raise ValueError
        return datetime.fromisoformat(given)
    except ValueError:
        raise _invalid(name, "Invalid ISO datetime") from None


def _invalid(name: str, message: str) -> Refusal:
    issues = [{"code": "custom", "message": message, "path": [name]}]
    return Refusal(400, "Validation of query failed", issues=issues)


def _signature(session: SimulatedSession) -> str:
    return session.session_key[-16:]


def _seconds(session: SimulatedSession) -> int | None:
    return round(session.billed_seconds) if session.status.is_terminal else None


_CONVERSATION = {
    SessionStatus.COMPLETED: "ended",
    SessionStatus.FAILED: "failed",
    SessionStatus.CANCELLED: "failed",
}


def _status(session: SimulatedSession) -> str:
    return _CONVERSATION.get(session.status, "in_progress")


def _listed(session: SimulatedSession) -> dict[str, Any]:
    avatar = session.create_body["avatar"]
    preset = avatar.get("presetId")
    return {
        "id": session.id,
        "name": "Conversation",
        "status": _status(session),
        "avatar": {"type": "runway-preset", "presetId": preset, "name": preset}
        if preset
        else {"type": "custom", "id": avatar["avatarId"], "name": None},
        "createdAt": iso(session.created_at),
        "duration": _seconds(session),
        "hasTools": bool(session.create_body.get("tools")),
    }


def _conversation(session: SimulatedSession, url: str) -> dict[str, Any]:
    avatar = session.create_body["avatar"]
    kept = session.status is SessionStatus.COMPLETED
    address = f"{url}/recordings/{session.id}?signature={_signature(session)}"
    tools = session.create_body.get("tools", [])
    answer: dict[str, Any] = {
        "id": session.id,
        "name": "Conversation",
        "avatar": {"type": "runway-preset", "presetId": avatar["presetId"]}
        if "presetId" in avatar
        else {"type": "custom", "id": avatar["avatarId"], "name": None, "imageUrl": None},
        "createdAt": iso(session.created_at),
        "maxDuration": session.create_body.get("maxDuration", 300),
        "transcript": _transcript(session) if kept else [],
        "recordingUrl": address if kept else None,
        "tools": [{k: tool[k] for k in ("type", "name", "description")} for tool in tools],
        "status": _status(session),
        "startedAt": iso(session.created_at),
        "duration": _seconds(session),
    }
    if session.status.is_terminal:
        answer["endedAt"] = iso(session.created_at + (_seconds(session) or 0))
    if answer["status"] == "failed":
        answer["failure"] = session.failure or "The session was cancelled"
        answer["failureCode"] = session.failure_code or "CANCELLED"
    return answer


def _transcript(session: SimulatedSession) -> list[dict[str, Any]]:
    """It understands no words: an entry for each stretch of speech that it was sent."""
    said = [f"(speech, {s.received_seconds:.1f} s)" for s in session.performance.segments]
    return [
        {"role": "user", "content": text, "timestamp": iso(session.created_at)} for text in said
    ] or [{"role": "assistant", "content": "Hello.", "timestamp": iso(session.created_at)}]
