"""Runway Characters as the face of a LiveKit voice agent."""

from livekit.agents import Plugin

from .avatar import AvatarSession
from .errors import RunwayException
from .log import logger
from .realtime import SessionEnd
from .recovery import RecoveryOptions
from .state import AvatarState, StateChanged
from .succession import AvatarReplaced, Restarting
from .tool_calls import ToolCall
from .usage import CallUsage
from .version import __version__
from .video import VideoOptions

__all__ = [
    "AvatarReplaced",
    "AvatarSession",
    "AvatarState",
    "CallUsage",
    "RecoveryOptions",
    "Restarting",
    "RunwayException",
    "SessionEnd",
    "StateChanged",
    "ToolCall",
    "VideoOptions",
    "__version__",
]


class RunwayBridgePlugin(Plugin):
    def __init__(self) -> None:
        super().__init__(__name__, __version__, __package__ or __name__, logger)


Plugin.register_plugin(RunwayBridgePlugin())
