"""The offline agent with all of its jobs in one process, each in a thread of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from livekit.agents import JobExecutorType, cli

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from offline_agent import server

if __name__ == "__main__":
    server.update_options(job_executor_type=JobExecutorType.THREAD)
    cli.run_app(server)
