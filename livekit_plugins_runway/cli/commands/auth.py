"""`auth`: the key, where it comes from, and keeping one."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ...errors import AuthenticationError, ConfigurationError
from ..calls import preview, run, send
from ..credentials import credentials_path, recognizable, store_keys, stored_keys
from ..exits import CredentialsError
from ..settings import Settings, Variable, settings_of
from .account import ORGANIZATION, summary

auth = typer.Typer(
    no_args_is_help=True,
    help="The key. It comes from the environment, else from the nearest .env, else from what `auth "
    "set` has kept for this address.",
)


@auth.command("status")
def status(ctx: typer.Context) -> None:
    """Whether the key is accepted, and what the organization has left. Free of charge."""
    settings = settings_of(ctx)
    preview(settings, ORGANIZATION)
    try:
        answer = run(send(settings, ORGANIZATION))
    except (CredentialsError, AuthenticationError):
        if settings.output.as_json:
            settings.output.json({"authenticated": False, "key": _origin(settings)})
        raise
    if settings.output.as_json:
        known = answer if isinstance(answer, dict) else {}
        settings.output.json({"authenticated": True, "key": _origin(settings), **known})
        return
    found = _origin(settings)
    settings.output.fields(
        {"key": f"accepted ({found['name']} from {found['from']})" if found else None}
        | summary(answer)
    )


@auth.command("set")
def keep(
    ctx: typer.Context,
    check: Annotated[
        bool, typer.Option(help="First see whether Runway accepts it. Free of charge.")
    ] = True,
) -> None:
    """Keep a key for this address (see --stage, --base-url): asked for, or read from a pipe.

    It is in a file that only you can read, and is sent to no other address. Environment and .env go
    before it.
    """
    settings = settings_of(ctx)
    preview(settings, ORGANIZATION)
    if settings.address_origin == ".env":
        raise ConfigurationError(
            "Runway's address is in .env, where somebody else may have put it: to keep a key for "
            f"it, pass --base-url {settings.base_url}"
        )
    kept = stored_keys()
    key = _typed(settings)
    if check:
        run(send(settings, ORGANIZATION, key=key))
    path = store_keys({**kept, settings.base_url: key})
    _told(settings, {"address": settings.base_url, "key": recognizable(key), "file": str(path)})


@auth.command("show")
def show(ctx: typer.Context) -> None:
    """Which key is used for this address, and which ones are kept. Of each the last four
    characters."""
    settings = settings_of(ctx)
    used, kept = settings.key(), stored_keys()
    path = credentials_path()
    described = {
        "address": settings.base_url,
        "key": recognizable(used.value) if used else None,
        "from": _place(used) if used else None,
        "file": str(path) if path else None,
    }
    if settings.output.as_json:
        rows = [{"address": at, "key": recognizable(key)} for at, key in kept.items()]
        settings.output.json({**described, "kept": rows})
        return
    settings.output.fields(described)
    if kept:
        settings.output.line("")
        settings.output.table(
            ["kept for", "key"], [(at, recognizable(key)) for at, key in kept.items()]
        )


@auth.command("clear")
def clear(
    ctx: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Those of all addresses, and the file.")
    ] = False,
) -> None:
    """Forget the key that is kept for this address. Environment and .env stay as they are."""
    settings = settings_of(ctx)
    kept = {} if everything else stored_keys()
    known = everything or kept.pop(settings.base_url, None) is not None
    if known and not settings.dry_run:
        store_keys(kept)
    _told(settings, {"address": None if everything else settings.base_url, "cleared": known})


def _typed(settings: Settings) -> str:
    if not sys.stdin.isatty():
        key = sys.stdin.read().strip()
    elif settings.output.as_json:
        raise ConfigurationError("With --json nobody is asked: pipe the key in.")
    else:
        key = str(typer.prompt(f"Key for {settings.base_url}", hide_input=True, err=True)).strip()
    from ...runway.client import RunwayClient

    RunwayClient(key)  # raises what is wrong with it
    return key


def _told(settings: Settings, values: dict[str, object]) -> None:
    if settings.output.as_json:
        settings.output.json(values)
    else:
        settings.output.fields({name: value for name, value in values.items() if value is not None})


def _origin(settings: Settings) -> dict[str, str] | None:
    key = settings.key()
    return {"name": key.name, "from": key.origin} if key else None


def _place(key: Variable) -> str:
    return f"{key.name}, {key.origin}"
