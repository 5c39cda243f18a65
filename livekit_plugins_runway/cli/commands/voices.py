"""`voices`: Runway's own, and those of the key's project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ...errors import ConfigurationError, ProtocolError
from ...runway.account.requests import PresetVoice, VoiceModel
from ..calls import Request, account_calls, asking, run, send, send_list
from ..settings import Settings, settings_of
from .common import Id, Ids, Limit, Timeout, Wait, Yes, at, delete, media, said_of, show, waiting
from .tasks import Folder, Force, fetched

if TYPE_CHECKING:
    from ...runway.account.answers import VoiceInfo, VoicePreview
    from ...runway.account.calls import AccountCalls

PATH = "/v1/voices"

voices = typer.Typer(no_args_is_help=True, help="Voices: Runway's live presets, and your own.")

Model = Annotated[VoiceModel, typer.Option(case_sensitive=False, help="What makes the voice.")]
_OPTIONS = {
    "name:": "--name:",
    "source.text.prompt:": "--prompt:",
    "source.audio.audio:": "--audio:",
    "prompt:": "PROMPT:",
    "prompt or audio": "--prompt or --audio",
    "description:": "--description:",
}


@voices.command("list")
def list_voices(
    ctx: typer.Context,
    own: Annotated[bool, typer.Option("--own", help="Without Runway's presets.")] = False,
    limit: Limit = None,
) -> None:
    """The live preset voices that Runway publishes, and your own, with where they can be heard.

    Presets can be heard in Runway's developer portal alone.
    """
    settings = settings_of(ctx)
    found = run(send_list(settings, Request("GET", PATH), limit))
    presets = [] if own else [{"id": name, "type": _PRESET} for name in get_args(PresetVoice)]
    if settings.output.as_json:
        settings.output.json([*presets, *({"type": "custom", **one} for one in found)])
        return
    rows = [(one["id"], "preset", None, None) for one in presets]
    try:
        rows += [(v["id"], v["name"], v["status"], v["description"]) for v in found]
    except (KeyError, TypeError):
        raise ProtocolError("Runway described a voice in an unknown way: use --json.") from None
    if not rows:
        settings.output.note("There are none.")
        return
    settings.output.table(["id", "name", "status", "description"], rows)
    if heard := [(voice["id"], voice["previewUrl"]) for voice in found if voice.get("previewUrl")]:
        settings.output.line("")
        settings.output.table(["id", "to be heard at"], heard)


_PRESET = "runway-live-preset"


@voices.command("get")
def get_voice(ctx: typer.Context, voice_id: Id) -> None:
    """One of your own voices, with where it can be heard."""
    settings = settings_of(ctx)
    show(settings, run(send(settings, at(PATH, voice_id))))


@voices.command("create")
def create_voice(
    ctx: typer.Context,
    name: Annotated[str, typer.Option(help="1 to 100 characters.")],
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A description of it, 20 to 1000 characters,"),
    ] = None,
    audio: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="or a sample of it, 10 s to 5 min, at most 10 MB."),
    ] = None,
    model: Model = "eleven_ttv_v3",
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="For people.")] = None,
    wait: Wait = False,
    timeout: Timeout = 300.0,
) -> None:
    """Make a voice, of a description or of a sample. `voices preview` lets a description be
    heard."""
    settings = settings_of(ctx)

    async def make() -> dict[str, Any]:
        async with account_calls(settings) as client:
            with asking(settings), said_of(_OPTIONS):
                voice_id = await client.create_voice(
                    name=name,
                    prompt=prompt,
                    audio=None if audio is None else media(audio),
                    model=model,
                    description=description,
                )
            if not wait:
                return {"id": voice_id}
            settings.output.note(f"voice {voice_id}")
            return (await _ready(settings, client, voice_id, timeout)).wire()

    show(settings, run(make()))


@voices.command("wait")
def wait_for_voice(ctx: typer.Context, voice_id: Id, timeout: Timeout = 300.0) -> None:
    """Wait until a voice is READY. One that is FAILED is an error, with Runway's reason."""
    settings = settings_of(ctx)

    async def ready() -> VoiceInfo:
        async with account_calls(settings) as client:
            return await _ready(settings, client, voice_id, timeout)

    show(settings, run(ready()).wire())


@voices.command("update")
def update_voice(
    ctx: typer.Context,
    voice_id: Id,
    name: Annotated[str | None, typer.Option(help="1 to 100 characters.")] = None,
    description: Annotated[
        str | None, typer.Option(metavar="TEXT", help="For people; an empty one takes it away.")
    ] = None,
) -> None:
    """Change a voice's name or description."""
    settings = settings_of(ctx)
    if name is None and description is None:
        raise ConfigurationError("Nothing is to be changed: pass --name, --description, or both.")

    async def change() -> VoiceInfo:
        async with account_calls(settings) as client:
            with asking(settings), said_of(_OPTIONS):
                return await client.update_voice(voice_id, name=name, description=description)

    show(settings, run(change()).wire())


@voices.command("delete")
def delete_voices(ctx: typer.Context, voice_ids: Ids, yes: Yes = False) -> None:
    """Delete voices. Asks first."""
    delete(ctx, voice_ids, "voice", yes, lambda client, one: client.delete_voice(one), PATH)


@voices.command("preview")
def preview_voice(
    ctx: typer.Context,
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="A description, 20 to 1000 characters.")
    ],
    model: Model = "eleven_ttv_v3",
    folder: Folder = None,
    force: Force = False,
) -> None:
    """Hear how a description of a voice sounds, without making it: an address for 24 hours."""
    settings = settings_of(ctx)

    async def ask() -> tuple[VoicePreview, list[Path]]:
        async with account_calls(settings) as client:
            with asking(settings), said_of(_OPTIONS):
                made = await client.preview_voice(prompt, model=model)
            return made, await fetched(folder, "voice-preview", [made.url], force)

    made, files = run(ask())
    told = made.wire()
    show(settings, {**told, "files": [str(path) for path in files]} if files else told)


async def _ready(
    settings: Settings, client: AccountCalls, voice_id: str, timeout: float
) -> VoiceInfo:
    with waiting(settings, "waiting until the voice is READY") as tell:
        return await client.wait_until_voice_ready(voice_id, timeout=timeout, on_poll=tell)
