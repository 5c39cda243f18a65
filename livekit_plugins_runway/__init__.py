"""Runway Characters as the face of a LiveKit voice agent."""

from livekit.agents import Plugin

from .avatar import AvatarSession
from .errors import RunwayException
from .events import (
    AvatarReplaced,
    AvatarState,
    CallUsage,
    Restarting,
    SessionEnd,
    StateChanged,
    ToolCall,
)
from .lifecycle.recovery import RecoveryOptions
from .log import logger
from .media.video import VideoOptions
from .version import __version__

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
