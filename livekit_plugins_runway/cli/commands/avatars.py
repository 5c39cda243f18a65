"""`avatars` and `presets`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ...errors import ConfigurationError
from ...runway.account.requests import ImageProcessing
from ...runway.models import PresetId
from ..calls import Request, account_calls, asking, run, send
from ..settings import Settings, settings_of
from .common import (
    Id,
    Ids,
    Limit,
    Timeout,
    Wait,
    Yes,
    at,
    delete,
    media,
    said_of,
    show_list,
    text_or_file,
    uuid,
    waiting,
)

if TYPE_CHECKING:
    from ...runway.account.answers import AvatarInfo
    from ...runway.account.calls import AccountCalls

PATH = "/v1/avatars"

avatars = typer.Typer(no_args_is_help=True, help="Custom avatars of the key's project.")


@avatars.command("list")
def list_avatars(ctx: typer.Context, limit: Limit = None) -> None:
    """Your own avatars. Presets are listed by `runway-avatar presets`."""
    columns = ["id", "name", "status", "voice", "documents"]
    show_list(
        ctx,
        Request("GET", PATH),
        limit,
        columns,
        lambda a: (a["id"], a["name"], a["status"], _voice(a), len(a["documentIds"])),
    )


@avatars.command("get")
def get_avatar(ctx: typer.Context, avatar_id: Id) -> None:
    """One of your own avatars."""
    settings = settings_of(ctx)
    answer = run(send(settings, at(PATH, avatar_id)))
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


def _voice(avatar: dict[str, Any]) -> str:
    voice = avatar.get("voice") or {}
    return str(voice.get("name") or voice.get("presetId") or voice.get("id") or "-")


_Name = typer.Option(help="1 to 50 characters.")
_Image = typer.Option(
    metavar="FILE", help="The face: JPEG, PNG or WebP. Also an https:// or runway:// address."
)
_Personality = typer.Option(metavar="TEXT", help="How it behaves; @FILE: what is in that file.")
_Voice = typer.Option(
    metavar="NAME", help="A preset voice's name, or a voice's id: see `voices list`."
)
StartScript = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What it says first; @FILE likewise.")
]
Documents = Annotated[
    list[str] | None,
    typer.Option("--document", metavar="UUID", parser=uuid, help="What it knows; repeatable."),
]
Processing = Annotated[
    ImageProcessing | None,
    typer.Option(case_sensitive=False, help="What is done with the image. [Runway's: optimize]"),
]
_OPTIONS = {
    "name:": "--name:",
    "reference_image:": "--image:",
    "personality:": "--personality:",
    "voice:": "--voice:",
    "start_script:": "--start-script:",
}


@avatars.command("create")
def create_avatar(
    ctx: typer.Context,
    image: Annotated[str, _Image],
    name: Annotated[str, _Name],
    personality: Annotated[str, _Personality],
    voice: Annotated[str, _Voice],
    start_script: StartScript = None,
    document: Documents = None,
    image_processing: Processing = None,
    wait: Wait = False,
    timeout: Timeout = 300.0,
) -> None:
    """Make an avatar of a picture.

    It is PROCESSING at first. If that fails, the avatar stays, as FAILED, until it is deleted.
    """
    settings = settings_of(ctx)

    async def make() -> AvatarInfo:
        async with account_calls(settings) as client:
            with asking(settings), said_of(_OPTIONS):
                made = await client.create_avatar(
                    name=name,
                    reference_image=media(image),
                    personality=text_or_file(personality) or "",
                    voice=voice,
                    start_script=text_or_file(start_script),
                    document_ids=document,
                    image_processing=image_processing,
                )
            return await _ready(settings, client, made, timeout) if wait else made

    _show(settings, run(make()))


@avatars.command("update")
def update_avatar(
    ctx: typer.Context,
    avatar_id: Id,
    image: Annotated[str | None, _Image] = None,
    name: Annotated[str | None, _Name] = None,
    personality: Annotated[str | None, _Personality] = None,
    voice: Annotated[str | None, _Voice] = None,
    start_script: StartScript = None,
    document: Documents = None,
    no_documents: Annotated[
        bool, typer.Option("--no-documents", help="It knows no documents any more.")
    ] = False,
    image_processing: Processing = None,
    wait: Wait = False,
    timeout: Timeout = 300.0,
) -> None:
    """Change an avatar, where an option is given. Sessions that live keep what it was.

    --document takes the place of all documents that it knew; `documents create --avatar` adds one.
    An empty --start-script takes that away.
    """
    settings = settings_of(ctx)
    given = (image, name, personality, voice, start_script, document, image_processing)
    if all(value is None for value in given) and not no_documents:
        raise ConfigurationError("Nothing is to be changed: pass --name, --personality, or others.")
    if document and no_documents:
        raise ConfigurationError("Pass either --document or --no-documents, and not both.")

    async def change() -> AvatarInfo:
        async with account_calls(settings) as client:
            with asking(settings), said_of(_OPTIONS):
                changed = await client.update_avatar(
                    avatar_id,
                    name=name,
                    reference_image=None if image is None else media(image),
                    personality=text_or_file(personality),
                    voice=voice,
                    start_script=text_or_file(start_script),
                    document_ids=[] if no_documents else document,
                    image_processing=image_processing,
                )
            return await _ready(settings, client, changed, timeout) if wait else changed

    _show(settings, run(change()))


@avatars.command("wait")
def wait_for_avatar(ctx: typer.Context, avatar_id: Id, timeout: Timeout = 300.0) -> None:
    """Wait until an avatar is READY. One that is FAILED is an error, with Runway's reason."""
    settings = settings_of(ctx)

    async def ready() -> AvatarInfo:
        async with account_calls(settings) as client:
            return await _wait(settings, client, avatar_id, timeout)

    _show(settings, run(ready()))


@avatars.command("delete")
def delete_avatars(ctx: typer.Context, avatar_ids: Ids, yes: Yes = False) -> None:
    """Delete avatars. Asks first."""
    delete(ctx, avatar_ids, "avatar", yes, lambda client, one: client.delete_avatar(one), PATH)


async def _ready(
    settings: Settings, client: AccountCalls, made: AvatarInfo, timeout: float
) -> AvatarInfo:
    settings.output.note(f"avatar {made.id}")
    return await _wait(settings, client, made.id, timeout)


async def _wait(
    settings: Settings, client: AccountCalls, avatar_id: str, timeout: float
) -> AvatarInfo:
    with waiting(settings, "waiting until the avatar is READY") as tell:
        return await client.wait_until_avatar_ready(avatar_id, timeout=timeout, on_poll=tell)


def _show(settings: Settings, avatar: AvatarInfo) -> None:
    """All that Runway says of it."""
    told = avatar.wire()
    if settings.output.as_json:
        settings.output.json(told)
    else:
        settings.output.fields({**told, "voice": _voice(told)})
