"""`runway-avatar`: the app, its global options, and how errors reach the user."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from .. import __version__
from ..errors import ConfigurationError, RunwayException
from .examples import EXAMPLES
from .exits import ExitCode
from .misuse import MISUSE, global_first, interrupts_as_exceptions, tell, wants_json
from .output import Output
from .settings import (
    KEY_VARIABLES,
    LIVEKIT_VARIABLES,
    STAGE_KEY_VARIABLES,
    Settings,
    choose_base_url,
    load_env_file,
)

_COMMANDS = {
    "auth": (".commands.auth:auth", "The key: is it accepted, which is used, keep one."),
    "account": (".commands.account:account", "Credits, limits and use of the organization."),
    "avatars": (".commands.avatars:avatars", "Your own avatars: make, change, wait for, delete."),
    "presets": (".commands.avatars:presets", "The preset avatars that Runway publishes."),
    "voices": (".commands.voices:voices", "Preset and own voices: hear, make, change, delete."),
    "documents": (".commands.documents:documents", "What avatars know."),
    "sessions": (".commands.sessions:app", "Realtime sessions: make, wait for, end."),
    "conversations": (".commands.conversations:app", "Transcripts and recordings."),
    "usage": (".commands.account:usage", "Avatar sessions and seconds, by day."),
    "credits": (".commands.account:credits_used", "Credits used, by day and model."),
    "avatar-videos": (".commands.tasks:videos", "Videos in which an avatar says something."),
    "uploads": (".commands.tasks:uploads", "Files for Runway, kept for 24 hours."),
    "tasks": (".commands.tasks:tasks", "What Runway works on."),
    "wait": (".commands.tasks:wait", "Wait until a task has SUCCEEDED."),
    "request": (".commands.raw:request", "Any call of Runway's API."),
    "token": (".commands.livekit_project:token", "PRINT A TOKEN for a user of your LiveKit."),
    "dispatch": (".commands.livekit_project:dispatch", "Send an agent to a LiveKit room."),
    "doctor": (".doctor.command:doctor", "Check the set-up; --live also the avatar's worker."),
    "serve": (".commands.serve:serve", "Serve sessions to front ends and MCP clients."),
}
"""Where each command is, and what the list of all says of it, in the order of the help. One is
loaded when it is asked for: the models of requests, and HTTP, take longer to load than all else."""


class _Root(TyperGroup):
    """Loads the command that is asked for, takes the global options before and after it, and turns
    errors into one line, or with `--json` into an object."""

    _lists = False
    """While names and summaries are all that is wanted of the commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        if self._lists:
            return TyperCommand(cmd_name, help=_COMMANDS[cmd_name][1], rich_markup_mode=None)
        if cmd_name not in self.commands:
            self.commands[cmd_name] = _load(cmd_name)
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in _COMMANDS:
            return super().resolve_command(ctx, args)
        # Which one may have been meant is picked from the names of what is loaded.
        loaded = self.commands
        with self._listing():
            self.commands = {name: self.get_command(ctx, name) for name in _COMMANDS}
        try:
            return super().resolve_command(ctx, args)
        finally:
            self.commands = loaded

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with self._listing():
            super().format_commands(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        with self._listing():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _listing(self) -> Iterator[None]:
        self._lists = True
        try:
            yield
        finally:
            self._lists = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = args
        front, rest = global_first(args)
        return list(super().parse_args(ctx, [*front, *rest]))

    def invoke(self, ctx: Any) -> Any:
        args = ctx.meta[_ARGUMENTS]
        try:
            return super().invoke(ctx)
        except (RunwayException, KeyboardInterrupt, typer.Abort, MISUSE) as error:
            settings = ctx.find_object(Settings)
            output = Output(wants_json(args)) if settings is None else settings.output
            raise typer.Exit(tell(error, args, output)) from None

    def main(self, args: Any = None, *rest: Any, **extra: Any) -> Any:
        given = sys.argv[1:] if args is None else list(args)
        try:
            code = super().main(args, *rest, **{**extra, "standalone_mode": False})
        except (typer.Abort, MISUSE) as error:  # before there was a command
            code = tell(error, given, Output(wants_json(given)))
        sys.exit(code or ExitCode.OK)


_ARGUMENTS = f"{__name__}.arguments"


def _load(name: str) -> Any:
    """A command, or a group of them, as Typer makes it of those that were added to an app."""
    module, _, attribute = _COMMANDS[name][0].partition(":")
    found = getattr(import_module(module, __package__), attribute)
    holder = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=name)
    else:
        holder.command(name)(found)
    loaded = get_group(holder).commands[name]
    for below, command in getattr(loaded, "commands", {"": loaded}).items():
        command.rich_markup_mode = None  # a group has its own
        if example := EXAMPLES.get(f"{name} {below}".strip()):
            command.epilog = f"Example: {example}"
    return loaded


_EPILOG = "Exit codes: " + ", ".join(f"{code.value} {code.name.lower()}" for code in ExitCode)

app = typer.Typer(
    name="runway-avatar",
    cls=_Root,
    no_args_is_help=True,
    # A traceback with local variables would show keys.
    pretty_exceptions_enable=False,
    # Rich's tables cut off the names of options where a terminal is narrow.
    rich_markup_mode=None,
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
        bool,
        typer.Option(
            "--stage", help="Runway's staging API. [key: RUNWAYML_API_SECRET_STAGE, else the usual]"
        ),
    ] = False,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Another Runway. [env: RUNWAYML_BASE_URL]")
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead of the nearest .env.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Runway Characters for LiveKit agents: check the set-up, look at an account, end sessions.

    The key comes from RUNWAYML_API_SECRET (or RUNWAY_API_KEY), in the environment or in the nearest
    .env, else from `auth set`. The global options may stand before or after the command.
    """
    interrupts_as_exceptions()
    ctx.obj = Settings(Output(as_json), dry_run, "", {})
    variables = load_env_file(env_file)
    address, origin = choose_base_url(base_url, stage, variables)
    settings = Settings(Output(as_json), dry_run, address, variables, origin)
    ctx.obj = replace(settings, output=Output(as_json, _secrets(settings)))


def _secrets(settings: Settings) -> tuple[str, ...]:
    names = (*STAGE_KEY_VARIABLES, *KEY_VARIABLES, *LIVEKIT_VARIABLES[2:])
    found = [settings.variable(name) for name in names]
    with suppress(ConfigurationError):  # which is for the command that needs a kept key to tell
        found.append(settings.key())
    return tuple(variable.value for variable in found if variable is not None)


def quiet_logs(args: Sequence[str]) -> None:
    """The SDK and this package tell an operator much that is no news to somebody at a terminal. And
    with `--json` the one thing on stderr is the error."""
    level = logging.CRITICAL if wants_json(args) else logging.ERROR
    logging.getLogger("livekit").setLevel(level)
