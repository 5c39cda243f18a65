"""`conversations`: what was said in sessions that were ended in good order."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import ConfigurationError, ProtocolError
from ..calls import Request, run, send
from ..files import write
from ..output import printable
from ..settings import Settings, settings_of
from .account import iso
from .common import Avatar, Ids, Limit, Yes, at, delete, moment, show_list

PATH = "/v1/avatar_conversations"

app = typer.Typer(
    no_args_is_help=True,
    help="Transcripts and recordings. The id of a conversation is that of its session; one that "
    "was ended by `sessions cancel` has neither.",
)
ConversationId = Annotated[str, typer.Argument(metavar="ID", help="Id of the session.")]
Moment = Annotated[
    datetime | None,
    typer.Option(metavar="TIME", parser=moment, help="UTC: 2026-08-31 or 2026-08-31T12:00:00."),
]


@app.command("list")
def list_conversations(
    ctx: typer.Context,
    avatar: Avatar = None,
    since: Moment = None,
    until: Moment = None,
    limit: Limit = None,
) -> None:
    """Conversations, with status and duration in seconds."""
    if since and until and since > until:
        raise ConfigurationError("--since is later than --until.")
    given = {
        "avatar": avatar,
        "startDate": since and iso(since),
        "endDate": until and iso(until),
    }
    show_list(
        ctx,
        Request("GET", PATH, {name: value for name, value in given.items() if value}),
        limit,
        ["id", "avatar", "status", "created", "seconds"],
        lambda c: (c["id"], _avatar(c), c["status"], c["createdAt"], c["duration"]),
    )


@app.command("get")
def get_conversation(ctx: typer.Context, conversation_id: ConversationId) -> None:
    """One conversation, with its transcript. With --json also the recording's address, which opens
    the recording to whoever has it, for 24 to 48 hours."""
    settings = settings_of(ctx)
    answer = run(send(settings, at(PATH, conversation_id)))
    if settings.output.as_json:
        settings.output.json(answer)
        return
    settings.output.fields(
        {
            "id": answer.get("id"),
            "avatar": _avatar(answer),
            "status": answer.get("status"),
            "started": answer.get("startedAt"),
            "seconds": answer.get("duration"),
            "recording": "yes" if answer.get("recordingUrl") else "none",
            **({"failure": answer["failureCode"]} if answer.get("failureCode") else {}),
        }
    )
    for line in _transcript(answer):
        settings.output.line(line)


@app.command("download")
def download(
    ctx: typer.Context,
    conversation_id: ConversationId,
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where to; it is made if need be.")
    ] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Write ID.json (all that Runway knows), ID.txt (the transcript) and the recording.

    The recording is named after the type that its server gives. Prints the names of the files.
    """
    settings = settings_of(ctx)
    written = run(_download(settings, conversation_id, folder, force))
    if settings.output.as_json:
        settings.output.json([str(path) for path in written])
    else:
        for path in written:
            settings.output.line(str(path))


@app.command("delete")
def delete_conversations(ctx: typer.Context, conversation_ids: Ids, yes: Yes = False) -> None:
    """Delete conversations with transcript and recording. Asks first."""
    delete(
        ctx,
        conversation_ids,
        "conversation",
        yes,
        lambda client, one: client.delete_conversation(one),
        PATH,
    )


async def _download(
    settings: Settings, conversation_id: str, folder: Path, force: bool
) -> list[Path]:
    if re.fullmatch(r"[\w-]{1,100}", conversation_id, re.ASCII) is None:
        raise ConfigurationError(
            f"{printable(conversation_id)[:80]!r} is no id of a conversation: letters, digits, - "
            "and _."
        )
    from ..download import save  # with HTTP

    answer = await send(settings, at(PATH, conversation_id))
    if not isinstance(answer, dict):
        raise ProtocolError("Runway described the conversation in an unknown way.")
    stem = folder / conversation_id
    try:
        written = _write_texts(answer, stem, force)
        if url := answer.get("recordingUrl"):
            written.append(await save(str(url), stem, force))
        else:
            settings.output.note(f"No recording: the conversation is {answer.get('status')}.")
    except OSError as error:
        raise ConfigurationError(
            f"--dir {folder}: {error.strerror or type(error).__name__}."
        ) from None
    return written


def _write_texts(conversation: dict[str, Any], stem: Path, force: bool) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    described = {k: v for k, v in conversation.items() if k != "recordingUrl"}
    return [
        write(stem.with_name(f"{stem.name}.json"), json.dumps(described, indent=2) + "\n", force),
        write(
            stem.with_name(f"{stem.name}.txt"), "\n".join(_transcript(conversation)) + "\n", force
        ),
    ]


def _avatar(conversation: dict[str, Any]) -> str | None:
    avatar = conversation.get("avatar") or {}
    return avatar.get("name") or avatar.get("presetId") or avatar.get("id")


def _transcript(conversation: dict[str, Any]) -> list[str]:
    """A line for each entry; what somebody said on several is indented, and so no entry."""
    lines = []
    for entry in _objects(conversation.get("transcript")):
        when = f"[{entry['timestamp']}] " if entry.get("timestamp") else ""
        said = str(entry.get("content") or "(no text)").splitlines() or ["(no text)"]
        lines.append(f"{when}{entry.get('role')}: {said[0]}")
        lines += [f"    {more}" for more in said[1:]]
        lines += [f"  calls {call.get('name')}" for call in _objects(entry.get("toolCalls"))]
    return [printable(line) for line in lines]


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
