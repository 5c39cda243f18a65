"""`runway-avatar`: the app, its global options, and how errors reach the user."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup
from typer.main import get_group

from .. import __version__
from ..errors import RunwayException
from .exits import ExitCode, exit_code
from .output import Output
from .settings import (
    KEY_VARIABLES,
    LIVEKIT_VARIABLES,
    Settings,
    choose_base_url,
    load_env_file,
)

_COMMANDS = {
    "auth": ".commands.account:auth",
    "avatars": ".commands.catalog:avatars",
    "presets": ".commands.catalog:presets",
    "voices": ".commands.catalog:voices",
    "documents": ".commands.catalog:documents",
    "sessions": ".commands.sessions:app",
    "conversations": ".commands.conversations:app",
    "usage": ".commands.account:usage",
    "request": ".commands.raw:request",
    "token": ".commands.livekit_project:token",
    "dispatch": ".commands.livekit_project:dispatch",
    "doctor": ".doctor.command:doctor",
    "serve": ".commands.serve:serve",
}
"""Where each command is, in the order of the help: loaded when it is asked for, because HTTP and
the models of requests take three times as long to load as all else that a command line needs."""
_GLOBAL_FLAGS = {"--json", "--dry-run", "--stage"}
_GLOBAL_VALUES = {"--base-url", "--env-file"}


class _Root(TyperGroup):
    """Loads the command that is asked for, takes the global options before and after it, and turns
    errors into one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # One that does not exist is compared with all names, to say which may have been meant.
        for name in [cmd_name] if cmd_name in _COMMANDS else _COMMANDS:
            if name not in self.commands:
                self.commands[name] = _load(name)
        return super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return list(super().parse_args(ctx, _global_first(args)))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RunwayException as error:
            code = exit_code(error)
            settings = ctx.find_object(Settings)
            output = Output(as_json=False) if settings is None else settings.output
            output.error(error.message, code, code.name.lower())
            raise typer.Exit(code) from None
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def _load(name: str) -> Any:
    """A command, or a group of them, as Typer makes it of those that were added to an app."""
    module, _, attribute = _COMMANDS[name].partition(":")
    found = getattr(import_module(module, __package__), attribute)
    holder = typer.Typer(rich_markup_mode=_MARKUP)
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=name)
    else:
        holder.command(name)(found)
    return get_group(holder).commands[name]


def _global_first(args: list[str]) -> list[str]:
    """`sessions list --json` as `--json sessions list`. What follows `--` stays where it is."""
    end = args.index("--") if "--" in args else len(args)
    front, rest = [], []
    waiting = False
    for arg in args[:end]:
        if waiting or arg in _GLOBAL_FLAGS or arg.split("=")[0] in _GLOBAL_VALUES:
            front.append(arg)
            waiting = not waiting and arg in _GLOBAL_VALUES
        else:
            rest.append(arg)
    return [*front, *rest, *args[end:]]


_MARKUP: Literal["markdown"] = "markdown"  # paragraphs are wrapped anew
_EPILOG = "Exit codes: " + ", ".join(f"{code.value} {code.name.lower()}" for code in ExitCode)

app = typer.Typer(
    name="runway-avatar",
    cls=_Root,
    no_args_is_help=True,
    # A traceback with local variables would show keys.
    pretty_exceptions_enable=False,
    rich_markup_mode=_MARKUP,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"runway-avatar {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Results as JSON.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the exact request instead of sending it, secrets masked. Needs no key.",
        ),
    ] = False,
    stage: Annotated[
        bool, typer.Option("--stage", help="Runway's staging API; it has keys of its own.")
    ] = False,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Another Runway. [env: RUNWAYML_BASE_URL]")
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead of .env in this folder.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Runway Characters for LiveKit agents: check the set-up, look at an account, end sessions.

    The key comes from RUNWAYML_API_SECRET (or RUNWAY_API_KEY), in the environment or in .env. The
    global options may stand before or after the command.
    """
    ctx.obj = Settings(Output(as_json), dry_run, "", {})
    variables = load_env_file(env_file)
    settings = Settings(
        Output(as_json), dry_run, choose_base_url(base_url, stage, variables), variables
    )
    secret_names = (*KEY_VARIABLES, *LIVEKIT_VARIABLES[2:])
    found = [settings.variable(name) for name in secret_names]
    secrets = tuple(variable.value for variable in found if variable is not None)
    ctx.obj = Settings(Output(as_json, secrets), dry_run, settings.base_url, variables)


def main() -> None:
    """The entry point of the installed command."""
    # The SDK and this package tell an operator much that is no news to somebody at a terminal.
    logging.getLogger("livekit").setLevel(logging.ERROR)
    app(prog_name="runway-avatar")
