"""What avatars can be made of: `avatars`, `presets`, `voices`, `documents`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args
from urllib.parse import quote

import typer

from ...errors import ProtocolError
from ...runway.models import PresetId
from ..calls import Request, run, send, send_list
from ..settings import settings_of

Limit = Annotated[int | None, typer.Option(min=1, help="At most so many. [default: all]")]
_Row = Callable[[dict[str, Any]], Sequence[object]]

avatars = typer.Typer(no_args_is_help=True, help="Custom avatars of the key's project.")
voices = typer.Typer(no_args_is_help=True, help="Custom voices of the key's project.")
documents = typer.Typer(no_args_is_help=True, help="Knowledge documents of the key's project.")


@avatars.command("list")
def list_avatars(ctx: typer.Context, limit: Limit = None) -> None:
    """Your own avatars. Presets are listed by `runway-avatar presets`."""
    columns = ["id", "name", "status", "voice", "documents"]
    show_list(
        ctx,
        Request("GET", "/v1/avatars"),
        limit,
        columns,
        lambda a: (a["id"], a["name"], a["status"], _voice(a), len(a["documentIds"])),
    )


@avatars.command("get")
def get_avatar(ctx: typer.Context, avatar_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """One of your own avatars."""
    settings = settings_of(ctx)
    answer = run(send(settings, Request("GET", f"/v1/avatars/{quote(avatar_id, safe='')}")))
    if settings.output.as_json or not isinstance(answer, dict):
        settings.output.json(answer)
    else:
        settings.output.fields({**answer, "voice": _voice(answer)})


def presets(ctx: typer.Context) -> None:
    """The preset avatars of Runway's published schema 2024-11-06. Runway has no call that lists
    them, so there may be newer ones."""
    settings = settings_of(ctx)
    names = list(get_args(PresetId))
    if settings.output.as_json:
        settings.output.json([{"presetId": name} for name in names])
    else:
        for name in names:
            settings.output.line(name)


@voices.command("list")
def list_voices(ctx: typer.Context, limit: Limit = None) -> None:
    """Your own voices."""
    show_list(
        ctx,
        Request("GET", "/v1/voices"),
        limit,
        ["id", "name", "status", "description"],
        lambda v: (v["id"], v["name"], v["status"], v["description"]),
    )


@documents.command("list")
def list_documents(ctx: typer.Context, limit: Limit = None) -> None:
    """Your documents, the newest first, and how many avatars use each."""
    show_list(
        ctx,
        Request("GET", "/v1/documents", {"sort": "createdAt", "order": "desc"}),
        limit,
        ["id", "name", "type", "avatars", "updated"],
        lambda d: (d["id"], d["name"], d["type"], len(d["usedBy"]), d["updatedAt"]),
    )


def show_list(
    ctx: typer.Context, request: Request, limit: int | None, columns: Sequence[str], row: _Row
) -> None:
    settings = settings_of(ctx)
    entries = run(send_list(settings, request, limit))
    if settings.output.as_json:
        settings.output.json(entries)
        return
    if not entries:
        settings.output.note("There are none.")
        return
    try:
        rows = [row(entry) for entry in entries]
    except (KeyError, TypeError, AttributeError):
        raise ProtocolError(
            f"Runway described an entry of {request.path} in an unknown way: use --json."
        ) from None
    settings.output.table(columns, rows)


def _voice(avatar: dict[str, Any]) -> str:
    voice = avatar["voice"]
    return str(voice.get("name") or voice.get("presetId") or voice.get("id"))
