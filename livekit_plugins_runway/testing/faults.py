"""Assigns faults to sessions: ordered by a test, consumed by the simulator."""

from __future__ import annotations

from collections import deque

from .options import CallFault, CallName, Faults


class ActiveFaults:
    """The faults of one session, and how much of them is left."""

    def __init__(self, faults: Faults) -> None:
        self.switch(faults)

    def switch(self, faults: Faults) -> None:
        """Replace them, from now on."""
        self.settings = faults
        self._calls: dict[CallName, deque[int | CallFault]] = {
            "create": deque(faults.create),
            "get": deque(faults.get),
            "delete": deque(faults.delete),
            "consume": deque(faults.consume),
            "connect_backend": deque(faults.connect_backend),
        }
        self._lost = faults.lost_playback_finished
        self._duplicated = faults.duplicate_playback_finished

    def next_call(self, name: CallName) -> CallFault:
        """The fault of the next call of this name; one that does nothing if none is left."""
        calls = self._calls[name]
        fault = calls.popleft() if calls else CallFault()
        return CallFault(status=fault) if isinstance(fault, int) else fault

    def copies_of_playback_finished(self) -> int:
        """How often the next `lk.playback_finished` is to be sent."""
        if self._lost:
            self._lost -= 1
            return 0
        if self._duplicated:
            self._duplicated -= 1
            return 2
        return 1


class FaultPlan:
    """Faults for sessions that are still to be created (`RunwaySimulator.faults`)."""

    def __init__(self, default: Faults) -> None:
        self.default = default
        """For each session that got none of its own."""
        self._planned: deque[Faults] = deque()
        self._next: ActiveFaults | None = None

    def for_next_session(self, faults: Faults) -> None:
        """Give these to the next session that none were planned for; call again for the one after.

        They replace the default faults even if a failed create call has begun to use those up."""
        self._planned.append(faults)
        if self._next is not None and self._next.settings is self.default:
            self._next = None

    def upcoming(self) -> ActiveFaults:
        """Those of the session that the next create call would make."""
        if self._next is None:
            self._next = ActiveFaults(self._planned.popleft() if self._planned else self.default)
        return self._next

    def take(self) -> ActiveFaults:
        """The same, when the session is made: the next one gets others."""
        faults = self.upcoming()
        self._next = None
        return faults
