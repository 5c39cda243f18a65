"""`wait`, `tasks`, `avatar-videos`, `uploads`: what Runway works on, and files for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from ...errors import ConfigurationError
from ..calls import account_calls, asking, run, send
from ..settings import Settings, settings_of
from .common import Avatar, Id, Preset, Timeout, Yes, at, delete, media, said_of, show, text_or_file

if TYPE_CHECKING:
    from ...runway.account.answers import TaskInfo
    from ...runway.account.calls import AccountCalls

PATH = "/v1/tasks"

tasks = typer.Typer(no_args_is_help=True, help="Tasks: what Runway works on.")
videos = typer.Typer(no_args_is_help=True, help="Videos in which an avatar says something.")
uploads = typer.Typer(no_args_is_help=True, help="Files for Runway, which it keeps for 24 hours.")

Folder = Annotated[
    Path | None,
    typer.Option("--download", metavar="DIR", help="Fetch what was made into this folder."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]


def wait(
    ctx: typer.Context,
    task_id: Annotated[str, typer.Argument(metavar="TASK", help="Id of the task.")],
    timeout: Timeout = 600.0,
    folder: Folder = None,
    force: Force = False,
) -> None:
    """Wait until a task has SUCCEEDED, and show what it has made.

    One that is FAILED or CANCELLED is an error. The addresses of what was made expire: --download
    fetches it, as TASK-1 and so on, with an ending after its type.
    """
    settings = settings_of(ctx)

    async def done() -> tuple[TaskInfo, list[Path]]:
        async with account_calls(settings) as client:
            task = await _succeeded(settings, client, task_id, timeout)
            return task, await fetched(folder, task_id, task.output, force)

    _show(settings, *run(done()))


@tasks.command("get")
def get_task(ctx: typer.Context, task_id: Id) -> None:
    """How far a task is."""
    settings = settings_of(ctx)
    show(settings, run(send(settings, at(PATH, task_id))))


@tasks.command("delete")
def delete_task(
    ctx: typer.Context,
    task_ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    yes: Yes = False,
) -> None:
    """Cancel tasks that are under way; delete what others have made. Asks first."""
    delete(ctx, task_ids, "task", yes, lambda client, one: client.delete_task(one), PATH)


@videos.command("create")
def create_video(
    ctx: typer.Context,
    preset: Preset = None,
    avatar: Avatar = None,
    text: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What it says, 1 to 5000 characters; @FILE: from there."),
    ] = None,
    audio: Annotated[
        str | None, typer.Option(metavar="FILE", help="Or how it sounds: a file or an address.")
    ] = None,
    voice: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="For --text: a preset's name, or a voice's id."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has SUCCEEDED.")] = False,
    timeout: Timeout = 600.0,
    folder: Folder = None,
    force: Force = False,
) -> None:
    """Have an avatar say something in a video. Costs credits.

    Prints the id of the task: `runway-avatar wait TASK --download DIR` fetches the video.
    """
    settings = settings_of(ctx)
    if folder is not None and not wait:
        raise ConfigurationError("--download is for --wait: pass it, too.")

    async def make() -> tuple[TaskInfo | str, list[Path]]:
        async with account_calls(settings) as client:
            with asking(settings), said_of(_OPTIONS):
                task_id = await client.create_avatar_video(
                    avatar_id=avatar,
                    preset_id=preset,
                    text=text_or_file(text),
                    audio=None if audio is None else media(audio),
                    voice=voice,
                )
            if not wait:
                return task_id, []
            settings.output.note(f"task {task_id}")
            task = await _succeeded(settings, client, task_id, timeout)
            return task, await fetched(folder, task_id, task.output, force)

    made, files = run(make())
    if not isinstance(made, str):
        _show(settings, made, files)
    elif settings.output.as_json:
        settings.output.json({"id": made})
    else:
        settings.output.line(made)


_OPTIONS = {
    "avatar_id": "--avatar",
    "preset_id": "--preset",
    "text or audio": "--text or --audio",
    "speech.text.text:": "--text:",
    "speech.text.voice:": "--voice:",
    "speech.audio.audio:": "--audio:",
    "A voice is for text: audio": "--voice is for --text: --audio",
}


@uploads.command("create")
def create_upload(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A picture, sound or video, at most 200 MiB.")
    ],
) -> None:
    """Give Runway a file for 24 hours, and print its runway:// address, for --image and --audio."""
    settings = settings_of(ctx)

    async def send_file() -> str:
        async with account_calls(settings) as client:
            with settings.output.busy(f"sending {file.name}"):
                return await client.upload(file)

    address = run(send_file())
    if settings.output.as_json:
        settings.output.json({"runwayUri": address})
    else:
        settings.output.line(address)


async def fetched(
    folder: Path | None, name: str, addresses: Sequence[str], force: bool
) -> list[Path]:
    """The files, if a folder is given: NAME-1 and so on, or NAME where there is one."""
    if folder is None:
        return []
    from ..download import save  # with HTTP

    plain = quote(name, safe="")
    try:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        return [
            await save(
                address,
                folder / (plain if len(addresses) == 1 else f"{plain}-{number}"),
                force,
                "file",
            )
            for number, address in enumerate(addresses, 1)
        ]
    except OSError as error:
        raise ConfigurationError(
            f"--download {folder}: {error.strerror or type(error).__name__}."
        ) from None


async def _succeeded(
    settings: Settings, client: AccountCalls, task_id: str, timeout: float
) -> TaskInfo:
    what = "waiting for the task"
    with settings.output.busy(what) as busy:

        def tell(now: TaskInfo) -> None:
            done = "" if now.progress is None else f", {now.progress:.0%}"
            busy.update(f"{what}; now it is {now.status}{done}")

        return await client.wait_for_task(task_id, timeout=timeout, on_poll=tell)


def _show(settings: Settings, task: TaskInfo, files: Sequence[Path]) -> None:
    told: dict[str, Any] = task.wire()
    if files:
        told["files"] = [str(path) for path in files]
    if settings.output.as_json:
        settings.output.json(told)
    else:
        told.pop("output", None)
        settings.output.fields(told)
        for address in [] if files else task.output:
            settings.output.line(address)
