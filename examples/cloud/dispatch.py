"""Two ways to send the agent to a user. Needs LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET.

python dispatch.py now ROOM            explicitly, to a room that exists or not yet
python dispatch.py token ROOM USER     by the token that a user joins with
"""

import asyncio
import json
import sys

from livekit import api

AGENT_NAME = "runway-cloud-agent"


async def now(room: str, **metadata: str) -> None:
    """Send the agent at once. If no worker is registered, the call succeeds, but the dispatch is
    lost: if no agent has joined after 10 s, call it again.
    """
    async with api.LiveKitAPI() as livekit:
        await livekit.agent_dispatch.create_dispatch(
            api.CreateAgentDispatchRequest(
                agent_name=AGENT_NAME, room=room, metadata=json.dumps(metadata)
            )
        )


def token(room: str, user: str, **metadata: str) -> str:
    """A user's token whose room configuration dispatches the agent if the user is the first in the
    room. Make it on your server, because the API key can make any token.
    """
    dispatch = api.RoomAgentDispatch(agent_name=AGENT_NAME, metadata=json.dumps(metadata))
    return (
        api.AccessToken()
        .with_identity(user)
        .with_grants(api.VideoGrants(room_join=True, room=room))
        .with_room_config(api.RoomConfiguration(agents=[dispatch]))
        .to_jwt()
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["now", room]:
            asyncio.run(now(room))
        case ["token", room, user]:
            print(token(room, user))
        case _:
            sys.exit(__doc__)
