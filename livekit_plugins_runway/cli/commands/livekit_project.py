"""`token` and `dispatch`: what one needs of a LiveKit project to try an agent by hand."""

from __future__ import annotations

import datetime
import json
import secrets
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import ConfigurationError, RunwayException, UnavailableError
from ..calls import run
from ..exits import CredentialsError
from ..output import HIDDEN
from ..settings import LiveKitProject, Settings, settings_of

if TYPE_CHECKING:
    from livekit import api  # where it is used: it takes longer to load than all the rest

_TIMEOUT = 10.0
Room = Annotated[str, typer.Option(help="Name of the room; it is made if need be.")]
Metadata = Annotated[str | None, typer.Option(help="For the agent's job; often JSON.")]
Url = Annotated[str | None, typer.Option("--livekit-url", help="[env: LIVEKIT_URL]")]


class LiveKitRefusedError(RunwayException):
    """The LiveKit server refused, and what it said."""


def token(
    ctx: typer.Context,
    room: Room,
    identity: Annotated[str | None, typer.Option(help="[default: user- and random digits]")] = None,
    name: Annotated[str | None, typer.Option(help="Display name.")] = None,
    agent: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Dispatch this agent when the token makes the room."),
    ] = None,
    metadata: Metadata = None,
    minutes: Annotated[int, typer.Option(min=1, help="How long it may be used to join.")] = 60,
    url: Url = None,
) -> None:
    """PRINT A TOKEN with which a user joins a room of your LiveKit project. No call is made.

    Needs LIVEKIT_API_KEY and LIVEKIT_API_SECRET. --dry-run shows what would be in it instead.
    With --agent the agent comes when the room is made by this token; if the room exists already,
    use `runway-avatar dispatch`.
    """
    settings = settings_of(ctx)
    if metadata is not None and agent is None:
        raise ConfigurationError("--metadata is for the agent's job: pass --agent, too.")
    from google.protobuf.json_format import MessageToDict
    from livekit import api

    who = identity or f"user-{secrets.token_hex(4)}"
    grants = api.VideoGrants(room_join=True, room=room)
    configuration = None
    if agent is not None:
        job = api.RoomAgentDispatch(agent_name=agent, metadata=metadata or "")
        configuration = api.RoomConfiguration(agents=[job])
    if settings.dry_run:
        settings.output.json(
            {
                "identity": who,
                "name": name or who,
                "grants": {"roomJoin": True, "room": room},
                "roomConfiguration": MessageToDict(configuration) if configuration else None,
                "minutes": minutes,
            }
        )
        return
    access = (
        api.AccessToken(*settings.livekit_keys())
        .with_identity(who)
        .with_name(name or who)
        .with_grants(grants)
        .with_ttl(datetime.timedelta(minutes=minutes))
    )
    if configuration is not None:
        access = access.with_room_config(configuration)
    jwt = access.to_jwt()
    if settings.output.as_json:
        found = settings.variable("LIVEKIT_URL")
        address = url or (found.value if found else None)
        result = {"url": address, "room": room, "identity": who, "token": jwt}
        settings.output.json(result, show_secrets=True)
    else:
        typer.echo(jwt)


def dispatch(
    ctx: typer.Context,
    room: Room,
    agent: Annotated[str, typer.Option(metavar="NAME", help="As its worker registered it.")],
    metadata: Metadata = None,
    url: Url = None,
) -> None:
    """Send an agent to a room of your LiveKit project, now."""
    settings = settings_of(ctx)
    body = {"agentName": agent, "room": room, "metadata": metadata or ""}
    if settings.dry_run:
        _preview(settings, url, body)
        return
    project = settings.livekit_project(url)
    from google.protobuf.json_format import MessageToDict
    from livekit import api

    request = api.CreateAgentDispatchRequest(agent_name=agent, room=room, metadata=metadata or "")
    with settings.output.busy("waiting for the LiveKit server's answer"):
        made = run(_dispatch(project, request))
    if settings.output.as_json:
        settings.output.json(MessageToDict(made))
    else:
        settings.output.line(f"dispatch {made.id}: {made.agent_name} to room {made.room}")


def _preview(settings: Settings, url: str | None, body: dict[str, Any]) -> None:
    found = settings.variable("LIVEKIT_URL")
    address = url or (found.value if found else "$LIVEKIT_URL")
    request = {
        "method": "POST",
        "url": f"{address.replace('ws', 'http', 1) if address.startswith('ws') else address}"
        "/twirp/livekit.AgentDispatchService/CreateDispatch",
        "headers": {"Authorization": f"Bearer {HIDDEN}", "Content-Type": "application/protobuf"},
        "body": body,
    }
    if settings.output.as_json:
        settings.output.json(request)
    else:
        settings.output.line(f"{request['method']} {request['url']}")
        typer.echo(json.dumps(body, indent=2, ensure_ascii=False))


def short_token(project: LiveKitProject, grants: api.VideoGrants) -> str:
    """For one call of the server's API: whoever else gets it has a minute."""
    from livekit import api

    access = api.AccessToken(project.key, project.secret).with_grants(grants)
    return access.with_ttl(datetime.timedelta(minutes=1)).to_jwt()


def refusal(error: api.TwirpError) -> RunwayException:
    """What the server said, and what to do."""
    if error.status in (401, 403):
        return CredentialsError(
            f"The LiveKit server did not accept the key (HTTP {error.status}): check that "
            "LIVEKIT_API_KEY and LIVEKIT_API_SECRET belong to LIVEKIT_URL."
        )
    # Where an answer holds no error of LiveKit's, its SDK takes it for an unknown one.
    if error.code == "unknown" and not error.message.strip():
        return UnavailableError(
            f"What is at LIVEKIT_URL answered with HTTP {error.status}, and not as a LiveKit "
            "server does: check the address."
        )
    return LiveKitRefusedError(
        f"The LiveKit server refused ({error.code}): {error.message.rstrip('.')}."
    )


async def _dispatch(
    project: LiveKitProject, request: api.CreateAgentDispatchRequest
) -> api.AgentDispatch:
    import aiohttp
    from livekit import api

    from ..._common.http import new_session

    limit = aiohttp.ClientTimeout(total=_TIMEOUT)
    token = short_token(project, api.VideoGrants(room_admin=True, room=request.room))
    try:
        async with (
            new_session(timeout=limit) as http,
            api.LiveKitAPI(project.url, token=token, session=http) as livekit,
        ):
            return await livekit.agent_dispatch.create_dispatch(request)
    except api.TwirpError as error:
        raise refusal(error) from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnavailableError(
            f"The LiveKit server was not reached ({type(error).__name__}): check LIVEKIT_URL."
        ) from None
