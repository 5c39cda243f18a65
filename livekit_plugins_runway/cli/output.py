"""What is printed: results on stdout, everything else on stderr, secrets nowhere."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._common.text import one_line

if TYPE_CHECKING:
    from .progress import Busy

HIDDEN = "***"
_SECRET_FIELDS = frozenset(
    {
        "accesstoken",
        "apikey",
        "apisecret",
        "authorization",
        "password",
        "secret",
        "sessionkey",
        "signedurl",
        "token",
    }
)
"""Without `_` and `-`, in small letters."""


def masked(value: Any, secrets: Iterable[str] = ()) -> Any:
    """The same JSON without secrets: what is in a field of such a name, and `secrets` anywhere."""
    known = [secret for secret in secrets if secret]

    def visit(item: Any) -> Any:
        match item:
            case dict():
                return {name: _shown(name, inner, visit) for name, inner in item.items()}
            case list() | tuple():
                return [visit(inner) for inner in item]
            case str():
                for secret in known:
                    item = item.replace(secret, HIDDEN)
                return item
            case _:
                return item

    return visit(value)


def _shown(name: object, value: object, visit: Callable[[Any], Any]) -> Any:
    """Of a secret the scheme of an `Authorization` header, which is none."""
    if not (_is_secret(name) and isinstance(value, str)):
        return visit(value)
    scheme, space, _ = value.partition(" ")
    return f"{scheme} {HIDDEN}" if space and scheme in ("Bearer", "Basic") else HIDDEN


def _is_secret(name: object) -> bool:
    return str(name).lower().replace("_", "").replace("-", "") in _SECRET_FIELDS


def json_text(value: Any, indent: int | None = None) -> str:
    """As JSON that any terminal may be shown: what it could take for more than text is escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def printable(value: object) -> str:
    """One line for a terminal: what came from elsewhere may hold control sequences."""
    return one_line("-" if value is None else str(value))


@dataclass(frozen=True)
class Output:
    """Where a command prints.

    Args:
        as_json: results as JSON instead of tables, and nothing on stderr but an error.
        secrets: texts that are never printed, wherever they come from.
    """

    as_json: bool
    secrets: tuple[str, ...] = field(default=(), repr=False)
    _notes: list[str] = field(default_factory=list, repr=False)
    """With `as_json`: what was said beside the result, for an error to take along."""

    def json(self, value: Any, *, show_secrets: bool = False) -> None:
        """A result. `show_secrets` only where they are what the user has asked for."""
        shown = value if show_secrets else masked(value, self.secrets)
        typer.echo(json_text(shown, 2))

    def json_line(self, value: Any) -> None:
        """One of several results."""
        typer.echo(json_text(masked(value, self.secrets)))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A line for each row, whose first cell names it. Where a terminal is too narrow for that,
        a cell with blanks goes on in the next line; and where it is so narrow that ids would break,
        each row is a block."""
        cells = [[self._clean(cell) for cell in row] for row in rows]
        console = _stdout()
        table = Table(box=None, pad_edge=False, header_style="bold")
        needed = -_GAP
        for at, name in enumerate(columns):
            inside = [row[at] for row in cells]
            whole = max(map(cell_len, [name, *inside]), default=0)
            wraps = console.is_terminal and at > 0 and any(" " in cell for cell in inside)
            needed += _GAP + (min(whole, _NARROWEST) if wraps else whole)
            table.add_column(Text(name), no_wrap=not wraps, overflow="fold")
        if console.is_terminal and needed > console.width:
            for row in cells:
                self._line(console, Text(row[0], style="bold"))
                for name, cell in zip(columns[1:], row[1:], strict=True):
                    self._line(console, Text(f"  {name}: {cell}"))
            return
        for row in cells:
            table.add_row(*map(Text, row))
        with console.capture() as printed:
            console.print(table)
        for line in printed.get().splitlines():
            typer.echo(line.rstrip())

    def fields(self, values: Mapping[str, object]) -> None:
        """One thing, a line for each of its properties, however long that is."""
        console = _stdout()
        shown = {self._clean(name): self._clean(_flat(value)) for name, value in values.items()}
        width = max(map(cell_len, shown), default=0) + _GAP
        for name, value in shown.items():
            blanks = " " * (width - cell_len(name))
            self._line(console, Text.assemble((name, "bold"), blanks, value))

    def line(self, text: str) -> None:
        """A result of one line."""
        typer.echo(self._clean(text))

    def note(self, text: str) -> None:
        """Something beside the result."""
        if self.as_json:
            self._notes.append(self._clean(text))
        else:
            self._line(Console(stderr=True, highlight=False), Text(self._clean(text)))

    def error(self, text: str, code: enum.IntEnum, example: str | None) -> None:
        """Args:
        code: the exit code; its name is the kind of the error.
        example: a call that works, or that says more.
        """
        if not self.as_json:
            typer.echo(f"Error: {self._clean(text)}", err=True)
            return
        problem: dict[str, Any] = {
            "kind": code.name.lower(),
            "message": self._clean(text),
            "exit_code": int(code),
        }
        if example:
            problem["example"] = example
        if self._notes:
            problem["notes"] = self._notes
        typer.echo(json_text({"error": problem}), err=True)

    def busy(self, what: str) -> AbstractContextManager[Busy]:
        """Shows on a terminal that something takes its time, how long it has taken, and what was
        said last of how far it is."""
        from .progress import waiting  # with more of Rich than tables need

        return waiting(self._clean(what))

    def _clean(self, value: object) -> str:
        return printable(masked(str(value) if value is not None else None, self.secrets))

    @staticmethod
    def _line(console: Console, text: Text) -> None:
        """The terminal breaks it: what is copied from there is whole."""
        console.print(text, soft_wrap=True)


def _flat(value: object) -> object:
    """Lists and objects on one line, and not as Python writes them."""
    match value:
        case list() if all(isinstance(inner, str) for inner in value):
            return ", ".join(value) or None
        case bool() | list() | dict():
            return json_text(masked(value))
        case _:
            return value


_GAP = 2
_NARROWEST = 12
"""Columns of a terminal that a text with blanks is not made narrower than."""


def _stdout() -> Console:
    # Made anew: it keeps the stream that it found. A pipe gets lines of any length.
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_ANY_LENGTH)


_ANY_LENGTH = 1_000_000
