"""What several commands have in common: options, lists, texts from files, and deleting.

What is wrong with a value is said of the option that was typed.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, get_args
from urllib.parse import quote

import typer
from pydantic import ValidationError

from ...errors import ConfigurationError, ProtocolError, RunwayException
from ...runway.models import CustomAvatar, PresetId
from ..calls import Request, account_calls, asking, preview, run, send_list
from ..exits import ExitCode, exit_code
from ..settings import Settings, settings_of

if TYPE_CHECKING:
    from ...runway.account.calls import AccountCalls, Media

_LONGEST_TEXT = 200_000
_DAY, _MOMENT = "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"


def uuid(text: str) -> str:
    """As the ids of avatars are."""
    try:
        return CustomAvatar.model_validate({"avatar_id": text}).avatar_id
    except ValidationError:
        raise typer.BadParameter(f"{text[:80]!r} is no id like {_EXAMPLE}.") from None


_EXAMPLE = "3b1f9f0e-8a57-4a1d-9d0e-0a2b7c9d1e2f"


def day(text: str) -> datetime:
    return _time(text, _DAY)


def moment(text: str) -> datetime:
    return _time(text, _DAY, _MOMENT)


def _time(text: str, *forms: str) -> datetime:
    for form in forms:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    shown = " or ".join(datetime(2026, 8, 31).strftime(form) for form in forms)
    raise typer.BadParameter(f"{text[:80]!r} is not like {shown}.")


def length(most: int) -> Callable[[str | None], str | None]:
    """A text of 1 to so many characters, counted as the models do."""

    def check(text: str | None) -> str | None:
        if text is not None and not 0 < len(text.encode("utf-16-le")) // 2 <= most:
            raise typer.BadParameter(f"1 to {most} characters, this has {len(text)}.")
        return text

    return check


def media(text: str) -> Media:
    """An address or a data URI as it is; anything else is the path of a file."""
    return text if text.startswith(("https://", "runway://", "data:")) else Path(text)


def text_or_file(text: str | None) -> str | None:
    """A text; `@FILE`: what is in that file."""
    if text is None or not text.startswith("@"):
        return text
    from ...runway.account.files import read_text

    return read_text(text[1:], _LONGEST_TEXT).strip()


Preset = Annotated[
    PresetId | None,
    typer.Option(
        metavar="NAME", case_sensitive=False, help=f"One of {', '.join(get_args(PresetId))}."
    ),
]
Avatar = Annotated[
    str | None, typer.Option(metavar="UUID", parser=uuid, help="One of your own avatars.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many. [default: all]")]
Id = Annotated[str, typer.Argument(metavar="ID")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when it is READY, or say why not.")]


@contextmanager
def said_of(options: Mapping[str, str]) -> Iterator[None]:
    """A refusal of the values that were taken from options: it names arguments of Python, and is
    said of the options.

    Args:
        options: by the name of the argument.
    """
    try:
        yield
    except ConfigurationError as error:
        names = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, options))})(?!\w)")
        text = names.sub(lambda found: options[found[0]], error.message)
        raise ConfigurationError(text) from None


Row = Callable[[dict[str, Any]], Sequence[object]]


def show_list(
    ctx: typer.Context,
    request: Request,
    limit: int | None,
    columns: Sequence[str],
    row: Row,
    wanted: Callable[[dict[str, Any]], bool] | None = None,
) -> None:
    """Every page of a list of Runway's; `wanted` picks out of it, where Runway does not."""
    settings = settings_of(ctx)
    entries = run(send_list(settings, request, None if wanted else limit))
    try:
        if wanted is not None:
            entries = [entry for entry in entries if wanted(entry)][:limit]
        if settings.output.as_json:
            settings.output.json(entries)
            return
        rows = [row(entry) for entry in entries]
    except (KeyError, TypeError, AttributeError):
        raise ProtocolError(
            f"Runway described an entry of {request.path} in an unknown way: use --json."
        ) from None
    if rows:
        settings.output.table(columns, rows)
    else:
        settings.output.note("There are none.")


def at(path: str, one: str, method: str = "GET") -> Request:
    """A call about one entry of what is at a path."""
    return Request(method, f"{path}/{quote(one, safe='')}")


def show(settings: Settings, answer: object) -> None:
    """What Runway says of one entry."""
    if settings.output.as_json or not isinstance(answer, dict):
        settings.output.json(answer)
    else:
        settings.output.fields(answer)


class _HasStatus(Protocol):
    @property
    def status(self) -> str: ...


@contextmanager
def waiting(settings: Settings, what: str) -> Iterator[Callable[[_HasStatus], None]]:
    """Says at a terminal what is waited for, and with the function that it gives, its status."""
    with settings.output.busy(what) as busy:
        yield lambda now: busy.update(f"{what}; now it is {now.status}")


def confirm(settings: Settings, question: str, yes: bool) -> None:
    """Ask, unless it was agreed to by `--yes`. A no ends the command; where nobody can be asked,
    that is an error."""
    if yes:
        return
    if settings.output.as_json:
        raise ConfigurationError("With --json nobody is asked: pass --yes.")
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        typer.echo(err=True)  # after the question
        raise ConfigurationError("Nobody is there to be asked: pass --yes.") from None
    if not agreed:
        settings.output.note("Nothing was done.")
        raise typer.Exit(ExitCode.REFUSED)


def delete(
    ctx: typer.Context,
    ids: Sequence[str],
    what: str,
    yes: bool,
    call: Callable[[AccountCalls, str], Awaitable[None]],
    path: str,
) -> None:
    """Delete each of what is at a path, and say what became of it. The exit code is that of the
    first failure."""
    settings = settings_of(ctx)
    ids = list(dict.fromkeys(ids))
    preview(settings, *(at(path, one, "DELETE") for one in ids))
    several = f"these {len(ids)} {what}s" if len(ids) > 1 else f"the {what} {ids[0]}"
    confirm(settings, f"Delete {several}? It cannot be taken back.", yes)
    told_each(settings, "deleted", run(_delete(settings, ids, call)))


async def _delete(
    settings: Settings,
    ids: Sequence[str],
    call: Callable[[AccountCalls, str], Awaitable[None]],
) -> list[tuple[str, RunwayException | None]]:
    outcomes: list[tuple[str, RunwayException | None]] = []
    async with account_calls(settings) as client:
        for one in ids:
            try:
                with asking(settings):
                    await call(client, one)
            except RunwayException as error:
                outcomes.append((one, error))
            else:
                outcomes.append((one, None))
    return outcomes


def told_each(
    settings: Settings, done: str, outcomes: Sequence[tuple[str, RunwayException | None]]
) -> None:
    """A line for each id, or a list as JSON. Ends the command if there was a failure."""
    rows = [{"id": i, done: e is None, "error": e and e.message} for i, e in outcomes]
    if settings.output.as_json:
        settings.output.json(rows)
    else:
        for row in rows:
            settings.output.line(f"{row['id']}  {done if row[done] else row['error']}")
    failure = next((error for _, error in outcomes if error is not None), None)
    if failure is not None:
        raise typer.Exit(exit_code(failure))
