"""Conversations of sessions that were consumed, and what they used.

That a session ended by DELETE has neither transcript nor recording was measured; the text of a
transcript is local.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from aiohttp import web

from ..rest import Refusal, iso
from ..session import SessionStatus, SimulatedSession
from .backend import Backend, checked_body, refuse_a_key
from .bodies import QUERY_CREDITS
from .entries import RECORDING
from .queries import invalid, moment, page
from .works import task_credits

_LONGEST_RANGE = timedelta(days=90)
_MONTH = timedelta(days=30)


class ConversationApi:
    """The calls about them."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._deleted: set[str] = set()
        """Ids of conversations; their sessions are still there."""

    def routes(self) -> list[web.RouteDef]:
        calls = self._backend.guarded
        return [
            web.get("/v1/avatar_conversations", calls(self._list_conversations), allow_head=False),
            web.get(
                "/v1/avatar_conversations/{id}", calls(self._get_conversation), allow_head=False
            ),
            web.delete("/v1/avatar_conversations/{id}", calls(self._delete_conversation)),
            web.post("/v1/organization/usage", calls(self._credits)),
            web.get("/v1/avatar_usage", calls(self._usage), allow_head=False),
            web.get("/recordings/{id}", self._recording, allow_head=False),
        ]

    async def _list_conversations(self, request: web.Request) -> web.Response:
        begin, end = moment(request, "startDate"), moment(request, "endDate")
        wanted = request.query.get("avatar")
        found = [
            _listed(session)
            for session in reversed(list(self._backend.sessions.values()))
            if self._is_there(session)
            and (begin is None or session.created_at >= begin.timestamp())
            and (end is None or session.created_at < end.timestamp())
            and wanted in (None, session.create_body["avatar"].get("avatarId"))
        ]
        return page(request, found, 20, self._backend.account.page)

    async def _get_conversation(self, request: web.Request) -> web.Response:
        return web.json_response(_conversation(self._one(request), self._backend.url()))

    async def _delete_conversation(self, request: web.Request) -> web.Response:
        self._deleted.add(self._one(request).id)
        return web.Response(status=204)

    def _one(self, request: web.Request) -> SimulatedSession:
        session = self._backend.sessions.get(request.match_info["id"])
        if session is None or not self._is_there(session):
            raise Refusal(404, "Could not find Conversation")
        return session

    def _is_there(self, session: SimulatedSession) -> bool:
        return session.consumed_at is not None and session.id not in self._deleted

    async def _recording(self, request: web.Request) -> web.Response:
        """Without a key: the address is the secret."""
        session = self._backend.sessions.get(request.match_info["id"])
        if session is None or session.id in self._deleted:
            raise Refusal(403, "Forbidden")
        if request.query.get("signature") != _signature(session):
            raise Refusal(403, "Forbidden")
        refuse_a_key(request)
        return web.Response(body=RECORDING, content_type="video/mp4")

    async def _usage(self, request: web.Request) -> web.Response:
        begin, end = moment(request, "startDate"), moment(request, "endDate")
        if begin is None or end is None or not timedelta(0) <= end - begin <= _LONGEST_RANGE:
            raise invalid("startDate", "A range of at most 90 days is required")
        days: dict[str, list[int]] = defaultdict(list)
        for session in self._backend.sessions.values():
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

    async def _credits(self, request: web.Request) -> web.Response:
        """By day and model. Days without use are left out (inferred)."""
        body = await checked_body(request, QUERY_CREDITS)
        today = datetime.now(UTC).date()
        begin = date.fromisoformat(body["startDate"]) if "startDate" in body else today - _MONTH
        end = date.fromisoformat(body["beforeDate"]) if "beforeDate" in body else begin + _MONTH
        if not timedelta(0) <= end - begin <= _LONGEST_RANGE:
            issue = {
                "code": "custom",
                "message": "A range of at most 90 days is required",
                "path": ["beforeDate"],
            }
            raise Refusal(400, "Validation of body failed", issues=[issue])
        days: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for day, model, amount in self._spent():
            if amount and begin <= date.fromisoformat(day) < end:
                days[day][model] += amount
        return web.json_response(
            {
                "results": [
                    {
                        "date": day,
                        "usedCredits": [
                            {"model": model, "amount": amount} for model, amount in used.items()
                        ],
                    }
                    for day, used in sorted(days.items())
                ],
                "models": sorted({model for used in days.values() for model in used}),
            }
        )

    def _spent(self) -> Iterator[tuple[str, str, int]]:
        """Day, model and credits of all that was paid for."""
        for session in self._backend.sessions.values():
            yield iso(session.created_at)[:10], "gwm1_avatars", session.credits
        price = self._backend.options.avatar_video_credits
        for task in self._backend.account.tasks:
            yield task["createdAt"][:10], task["model"], task_credits(task, price)


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
