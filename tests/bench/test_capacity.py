"""What `bench.capacity` and `bench.growth` report, and whose bytes are whose."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from typing import Any

import pytest

from bench.capacity import is_whole, report
from bench.growth import per_session
from bench.traffic import Capture

HEADERS = 28
"""Bytes of IP and UDP."""


def result(calls: int, worst: float, **more: Any) -> dict[str, Any]:
    cores = {"agents": 0.4 * calls, "server": 0.1, "runway": 0.3, "users": 0.1, "busy": 0.5}
    memory = {"rss": 400.0, "pss": 200.0, "uss": 70.0}
    found = {"transport": "bridge", "calls": calls, "fps": [25.0, worst], "holes": [0.0, 0.02]}
    return found | {"cores": cores, "agents_mb": memory} | more


def test_the_worst_call_decides_how_many_a_machine_holds() -> None:
    text = report([result(1, 25.0), result(2, 24.1), result(3, 23.9)])
    assert "bridge: 2 calls with 24 pictures a second" in text
    assert "| bridge | 2 | 24.1 | 2.0% | 0.80 | 0.40 | 0.50 | 50% |" in text


def test_a_call_that_the_stop_has_cut_fails_the_bench() -> None:
    assert is_whole(result(2, 24.0))
    assert is_whole(result(2, 24.0, stopped_under=2, cut=0, exit=0))
    assert not is_whole(result(2, 24.0, stopped_under=2, cut=1, exit=0))
    assert not is_whole(result(2, 24.0, stopped_under=2, cut=0, exit=1))


def test_growth_is_that_after_the_warm_up() -> None:
    found = [{"renewals": n, "uss_mb": 100 + min(n, 30) + 0.1 * n} for n in range(10, 100, 10)]
    assert math.isclose(per_session(found, "uss_mb"), 0.1)
    assert math.isnan(per_session(found[:4], "uss_mb"))


async def test_bytes_are_counted_by_the_process_that_sent_and_received_them() -> None:
    try:
        capture = Capture()
    except (OSError, AttributeError) as error:
        pytest.skip(f"packets cannot be captured here: {error}")
    with (
        socket.socket(type=socket.SOCK_DGRAM) as sender,
        socket.socket(type=socket.SOCK_DGRAM) as receiver,
    ):
        for end in (sender, receiver):
            end.bind(("127.0.0.1", 0))
        for _ in range(5):
            sender.sendto(bytes(1000), receiver.getsockname())
        want = 5 * (1000 + HEADERS)
        async with asyncio.timeout(5):
            while min(capture.of([os.getpid()])) < want:  # noqa: ASYNC110  the reader's turn
                await asyncio.sleep(0.01)
        assert capture.of([os.getpid()]) == (want, want)
    capture.close()
