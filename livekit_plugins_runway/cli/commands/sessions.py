"""`sessions`: make, look at, wait for and end realtime sessions."""

from __future__ import annotations

import asyncio
import enum
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from ...errors import ConfigurationError, RunwayException, SessionFailedError, TimedOutError
from ...runway.journal.records import Entry, made_with, same_address
from ...runway.journal.sweep import Sweep, Swept, look
from ...runway.journal.writer import VARIABLE, journal_folder
from ...runway.models import (
    TERMINAL_STATES,
    CreateRealtimeSession,
    Failed,
    RealtimeSessionState,
)
from ...runway.requests import realtime_request
from ..calls import Request, ask, asking, json_argument, preview, run, runway, send
from ..exits import ExitCode, exit_code
from ..settings import Settings, settings_of
from .common import Avatar, Preset, length, said_of, told_each

if TYPE_CHECKING:
    from ...runway.client import RunwayClient
    from ...runway.session import RealtimeSession
    from ..progress import Busy

PATH = "/v1/realtime_sessions"
_END_POLL = 2.0

app = typer.Typer(
    no_args_is_help=True,
    help="Realtime sessions. Runway has no call that lists the live ones: keep the ids. `sweep` "
    "ends those of killed processes.",
)

SessionId = Annotated[str, typer.Argument(metavar="ID", help="Id of the session.")]


class Until(enum.StrEnum):
    READY = "ready"
    ENDED = "ended"


@app.command("create")
def create(
    ctx: typer.Context,
    preset: Preset = None,
    avatar: Avatar = None,
    max_duration: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS", min=10, max=1800, help="10 to 1800. [Runway's default: 300]"
        ),
    ] = None,
    personality: Annotated[
        str | None, typer.Option(callback=length(10_000), help="Instead of the avatar's own.")
    ] = None,
    start_script: Annotated[
        str | None, typer.Option(callback=length(2_000), help="What it says first.")
    ] = None,
    tools: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON list of Runway tools.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is READY.")] = False,
    consume: Annotated[
        bool,
        typer.Option(
            "--consume",
            help="Wait, then take the one-time credentials of its room and PRINT THEM: url, token "
            "and roomName. From then on it bills.",
        ),
    ] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for READY.")] = 60.0,
    again: Annotated[
        int,
        typer.Option(
            "--retry-on-internal-error",
            metavar="TIMES",
            min=0,
            max=5,
            help="While waiting: make another where one FAILED by Runway's own fault (INTERNAL).",
        ),
    ] = 0,
) -> None:
    """Make a session and print it as JSON. It is yours to end: `sessions cancel ID`.

    A session that nobody consumes dies by itself about 21 seconds after READY, unbilled. If
    waiting or consuming fails, or you press Ctrl-C, it is ended here.
    """
    settings = settings_of(ctx)
    with said_of({"avatar_id": "--avatar", "preset_id": "--preset", "tools": f"--tools {tools}"}):
        request = realtime_request(
            avatar, preset, max_duration, personality, start_script, _tools(tools)
        )
    if again and not (wait or consume):
        raise ConfigurationError("--retry-on-internal-error is for --wait and --consume.")
    if wait or consume:
        follow = "; then GET until READY" + ("; then POST .../consume" if consume else "")
        if settings.dry_run:
            settings.output.note(f"First the create call{follow}.")
    preview(settings, Request("POST", PATH, body=request.wire()))
    result = run(_create(settings, request, wait or consume, consume, timeout, again))
    settings.output.json(result, show_secrets=consume)


async def _create(
    settings: Settings,
    request: CreateRealtimeSession,
    wait: bool,
    consume: bool,
    timeout: float,
    again: int = 0,
) -> dict[str, Any]:
    """Makes up to `again` others where Runway's own fault ends one."""
    from ...runway.session import RealtimeSession  # with HTTP

    async with runway(settings) as client:
        while True:
            session = RealtimeSession(client, request)
            try:
                return await _try(settings, session, wait, consume, timeout)
            except SessionFailedError as error:
                if again == 0 or not error.failure_code.startswith("INTERNAL"):
                    raise
                again -= 1
                settings.output.note(f"{error.message} Another one is made.")


async def _try(
    settings: Settings, session: RealtimeSession, wait: bool, consume: bool, timeout: float
) -> dict[str, Any]:
    with asking(settings):
        await session.create()
    if not wait:
        return {"id": session.id}
    try:
        settings.output.note(f"session {session.id}")
        with settings.output.busy(_waits("NOT_READY")) as busy:
            ready = await session.wait_until_ready(timeout, _tell_queued(busy))
        if not consume:
            return {"id": session.id, "status": ready.status, "expiresAt": ready.expires_at}
        credentials = await session.consume(ready)
    except BaseException:
        # Also when interrupted: nobody else would end it.
        end = await session.end()
        settings.output.note(
            "The session was ended."
            if end.confirmed
            else f"It may still bill: runway-avatar sessions cancel {session.id}"
        )
        raise
    return {
        "id": session.id,
        "url": credentials.url,
        "token": credentials.token.get_secret_value(),
        "roomName": credentials.room_name,
    }


def _waits(state: str, until: Until = Until.READY) -> str:
    return f"waiting until it is {until}; now it is {state}"


def _tell_queued(busy: Busy) -> Callable[[bool], None]:
    def tell(queued: bool) -> None:
        busy.update(_waits("NOT_READY, queued for capacity" if queued else "NOT_READY"))

    return tell


def _tools(path: Path | None) -> list[Any] | None:
    if path is None:
        return None
    found = json_argument(_read(path, "--tools"), f"--tools {path}")
    if not isinstance(found, list):
        raise ConfigurationError(f"--tools {path} must hold a JSON list.")
    return found


@app.command("get")
def get(ctx: typer.Context, session_id: SessionId) -> None:
    """The present state of a session. Its session key is masked."""
    settings = settings_of(ctx)
    _show(settings, run(send(settings, _state_request(session_id))))


@app.command("wait")
def wait(
    ctx: typer.Context,
    session_id: SessionId,
    until: Annotated[
        Until, typer.Option("--for", case_sensitive=False, help="What to wait for.")
    ] = Until.READY,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds.")] = 60.0,
) -> None:
    """Wait until a session is READY, or has ended, and print its state."""
    settings = settings_of(ctx)
    preview(settings, _state_request(session_id))
    state = run(_wait(settings, session_id, until, timeout))
    _show(settings, state.model_dump(by_alias=True, mode="json"))
    if isinstance(state, Failed):
        raise typer.Exit(ExitCode.REFUSED)


async def _wait(
    settings: Settings, session_id: str, until: Until, timeout: float
) -> RealtimeSessionState:
    async with runway(settings) as client:
        with settings.output.busy(f"waiting until it is {until}") as busy:
            if until is Until.READY:
                return await client.wait_until_ready(
                    session_id, timeout=timeout, on_queued=_tell_queued(busy)
                )
            return await _until_ended(client, session_id, timeout, busy)


async def _until_ended(
    client: RunwayClient, session_id: str, timeout: float, busy: Busy
) -> RealtimeSessionState:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        state = await client.get(session_id)
        if isinstance(state, TERMINAL_STATES):
            return state
        busy.update(_waits(state.status, Until.ENDED))
        if (left := deadline - loop.time()) <= 0:
            raise TimedOutError(
                f"The session had not ended after {timeout:g} s; it is {state.status}. "
                f"To end it: runway-avatar sessions cancel {session_id}"
            )
        await asyncio.sleep(min(_END_POLL, left))


@app.command("cancel")
def cancel(
    ctx: typer.Context,
    session_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...")] = None,
    all_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also those in a file, or in stdin (-): an id a line, or what `create` prints.",
        ),
    ] = None,
) -> None:
    """End sessions at once. What was running becomes CANCELLED, without transcript or recording.

    Harmless for those that have ended. All are tried; the exit code is that of the first failure.
    """
    settings = settings_of(ctx)
    ids = [*(session_ids or []), *(_ids_in(all_from) if all_from is not None else [])]
    if not ids:
        raise ConfigurationError("No session to end: pass ids, or --all-from FILE.")
    ids = list(dict.fromkeys(ids))
    preview(settings, *(_end_request(session_id) for session_id in ids))
    told_each(settings, "ended", run(_cancel(settings, ids)))


async def _cancel(settings: Settings, ids: list[str]) -> list[tuple[str, RunwayException | None]]:
    outcomes: list[tuple[str, RunwayException | None]] = []
    async with runway(settings) as client:
        with asking(settings):
            for session_id in ids:
                try:
                    await ask(client, _end_request(session_id))
                except RunwayException as error:
                    outcomes.append((session_id, error))
                else:
                    outcomes.append((session_id, None))
    return outcomes


@app.command("sweep")
def sweep(ctx: typer.Context) -> None:
    """End the sessions that killed processes on this machine have left.

    Agents and `serve` write down what they make, and do the same at each start. What a living
    process has is not touched. All are tried; the exit code is that of the first failure.
    """
    settings = settings_of(ctx)
    folder = journal_folder()
    if folder is None:
        raise ConfigurationError(f"There is no journal to sweep: see {VARIABLE}.")
    if settings.dry_run:
        preview(settings, *(_end_request(e.session_id) for e in _sweepable(settings, folder)))
    found = run(_sweep(settings, folder))
    if settings.output.as_json:
        settings.output.json([_swept_row(swept) for swept in found])
    elif not found:
        settings.output.note("There are none.")
    for swept in found if not settings.output.as_json else []:
        told = swept.error.message if swept.error is not None else _OUTCOMES[swept.outcome]
        settings.output.line(f"{swept.entry.session_id}  {told}")
    failure = next((swept.error for swept in found if swept.error is not None), None)
    if failure is not None:
        raise typer.Exit(exit_code(failure))


_OUTCOMES = {
    "ended": "ended",
    "other key": "left: made with another key, or at another address",
    "expired": "forgotten: Runway has ended it long ago",
}


async def _sweep(settings: Settings, folder: Path) -> list[Swept]:
    async with runway(settings) as client:
        with settings.output.busy("ending what was left"):
            key = settings.runway_key()
            return await Sweep(key, settings.base_url, client.delete).run(folder)


def _sweepable(settings: Settings, folder: Path) -> list[Entry]:
    """What would be ended, as far as that can be told without a key."""
    key = settings.key()
    found = [entry for entry in look(folder) if entry.api == same_address(settings.base_url)]
    return [e for e in found if key is None or made_with(e, key.value, settings.base_url)]


def _swept_row(swept: Swept) -> dict[str, Any]:
    return {
        "id": swept.entry.session_id,
        "outcome": swept.outcome,
        "error": swept.error and swept.error.message,
        "madeAt": swept.entry.made_at,
    }


def _ids_in(path: Path) -> list[str]:
    text = sys.stdin.read() if str(path) == "-" else _read(path, "--all-from")
    try:
        known = json.loads(text)
    except ValueError:
        lines = (line.strip() for line in text.splitlines())
        return [_id_of(line, path) for line in lines if line and not line.startswith("#")]
    entries = known if isinstance(known, list) else [known]
    return [_id_of(entry, path) for entry in entries]


def _id_of(entry: Any, path: Path) -> str:
    if isinstance(entry, str) and entry.startswith("{"):
        entry = json_argument(entry, f"A line of {path}")
    if isinstance(entry, dict):
        entry = entry.get("id")
    if not isinstance(entry, str) or len(entry.split()) != 1:
        raise ConfigurationError(f"{path}: every line must be one session id; nothing was ended.")
    return entry


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{option} {path} cannot be read ({type(error).__name__})."
        ) from None


def _state_request(session_id: str) -> Request:
    return Request("GET", f"{PATH}/{quote(session_id, safe='')}")


def _end_request(session_id: str) -> Request:
    return Request("DELETE", f"{PATH}/{quote(session_id, safe='')}")


def _show(settings: Settings, state: Any) -> None:
    if settings.output.as_json or not isinstance(state, dict):
        settings.output.json(state)
    else:
        shown = {name: value for name, value in state.items() if name != "sessionKey"}
        settings.output.fields(shown)
