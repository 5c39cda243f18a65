"""What a worker's monitoring sees of an avatar."""

from __future__ import annotations

import pytest
from livekit import rtc
from livekit.agents.telemetry import set_tracer_provider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from livekit_plugins_runway import AvatarState, CallUsage, RecoveryOptions, SessionEnd
from livekit_plugins_runway.events import Event
from livekit_plugins_runway.lifecycle.telemetry import Telemetry
from livekit_plugins_runway.lifecycle.timings import StageTimings
from livekit_plugins_runway.testing.livekit_server import LiveKitServer
from tests.support.call import calling


def total(name: str, **labels: str) -> float:
    """The sum of a metric over all that it is labelled with otherwise."""
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_losses_replacements_and_costs_are_counted_and_traced(
    livekit_server: LiveKitServer,
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    set_tracer_provider(provider)
    sessions = total("runway_avatar_sessions_total")
    restarts = total("runway_avatar_replacements_total", cause="restart")
    losses = total("runway_avatar_losses_total")
    live = total("runway_avatar_live")
    started = total("runway_avatar_stage_seconds_count", stage="live")
    recovery = RecoveryOptions(session_cap=None)
    async with calling(livekit_server, recovery=recovery) as call:
        await call.start()
        await call.until(AvatarState.LIVE)
        assert total("runway_avatar_live") == live + 1
        call.runway.crash()
        await call.until_told("replaced", lambda: bool(call.replaced))
        await call.avatar.aclose()
        assert total("runway_avatar_live") == live
        assert total("runway_avatar_sessions_total") == sessions + 2
        assert total("runway_avatar_replacements_total", cause="restart") == restarts + 1
        assert total("runway_avatar_losses_total") == losses + 1
        assert total("runway_avatar_stage_seconds_count", stage="live") == started + 1
        named = [span.name for span in spans.get_finished_spans()]
        assert named.count("runway_session") == 2
        (whole,) = [span for span in spans.get_finished_spans() if span.name == "runway_avatar"]
        assert whole.attributes is not None
        assert whole.attributes["runway.restarts"] == 1
        children = [span for span in spans.get_finished_spans() if span.name == "runway_session"]
        assert all(c.parent and c.parent.span_id == whole.context.span_id for c in children)


@pytest.mark.parametrize(("billed", "counted"), [(12.0, 12.0), (-3600.0, 0.0)])
async def test_an_end_by_a_clock_that_was_set_back_is_counted_and_traced(
    billed: float, counted: float
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    set_tracer_provider(provider)
    avatar = rtc.EventEmitter[Event]()
    telemetry = Telemetry(avatar, StageTimings())
    sessions = total("runway_avatar_sessions_total")
    seconds = total("runway_avatar_billed_seconds_total")
    end = SessionEnd(
        session_id="1",
        status=None,
        how="deleted",
        confirmed=True,
        created_at=10_000.0,
        ready_at=10_001.0,
        started_at=10_002.0,
        ended_at=6_414.0,
        billed_seconds=billed,
        estimated=True,
    )
    avatar.emit("session_ended", end)
    telemetry.end(CallUsage())
    assert total("runway_avatar_sessions_total") == sessions + 1
    assert total("runway_avatar_billed_seconds_total") == pytest.approx(seconds + counted)
    (span,) = [span for span in spans.get_finished_spans() if span.name == "runway_session"]
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time >= span.start_time
