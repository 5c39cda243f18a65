"""schemathesis finds no answer of `serve` that its OpenAPI document does not have, and no 5xx.

With `SCHEMATHESIS_FULL=1` all that it can think of, some thousand requests.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from unittest import mock

import pytest

from livekit_plugins_runway.runway import client
from livekit_plugins_runway.runway.polling import Pace
from livekit_plugins_runway.testing import Faults
from tests.support.serving import TOKEN, quick, served

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
EXCLUDED = {
    "use_after_free": "a session that was ended is CANCELLED at Runway, and is shown as that",
}
RUNS = {
    "right bodies": [
        *("--phases", "coverage", "--mode", "positive"),
        *("--include-path", "/v1/realtime-sessions"),
    ],
    "random bodies and sequences": ["--phases", "fuzzing,stateful", "--max-examples", "8"],
}
if os.environ.get("SCHEMATHESIS_FULL"):
    RUNS = {"everything": ["--max-examples", "100"]}


@pytest.mark.timeout(600 if os.environ.get("SCHEMATHESIS_FULL") else 60)
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
async def test_every_answer_is_as_described(run: list[str], tmp_path: Path) -> None:
    # Nobody's room is joined, nothing waits for room or credits, every avatar is there.
    generous = quick(
        concurrency=10_000,
        daily_quota=100_000,
        credits=10_000_000,
        custom_avatars=None,
        faults=Faults(worker_never_joins=True),
    )
    at_once = Pace(first=0.01, slowest=0.02, steady_for=2.0, unknown_for=5.0)
    with mock.patch.object(client, "_PACE", at_once):
        async with served(
            generous, token=TOKEN, rate=1000, max_sessions=1000, join_timeout=2
        ) as server:
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"{server.rest}/openapi.json",
                *("--header", f"Authorization: Bearer {TOKEN}"),
                *("--exclude-path", "/api/avatar/connect"),  # the same as /api/avatar/session
                *("--checks", "all", "--exclude-checks", ",".join(EXCLUDED)),
                *("--seed", "1", "--workers", "1", "--no-color"),
                *("--generation-database", "none"),
                *run,
                cwd=tmp_path,  # it leaves its notes there
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
                },
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                output, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    told = output.decode(errors="replace")
    assert process.returncode == 0, told
    generated = re.search(r"(\d+) generated", told)
    assert generated is not None, told
    assert int(generated[1]) > 50, told
