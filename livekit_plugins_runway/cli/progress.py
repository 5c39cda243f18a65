"""What a terminal shows while something takes its time. A pipe gets none of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from .._common.text import one_line


class Busy(Protocol):
    def update(self, text: str) -> None:
        """Say what is being done, or in which state that is which is waited for."""


class _Spinner:
    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=None)

    def update(self, text: str) -> None:
        # A state may be any text that a server gives.
        self._progress.update(self._task, description=one_line(text))


@contextmanager
def waiting(what: str) -> Iterator[Busy]:
    """A line with what is waited for, and for how long it has been."""
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        yield _Spinner(progress, what)


def transfer() -> Progress:
    """Of a file: how much of it, and how fast."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
