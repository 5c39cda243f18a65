"""Prometheus metrics and OpenTelemetry spans of the avatars in this process.

Prometheus: in the process's default registry, which the worker serves at its `prometheus_port`; for
jobs in processes of their own set `prometheus_multiproc_dir` (livekit-agents `WorkerOptions`), as
for the framework's own metrics. OpenTelemetry: by the framework's tracer, under the span that is
current when the avatar is started.
"""

from __future__ import annotations

from livekit import rtc
from livekit.agents import utils
from livekit.agents.telemetry import tracer
from opentelemetry import context, trace
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from ..errors import AvatarLostError, RunwayException
from ..events import (
    AvatarReplaced,
    AvatarState,
    CallUsage,
    Event,
    PlayoutForced,
    SessionEnd,
    Stage,
    StateChanged,
    TransportChanged,
)
from ..runway.billing import credits_of
from .timings import StageTimings

_NODE = "nodename"
_KEPT = "runway_avatar_metrics"


class _Metrics:
    """The metrics. Making them registers them, which is possible once in a process."""

    def __init__(self) -> None:
        self.live = Gauge(
            "runway_avatar_live",
            "Live avatars",
            [_NODE],
            multiprocess_mode="livesum",
        )
        self.sessions = Counter(
            "runway_avatar_sessions", "Runway sessions that have ended", [_NODE, "how", "status"]
        )
        self.unconfirmed = Counter(
            "runway_avatar_unconfirmed_ends", "Runway sessions that may still be billing", [_NODE]
        )
        self.billed = Counter(
            "runway_avatar_billed_seconds",
            "Seconds billed by Runway, estimated at the end",
            [_NODE],
        )
        self.credits = Counter(
            "runway_avatar_credits", "Credits, estimated from the seconds", [_NODE]
        )
        self.lost = Counter("runway_avatar_losses", "Avatars lost in mid-call", [_NODE, "reason"])
        self.errors = Counter("runway_avatar_errors", "Errors by kind", [_NODE, "kind"])
        self.replaced = Counter(
            "runway_avatar_replacements",
            "Times that another session has become the avatar",
            [_NODE, "cause"],
        )
        self.transports = Counter(
            "runway_avatar_transport_changes",
            'Calls that `transport="auto"` has changed to the other transport',
            [_NODE, "new"],
        )
        self.forced = Counter(
            "runway_avatar_forced_segments",
            "Segments ended at their deadline before all was heard",
            [_NODE],
        )
        self.stage_seconds = Histogram(
            "runway_avatar_stage_seconds",
            "Seconds from start() to each stage of the first session",
            [_NODE, "stage"],
            buckets=[0.25, 0.5, 1, 2, 4, 6, 8, 10, 15, 20, 30, 60],
        )
        self.freeze_seconds = Histogram(
            "runway_avatar_freeze_seconds",
            "Seconds without a picture when a session replaced another",
            [_NODE, "cause"],
            buckets=[0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60],
        )


def _metrics() -> _Metrics:
    """The metrics of this process. They are stored on the registry, so that a second import of this
    package (a reload, a test that empties `sys.modules`) finds them.
    """
    kept: dict[str, _Metrics] = vars(REGISTRY)
    if _KEPT not in kept:
        kept[_KEPT] = _Metrics()
    return kept[_KEPT]


_METRICS = _metrics()


class Telemetry:
    """Listens to one avatar's events, from `start()` to `closed`."""

    def __init__(self, avatar: rtc.EventEmitter[Event], timings: StageTimings) -> None:
        self._avatar = avatar
        self._timings = timings
        self._node = utils.nodename()
        self._span = tracer.start_span("runway_avatar")
        self._context = trace.set_span_in_context(self._span, context.get_current())
        avatar.on("state_changed", self._on_state_changed)
        avatar.on("error", self._on_error)
        avatar.on("replaced", self._on_replaced)
        avatar.on("session_ended", self._on_session_ended)
        avatar.on("stage_reached", self._on_stage_reached)
        avatar.on("playout_forced", self._on_playout_forced)
        avatar.on("transport_changed", self._on_transport_changed)

    def end(self, usage: CallUsage) -> None:
        """After the avatar's last event, with what the whole call has cost."""
        avatar = self._avatar
        avatar.off("state_changed", self._on_state_changed)
        avatar.off("error", self._on_error)
        avatar.off("replaced", self._on_replaced)
        avatar.off("session_ended", self._on_session_ended)
        avatar.off("stage_reached", self._on_stage_reached)
        avatar.off("playout_forced", self._on_playout_forced)
        avatar.off("transport_changed", self._on_transport_changed)
        self._span.set_attributes(
            {
                "runway.sessions": usage.sessions,
                "runway.restarts": usage.restarts,
                "runway.renewals": usage.renewals,
                "runway.swaps": usage.swaps,
                "runway.billed_seconds": usage.billed_seconds,
            }
        )
        self._span.end()

    def _on_state_changed(self, change: StateChanged) -> None:
        shown = {AvatarState.LIVE, AvatarState.RENEWING}
        step = (change.new in shown) - (change.old in shown)
        if step:
            _METRICS.live.labels(self._node).inc(step)
        self._span.add_event(change.new.value)

    def _on_error(self, error: RunwayException) -> None:
        _METRICS.errors.labels(self._node, type(error).__name__).inc()
        if isinstance(error, AvatarLostError):
            _METRICS.lost.labels(self._node, error.reason).inc()
        self._span.record_exception(error)

    def _on_replaced(self, replaced: AvatarReplaced) -> None:
        _METRICS.replaced.labels(self._node, replaced.cause).inc()
        told: dict[str, str | float] = {"cause": replaced.cause}
        if replaced.freeze is not None:
            _METRICS.freeze_seconds.labels(self._node, replaced.cause).observe(replaced.freeze)
            told["freeze"] = replaced.freeze
        self._span.add_event("replaced", told)

    def _on_session_ended(self, end: SessionEnd) -> None:
        _METRICS.sessions.labels(self._node, end.how, end.status or "unknown").inc()
        _METRICS.unconfirmed.labels(self._node).inc(not end.confirmed)
        _METRICS.billed.labels(self._node).inc(max(0.0, end.billed_seconds))
        _METRICS.credits.labels(self._node).inc(credits_of(end))
        began = end.ended_at if end.created_at is None else end.created_at
        span = tracer.start_span(
            "runway_session",
            context=self._context,
            start_time=_ns(began),
            attributes={
                "lk.pii.runway_session_id": end.session_id,
                "runway.how": end.how,
                "runway.status": end.status or "unknown",
                "runway.confirmed": end.confirmed,
                "runway.billed_seconds": end.billed_seconds,
                "runway.estimated": end.estimated,
            },
        )
        for name, at in (("ready", end.ready_at), ("running", end.started_at)):
            if at is not None:
                span.add_event(name, timestamp=_ns(at))
        # The machine's clock may have been set back in between; no span ends before it began.
        span.end(_ns(max(began, end.ended_at)))

    def _on_stage_reached(self, stage: Stage) -> None:
        _METRICS.stage_seconds.labels(self._node, stage).observe(self._timings.of(stage) or 0.0)
        self._span.add_event(stage)

    def _on_playout_forced(self, _: PlayoutForced) -> None:
        _METRICS.forced.labels(self._node).inc()

    def _on_transport_changed(self, changed: TransportChanged) -> None:
        _METRICS.transports.labels(self._node, changed.new).inc()
        self._span.add_event("transport_changed", {"new": changed.new})


def _ns(unix_seconds: float) -> int:
    return int(unix_seconds * 1e9)
