"""A video avatar from Runway Characters for a LiveKit voice agent.

Importing this package loads nothing else; each name below is loaded when it is first used. So
errors, client and command line need neither the framework nor media. If `livekit.agents` is loaded
already, as in an agent's process, everything is loaded at once.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .avatar import AvatarSession
    from .errors import RunwayException
    from .events import (
        AvatarReplaced,
        AvatarState,
        CallUsage,
        PlayoutForced,
        Restarting,
        SessionEnd,
        StateChanged,
        ToolCall,
        TransportChanged,
    )
    from .lifecycle.recovery import RecoveryOptions
    from .media.video import VideoOptions
    from .playout.ports import PlayoutStats
    from .runway.account.answers import (
        AvatarInfo,
        CreditUsage,
        DocumentInfo,
        TaskInfo,
        VoiceInfo,
        VoicePreview,
    )
    from .runway.account.requests import PresetVoice
    from .runway.client import RunwayClient
    from .runway.models import (
        ArrayItems,
        ArrayParameter,
        BackendRpcTool,
        BooleanParameter,
        ClientEventTool,
        IntegerParameter,
        NumberParameter,
        ObjectParameter,
        StringParameter,
        Tool,
    )
    from .transport.auto.learned import LearnedTransports
    from .transport.participant_options import ParticipantOptions, TokenRequest

__version__ = "0.1.0"

__all__ = [
    "ArrayItems",
    "ArrayParameter",
    "AvatarInfo",
    "AvatarReplaced",
    "AvatarSession",
    "AvatarState",
    "BackendRpcTool",
    "BooleanParameter",
    "CallUsage",
    "ClientEventTool",
    "CreditUsage",
    "DocumentInfo",
    "IntegerParameter",
    "LearnedTransports",
    "NumberParameter",
    "ObjectParameter",
    "ParticipantOptions",
    "PlayoutForced",
    "PlayoutStats",
    "PresetVoice",
    "RecoveryOptions",
    "Restarting",
    "RunwayClient",
    "RunwayException",
    "SessionEnd",
    "StateChanged",
    "StringParameter",
    "TaskInfo",
    "TokenRequest",
    "Tool",
    "ToolCall",
    "TransportChanged",
    "VideoOptions",
    "VoiceInfo",
    "VoicePreview",
    "__version__",
]

_MODULES = {
    "avatar": ["AvatarSession"],
    "errors": ["RunwayException"],
    "events": [
        "AvatarReplaced",
        "AvatarState",
        "CallUsage",
        "PlayoutForced",
        "Restarting",
        "SessionEnd",
        "StateChanged",
        "ToolCall",
        "TransportChanged",
    ],
    "lifecycle.recovery": ["RecoveryOptions"],
    "media.video": ["VideoOptions"],
    "playout.ports": ["PlayoutStats"],
    "runway.account.answers": [
        "AvatarInfo",
        "CreditUsage",
        "DocumentInfo",
        "TaskInfo",
        "VoiceInfo",
        "VoicePreview",
    ],
    "runway.account.requests": ["PresetVoice"],
    "runway.client": ["RunwayClient"],
    "runway.models": [
        "ArrayItems",
        "ArrayParameter",
        "BackendRpcTool",
        "BooleanParameter",
        "ClientEventTool",
        "IntegerParameter",
        "NumberParameter",
        "ObjectParameter",
        "StringParameter",
        "Tool",
    ],
    "transport.auto.learned": ["LearnedTransports"],
    "transport.participant_options": ["ParticipantOptions", "TokenRequest"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_SUBMODULES = ("avatar", "errors", "events")
"""Submodules that are attributes, too, so that `import livekit_plugins_runway as runway;
runway.errors` works.
"""


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
        return value
    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})


if "livekit.agents" in sys.modules:
    # Now, and not in a job: the plugin must register on the main thread, and loading it in a job
    # would block that job's event loop.
    import_module(".avatar", __name__)
