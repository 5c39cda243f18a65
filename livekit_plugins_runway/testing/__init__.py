"""A Runway on this machine: for tests, demos and your own CI."""

from .options import CallFault, Faults, SimulatorOptions, Speech, WorkerManners
from .simulator.account import SimulatedAccount
from .simulator.rest import RecordedRequest
from .simulator.service import RunwaySimulator
from .simulator.session import SessionStatus, SimulatedSession
from .worker.performance import HeardSegment, Performance

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
    "WorkerManners",
]
