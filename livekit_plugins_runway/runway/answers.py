"""Decodes Runway's answers: their JSON, the error for one that is no success, and how long it asks
to wait. Pure; the given texts must hold no secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ..errors import (
    AuthenticationError,
    CreditsError,
    ForbiddenError,
    Issue,
    NotFoundError,
    Operation,
    ProtocolError,
    QuotaError,
    RateLimitedError,
    RequestError,
    RequestRejectedError,
    ServerError,
)

_LONGEST_ASKED = 86_400.0
"""Seconds; a longer `Retry-After` is shortened to this."""
_LONGEST_TEXT = 500
_DEEPEST = 64
"""Maximum levels of JSON. Runway's answers have less than ten."""
_NO_CREDITS = re.compile(r"(not|n't|insufficient|out of|no)\b.*\bcredits?\b", re.I | re.S)
_TITLE = re.compile(r"<title[^>]*>([^<]{1,200})", re.I)
_DAILY_LIMIT = re.compile(r"\bdaily\b", re.I)


def parsed(text: str) -> tuple[object, str]:
    """Returns the value and "", or the text and what is wrong with it. Raises no error, because its
    message would quote the text.
    """
    deep = "", f"is nested more than {_DEEPEST} levels deep"
    try:
        value: object = json.loads(text)
    except RecursionError:
        return deep
    except ValueError:
        return text, "is not JSON"
    return deep if _is_deeper(value, _DEEPEST) else (value, "")


def _is_deeper(value: object, levels: int) -> bool:
    """Without recursion."""
    level = [value]
    for _ in range(levels + 1):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(value: object) -> Iterable[object]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()


def error_from_response(
    status: int,
    payload: object,
    *,
    operation: Operation,
    retry_after: float | None = None,
    request_id: str | None = None,
) -> RequestError | ProtocolError:
    """The error for an HTTP answer that is no success.

    Args:
        status: HTTP status.
        payload: the decoded JSON body, or its text where it was no JSON. Must hold no secret.
        operation: the call that was answered.
        retry_after: seconds that Runway asked to wait.
        request_id: Runway's id of the request.
    """
    if not 400 <= status < 600:
        return ProtocolError(
            f"Runway answered with HTTP {status}, which is neither success nor error. "
            "Check RUNWAYML_BASE_URL."
        )
    fields: Mapping[object, object] = payload if isinstance(payload, dict) else {}
    said = fields.get("message") or fields.get("error")
    runway_message = one_line(_told(payload) if isinstance(payload, str) else said)
    issues = _issues(fields.get("issues"))
    doc_url = fields.get("docUrl")
    kind = _kind(status, runway_message, bool(issues))
    return kind(
        status_code=status,
        operation=operation,
        runway_message=runway_message,
        issues=issues,
        doc_url=doc_url if isinstance(doc_url, str) else None,
        retry_after=retry_after,
        hint=_hint_elsewhere(kind, status)
        if isinstance(payload, str)
        else _hint(kind, status, operation),
        request_id=request_id,
        body={
            "error": runway_message,
            "issues": [{"code": i.code, "message": i.message, "path": [*i.path]} for i in issues],
            "docUrl": doc_url if isinstance(doc_url, str) else None,
        },
    )


def _kind(status: int, text: str, has_issues: bool) -> type[RequestError]:
    if status >= 500:
        return ServerError
    if status == 429:
        return QuotaError if _DAILY_LIMIT.search(text) else RateLimitedError
    if status in (400, 402) and not has_issues and _NO_CREDITS.search(text):
        return CreditsError
    by_status = {401: AuthenticationError, 403: ForbiddenError, 404: NotFoundError}
    return by_status.get(status, RequestRejectedError)


def _hint(kind: type[RequestError], status: int, operation: Operation) -> str | None:
    if status == 408:
        return "Runway waited too long for the request: try again."
    if status == 405:
        return "Nothing at this path takes this method: check method, path and RUNWAYML_BASE_URL."
    if operation == "consume" and kind in (AuthenticationError, NotFoundError):
        return (
            "A session is consumed once, with its own session key, soon after READY: "
            "make a new session."
        )
    if operation == "upload" and kind is ForbiddenError:
        return "The place that Runway gave for the file may have expired: upload it again."
    if kind is NotFoundError and operation in ("get", "delete"):
        return "A session is visible only to keys of the project that made it: check the key."
    if kind is NotFoundError and operation == "request":
        return "What belongs to another project is not visible to this key: check id and key."
    return None


def _told(text: str) -> str:
    """The title of an HTML page, if it has one: the only part of it that helps a reader."""
    title = _TITLE.search(text) if text.lstrip().startswith("<") else None
    return f"a page, {title[1].strip()!r}" if title else text


def _hint_elsewhere(kind: type[RequestError], status: int) -> str | None:
    """The hint for an answer that is not JSON, as Runway's own answers are. Not for 429 and 5xx,
    which a gateway in front of Runway may send without JSON.
    """
    if kind not in (RequestRejectedError, ForbiddenError, NotFoundError) and status != 501:
        return None
    return (
        "That is no JSON, as an answer of Runway's API is: check the address (RUNWAYML_BASE_URL), "
        "and what stands between here and Runway."
    )


def _issues(raw: object) -> tuple[Issue, ...]:
    found = []
    for entry in raw if isinstance(raw, list) else []:
        if not isinstance(entry, dict):
            continue
        path, code = entry.get("path"), entry.get("code")
        found.append(
            Issue(
                path=tuple(
                    p if isinstance(p, int) else str(p)
                    for p in (path if isinstance(path, list) else [])
                ),
                message=one_line(entry.get("message")),
                code=code if isinstance(code, str) else None,
            )
        )
    return tuple(found)


def one_line(text: object) -> str:
    """A text of unknown origin (perhaps a gateway's HTML page) as one bounded line that can be
    printed: JSON and headers may hold half of a character (a lone surrogate)."""
    if not isinstance(text, str):
        return ""
    return " ".join(text.split())[:_LONGEST_TEXT].encode("utf-8", "replace").decode()


def seconds_to_wait(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or an HTTP date; None if it cannot be
    parsed.
    """
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdecimal() else _until(value)
    except Exception:  # noqa: BLE001  the exceptions of the date parser are not documented
        return None
    return min(max(0.0, seconds), _LONGEST_ASKED)


def asked_to_wait(error: BaseException, jitter: Callable[[], float]) -> float:
    """Seconds that Runway has asked to wait for, and up to a half more at random, so that not all
    who were told the same come back at the same moment; 0 if it has not.

    Args:
        jitter: gives numbers in [0, 1).
    """
    if not isinstance(error, RequestError) or error.retry_after is None:
        return 0.0
    return error.retry_after * (1 + jitter() / 2)


def _until(date: str) -> float:
    moment: datetime = parsedate_to_datetime(date)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime.now(UTC)).total_seconds()
