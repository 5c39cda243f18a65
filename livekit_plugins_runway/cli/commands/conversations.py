"""`conversations`: what was said in sessions that were ended in good order."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

import aiohttp
import typer
from yarl import URL

from ..._common.http import new_session
from ...errors import ConfigurationError, ProtocolError, RunwayException, UnavailableError
from ..calls import Request, run, send
from ..output import printable
from ..progress import transfer
from ..settings import Settings, settings_of
from .account import iso
from .catalog import Limit, show_list
from .options import Avatar, moment

PATH = "/v1/avatar_conversations"
_CHUNK = 256 * 1024
_MOST_REDIRECTS = 5
_SUFFIXES = {
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "video/quicktime": ".mov",
    "audio/mpeg": ".mp3",
    "audio/mp4": ".m4a",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/ogg": ".ogg",
    "audio/webm": ".weba",
}
"""By media type. Another type names no file: it is the server's."""
_STALLED = 60.0
"""Seconds without a byte after which a download is given up."""

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
    answer = run(send(settings, _request(conversation_id)))
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


async def _download(
    settings: Settings, conversation_id: str, folder: Path, force: bool
) -> list[Path]:
    if re.fullmatch(r"[\w-]{1,100}", conversation_id, re.ASCII) is None:
        raise ConfigurationError(
            f"{printable(conversation_id)[:80]!r} is no id of a conversation: letters, digits, - "
            "and _."
        )
    answer = await send(settings, _request(conversation_id))
    if not isinstance(answer, dict):
        raise ProtocolError("Runway described the conversation in an unknown way.")
    stem = folder / conversation_id
    try:
        written = _write_texts(answer, stem, force)
        if url := answer.get("recordingUrl"):
            written.append(await _save_recording(str(url), stem, force))
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
        _write(stem.with_name(f"{stem.name}.json"), json.dumps(described, indent=2) + "\n", force),
        _write(
            stem.with_name(f"{stem.name}.txt"), "\n".join(_transcript(conversation)) + "\n", force
        ),
    ]


def _write(path: Path, text: str, force: bool) -> Path:
    _check_free(path, force)
    part = _part_of(path)
    try:
        with _create(part) as file:
            file.write(text.encode())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _check_free(path: Path, force: bool) -> None:
    if os.path.lexists(path) and not force:
        raise ConfigurationError(f"{path} exists: pass --force to replace it.")


def _part_of(path: Path) -> Path:
    """Beside it, under a name that nobody can have prepared."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


def _create(path: Path) -> BinaryIO:
    """A new file for its owner alone: it holds what people have said. Through no link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600), "wb")


async def _save_recording(url: str, stem: Path, force: bool) -> Path:
    """Without the key: the address itself opens the recording."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=_STALLED)
    part = _part_of(stem)
    try:
        async with new_session(timeout=timeout) as http, _get(http, url) as response:
            if response.status != 200:
                raise _refused(response.status)
            path = stem.with_name(stem.name + _suffix(response.content_type))
            _check_free(path, force)
            with transfer() as progress, _create(part) as file:
                task = progress.add_task("recording", total=response.content_length)
                async for chunk in response.content.iter_chunked(_CHUNK):
                    file.write(chunk)
                    progress.advance(task, len(chunk))
        os.replace(part, path)
    except (aiohttp.ClientError, TimeoutError) as error:
        # Its text may hold the address.
        raise UnavailableError(
            f"The recording could not be fetched ({type(error).__name__}); try again."
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return path


@asynccontextmanager
async def _get(http: aiohttp.ClientSession, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """Each address on the way has to be https; on this machine also http."""
    for _ in range(_MOST_REDIRECTS):
        address = URL(url)
        local = address.scheme == "http" and address.host in ("127.0.0.1", "localhost")
        if address.scheme != "https" and not local:
            raise ProtocolError("The recording's address is not https; it is not fetched.")
        async with http.get(address, allow_redirects=False) as response:
            if response.status not in (301, 302, 303, 307, 308):
                yield response
                return
            url = str(address.join(URL(response.headers.get("Location", ""))))
    raise ProtocolError(f"The recording's address leads on more than {_MOST_REDIRECTS} times.")


def _refused(status: int) -> RunwayException:
    return UnavailableError(
        f"The recording's server answered with HTTP {status}; its address may have expired: "
        "try again, which asks for a new one."
    )


def _suffix(content_type: str) -> str:
    return _SUFFIXES.get(content_type, ".bin")


def _request(conversation_id: str) -> Request:
    return Request("GET", f"{PATH}/{quote(conversation_id, safe='')}")


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
