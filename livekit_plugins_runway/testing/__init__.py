"""A Runway on this machine: for tests, demos and your own CI."""

from .account import SimulatedAccount
from .options import CallFault, Faults, SimulatorOptions, Speech
from .performance import HeardSegment, Performance
from .rest import RecordedRequest
from .session import SessionStatus, SimulatedSession
from .simulator import RunwaySimulator

__all__ = [
    "CallFault",
    "Faults",
    "HeardSegment",
    "Performance",
    "RecordedRequest",
    "RunwaySimulator",
    "SessionStatus",
    "SimulatedAccount",
    "SimulatedSession",
    "SimulatorOptions",
    "Speech",
]
