"""`request`: any call of Runway's API."""

from __future__ import annotations

import enum
import sys
from typing import Annotated, Any

import typer

from ...errors import ConfigurationError
from ..calls import Request, json_argument, run, send
from ..settings import settings_of
from .checking import check_body


class Method(enum.StrEnum):
    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"


def request(
    ctx: typer.Context,
    method: Annotated[Method, typer.Argument(case_sensitive=False)],
    path: Annotated[str, typer.Argument(help="From /v1/ on, with its query.")],
    data: Annotated[
        str | None, typer.Option("--data", "--body", metavar="JSON", help="The body.")
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="The body comes from stdin.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Send a body only if it is as Runway's schema has it for this path."
        ),
    ] = False,
) -> None:
    """Send any request with the key, and print the JSON of the answer, secrets masked.

    A POST, PUT or PATCH without a body sends {}. A session that is made like this is yours to end:
    `runway-avatar sessions cancel ID`.
    """
    settings = settings_of(ctx)
    # An absolute address, or one that begins with @, would send the key somewhere else.
    if not path.startswith("/v1/"):
        raise ConfigurationError(f"PATH must begin with /v1/, not {path[:60]!r}.")
    if data is not None and stdin:
        raise ConfigurationError("Pass either --data or --stdin, and not both.")
    body: Any = None
    if stdin:
        body = json_argument(sys.stdin.read(), "What came from stdin")
    elif data is not None:
        body = json_argument(data, "--data")
    if body is None and method in (Method.POST, Method.PUT, Method.PATCH):
        body = {}
    if check:
        check_body(method, path, body)
    answer = run(send(settings, Request(method.value, path, body=body)))
    if answer is None:
        settings.output.note("Done; Runway answered without a body.")
    else:
        settings.output.json(answer)
