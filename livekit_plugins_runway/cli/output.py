"""What is printed: results on stdout, everything else on stderr, secrets nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._common.text import one_line

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
        as_json: results as JSON instead of tables.
        secrets: texts that are never printed, wherever they come from.
    """

    as_json: bool
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def json(self, value: Any, *, show_secrets: bool = False) -> None:
        """A result. `show_secrets` only where they are what the user has asked for."""
        shown = value if show_secrets else masked(value, self.secrets)
        typer.echo(json_text(shown, 2))

    def json_line(self, value: Any) -> None:
        """One of several results."""
        typer.echo(json_text(masked(value, self.secrets)))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(self._clean(cell), overflow="fold") for cell in row))
        _stdout().print(table)

    def fields(self, values: Mapping[str, object]) -> None:
        """One thing, a line for each of its properties."""
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, value in values.items():
            table.add_row(
                Text(self._clean(name), style="bold"), Text(self._clean(value), overflow="fold")
            )
        _stdout().print(table)

    def line(self, text: str) -> None:
        """A result of one line."""
        typer.echo(self._clean(text))

    def note(self, text: str) -> None:
        """Something beside the result."""
        _stderr().print(Text(self._clean(text)))

    def error(self, text: str, code: int, kind: str) -> None:
        if self.as_json:
            problem = {"error": {"kind": kind, "message": self._clean(text), "exit_code": code}}
            typer.echo(json_text(problem), err=True)
        else:
            typer.echo(f"Error: {self._clean(text)}", err=True)

    def busy(self, what: str) -> AbstractContextManager[Any]:
        """Shows on a terminal that something takes its time."""
        return _stderr().status(Text(what))

    def _clean(self, value: object) -> str:
        return printable(masked(str(value) if value is not None else None, self.secrets))


def _stdout() -> Console:
    # Made anew: it keeps the stream that it found. A pipe gets lines of any length.
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)
