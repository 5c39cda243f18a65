"""Parameters of the account's lists and ranges, refused as Runway refuses them."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any

from aiohttp import web

from ..rest import Refusal

_MOST = 100
_LONGEST_CURSOR = 1000


def page(
    request: web.Request, entries: list[dict[str, Any]], default: int, most: int | None
) -> web.Response:
    """The page of the list that is asked for.

    Args:
        default: entries, where the caller names no `limit`.
        most: entries, whatever the caller asks for; None: as many.
    """
    limit = _limit(request, default)
    limit = min(limit, most or limit)
    start = _position(request)
    end = start + limit
    more = end < len(entries)
    cursor = base64.urlsafe_b64encode(f"after:{end}".encode()).decode() if more else None
    return web.json_response({"data": entries[start:end], "hasMore": more, "nextCursor": cursor})


def _limit(request: web.Request, default: int) -> int:
    given = request.query.get("limit", str(default))
    if not given.isdecimal() or not 1 <= int(given) <= _MOST:
        raise invalid("limit", f"expected a number from 1 to {_MOST}")
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
        raise invalid("cursor", "Invalid cursor") from None


def choice(request: web.Request, name: str, default: str, other: str) -> str:
    given = request.query.get(name, default)
    if given not in (default, other):
        raise invalid(name, f'Invalid option: expected one of "{default}"|"{other}"')
    return given


def moment(request: web.Request, name: str) -> datetime | None:
    given = request.query.get(name)
    if given is None:
        return None
    try:
        if not given.endswith("Z"):
            raise ValueError
        return datetime.fromisoformat(given)
    except ValueError:
        raise invalid(name, "Invalid ISO datetime") from None


def invalid(name: str, message: str) -> Refusal:
    issues = [{"code": "custom", "message": message, "path": [name]}]
    return Refusal(400, "Validation of query failed", issues=issues)
