"""`account`, `usage` and `credits`: the organization behind the key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import ConfigurationError, ProtocolError
from ...runway.billing import USD_PER_CREDIT
from ..calls import Request, account_calls, asking, run, send
from ..settings import settings_of
from .common import day

if TYPE_CHECKING:
    from ...runway.account.answers import CreditUsage

ORGANIZATION = Request("GET", "/v1/organization")
MODEL = "gwm1_avatars"
"""The model of Runway Characters, as limits and usage name it."""
_LONGEST_RANGE = timedelta(days=90)


def account(ctx: typer.Context) -> None:
    """The organization behind the key: credits, limits, and what was used today. Free of charge."""
    settings = settings_of(ctx)
    answer = run(send(settings, ORGANIZATION))
    if settings.output.as_json:
        settings.output.json(answer)
        return
    settings.output.fields(
        {name: value for name, value in summary(answer).items() if name in _OF_ALL_MODELS}
    )
    limits, used = answer["tier"]["models"], answer["usage"]["models"]
    settings.output.table(
        ["model", "at once", "today", "of"],
        [
            (
                model,
                limit.get("maxConcurrentGenerations"),
                used.get(model, {}).get("dailyGenerations", 0),
                limit.get("maxDailyGenerations"),
            )
            for model, limit in sorted(limits.items())
        ],
    )


_OF_ALL_MODELS = ("credits", "monthly limit")


def summary(organization: Any) -> dict[str, object]:
    """What matters for avatars; raises `ProtocolError`."""
    try:
        credits = organization["creditBalance"]
        limits = organization["tier"]["models"].get(MODEL, {})
        used = organization["usage"]["models"].get(MODEL, {}).get("dailyGenerations", 0)
    except (KeyError, TypeError, AttributeError):
        raise ProtocolError(
            "Runway described the organization in an unknown way: is the address "
            "(RUNWAYML_BASE_URL) that of Runway's API?"
        ) from None
    daily = limits.get("maxDailyGenerations", "unknown")
    return {
        "credits": f"{credits} (${credits * USD_PER_CREDIT:.2f})",
        "sessions at once": limits.get("maxConcurrentGenerations", "unknown"),
        "sessions today": f"{used} of {daily}",
        "monthly limit": f"{organization['tier'].get('maxMonthlyCreditSpend', 'unknown')} credits",
    }


Since = Annotated[
    datetime | None,
    typer.Option(metavar="DAY", parser=day, help="First day, UTC. [default: 30 days ago]"),
]
Until = Annotated[
    datetime | None,
    typer.Option(metavar="DAY", parser=day, help="Last day, UTC. [default: today]"),
]


def credits_used(
    ctx: typer.Context,
    since: Since = None,
    until: Until = None,
) -> None:
    """How many credits the organization has used, by day and model. At most 90 days."""
    settings = settings_of(ctx)
    begin, end = _range(since, until)

    async def ask() -> CreditUsage:
        async with account_calls(settings) as client:
            with asking(settings):
                return await client.credit_usage(since=begin.date(), before=end.date())

    answer = run(ask())
    if settings.output.as_json:
        settings.output.json(answer.wire())
        return
    rows: list[tuple[object, ...]] = [
        (one.date, used.model, f"{used.amount:g}", f"{used.amount * USD_PER_CREDIT:.2f}")
        for one in answer.results
        for used in one.used_credits
        if used.amount
    ]
    total = sum(one.total for one in answer.results)
    rows.append(("total", "", f"{total:g}", f"{total * USD_PER_CREDIT:.2f}"))
    settings.output.table(["day", "model", "credits", "$"], rows)


def _range(since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    """The first day, and the one after the last; raises `ConfigurationError`."""
    last = until or datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = last + timedelta(days=1)
    begin = since or end - timedelta(days=30)
    if not timedelta(0) < end - begin <= _LONGEST_RANGE:
        raise ConfigurationError("--since to --until must be 1 to 90 days, in this order.")
    return begin, end


def usage(
    ctx: typer.Context,
    since: Since = None,
    until: Until = None,
) -> None:
    """How many avatar sessions there were, and how long, by day. At most 90 days."""
    settings = settings_of(ctx)
    begin, end = _range(since, until)
    query = {"startDate": iso(begin), "endDate": iso(end)}
    answer = run(send(settings, Request("GET", "/v1/avatar_usage", query)))
    if settings.output.as_json:
        settings.output.json(answer)
        return
    try:
        days = [(day["date"], day["sessions"], day["seconds"]) for day in answer["byDay"]]
        total = ("total", answer["totalSessions"], answer["totalSeconds"])
    except (KeyError, TypeError):
        raise ProtocolError("Runway described the usage in an unknown way.") from None
    settings.output.table(["day", "sessions", "seconds"], [*days, total])


def iso(moment: datetime) -> str:
    """As Runway wants it: UTC with a Z."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
