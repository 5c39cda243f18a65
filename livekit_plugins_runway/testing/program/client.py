"""The commands that talk to a simulator that runs as a program."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from .control import PATH

_ANSWER_SECONDS = 30.0
"""For an answer, beside what it is asked to wait."""


class Failed(Exception):
    """What went wrong, on one line."""


def run(arguments: Namespace) -> None:
    """Carry out one command and print the answer, as JSON.

    Raises:
        Failed: there is no simulator, or it refused.
    """
    method, path, body, wait = _call(arguments)
    if not arguments.simulator:
        raise Failed("name the simulator: --simulator URL, or RUNWAYML_BASE_URL")
    answer = asyncio.run(_send(arguments, method, path, body, wait))
    print(json.dumps(answer, indent=2))


def _call(arguments: Namespace) -> tuple[str, str, Any, float]:
    """Method, path, body, and seconds that the answer may take by itself."""
    match arguments.command:
        case "show":
            what = arguments.what
            if what == "requests" and arguments.after:
                what += f"?after={arguments.after}"
            return "GET", "" if what == "summary" else f"/{what}", None, 0.0
        case "fill":
            return "PUT", "/account", _json(_text(arguments.file), arguments.file), 0.0
        case "fault" if arguments.account:
            return "PUT", "/account/faults", _json(arguments.faults, "FAULTS"), 0.0
        case "fault":
            query = f"?session={quote(arguments.session, safe='')}"
            return "PUT", f"/faults{query}", _json(arguments.faults, "FAULTS"), 0.0
        case "do":
            body = _json(arguments.with_json or "{}", "--with")
            action = arguments.action.replace("-", "_")
            return "POST", f"/sessions/{quote(arguments.session, safe='')}/{action}", body, 60.0
        case _:
            query = f"?status={arguments.status}&timeout={arguments.timeout}"
            session = quote(arguments.session, safe="")
            return "GET", f"/sessions/{session}{query}", None, float(arguments.timeout)


async def _send(arguments: Namespace, method: str, path: str, body: Any, wait: float) -> Any:
    url = arguments.simulator.rstrip("/") + PATH + path
    token = arguments.control_token
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS + wait)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.request(method, url, json=body, headers=headers) as answer,
        ):
            content = await answer.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Failed(
            f"no simulator answers at {arguments.simulator} ({type(error).__name__}); it is "
            "controlled if it was started with python -m livekit_plugins_runway.testing"
        ) from None
    if answer.status >= 400:
        why = content.get("error") if isinstance(content, dict) else None
        raise Failed(str(why or f"the simulator answered HTTP {answer.status}"))
    return content


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"cannot read {file}: {error}") from None


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Failed(f"{what} is not valid JSON: {error}") from None
