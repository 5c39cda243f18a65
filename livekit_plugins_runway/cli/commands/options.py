"""Options that several commands have. What is wrong with a value is said of the option that was
typed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, get_args

import typer
from pydantic import ValidationError

from ...errors import ConfigurationError
from ...runway.models import CustomAvatar, PresetId

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


Preset = Annotated[
    PresetId | None,
    typer.Option(
        metavar="NAME", case_sensitive=False, help=f"One of {', '.join(get_args(PresetId))}."
    ),
]
Avatar = Annotated[
    str | None, typer.Option(metavar="UUID", parser=uuid, help="One of your own avatars.")
]


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
        names = re.compile(rf"\b({'|'.join(map(re.escape, options))})\b")
        text = names.sub(lambda found: options[found[0]], error.message)
        raise ConfigurationError(text) from None
