"""`documents`: what avatars know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import ConfigurationError, RunwayException
from ..calls import Request, account_calls, asking, run, send
from ..output import printable
from ..settings import settings_of
from .common import Id, Ids, Limit, Yes, at, delete, said_of, show_list, uuid

if TYPE_CHECKING:
    from ...runway.account.answers import DocumentInfo

PATH = "/v1/documents"

documents = typer.Typer(no_args_is_help=True, help="Knowledge documents of the key's project.")

_OPTIONS = {"name:": "--name:", "content:": "the text:"}


@documents.command("list")
def list_documents(
    ctx: typer.Context,
    avatar_id: Annotated[
        str | None,
        typer.Option(
            "--avatar-id", "--avatar", metavar="UUID", parser=uuid, help="What this avatar knows."
        ),
    ] = None,
    limit: Limit = None,
) -> None:
    """Your documents, the newest first, and how many avatars use each."""

    def is_known(document: dict[str, list[dict[str, str]]]) -> bool:
        return avatar_id in [avatar.get("id") for avatar in document["usedBy"]]

    show_list(
        ctx,
        Request("GET", PATH, {"sort": "createdAt", "order": "desc"}),
        limit,
        ["id", "name", "type", "avatars", "updated"],
        lambda d: (d["id"], d["name"], d["type"], len(d["usedBy"]), d["updatedAt"]),
        # Runway has no such list.
        wanted=None if avatar_id is None else is_known,
    )


@documents.command("create")
def create_document(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Text or Markdown, in UTF-8.")],
    avatar: Annotated[
        list[str] | None,
        typer.Option(metavar="UUID", parser=uuid, help="Who is to know it; repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="[default: that of the file]")] = None,
) -> None:
    """Make a document of a file, and let avatars know it."""
    settings = settings_of(ctx)

    async def make() -> DocumentInfo:
        async with account_calls(settings) as client:
            with asking(settings), said_of(_OPTIONS):
                made = await client.create_document(file, name=name)
            for one in avatar or ():
                try:
                    with asking(settings):
                        await client.attach_document(one, made.id)
                except RunwayException:
                    settings.output.note(
                        f"The document {made.id} was made, and {one} does not know it."
                    )
                    raise
            return await client.get_document(made.id) if avatar else made

    told = run(make()).wire()
    told.pop("content", None)
    _show(ctx, told)


@documents.command("get")
def get_document(ctx: typer.Context, document_id: Id) -> None:
    """One document, with its text."""
    settings = settings_of(ctx)
    answer = run(send(settings, at(PATH, document_id)))
    if settings.output.as_json or not isinstance(answer, dict):
        settings.output.json(answer)
        return
    text = str(answer.pop("content", None) or "")
    _show(ctx, answer)
    for line in text.splitlines():
        settings.output.line(printable(line))


@documents.command("update")
def update_document(
    ctx: typer.Context,
    document_id: Id,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The new text, in UTF-8.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="1 to 255 characters.")] = None,
) -> None:
    """Change a document, for every avatar that knows it."""
    settings = settings_of(ctx)
    if file is None and name is None:
        raise ConfigurationError("Nothing is to be changed: pass --file, --name, or both.")

    async def change() -> None:
        async with account_calls(settings) as client:
            with asking(settings), said_of(_OPTIONS):
                await client.update_document(document_id, name=name, content=file)

    run(change())
    if settings.output.as_json:
        settings.output.json({"id": document_id, "updated": True})
    else:
        settings.output.line(f"{document_id}  updated")


@documents.command("delete")
def delete_documents(ctx: typer.Context, document_ids: Ids, yes: Yes = False) -> None:
    """Delete documents, also from the avatars that know them. Asks first."""
    delete(
        ctx,
        document_ids,
        "document",
        yes,
        lambda client, one: client.delete_document(one),
        PATH,
    )


def _show(ctx: typer.Context, document: dict[str, object]) -> None:
    output = settings_of(ctx).output
    if output.as_json:
        output.json(document)
        return
    users = document.get("usedBy")
    ids = [str(user.get("id")) for user in users] if isinstance(users, list) else []
    output.fields({**document, "usedBy": ids})
