"""How an error, or Ctrl-C, reaches the user: a line on stderr, or an object with `--json`, and an
exit code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any

import typer

from ..errors import RunwayException
from .examples import EXAMPLES
from .exits import ExitCode, exit_code
from .output import Output

GLOBAL_FLAGS = {"--json", "--dry-run", "--stage"}
GLOBAL_VALUES = {"--base-url", "--env-file"}
_WAYS_OUT = {
    ExitCode.AUTH: "runway-avatar auth status",
    ExitCode.LIMIT: "runway-avatar auth status",
    ExitCode.NETWORK: "runway-avatar doctor",
    ExitCode.TIMEOUT: "runway-avatar doctor",
    ExitCode.SERVER: "runway-avatar doctor",
}
"""What to call next, where a call of the same command would not help."""

MISUSE: Any = typer.BadParameter.__mro__[2]
"""What Typer raises for arguments that it does not take. Typer has the class from click, up to 0.20
or so as a package, then as a private part of its own, and gives it no public name."""


def interrupts_as_exceptions() -> None:
    """Ctrl-C as an exception, for a command that may have something to tidy up: undoes what the
    entry point has done for the time of the imports. Elsewhere (in a test, in a program that calls
    the app) nothing was done, and nothing is."""
    is_ours = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    if is_ours and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def global_first(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The global options, and the rest. What follows `--` is no option."""
    end = args.index("--") if "--" in args else len(args)
    front, rest = [], []
    waiting = False
    for arg in args[:end]:
        if waiting or arg in GLOBAL_FLAGS or arg.split("=")[0] in GLOBAL_VALUES:
            front.append(arg)
            waiting = not waiting and arg in GLOBAL_VALUES
        else:
            rest.append(arg)
    return front, [*rest, *args[end:]]


def wants_json(args: Sequence[str]) -> bool:
    return "--json" in global_first(args)[0]


def tell(error: BaseException, args: Sequence[str], output: Output) -> ExitCode:
    """Say what went wrong with a command line, and how the process ends."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        if output.as_json:
            output.error("Interrupted.", ExitCode.INTERRUPTED, _example(args))
        return ExitCode.INTERRUPTED
    if isinstance(error, RunwayException):
        code = exit_code(error)
        output.error(error.message, code, _WAYS_OUT.get(code) or _example(args))
        return code
    return _tell_misuse(error, args, output)


def _tell_misuse(error: Any, args: Sequence[str], output: Output) -> ExitCode:
    text = error.format_message().replace("Value error, ", "")  # pydantic's
    context = getattr(error, "ctx", None)
    if output.as_json:
        # Where nothing was asked for, Typer's text is the whole help.
        is_help = context is not None and text == context.get_help()
        output.error("Missing command." if is_help else text, ExitCode.USAGE, _example(args))
    elif not text or (context is not None and text == context.get_help()):
        typer.echo(text, err=True)
    else:
        output.error(text, ExitCode.USAGE, None)
        if context is not None:
            typer.echo(context.get_usage(), err=True)
        if example := _example(args):
            typer.echo(f"Example: {example}", err=True)
    return ExitCode.USAGE


def _example(args: Sequence[str]) -> str | None:
    words = global_first(args)[1]
    return EXAMPLES.get(" ".join(words[:2])) or EXAMPLES.get(" ".join(words[:1]))
