"""`make bench` in small: one run gives figures of every kind."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

FACTORY = "from bench.avatars import direct as factory\n"


@pytest.mark.server
@pytest.mark.heavy
@pytest.mark.timeout(90)
async def test_one_run_has_figures_of_a_bridge_and_of_somebody_elses_plugin(
    tmp_path: Path,
) -> None:
    (tmp_path / "my_plugin.py").write_text(FACTORY)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench", "--runs", "1", "--only", "bridge-datastream",
        "--avatar", "mine=my_plugin:factory", "--picture", "camera",
        cwd=tmp_path, env=os.environ | {"BENCH_OUT": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        report, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, report.decode()
    data = json.loads((tmp_path / "bench.json").read_text())
    bridge, mine = (
        data["candidates"][name]["figures"]["camera"] for name in ("bridge-datastream", "mine")
    )
    added = {"added_voice", "added_video", "added_skew"}
    assert set(bridge) - added == set(mine)
    assert added < set(bridge)
    assert {
        "first_frame",
        "first_frame_after_worker",
        "first_word",
        "speech",
        "barge_in",
        "video",
        "skew",
        "cpu",
    } < set(mine)
    assert data["candidates"]["mine"]["runs"][0]["size"] == [1088, 704]
    assert "| whole machine busy |" in report.decode()
