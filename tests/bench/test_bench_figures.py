"""The bench's arithmetic: what it reads from arrivals, how it sums up, and when a goal is met."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

import pytest

from bench import pages, reading, scores
from bench.run import Run, Scale


def test_a_picture_is_as_late_as_it_arrived_after_its_capture() -> None:
    sent = reading.Sent([10.0, 10.04, 10.08, 10.12], [])
    seen = reading.Seen({0: 10.05, 1: 10.10, 3: 10.15}, [])
    window = reading.Window(10.04, 10.2)
    assert reading.picture_latencies(sent, seen, window) == pytest.approx({1: 0.06, 3: 0.03})
    assert reading.lost_pictures(sent, seen, window) == 1
    assert reading.frame_rate(seen, reading.Window(10.0, 10.5)) == 6.0


def test_a_sound_that_was_not_heard_is_not_taken_for_the_next() -> None:
    sent = reading.Sent([], [1.0, 1.5, 2.0])
    seen = reading.Seen({}, [1.12, 2.13])
    found = reading.voice_latencies(sent, seen, reading.Window(0.0, 9.0))
    assert found == pytest.approx({0: 0.12, 2: 0.13})


def test_skew_is_the_voice_against_the_pictures_of_the_same_time() -> None:
    pictures = [n * 0.04 for n in range(100)]
    sent = reading.Sent(pictures, [1.0, 2.0])
    seen = reading.Seen({n: at + 0.05 for n, at in enumerate(pictures)}, [1.09, 2.03])
    window = reading.Window(0.0, 4.0)
    assert reading.skews(sent, seen, window) == pytest.approx({0: 0.04, 1: -0.02})
    assert reading.skews(sent, reading.Seen({}, seen.onsets), window) == {}


def test_what_is_added_is_told_for_what_both_have_seen() -> None:
    assert reading.added({1: 0.3, 2: 0.2, 5: 1.0}, {1: 0.1, 2: 0.25}) == pytest.approx([0.2, -0.05])


def runs(**values: Any) -> list[Any]:
    return [Run(**values) for _ in range(10)]


def verdict(verdicts: list[Any], start: str) -> Any:
    [found] = [v for v in verdicts if v.goal.startswith(start)]
    return found


def test_p95_is_a_value_that_was_measured() -> None:
    row = scores.summary("speech", [Run(speech=[n / 1000 for n in range(1, 101)])])
    assert row is not None
    assert (row.n, row.p50, row.p95, row.largest) == pytest.approx((100, 50.5, 95.0, 100.0))
    assert scores.summary("speech", [Run()]) is None


def test_without_figures_no_goal_is_met_or_missed() -> None:
    verdicts = scores.judge({}, [], {})
    assert len(verdicts) == 13
    assert {v.met for v in verdicts} == {None}


@pytest.mark.parametrize(("ours", "met"), [(0.290, True), (0.310, False)])
def test_latency_is_held_against_that_of_the_official_plugin(ours: float, met: bool) -> None:
    both = {
        "direct": runs(speech=[ours], first_word=[0.5]),
        "official": runs(speech=[0.3], first_word=[1.0]),
    }
    verdicts = scores.judge(both, [], {})
    assert verdict(verdicts, "speech latency, ours").met is met
    assert verdict(verdicts, "time to first word").met is True


def test_one_slow_run_of_ten_misses_a_goal_for_every_run() -> None:
    mine = runs(added_video=[0.04], added_skew=[-0.02])
    goals = "video latency added, ours, bridge, track", "A/V skew added, ours, bridge, track"
    verdicts = scores.judge({"bridge-track": mine}, [], {})
    assert [verdict(verdicts, goal).met for goal in goals] == [True, True]
    mine[3].added_video, mine[7].added_skew = [0.2], [-0.04]
    verdicts = scores.judge({"bridge-track": mine}, [], {})
    assert [verdict(verdicts, goal).met for goal in goals] == [False, False]
    assert verdict(verdicts, goals[0]).measured == "9 of 10 runs; worst p50 200 ms, p95 200 ms"


def test_a_run_without_figures_misses_a_goal_for_every_run() -> None:
    mine = [*runs(added_video=[0.04]), Run()]
    verdicts = scores.judge({"bridge-track": mine}, [], {})
    assert verdict(verdicts, "video latency added, ours, bridge, track").met is False


def test_the_relay_costs_what_the_agent_without_one_does_not() -> None:
    both = {"bridge-datastream": runs(cpu=0.4), "control": runs(cpu=0.16)}
    goal = "CPU of the relay, ours, bridge, data stream"
    assert verdict(scores.judge(both, [], {}), goal).met is True
    both["control"] = runs(cpu=0.1)
    found = verdict(scores.judge(both, [], {}), goal)
    assert (found.met, found.measured) == (False, "0.30 core")


def test_sessions_may_cost_no_more_together_than_apart() -> None:
    def scales(four: float) -> Any:
        each = [Scale(n, cpu, 1, 0.5, []) for n, cpu in ((1, 0.3), (4, four), (1, 0.3))]
        return {"bridge-track": each}

    goal = "CPU of 4 sessions in a process, ours, bridge, track"
    assert verdict(scores.judge({}, [], scales(1.1)), goal).met is True
    assert verdict(scores.judge({}, [], scales(1.3)), goal).met is False
    starved = scales(0.5)
    starved["bridge-track"][1].frame_rates = [24.9, 12.0]
    assert verdict(scores.judge({}, [], starved), goal).met is None


def test_the_slowest_start_counts_for_voice_first() -> None:
    starts = runs(voice_start=0.3)
    assert verdict(scores.judge({}, starts, {}), "voice first").met is True
    starts[0].voice_start = 0.6
    assert verdict(scores.judge({}, starts, {}), "voice first").met is False
    starts[0].voice_start = None
    assert verdict(scores.judge({}, starts, {}), "voice first").met is False


def test_the_report_has_every_candidate_and_its_json_can_be_read() -> None:
    from bench.candidates import CANDIDATES

    results = pages.Results(
        {"cores": 2},
        CANDIDATES,
        runs={"official": runs(speech=[0.3]), "direct": runs(speech=[0.25])},
        scales={"direct": [Scale(n, 0.2 * n, 10**8, 0.5, [25.0]) for n in (1, 4)]},
    )
    data = json.loads(pages.to_json(results))
    assert data["candidates"]["direct"]["figures"]["speech"]["p50"] == 250
    assert data["candidates"]["official"]["runs"][0]["speech"] == [0.3]
    assert len(data["goals"]) == 13
    text = pages.report(results)
    assert "| speech: `say()` to heard | 300 / 300 ms | 250 / 250 ms |" in text
    assert "| ours, direct | 4 | 0.80 | 4.0 | 100 MB | 25.0 | 50% |" in text


def test_an_optional_candidate_is_measured_if_it_is_named_and_judged_never() -> None:
    from bench.__main__ import prepared
    from bench.candidates import BRIDGES

    everything, _ = prepared(Namespace(only=None, avatar=[]))
    assert list(everything.runs) == [
        "official", "direct", "bridge-datastream", "bridge-track", "control",
    ]  # fmt: skip
    named, _ = prepared(Namespace(only=["bridge-public", "scaling"], avatar=[]))
    assert list(named.runs) == ["bridge-public"]
    assert list(named.scales) == ["official", "direct", *BRIDGES]
    named.runs["bridge-public"] = runs(voice=[0.1], added_voice=[0.5])
    assert {goal.met for goal in named.verdicts()} == {None}
    assert "| ours, bridge, data stream, public way | voice, added | 10 | 500 ms |" in (
        pages.report(named)
    )


def test_figures_replace_those_that_a_page_had() -> None:
    page = "a\n<!-- make bench: begin -->\nold\n<!-- make bench: end -->\nb\n"
    once = pages.inserted(page, "new\n")
    assert once == page.replace("old", "new")
    assert pages.inserted(once, "new") == once
    with pytest.raises(ValueError, match="no place"):
        pages.inserted("a", "new")


def test_another_plugin_is_named_by_its_factory() -> None:
    from bench.candidates import parse

    mine = parse("mine=my_module:factory")
    assert (mine.name, mine.avatar, mine.places) == ("mine", "my_module:factory", ("agent",))
    for wrong in ("mine", "mine=my_module", "=my_module:factory", "official=my_module:factory"):
        with pytest.raises(ValueError, match=r"NAME=|taken"):
            parse(wrong)
